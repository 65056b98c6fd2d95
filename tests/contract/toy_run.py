"""Tiny runs from texts that are made here, in this process, and what is compared between two of them."""

from __future__ import annotations

import copy
import functools
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from groundup import checkpoint
from groundup.recipe.resolve import resolve_steps
from groundup.run import assemble as assembling
from groundup.run import train as training
from groundup.run.entry import read_recipe
from groundup.run.gather import gather
from groundup.run.language import LanguageWork
from groundup.run.rehearse import rehearse
from groundup.run.train import Result, train_recipe

VOCABULARY = "the a cat dog house tree runs sees finds big small red blue under over and then slowly never"
WORDS = VOCABULARY.split()
Options = dict[str, Any]


class Killed(BaseException):
    """Ends a run as a SIGKILL would: nothing of the run's own code comes after it."""


def quick(patch: pytest.MonkeyPatch) -> None:
    """Leave out what takes time and changes no result: the timing of the rehearsal, the measured ceiling of
    the machine, and waiting for the disk."""
    patch.setattr(training, "rehearse", functools.partial(rehearse, seconds=0.0))
    patch.setattr(assembling, "matrix_ceiling", lambda *arguments, **keywords: 1e9)
    patch.setattr(os, "fsync", lambda descriptor: None)


def sentence(chance: random.Random, words: int) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(words)) + "."


def text_file(folder: Path, documents: int = 150, seed: int = 0) -> Path:
    """Records of a text each, from 3 to 40 words."""
    chance = random.Random(seed)
    rows = [{"text": sentence(chance, chance.randrange(3, 40))} for _ in range(documents)]
    return write_rows(folder / f"texts-{seed}.jsonl", rows)


def chat_file(folder: Path, rows: int = 60, seed: int = 0) -> Path:
    """Questions and answers of very different lengths, so that masks are ragged."""
    chance = random.Random(seed)
    pairs = [
        {"prompt": sentence(chance, chance.randrange(1, 4)), "response": sentence(chance, chance.randrange(1, 6))}
        for _ in range(rows)
    ]
    return write_rows(folder / f"chats-{seed}.jsonl", pairs)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def text_recipe(file: Path, **changes: Any) -> Options:
    """A recipe that learns from one file of texts; `changes` are laid over it, `budget__steps=3` deep in it."""
    recipe: Options = {
        "model": {"width": 16, "layers": 2, "heads": 2},
        "tokenizer": {"kind": "char"},
        "data": {"kind": "text", "files": [str(file)], "context": 32, "workers": 1},
        "optim": {"model": {"kind": "adamw", "learning_rate": 0.01}},
        "budget": {"steps": 12, "tokens_per_step": 128, "micro_batch": 2},
        "events": {
            "log_every": 1,
            "save_every": 5,
            "evaluate_every": 4,
            "evaluate_tokens": 400,
            "sample_every": 0,
        },
        "hardware": {"precision": "float32", "compile": "off"},
    }
    return changed(recipe, **changes)


def chat_recipe(file: Path, **changes: Any) -> Options:
    """A recipe that learns to answer, from nothing."""
    recipe = text_recipe(file)
    recipe["data"] = {"kind": "chat", "files": [str(file)], "context": 96}
    recipe["budget"] |= {"tokens_per_step": 384}
    return changed(recipe, **changes)


TASKS = ("classify", "multilabel", "tag", "regress", "embed", "choice")
KINDS_OF_WORD = {"animal": ["cat", "dog", "horse", "fox"], "colour": ["red", "blue", "green", "grey"],
                 "place": ["house", "tree", "river", "hill"]}  # fmt: skip
ALL_WORDS = [word for words in KINDS_OF_WORD.values() for word in words]
KIND_OF = {word: kind for kind, words in KINDS_OF_WORD.items() for word in words}


