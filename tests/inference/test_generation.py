"""Generation: finishes, stop texts across tokens and characters, and batches that equal lone answers."""

from __future__ import annotations

import random

import pytest
import torch
from toy_decoders import Scripted, Words, toy_llama

from groundup.errors import GroundupError
from groundup.inference import Piece, SampleOptions, StopScanner, generate, generate_batch
from groundup.models.llama import Llama

END = 0


@pytest.fixture
def llama() -> Llama:
    return toy_llama()


class Ids:
    """Text of an id is the id itself and a space."""

    def push(self, token_id: int) -> str:
        return f"{token_id} "

    def flush(self) -> str:
        return ""


def run(model: object, prompt: list[int], options: SampleOptions, decoder: object = None) -> list[Piece]:
    return list(generate(model, prompt, options, end_ids={END}, decoder=decoder or Ids()))  # type: ignore[arg-type]


def say(
    answer: list[bytes], *, stop: tuple[str, ...] = (), max_tokens: int = 50
) -> tuple[str, str, list[str]]:
    """Text, finish and pieces of a scripted answer followed by the end token."""
    words = [b"<end>", *answer]
    model = Scripted([*range(1, len(words)), END], prompt=2, vocabulary=len(words) + 1)
    pieces = run(model, [1, 1], SampleOptions(stop=stop, max_tokens=max_tokens), Words(words))
    assert all(piece.finish is None for piece in pieces[:-1]) and pieces[-1].finish is not None
    texts = [piece.text for piece in pieces]
    return "".join(texts), pieces[-1].finish, texts


def naive_greedy(model: Llama, prompt: list[int], tokens: int) -> list[int]:
    """Without a cache: the whole text is computed anew for each token."""
    ids = list(prompt)
    for _ in range(tokens):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] == END:
            break
    return ids[len(prompt) :]


def test_greedy_equals_generation_without_a_cache(llama: Llama) -> None:
    for prompt in ([3], [5, 9, 2], list(range(1, 30))):
        pieces = run(llama, prompt, SampleOptions(max_tokens=15))
        assert [p.id for p in pieces[:-1]] == [i for i in naive_greedy(llama, prompt, 15) if i != END]


def test_logprobs_are_those_of_the_model_itself(llama: Llama) -> None:
    options = SampleOptions(max_tokens=6, temperature=1.5, top_k=20, seed=3)
    ids = [4, 8]
    for piece in run(llama, ids, options)[:-1]:
        assert piece.id is not None
        expected = llama(torch.tensor([ids]))[0, -1].log_softmax(-1)[piece.id].detach()
        assert piece.logprob == pytest.approx(float(expected), abs=1e-5)
        ids = [*ids, piece.id]


def test_end_token_is_stop_and_max_tokens_is_length() -> None:
    assert say([b"a", b"b", b"c"]) == ("abc", "stop", ["a", "b", "c", ""])
    assert say([b"a", b"b", b"c"], max_tokens=2)[:2] == ("ab", "length")
    assert say([b"a", b"b", b"c"], max_tokens=3)[:2] == ("abc", "length")
    assert say([b"a", b"b", b"c"], max_tokens=4)[:2] == ("abc", "stop")


def test_context_ends_with_length_and_a_longer_prompt_is_refused(llama: Llama) -> None:
    options = SampleOptions(max_tokens=100)
    for length, room in [(46, 2), (47, 1), (48, 0)]:
        prompt = [7] * length
        pieces = list(generate(llama, prompt, options, end_ids=(), decoder=Ids()))
        assert (len(pieces) - 1, pieces[-1].finish) == (room, "length")
        result = generate_batch(llama, [prompt], options, end_ids=())[0]
        assert (len(result.ids), result.finish) == (room, "length")
    with pytest.raises(GroundupError) as caught:
        run(llama, [7] * 49, options)
    assert caught.value.code == "E-GEN-003" and "49" in caught.value.what and "48" in caught.value.what


def test_wrong_prompts_are_refused_before_the_first_piece(llama: Llama) -> None:
    for prompt, code in [([], "E-GEN-002"), ([1, 61], "E-GEN-005"), ([-1], "E-GEN-005")]:
        with pytest.raises(GroundupError) as caught:
            generate(llama, prompt, SampleOptions(), end_ids={END}, decoder=Ids())
        assert caught.value.code == code and caught.value.fix
        with pytest.raises(GroundupError, match=caught.value.what):
            generate_batch(llama, [[1], prompt], SampleOptions(), end_ids={END})


def test_stop_texts_in_a_batch_are_refused(llama: Llama) -> None:
    with pytest.raises(GroundupError) as caught:
        generate_batch(llama, [[1]], SampleOptions(stop=("x",)), end_ids={END})
    assert caught.value.code == "E-GEN-006"


def test_a_model_that_gives_nan_is_an_error(llama: Llama) -> None:
    with torch.no_grad():
        llama.norm.weight[0] = float("nan")
    with pytest.raises(GroundupError) as caught:
        run(llama, [1, 2], SampleOptions())
    assert caught.value.code == "E-GEN-004"


