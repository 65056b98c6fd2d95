"""The engine: answers that share it equal answers alone, whatever joins, leaves, is cancelled, guessed or sent away."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from test_generation import END, Ids
from torch import Tensor
from toy_decoders import toy_llama

from groundup.adapters import LoraOptions, lora
from groundup.errors import GroundupError
from groundup.inference import SampleOptions, generate, generate_batch, kernels
from groundup.inference.answer import Ask, Scored, Step
from groundup.inference.engine import CHUNK, Engine, EngineOptions, stream
from groundup.inference.packed import Precision, pack
from groundup.inference.runners import PlainRunner
from groundup.inference.sequences import Budget, Memory, Segment, Shape, common
from groundup.inference.speculate import DraftModel, PromptLookup
from groundup.models.llama import Llama, LlamaOptions, RotaryScaling
from groundup.run.engines import answer_prompts, engine_for, runner_for

FORMS = [
    "plain",
    pytest.param("compiled", marks=pytest.mark.skipif(kernels.why_not() is not None, reason=str(kernels.why_not()))),
]
PROMPTS = [[3], [5, 9, 2], list(range(1, 30)), [7] * 12, [5, 9, 2, 4], list(range(20, 2, -1)), [11, 12], [60, 1]]


class Heard:
    """A sink that can be waited for."""

    def __init__(self) -> None:
        self.steps: queue.Queue[Step | GroundupError] = queue.Queue()
        self.all: list[Step] = []

    def __call__(self, step: Step | GroundupError) -> None:
        self.steps.put(step)

    def next(self) -> Step:
        step = self.steps.get(timeout=30)
        if isinstance(step, GroundupError):
            raise step
        self.all.append(step)
        return step

    def whole(self) -> list[Step]:
        while not self.all or self.all[-1].finish is None:
            self.next()
        return self.all

    @property
    def ids(self) -> list[int]:
        return [step.token.id for step in self.whole() if step.token is not None]


class Held:
    """A runner that waits at a gate before each pass, and can be told to fail."""

    def __init__(self, model: Llama) -> None:
        self.inner = PlainRunner(model)
        self.context, self.vocabulary, self.shape = model.context, model.vocabulary, self.inner.shape
        self.gate, self.passes = threading.Semaphore(0), 0
        self.poison: int | None = None

    def run(self, segments: Sequence[Segment]) -> Tensor:
        assert self.gate.acquire(timeout=30)
        self.passes += 1
        if self.poison is not None and any(self.poison in segment.tokens for segment in segments):
            for segment in segments:
                segment.memory.tokens.extend(segment.tokens)  # as a pass that failed half way
            raise RuntimeError("the network broke")
        return self.inner.run(segments)

    def open(self) -> None:
        self.gate.release(10**6)


@pytest.fixture
def engines() -> Iterator[list[Engine]]:
    """Engines that are closed after the test."""
    made: list[Engine] = []
    yield made
    for engine in made:
        engine.close()


def alone(model: Llama, prompt: list[int], options: SampleOptions) -> list[int]:
    pieces = generate(model, prompt, options, end_ids={END}, decoder=Ids())
    return [piece.id for piece in pieces if piece.id is not None]


def ask(engine: Engine, prompt: Sequence[int], heard: Heard, **more: object) -> object:
    options = more.pop("options", SampleOptions(max_tokens=12))
    return engine.ask(Ask(prompt, options, {END}, Ids(), **more), heard)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_S18_an_answer_alone_and_among_eight_is_the_same(form: str, rows: int, engines: list[Engine]) -> None:
    model = toy_llama()
    runner, _ = runner_for(model, "float32", compiled=form == "compiled")
    engines.append(engine := Engine(runner, EngineOptions(rows=rows), PromptLookup()).start())
    for temperature in (0.0, 1.2):
        heard = [Heard() for _ in PROMPTS]
        choices = [
            SampleOptions(max_tokens=12, temperature=temperature, seed=i, top_p=0.9) for i in range(len(PROMPTS))
        ]
        for prompt, sink, options in zip(PROMPTS, heard, choices):
            ask(engine, prompt, sink, options=options)
        for prompt, sink, options in zip(PROMPTS, heard, choices):
            assert sink.ids == alone(model, prompt, options)


@pytest.mark.skipif(kernels.why_not() is not None, reason=str(kernels.why_not()))
def test_compiled_logits_do_not_depend_on_what_shares_the_pass() -> None:
    runner, _ = runner_for(toy_llama(), "float32")
    tokens = torch.randint(1, 61, (40,), generator=torch.Generator().manual_seed(0)).tolist()
    whole = _memory(runner.shape, 64)
    logits = runner.run([Segment(tokens, whole, last=False)])
    start, memory = 0, _memory(runner.shape, 64)
    for size in (1, 2, 3, 17, 8, 9):
        piece = tokens[start : start + size]
        others = [Segment(tokens[:n], _memory(runner.shape, 64)) for n in (1, 5)]
        found = runner.run([others[0], Segment(piece, memory, last=False), others[1]])
        assert torch.equal(found[1 : 1 + size], logits[start : start + size])
        assert torch.equal(found[[0, -1]], logits[[0, 4]])
        start += size
    assert torch.equal(memory.keys_LGSK[:, :, :40], whole.keys_LGSK[:, :, :40])


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_without_a_thread_is_generate(form: str) -> None:
    model = toy_llama()
    runner, _ = runner_for(model, "float32", compiled=form == "compiled")
    for prompt in (*PROMPTS, [3] * 47, [3] * 48):
        options = SampleOptions(max_tokens=12, temperature=0.7, top_k=9, seed=4, stop=("17 ",), repetition_penalty=1.2)
        expected = list(generate(model, prompt, options, end_ids={END}, decoder=Ids()))
        found = list(stream(runner, Ask(prompt, options, {END}, Ids())))
        assert [piece._replace(logprob=None) for piece in found] == [piece._replace(logprob=None) for piece in expected]
        for one, other in zip(found, expected):
            assert one.logprob == (other.logprob and pytest.approx(other.logprob, abs=1e-4))
    with pytest.raises(GroundupError) as fault:
        stream(runner, Ask([1] * 49, SampleOptions(), {END}, Ids()))
    assert fault.value.code == "E-GEN-003"


@pytest.mark.skipif(kernels.why_not() is not None, reason=str(kernels.why_not()))
@pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4"])
def test_fewer_bits_compute_with_exactly_the_weights_that_are_kept(precision: Precision) -> None:
    model = toy_llama()
    runner, form = runner_for(model, precision)
    assert form.kind == "compiled" and form.weight_bytes < 0.6 * sum(p.nbytes for p in model.parameters())
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data = pack(parameter, precision).unpacked()
    tokens = list(range(1, 30))
    found = runner.run([Segment(tokens, _memory(runner.shape, 64), last=False)])
    assert torch.allclose(found, model(torch.tensor([tokens]))[0], atol=2e-4)


@pytest.mark.skipif(kernels.why_not() is not None, reason=str(kernels.why_not()))
@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": 5},
        {"query_key_norm": True, "attention_bias": True},
        {"attention_bias": "all", "key_value_heads": 1, "head_size": 10, "hidden": 37, "width": 33},
        {"tied": True, "rotary_scaling": RotaryScaling(factor=4.0, original_context=16)},
    ],
)
def test_every_member_of_the_family_is_computed_as_the_model_does(changes: dict[str, object]) -> None:
    options = LlamaOptions.model_validate(toy_llama().options.model_dump() | changes)
    model = Llama(options)
    generator = torch.Generator().manual_seed(2)
    model.initialise(generator)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    runner, form = runner_for(model.eval(), "float32")
    assert form.kind == "compiled"
    tokens = torch.randint(0, 61, (45,), generator=generator).tolist()
    memory = _memory(runner.shape, 64)
    found = torch.cat(
        [runner.run([Segment(tokens[a:b], memory, last=False)]) for a, b in ((0, 20), (20, 21), (21, 45))]
    )
    assert torch.allclose(found, model(torch.tensor([tokens]))[0], atol=1e-4)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"temperature": 0.9, "top_k": 9, "seed": 3},
        {"repetition_penalty": 1.4},
        {"logit_bias": {7: 4.0}},
        {"max_tokens": 1},
    ],
    ids=str,
)
def test_many_prompts_are_answered_as_by_a_batch_of_plain_rows(changed: dict[str, Any]) -> None:
    model = toy_llama()
    generator = torch.Generator().manual_seed(9)
    sizes = [int(torch.randint(1, 40, (), generator=generator)) for _ in range(70)]
    prompts = [torch.randint(1, 61, (size,), generator=generator).tolist() for size in sizes]
    options = SampleOptions(**{"temperature": 0.0, "max_tokens": 20, **changed})
    expected = generate_batch(model, prompts, options, end_ids={END})
    for compiled in (True, False):
        found = answer_prompts(model, prompts, options, end_ids={END}, compiled=compiled)
        assert [(one.ids, one.finish) for one in found] == [(one.ids, one.finish) for one in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)
    finishes = {one.finish for one in expected}
    assert "length" in finishes  # and where answers are long enough, some end by themselves
    assert changed.get("max_tokens") == 1 or "stop" in finishes


def test_a_prompt_that_is_too_long_is_refused_before_any_answer() -> None:
    with pytest.raises(GroundupError, match="E-GEN-003"):
        answer_prompts(toy_llama(), [[1], [2] * 49], SampleOptions(), end_ids=())


def test_a_prompt_that_fills_the_context_has_an_empty_answer() -> None:
    prompts = [[1], [2] * 48]
    options = SampleOptions(temperature=0.0, max_tokens=3)
    found = answer_prompts(toy_llama(), prompts, options, end_ids=())
    assert found == generate_batch(toy_llama(), prompts, options, end_ids=())
    assert found[1] == ([], "length", []) and len(found[0].ids) == 3


def test_a_context_longer_than_the_usual_memory_is_answered() -> None:
    long = Llama(toy_llama().options.model_copy(update={"context": EngineOptions().cache_tokens + 64}))
    long.initialise(torch.Generator().manual_seed(5))
    prompt = [1 + number % 60 for number in range(EngineOptions().cache_tokens + 2)]
    found = answer_prompts(long, [prompt, [3]], SampleOptions(temperature=0.0, max_tokens=2), end_ids=())
    assert [len(one.ids) for one in found] == [2, 2]


def test_what_cannot_be_compiled_says_why_and_takes_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Llama(toy_llama().options.model_copy(update={"hidden": 37}))
    odd.initialise(torch.Generator().manual_seed(0))
    _, form = runner_for(odd, "int8")
    assert form.kind == "plain" and "multiples of 32" in form.reason
    kernels.functions.cache_clear()
    monkeypatch.setenv(kernels.SWITCH, "1")
    _, form = runner_for(toy_llama(), "float32")
    kernels.functions.cache_clear()
    assert form.kind == "plain" and kernels.SWITCH in form.reason


def test_answers_join_and_leave_between_two_tokens(engines: list[Engine]) -> None:
    model = toy_llama()
    runner = Held(model)
    engines.append(engine := Engine(runner, EngineOptions(rows=2)).start())
    long, short, late = Heard(), Heard(), Heard()
    ask(engine, [3], long, options=SampleOptions(max_tokens=30))
    runner.gate.release(1)
    assert long.next().token is not None
    ask(engine, [5, 9, 2], short, options=SampleOptions(max_tokens=2))
    ask(engine, [7, 7], late, options=SampleOptions(max_tokens=2))
    runner.open()
    assert short.ids == alone(model, [5, 9, 2], SampleOptions(max_tokens=2))
    assert late.ids == alone(model, [7, 7], SampleOptions(max_tokens=2))
    assert long.ids == alone(model, [3], SampleOptions(max_tokens=30))
    assert [step.finish for step in long.all][-1] == "length"


def test_S6_cancelled_before_during_and_after_frees_everything(engines: list[Engine]) -> None:
    runner = Held(toy_llama())
    engines.append(engine := Engine(runner, EngineOptions(rows=1)).start())
    running, waiting, last = Heard(), Heard(), Heard()
    first = ask(engine, [3], running, options=SampleOptions(max_tokens=40))
    second = ask(engine, [5], waiting)
    runner.gate.release(2)
    running.next(), running.next()
    first.cancel()  # type: ignore[attr-defined]
    second.cancel()  # type: ignore[attr-defined]
    ask(engine, [7, 7], last, options=SampleOptions(max_tokens=3))
    runner.open()
    assert len(last.ids) == 3
    first.cancel()  # type: ignore[attr-defined]
    assert running.steps.qsize() <= 1, "at most the token that was being computed"
    assert waiting.steps.empty()
    engine.close(30.0)
    found = engine.load_now()
    assert (found["cancelled"], found["answers"], found["running"], found["waiting"]) == (2, 1, 0, 0)
    assert runner.passes <= 2 + 1 + 2 + 3, "the abandoned answers were not computed on"


def test_S17_one_answer_that_breaks_the_network_fails_alone(engines: list[Engine]) -> None:
    model = toy_llama()
    runner = Held(model)
    runner.poison = 13
    runner.open()
    engines.append(engine := Engine(runner, EngineOptions(rows=4)).start())
    good, bad, other = Heard(), Heard(), Heard()
    ask(engine, [3], good)
    ask(engine, [13], bad)
    ask(engine, [5, 9, 2], other)
    with pytest.raises(GroundupError) as fault:
        bad.whole()
    assert fault.value.code == "E-GEN-015"
    for sink, prompt in ((good, [3]), (other, [5, 9, 2])):
        expected = alone(model, prompt, SampleOptions(max_tokens=12))
        assert 13 not in expected and sink.ids == expected
    engine.close(30.0)
    assert engine.load_now()["failed"] == 1


class Stuck:
    """A structure that cannot be followed after its first token, or already when it is looked at."""

    def __init__(self, fault: Exception, at: str) -> None:
        self.fault, self.at, self.accepted = fault, at, 0

    def mask_V(self) -> Tensor:
        if self.at == "mask" and self.accepted:
            raise self.fault
        return torch.ones(61, dtype=torch.bool)

    def accept(self, id: int) -> None:
        self.accepted += 1
        if self.at == "accept":
            raise self.fault

    def ended(self) -> bool:
        return False


@pytest.mark.parametrize("at", ["mask", "accept"])
@pytest.mark.parametrize("kind", [GroundupError, ValueError])
def test_S17_a_structure_that_gets_stuck_ends_its_answer_and_no_other(
    at: str, kind: type[Exception], engines: list[Engine]
) -> None:
    model = toy_llama()
    engines.append(engine := Engine(PlainRunner(model), EngineOptions(rows=4)).start())
    fault = GroundupError("E-GEN-012", "stuck", where="", why="", fix="") if kind is GroundupError else kind("broken")
    good, bad = Heard(), Heard()
    ask(engine, [3], good)
    ask(engine, [5, 9, 2], bad, constraint=Stuck(fault, at))
    with pytest.raises(GroundupError) as raised:
        bad.whole()
    assert raised.value.code == ("E-GEN-012" if kind is GroundupError else "E-GEN-015")
    assert good.ids == alone(model, [3], SampleOptions(max_tokens=12))
    ask(engine, [3], again := Heard())
    assert again.ids == good.ids, "the engine lives"
    engine.close(30.0)
    assert engine.load_now()["failed"] == 1 and engine.load_now()["running"] == 0


def test_logprobs_alternatives_and_scores_of_the_prompt(engines: list[Engine]) -> None:
    model = toy_llama()
    engine, _ = engine_for(model)
    engines.append(engine.start())
    prompt, heard = [5, 9, 2, 33, 41], Heard()
    ask(engine, prompt, heard, top=3, score_prompt=2, options=SampleOptions(max_tokens=4, temperature=1.0, seed=3))
    steps = heard.whole()
    ids = prompt + heard.ids
    logprob_TV = model(torch.tensor([ids]))[0].log_softmax(dim=-1).detach()
    scores = steps[0].prompt
    assert scores is not None and [score.id for score in scores] == prompt and scores[0].logprob is None
    for place in range(1, len(prompt)):
        assert scores[place].logprob == pytest.approx(float(logprob_TV[place - 1, prompt[place]]), abs=1e-4)
        best = logprob_TV[place - 1].topk(2)
        assert [one.id for one in scores[place].top] == best.indices.tolist()
    for number, step in enumerate(step for step in steps if step.token is not None):
        place = len(prompt) + number
        assert step.token is not None and len(step.token.top) == 3
        assert step.token.logprob == pytest.approx(float(logprob_TV[place - 1, ids[place]]), abs=1e-4)
    assert all(step.prompt is None for step in steps[1:])
    short = Heard()
    ask(engine, [5], short, score_prompt=2)
    assert short.whole()[0].prompt == (Scored(5, None),)


@pytest.mark.parametrize("form", FORMS)
def test_a_prompt_that_begins_as_another_is_not_computed_again(form: str, engines: list[Engine]) -> None:
    model = toy_llama()
    runner, _ = runner_for(model, "float32", compiled=form == "compiled")
    engines.append(engine := Engine(runner, EngineOptions()).start())
    first, again, longer = Heard(), Heard(), Heard()
    start = list(range(1, 20))
    ask(engine, start, first)
    answer = first.ids
    ask(engine, start, again)
    assert again.ids == answer and again.all[0].cached == len(start) - 1
    turn = [*start, *answer, 44, 3]
    ask(engine, turn, longer)
    assert longer.ids == alone(model, turn, SampleOptions(max_tokens=12))
    assert longer.all[0].cached >= len(start) + len(answer) - 1
    engine.close(30.0)
    assert engine.load_now()["cached_tokens"] == again.all[0].cached + longer.all[0].cached


@pytest.mark.parametrize("form", FORMS)
def test_short_memory_sends_the_youngest_away_and_changes_no_text(form: str, engines: list[Engine]) -> None:
    model = toy_llama()
    model.context = 200
    runner, _ = runner_for(_wide(), "float32", compiled=form == "compiled")
    engines.append(engine := Engine(runner, EngineOptions(rows=4, cache_tokens=256)).start())
    heard = [Heard() for _ in range(4)]
    options = SampleOptions(max_tokens=110, temperature=1.0, top_k=5)
    for number, sink in enumerate(heard):
        ask(engine, [number + 3, 9], sink, options=options.model_copy(update={"seed": number}))
    for number, sink in enumerate(heard):
        assert sink.ids == alone(_wide(), [number + 3, 9], options.model_copy(update={"seed": number}))
    engine.close(30.0)
    assert engine.budget.used == sum(memory.capacity for memory in engine.budget.idle) <= 256


@pytest.mark.parametrize("cache_tokens", [100, 128, 200])
def test_every_answer_ends_however_tight_the_memory_is(cache_tokens: int, engines: list[Engine]) -> None:
    """Prompts that begin alike, of all lengths: whatever is remembered must make room for what runs."""
    model = _wide()
    runner, _ = runner_for(model, "float32")
    engines.append(engine := Engine(runner, EngineOptions(rows=3, cache_tokens=cache_tokens), PromptLookup()).start())
    chance = torch.Generator().manual_seed(cache_tokens)
    heard: list[tuple[list[int], Heard]] = []
    for _ in range(30):
        shared, own = (int(n) for n in torch.randint(1, 48, (2,), generator=chance))
        prompt = [*range(1, shared), *torch.randint(1, 61, (own,), generator=chance).tolist()]
        heard.append((prompt, Heard()))
        ask(engine, prompt, heard[-1][1], options=SampleOptions(max_tokens=20))
    for prompt, sink in heard:
        room = min(20, engine.budget.tokens - len(prompt))
        assert sink.ids == alone(model, prompt, SampleOptions(max_tokens=room))
    engine.close(30.0)
    assert engine.budget.used == sum(memory.capacity for memory in engine.budget.idle) <= engine.budget.tokens


def test_guessing_ahead_changes_nothing_and_is_used(engines: list[Engine]) -> None:
    model = toy_llama()
    prompt = [5, 9, 2, 33] * 6
    texts = []
    small, _ = runner_for(_wide(), "float32")
    for drafter in (None, PromptLookup(), DraftModel(small, sequences=3)):
        runner, _ = runner_for(model, "float32")
        engines.append(engine := Engine(runner, EngineOptions(), drafter).start())
        heard = [Heard() for _ in range(6)]
        for seed, sink in enumerate(heard):
            options = SampleOptions(
                max_tokens=20, temperature=0.0 if seed < 3 else 0.8, seed=seed, repetition_penalty=1.1
            )
            ask(engine, prompt[seed:], sink, options=options)
        texts.append([sink.ids for sink in heard])
        assert (engine.load_now()["drafted"] > 0) == (drafter is not None)
    assert texts[0] == texts[1] == texts[2]
    assert engine.load_now()["accepted"] > 10, "a draft by the very model is right where nothing is penalised or drawn"


def test_looking_up_finds_what_followed_the_last_words() -> None:
    look = PromptLookup(tokens=3)
    assert look.guess([1, 2, 3, 4, 9, 9, 1, 2]) == [3, 4, 9]
    assert look.guess([1, 2, 3]) == [] and look.guess([5]) == []
    assert look.guess([1, 2, 8, 1, 2, 9, 1, 2]) == [9, 1, 2], "the latest place counts"


def test_limits_are_told_at_once(engines: list[Engine]) -> None:
    runner = Held(toy_llama())
    engines.append(engine := Engine(runner, EngineOptions(rows=1, waiting=2, cache_tokens=64)).start())
    for code, prompt in (("E-GEN-002", []), ("E-GEN-003", [1] * 48), ("E-GEN-005", [1, 61])):
        with pytest.raises(GroundupError) as fault:
            ask(engine, prompt, Heard())
        assert fault.value.code == code
    codes = []
    for _ in range(5):
        try:
            ask(engine, [1], Heard())
        except GroundupError as error:
            codes.append(error.code)
    assert codes and set(codes) == {"E-GEN-011"}
    runner.open()


def test_closing_ends_what_runs_and_refuses_what_comes() -> None:
    engine, _ = engine_for(toy_llama())
    engine.start()
    heard = Heard()
    ask(engine, [3], heard, options=SampleOptions(max_tokens=20))
    engine.close(30.0)
    assert heard.whole()[-1].finish is not None, "what ran was finished"
    with pytest.raises(GroundupError) as fault:
        ask(engine, [3], Heard())
    assert fault.value.code == "E-GEN-014"
    assert not any(thread.name == "groundup-engine" and thread.is_alive() for thread in threading.enumerate())


def test_many_answers_abandoned_at_random_leave_nothing(engines: list[Engine]) -> None:
    model = toy_llama()
    engine, _ = engine_for(model, options=EngineOptions(rows=4, waiting=400, cache_tokens=512))
    engines.append(engine.start())
    chance = torch.Generator().manual_seed(1)
    kept: list[Heard] = []
    for number in range(200):
        heard = Heard()
        ticket = ask(engine, [1 + number % 50, 9], heard, options=SampleOptions(max_tokens=8))
        if float(torch.rand((), generator=chance)) < 0.33:
            ticket.cancel()  # type: ignore[attr-defined]
        else:
            kept.append(heard)
    for heard in kept:
        heard.whole()
    last = Heard()
    ask(engine, [3], last)
    last.whole()
    engine.close(30.0)
    found = engine.load_now()
    assert found["answers"] + found["cancelled"] == 201 and found["failed"] == 0
    assert found["running"] == 0 and found["waiting"] == 0
    assert engine.budget.used <= 512


def test_a_long_prompt_is_computed_in_chunks_that_let_others_on(engines: list[Engine]) -> None:
    model = _wide(context=3 * CHUNK)
    runner = Held(model)
    runner.open()
    engines.append(engine := Engine(runner, EngineOptions(rows=2)).start())
    prompt, heard = [1 + n % 50 for n in range(2 * CHUNK + 40)], Heard()
    ask(engine, prompt, heard, options=SampleOptions(max_tokens=3))
    assert heard.ids == alone(model, prompt, SampleOptions(max_tokens=3))
    assert runner.passes == 3 + 3, "two whole chunks, the rest but the last token, and three tokens"


def test_memory_is_taken_over_copied_and_forgotten_within_its_budget() -> None:
    shape = Shape(1, 1, 2, torch.float32, torch.device("cpu"))
    budget = Budget(shape, 256)
    first = budget.take([1, 2, 3, 4], [])
    assert first is not None and first.length == 0 and budget.used == 64
    first.tokens += [1, 2, 3, 4]
    first.keys_LGSK[:] = 7
    copied = budget.take([1, 2, 9], [first])
    assert copied is not None and copied.tokens == [1, 2] and bool((copied.keys_LGSK[:, :, :2] == 7).all())
    budget.release(first)
    taken = budget.take([1, 2, 3, 8], [])
    assert taken is first and taken.tokens == [1, 2, 3] and budget.used == 128
    assert budget.take([5] * 150, []) is None, "running sequences are never forgotten"
    budget.release(taken)
    budget.release(copied, keep=False)
    assert budget.used == 64 and budget.take([5] * 200, []) is not None
    assert budget.idle == [], "the idle one made room"
    assert common([1, 2, 3], [1, 2]) == 2 and common([], [1]) == 0


def _memory(shape: Shape, capacity: int) -> Memory:
    memory = Memory(shape)
    memory.reserve(capacity)
    return memory


def _wide(context: int = 200) -> Llama:
    """The toy with a longer context."""
    model = toy_llama()
    longer = Llama(model.options.model_copy(update={"context": context}))
    longer.load_state_dict(model.state_dict())
    return longer.eval()


def test_S17_an_unforeseen_fault_ends_what_runs_and_the_engine_goes_on(engines: list[Engine]) -> None:
    runner = Held(toy_llama())
    runner.open()

    class Panic(BaseException):
        """As a library in another language raises it."""

    whole, thrown = runner.run, []

    def run(segments: Sequence[Segment]) -> Tensor:
        if not thrown:
            thrown.append(True)
            raise Panic("state is lost")
        return whole(segments)

    runner.run = run  # type: ignore[method-assign]
    engines.append(engine := Engine(runner, EngineOptions(rows=2)).start())
    first, second = Heard(), Heard()
    ask(engine, [3], first)
    with pytest.raises(GroundupError) as fault:
        first.whole()
    assert fault.value.code == "E-GEN-015"
    ask(engine, [5, 9, 2], second)
    assert second.ids == alone(toy_llama(), [5, 9, 2], SampleOptions(max_tokens=12))


@pytest.mark.parametrize("target", ["embedding", "head"])
def test_a_model_with_an_adapter_outside_of_its_layers_is_taken_in_its_plain_form(target: str) -> None:
    """The compiled form copies the tables, and would leave the adapter away."""
    model = toy_llama()
    lora(model, LoraOptions(kind="lora", rank=2, targets=[target]), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    _, form = runner_for(model, "float32")
    assert form.kind == "plain" and "merge" in form.reason
