"""Models as the server asks for them: what writes, makes vectors or judges; names, memory, and a live server."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.small_models import image_model, small_tokenizer, table_model, text_model, writing_model

import groundup
from groundup.errors import GroundupError
from groundup.inference.engine import EngineOptions
from groundup.models.heads import HeadOptions
from groundup.run.pictures import as_png
from groundup.run.serving import ModelShelf, ShelfOptions, named
from groundup.serving.served import Language, Piece, Structure, Wanted

OPTIONS = ShelfOptions(engine=EngineOptions(rows=2, waiting=8, cache_tokens=512))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, tokenizer = tmp_path_factory.mktemp("models"), small_tokenizer()
    return {
        "writer": writing_model(folder / "writer", tokenizer),
        "table": table_model(folder / "table"),
        "image": image_model(folder / "image"),
        "text": text_model(folder / "text", tokenizer),
        "vectors": text_model(folder / "vectors", tokenizer, head=HeadOptions(kind="embed", pooling="mean")),
    }


@pytest.fixture(scope="module")
def shelf(models: dict[str, Path]) -> Iterator[ModelShelf]:
    made = ModelShelf([f"{name}={path}" for name, path in models.items()], OPTIONS)
    yield made
    made.close(30.0)


def answer(language: Language, ids: list[int], **wanted: Any) -> list[Piece]:
    heard: queue.Queue[Piece | GroundupError] = queue.Queue()
    language.ask(ids, Wanted(**wanted), heard.put)
    pieces: list[Piece] = []
    while not pieces or pieces[-1].finish is None:
        piece = heard.get(timeout=60)
        if isinstance(piece, GroundupError):
            raise piece
        pieces.append(piece)
    return pieces


def language_of(shelf: ModelShelf, name: str = "writer") -> Language:
    language = shelf.get(name).language
    assert language is not None
    return language


MESSAGES = [{"role": "user", "content": "was the soup good? 汤 <|end|>"}]


def test_G9_a_chat_is_rendered_and_answered_as_by_the_python_interface(
    shelf: ModelShelf, models: dict[str, Path]
) -> None:
    loaded: Any = groundup.load(models["writer"])
    language = language_of(shelf)
    ids = language.chat_ids(MESSAGES)
    assert ids == loaded.chat_template.render(MESSAGES, loaded.tokenizer, add_generation_prompt=True).ids
    pieces = answer(language, ids, max_tokens=20, temperature=0.0)
    assert "".join(piece.text for piece in pieces) == loaded.chat(MESSAGES, max_tokens=20)
    assert pieces[-1].finish in ("stop", "length") and shelf.get("writer").card["abilities"] == ["chat", "complete"]


def test_C25_special_tokens_in_what_a_user_says_are_plain_text_and_it_begins_once(shelf: ModelShelf) -> None:
    language = language_of(shelf)
    tokenizer = small_tokenizer()
    ids = language.chat_ids(MESSAGES)
    assert ids.count(tokenizer.specials["<|begin|>"]) == 1 and ids[0] == tokenizer.specials["<|begin|>"]
    assert ids.count(tokenizer.specials["<|end|>"]) == 1, "the user's own is spelled out"
    text = language.text_ids("the soup <|begin|>")
    assert text.count(tokenizer.specials["<|begin|>"]) == 1
    assert b"".join(language.token_bytes(id) for id in text[1:]) == b"the soup <|begin|>"


def test_an_answer_that_was_begun_is_gone_on_with(shelf: ModelShelf) -> None:
    language = language_of(shelf)
    begun = [*MESSAGES, {"role": "assistant", "content": "the wait"}]
    ids = language.chat_ids(begun, go_on=True)
    assert ids == language.chat_ids(MESSAGES) + small_tokenizer().encode("the wait")


def test_S8_a_stop_text_across_tokens_and_characters_is_cut_exactly(shelf: ModelShelf) -> None:
    language = language_of(shelf)
    ids = language.chat_ids(MESSAGES)
    pieces = answer(language, ids, max_tokens=30, temperature=0.0)
    whole = "".join(p.text for p in pieces)
    assert len(whole) > 6 and whole == small_tokenizer().decode([p.token.id for p in pieces if p.token])
    stop = whole[3:6]
    pieces = answer(language, ids, max_tokens=30, temperature=0.0, stop=(stop,))
    assert "".join(p.text for p in pieces) == whole[: whole.index(stop)] and pieces[-1].finish == "stop"


def test_C15_temperature_0_and_seeds_repeat_whatever_shares_the_batch(shelf: ModelShelf) -> None:
    language = language_of(shelf)
    ids = language.chat_ids(MESSAGES)
    for wanted in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 7}):
        alone = [p.token for p in answer(language, ids, max_tokens=12, **wanted)]
        heard: list[queue.Queue[Any]] = [queue.Queue() for _ in range(6)]
        for number, sink in enumerate(heard):
            prompt = ids if number % 2 else language.text_ids("the waiter" * number)
            language.ask(prompt, Wanted(max_tokens=12, **wanted), sink.put)  # type: ignore[arg-type]
        for sink in heard[1::2]:
            found = []
            while not found or found[-1].finish is None:
                found.append(sink.get(timeout=60))
            assert [p.token for p in found] == alone


def test_a_structure_is_kept_to(shelf: ModelShelf) -> None:
    pytest.importorskip("llguidance")
    language = language_of(shelf)
    schema = {
        "type": "object",
        "properties": {"good": {"type": "boolean"}},
        "required": ["good"],
        "additionalProperties": False,
    }
    ids = language.chat_ids(MESSAGES)
    for seed in range(3):
        structure = Structure("json_schema", json.dumps(schema))
        pieces = answer(language, ids, max_tokens=60, temperature=1.0, seed=seed, structure=structure)
        assert set(json.loads("".join(p.text for p in pieces))) == {"good"} and pieces[-1].finish == "stop"
    chosen = answer(language, ids, temperature=1.0, seed=1, structure=Structure("choice", '["rude", "good"]'))
    assert "".join(p.text for p in chosen) in ("rude", "good")
    with pytest.raises(GroundupError) as fault:
        language.ask(ids, Wanted(structure=Structure("regex", "(")), lambda piece: None)
    assert fault.value.code == "E-GEN-010"


def test_vectors_are_those_of_predict(shelf: ModelShelf, models: dict[str, Path]) -> None:
    loaded: Any = groundup.load(models["vectors"])
    embedder = shelf.get("vectors").embedder
    assert embedder is not None
    texts = ["the soup", "rude waiter was rude", "汤"]
    found = embedder.embed([embedder.text_ids(text) for text in texts])
    expected = [row["embedding"] for row in loaded.predict(texts)]
    assert np.allclose(found, expected, atol=1e-6) and len(found[0]) == embedder.width


def test_texts_images_and_rows_are_judged_and_explained(shelf: ModelShelf, models: dict[str, Path]) -> None:
    text, image, table = (shelf.get(name).classifier for name in ("text", "image", "table"))
    assert text is not None and image is not None and table is not None
    assert (text.kind, image.kind, table.kind) == ("text", "image", "table")
    loaded: Any = groundup.load(models["text"])
    assert text.predict(["good soup"]) == loaded.predict(["good soup"])
    said = text.explain("good soup")
    assert said["target"] == text.predict(["good soup"])[0]["label"]
    assert [piece["text"].strip() for piece in said["pieces"]] == ["good", "soup"]
    pixels = np.zeros((1, 14, 14), dtype=np.uint8)
    pixels[:, :5, :5] = 255
    [found] = image.predict([as_png(pixels)])
    assert found["label"] == "top" and set(found) == {"label", "probability", "probabilities"}
    assert image.explain(as_png(pixels))["picture"].startswith("data:image/png;base64,")
    row = {"size": 2.0, "weight": 10, "colour": "red"}
    assert table.predict([row]) == groundup.load(models["table"]).predict([row])  # type: ignore[union-attr]
    assert table.columns == ("size", "weight", "colour") and len(table.explain(row)["pieces"]) == 3
    with pytest.raises(GroundupError):
        image.predict([b"no image"])
    with pytest.raises(GroundupError):
        table.predict([{"size": 1}])


def test_names_come_from_paths_or_are_given(models: dict[str, Path], tmp_path: Path) -> None:
    assert (
        named("a=b/c")[0] == "a" and named("runs/cats/model")[0] == "cats" and named("x/SmolLM2.gguf")[0] == "SmolLM2"
    )
    with pytest.raises(GroundupError) as fault:
        ModelShelf([str(models["writer"]), f"writer={models['text']}"], OPTIONS)
    assert fault.value.code == "E-SERVE-003"
    with pytest.raises(GroundupError) as fault:
        ModelShelf([str(tmp_path / "nothing")], OPTIONS)
    assert fault.value.code == "E-MODEL-004"


def test_models_are_loaded_when_asked_for_and_leave_when_memory_is_short(models: dict[str, Path]) -> None:
    said: list[str] = []
    sizes = {name: sum(f.stat().st_size for f in path.iterdir()) for name, path in models.items()}
    limit = sizes["writer"] + sizes["text"]
    given = [f"{name}={models[name]}" for name in ("writer", "text", "vectors")]
    how = ShelfOptions(engine=OPTIONS.engine, memory_bytes=limit)
    shelf = ModelShelf(given, how, said.append)
    assert not shelf.ready()
    shelf.load_first()
    assert shelf.ready() and [card["loaded"] for card in shelf.cards()] == [True, True, False]
    shelf.get("writer")
    shelf.get("vectors")
    assert [card["loaded"] for card in shelf.cards()] == [True, False, True], "the one asked least recently left"
    assert any("unloaded text" in line for line in said)
    with pytest.raises(GroundupError) as fault:
        shelf.get("writter")
    assert fault.value.code == "E-SERVE-001" and "writer" in str(fault.value)
    shelf.close(5.0)
    tight = ModelShelf(given, ShelfOptions(memory_bytes=10))
    with pytest.raises(GroundupError) as fault:
        tight.get("writer")
    assert fault.value.code == "E-SERVE-002"


def test_S15_a_folder_that_changes_while_it_is_served_changes_no_answer(tmp_path: Path) -> None:
    path = writing_model(tmp_path / "model", small_tokenizer())
    shelf = ModelShelf([f"m={path}"], OPTIONS)
    language = language_of(shelf, "m")
    ids = language.text_ids("the soup")
    before = [p.token for p in answer(language, ids, max_tokens=10, temperature=0.0)]
    for file in path.iterdir():
        file.write_bytes(b"\0" * file.stat().st_size)
    assert [p.token for p in answer(language, ids, max_tokens=10, temperature=0.0)] == before
    shelf.close(5.0)


def test_answers_on_packed_weights(models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    from groundup.cli.main import main

    loaded: Any = groundup.load(models["writer"])
    before = loaded.generate("the soup", max_tokens=12)
    said = loaded.pack("float32")
    assert (
        said.startswith(("compiled, float32", "plain, float32"))
        and loaded.generate("the soup", max_tokens=12) == before
    )
    assert main(["generate", str(models["writer"]), "--prompt", "the soup", "--precision", "int8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["finish"] in ("stop", "length")


def call(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def test_S16_the_command_serves_answers_and_ends_with_0(models: dict[str, Path], tmp_path: Path) -> None:
    words = [
        "serve",
        str(models["writer"]),
        f"words={models['text']}",
        "--port",
        "0",
        "--runs",
        str(tmp_path),
        "--json",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "groundup", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        try:
            ready = json.loads(process.stdout.readline() or "{}")
            address = ready["address"]
            assert ready["models"] == ["writer", "words"]
            assert call(address, "/ready")["status"] == "ready"
            said = call(address, "/v1/chat/completions", {"model": "writer", "messages": MESSAGES, "max_tokens": 4})
            assert said["choices"][0]["finish_reason"] in ("stop", "length")
            judged = call(address, "/v1/classify", {"model": "words", "input": "good soup"})
            assert judged["data"][0]["label"] in ("good", "bad")
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=60)
        errors = process.stderr.read()
    assert code == 0 and "Traceback" not in errors, errors


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--host", "0.0.0.0"], "E-SERVE-010"),
        (["--key-file", "none.txt"], "E-USE-024"),
        (["nothing/here"], "E-MODEL-004"),
        (["--precision", "int3"], "E-USE-004"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_listens(
    words: list[str], code: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundup.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(["serve", *words, "--port", "0"]) == 2
    assert code in capsys.readouterr().err


def test_a_text_that_cannot_fit_is_refused_before_it_is_cut_into_tokens(shelf: ModelShelf) -> None:
    language = language_of(shelf)
    for refused in (
        lambda: language.text_ids("x" * 10_000_000),
        lambda: language.chat_ids([MESSAGES[0] | {"content": "x" * 10**7}]),
    ):
        with pytest.raises(GroundupError) as fault:
            refused()
        assert fault.value.code == "E-GEN-003"
    assert len(language.text_ids("the soup " * 40)) > 40