@pytest.mark.parametrize(
    ("answer", "stop", "text"),
    [
        ([b"Hello", b"\n", b"\nUser", b":"], ("\n\nUser:",), "Hello"),  # over four tokens
        ([b"one END two"], (" END",), "one"),  # inside one token
        ([b"a", b"ab", b"c"], ("abc",), "a"),  # the first "a" is not its start
        ([b"\xe7", b"\xbb", b"\x93\xe6\x9d", b"\x9f\xe3\x80\x82"], ("束",), "结"),  # inside characters
        ([b"x\xf0\x9f", b"\x91\x8b!"], ("👋",), "x"),
        ([b"abcd"], ("bcd", "bc"), "a"),
        ([b"abcd"], ("d", "abc"), ""),
        ([b"xab"], ("b", "ab"), "x"),  # complete together: the longer
    ],
)
def test_stop_texts_cut_exactly_across_tokens_and_characters(
    answer: list[bytes], stop: tuple[str, ...], text: str
) -> None:
    shown, finish, _ = say(answer, stop=stop)
    assert (shown, finish) == (text, "stop")


def test_no_part_of_a_stop_text_is_shown_early_and_a_false_start_is_given_back() -> None:
    text, finish, pieces = say([b"go ", b"<", b"st", b"ay", b" <st"], stop=("<stop>",))
    assert (text, finish) == ("go <stay <st", "stop")
    assert pieces == ["go ", "", "", "<stay", " ", "<st"]
    text, finish, pieces = say([b"go ", b"<", b"st", b"op>", b"never"], stop=("<stop>",))
    assert (text, finish, pieces) == ("go ", "stop", ["go ", "", "", "", ""])


def test_scanner_is_independent_of_where_the_text_is_cut() -> None:
    def first_complete(text: str, stops: list[str]) -> tuple[str, bool]:
        for end in range(len(text) + 1):
            ended = [s for s in stops if text[:end].endswith(s)]
            if ended:
                return text[: end - max(map(len, ended))], True
        return text, False

    chance = random.Random(0)
    for _ in range(500):
        stops = ["".join(chance.choices("ab束", k=chance.randint(1, 4))) for _ in range(chance.randint(1, 3))]
        text = "".join(chance.choices("ab束", k=12))
        scanner, shown, rest, stopped = StopScanner(stops), "", text, False
        while rest and not stopped:
            size = chance.randint(1, 4)
            piece, stopped = scanner.push(rest[:size])
            rest, shown = rest[size:], shown + piece
        assert (shown if stopped else shown + scanner.flush(), stopped) == first_complete(text, stops)


def test_greedy_batch_equals_each_prompt_alone(llama: Llama) -> None:
    chance = random.Random(1)
    prompts = [[chance.randrange(1, 61) for _ in range(chance.randint(1, 20))] for _ in range(23)]
    options = SampleOptions(max_tokens=8, repetition_penalty=1.2)
    together = generate_batch(llama, prompts, options, end_ids={END}, batch_rows=8)
    for prompt, result in zip(prompts, together):
        pieces = run(llama, prompt, options)
        assert result.ids == [p.id for p in pieces[:-1]]
        assert result.finish == pieces[-1].finish
        assert result.logprobs == pytest.approx([p.logprob for p in pieces[:-1]], abs=1e-4)
    assert {r.finish for r in together} == {"stop", "length"}  # the test sees rows leave early


def test_sampled_row_i_draws_as_alone_with_the_seed_plus_i(llama: Llama) -> None:
    prompts = [[5, 6], [7], [5, 6], [8, 9, 10, 11]]
    options = SampleOptions(max_tokens=12, temperature=1.0, seed=40)
    together = generate_batch(llama, prompts, options, end_ids={END}, batch_rows=3)
    for index, prompt in enumerate(prompts):
        alone = run(llama, prompt, options.model_copy(update={"seed": 40 + index}))
        assert together[index].ids == [p.id for p in alone[:-1]]
    assert together[0].ids != together[2].ids


def test_seed_repeats_and_another_seed_differs(llama: Llama) -> None:
    options = SampleOptions(max_tokens=12, temperature=1.0, seed=1)
    first = run(llama, [5], options)
    assert run(llama, [5], options) == first
    assert run(llama, [5], options.model_copy(update={"seed": 2})) != first


def test_finished_rows_leave_the_batch() -> None:
    # everyone ends at position 3, so the rows with longer prompts go on alone
    model = Scripted([1, 1, END], prompt=1, vocabulary=4)
    results = generate_batch(model, [[1], [2], [3] * 9], SampleOptions(max_tokens=9), end_ids={END})
    assert [(r.ids, r.finish) for r in results] == [([1, 1], "stop")] * 2 + [([], "stop")]
    assert model.fed == [(1, 1), (3, 1), (3, 1), (3, 1)] + [(1, 1)] * 6


def test_no_prompts_give_no_results(llama: Llama) -> None:
    assert generate_batch(llama, [], SampleOptions(), end_ids={END}) == []