def labelled_rows(task: str, rows: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Rows that a tiny model learns at once: the words of a text are of one kind, and the kind is the answer."""
    chance = random.Random(seed)
    made: list[dict[str, Any]] = []
    kinds = list(KINDS_OF_WORD)
    for number in range(rows):
        kind = kinds[number % 3]
        text = " ".join(chance.choices(KINDS_OF_WORD[kind], k=chance.randrange(2, 7)))
        words = chance.choices(ALL_WORDS, k=chance.randrange(2, 6))
        if task == "classify":
            made.append({"text": text, "label": kind})
        elif task == "multilabel":
            second = kinds[(number // 3) % 3]
            made.append({"text": f"{text} {chance.choice(KINDS_OF_WORD[second])}", "labels": sorted({kind, second})})
        elif task == "tag":
            made.append({"tokens": words, "ner_tags": [KIND_OF[word] for word in words]})
        elif task == "regress":
            made.append({"text": text, "score": kinds.index(kind) - 1 + 0.1 * chance.random()})
        elif task == "embed":
            once = chance.sample(ALL_WORDS, k=3)
            made.append({"anchor": " ".join(once), "positive": " ".join(reversed(once))})
        else:
            wrong = chance.choices(KINDS_OF_WORD["colour"] + KINDS_OF_WORD["place"], k=2)
            right = chance.randrange(2)
            given = [" ".join(wrong), " ".join(wrong)]
            given[right] = " ".join(chance.choices(KINDS_OF_WORD["animal"], k=2))
            made.append({"question": f"which of the two {number}", "choices": given, "answer": right})
    return made


def labelled_file(folder: Path, task: str, rows: int = 60, seed: int = 0) -> Path:
    """The rows of a task as a file."""
    return write_rows(folder / f"{task}-{seed}.jsonl", labelled_rows(task, rows, seed))


def labelled_recipe(file: Path, task: str, family: str = "bert", **changes: Any) -> Options:
    """A recipe that learns a task from nothing."""
    recipe = text_recipe(file)
    recipe["model"] = {"family": family, "width": 16, "layers": 2, "heads": 2}
    recipe["tokenizer"] = {"kind": "bpe", "vocabulary": 300}
    split = {"test": 0.2, "validation": 0.2}
    recipe["data"] = {"kind": "labelled", "files": [str(file)], "task": task, "context": 32, "split": split}
    recipe["budget"] = {"steps": 6, "tokens_per_step": 256, "micro_batch": 4}
    del recipe["events"]["sample_every"]
    return changed(recipe, **changes)


def adapted_recipe(file: Path, base: Path, *adapters: dict[str, Any], **changes: Any) -> Options:
    """A recipe that goes on with a model, adapted."""
    recipe = text_recipe(file, model={"init_from": str(base)}, tokenizer=None, adapters=list(adapters))
    return changed(recipe, **changes)


def changed(recipe: Options, **changes: Any) -> Options:
    """A copy with fields replaced; `a__b=1` sets b inside a, and None removes a field."""
    recipe = copy.deepcopy(recipe)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = recipe
        for name in parents:
            place = place.setdefault(name, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return recipe


def run(recipe: Options, folder: Path, **keywords: Any) -> Result:
    """Train in this process."""
    return train_recipe(read_recipe(recipe), folder, **keywords)


def parts_of(recipe: Options, folder: Path) -> LanguageWork:
    """Everything but the loop, with its steps settled and nothing timed."""
    parts = gather(read_recipe(recipe), folder, say=lambda line: None)
    assert isinstance(parts, LanguageWork)
    parts.recipe = resolve_steps(parts.recipe, rows_per_epoch=parts.rows_per_epoch, seconds_per_step=0.01)
    return parts


Listener = Callable[[dict[str, Any]], None]


def at(event: str, step: int, action: Callable[[], None]) -> Listener:
    """A listener that acts when it sees this event of this step."""

    def listen(line: dict[str, Any]) -> None:
        if (line["event"], line["step"]) == (event, step):
            action()

    return listen


def kill() -> None:
    raise Killed


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def killed_run(recipe: Options, folder: Path, *listeners: Listener, resume: bool = False) -> None:
    """Train until one of the listeners kills the run."""
    with pytest.raises(Killed):
        run(recipe, folder, listeners=listeners, resume=resume)


class Outcome(NamedTuple):
    """What two equal runs have in common."""

    events: list[dict[str, Any]]
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


def events(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of events.jsonl without their clocks."""
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {name: value for name, value in line.items() if name != "clock"}
        for line in lines
        if kind in (None, line["event"])
    ]


def saved(folder: Path, step: int | None = None) -> checkpoint.Checkpoint:
    """A checkpoint of a run, by default the newest."""
    path = folder / "checkpoints" / f"step-{step:06d}" if step else checkpoint.newest(folder / "checkpoints").path
    assert path is not None
    return checkpoint.load(path)


def outcome(folder: Path) -> Outcome:
    """Final weights, the newest checkpoint's tensors and numbers (times aside), and the events."""
    model, _ = checkpoint.load_model(folder / "model")
    last = saved(folder)
    tensors = {f"{part}/{name}": tensor for part, group in last.tensors.items() for name, tensor in group.items()}
    numbers = {name: last.state[name] for name in ("step", "source", "objective", "guard", "random", "average_updates")}
    return Outcome(events(folder), {**tensors, **{f"final/{n}": t for n, t in model.items()}}, numbers)


def assert_same(one: Outcome, other: Outcome) -> None:
    """Bitwise equality of everything."""
    assert one.events == other.events
    assert one.numbers == other.numbers
    assert sorted(one.tensors) == sorted(other.tensors)  # a file keeps no order among tensors without elements
    for name, tensor in one.tensors.items():
        assert tensor.dtype == other.tensors[name].dtype
        assert torch.equal(tensor, other.tensors[name]), name


def run_once(recipe_of: Callable[[str], Options], make_folder: Callable[[str], Path]) -> Callable[[str], Path]:
    """The uninterrupted runs of several recipes by name, each made when it is first asked for."""
    known: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in known:
            known[name] = make_folder("straight") / "run"
            assert run(recipe_of(name), known[name]).outcome == "finished"
        return known[name]

    return of


class Captured:
    """An optimizer that keeps the gradients it is given and moves nothing."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.gradients: dict[str, Tensor] = {}

    @property
    def parameters(self) -> list[Tensor]:
        return list(self.module.parameters())

    def learning_rate(self, step: int) -> float:
        return 0.0

    def step(self, step: int) -> None:
        self.gradients = {name: p.grad.clone() for name, p in self.module.named_parameters() if p.grad is not None}

    def zero_grad(self) -> None:
        self.module.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...
