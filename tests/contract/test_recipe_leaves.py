"""Every field of the recipe does something: each leaf is flipped, and the run that is built must differ.

What is compared is what can be seen of the assembled run: sizes and first weights, first batches, rates,
events, limits, the plan. A field that nothing can show has its reason in `EXCEPTIONS`.
"""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import torch
from pydantic import BaseModel
from tests.contract.toy_run import (
    Options,
    changed,
    chat_file,
    chat_recipe,
    labelled_recipe,
    labelled_rows,
    parts_of,
    quick,
    run,
    text_file,
    text_recipe,
    write_rows,
)

from groundup.engine.events import Evaluate, EventLog, LogSteps, Sample, Save
from groundup.engine.loop import Run
from groundup.engine.stop import Stop
from groundup.errors import GroundupError
from groundup.models import FAMILIES
from groundup.recipe.tree import LANGUAGE, Recipe
from groundup.run import assemble as assembling
from groundup.run import measuring
from groundup.run.assemble import Saver, Unfreeze, assemble
from groundup.run.entry import read_recipe, run_folder
from groundup.run.language import LanguageWork
from groundup.run.plan import plan_of

ROWS = "flipped in test_row_leaves"
FILTERS = "each is shown by the tests of the data room, on documents made for it"
EXCEPTIONS = {
    "hardware.kernels": "how the loop computes, which no assembly shows: see tests/run/test_hardware.py",
    "hardware.device": "depends on what the machine has; auto and cpu are the same on most",
    "data:text.workers": "the result is the same for any number, by promise",
    "data:text.max_document_bytes": FILTERS,
    "data:text.utf8": FILTERS,
    "data:text.newlines": FILTERS,
    "data:text.control_characters": FILTERS,
    "data:text.normalize": FILTERS,
    "data:text.on_bad_file": FILTERS,
    "data:text.filters.": FILTERS,
    "data:text.deduplicate.": FILTERS,
    "data:text.overlap.": FILTERS,
    "data:text.split.group_field": FILTERS,
    "data:text.split.held_out_files": FILTERS,
    "data:text.split.overlap": FILTERS,
    "data:text.split.train": "a name of files and in the card; the run is the same",
    "data:text.sources.": "the fields of a source are those of data, and its weight is shown by sources",
    "optim.alpha": ROWS,
    "optim.centered": ROWS,
    "optim.l1": ROWS,
    "optim.schedule.drop": ROWS,
    "optim.schedule.every": ROWS,
    "optim.schedule.peak": ROWS,
    "optim.schedule.start": ROWS,
    "budget.rows_per_step": ROWS,
    "budget.environment_steps": ROWS,
    "events.plateau.": ROWS,
    "events.track": "changes nothing of a run, by promise; shown by the tests of the tracking room",
    "data:labelled.split.folds": ROWS,
    "data:chat.columns.input": "as the other columns; shown by the tests of the data room",
    "data:chat.columns.system": "as the other columns; shown by the tests of the data room",
}

WEIGHTS = {"animal": 2.0, "colour": 3.0, "place": 4.0}

# leaf: the changes that flip it
FLIPS: dict[str, dict[str, Any]] = {
    "name": {"name": "another"},
    "seed": {"seed": 9},
    "model.init_from": {"model": {"init_from": "BASE"}, "tokenizer": None},
    "model.family": {"model__family": "gpt2"},
    "model.experts": {"model__experts": 3},
    "model.experts_per_token": {"model__experts_per_token": 1},
    "model.depth": {"model": {"depth": 1}},
    "model.context": {"model__context": 64},
    "model.width": {"model__width": 32},
    "model.layers": {"model__layers": 3},
    "model.heads": {"model__heads": 4},
    "model.key_value_heads": {"model__key_value_heads": 1},
    "model.head_size": {"model__head_size": 4},
    "model.hidden": {"model__hidden": 24},
    "model.rotary_base": {"model__rotary_base": 500.0},
    "model.norm_epsilon": {"model__norm_epsilon": 1e-3},
    "model.query_key_norm": {"model__query_key_norm": False},
    "model.sliding_window": {"model__sliding_window": 4},
    "model.tied": {"model__tied": False},
    "model.cell": {"model__cell": "gru"},
    "model.bidirectional": {"model__bidirectional": False},
    "model.dropout": {"model__dropout": 0.3},
    "tokenizer.kind": {"tokenizer__kind": "byte"},
    "tokenizer.vocabulary": {"tokenizer": {"kind": "bpe", "vocabulary": 270}},
    "tokenizer.minimum_frequency": {"tokenizer__minimum_frequency": 500},
    "tokenizer.mask": {"tokenizer__mask": True},
    "data:text.files": {"data__files": ["OTHER"]},
    "data:text.sources": {"data__files": None, "data__sources": {"a": {"files": ["FILE"], "weight": 3.0},
                                                                "b": {"files": ["OTHER"]}}},
    "data:text.prepared": {"data": {"kind": "text", "prepared": "BASE/data", "context": 32}, "tokenizer": None},
    "data:text.text_field": {"data__text_field": "title"},
    "data:text.documents": {"data__files": ["PLAIN"], "data__documents": "line"},
    "data:text.malformed_limit": {"data__files": ["BROKEN"], "data__malformed_limit": 0.5},
    "data:text.context": {"data__context": 16},
    "data:text.split.kind": {"data__split": {"kind": "tail"}},
    "data:text.split.held_out": {"data__split": {"held_out": {"held_out": 0.3}}},
    "data:text.split.salt": {"data__split": {"salt": "x"}},
    "data:chat.files": {"data__files": ["OTHER"]},
    "data:chat.held_out_files": {"data__held_out_files": ["OTHER"]},
    "data:chat.held_out": {"data__held_out": 0.4},
    "data:chat.template": {"data__template": "TEMPLATE"},
    "data:chat.train_on": {"data__files": ["TURNS"], "data__train_on": "last"},
    "data:chat.over_long": {"data__over_long": "cut"},
    "data:chat.context": {"data__context": 128, "budget__tokens_per_step": 512},
    "data:chat.format": {"data__format": "messages"},
    "data:chat.columns.prompt": {"data__columns": {"prompt": "response", "response": "response"}},
    "data:chat.columns.response": {"data__columns": {"prompt": "prompt", "response": "prompt"}},
    "data:chat.malformed_limit": {"data__files": ["BROKEN"], "data__malformed_limit": 0.5},
    "data:chat.remove_duplicates": {"data__files": ["TWICE"], "data__remove_duplicates": False},
    "data:labelled.files": {"data__files": ["OTHER ROWS"]},
    "data:labelled.test_files": {"data__test_files": ["OTHER ROWS"]},
    "data:labelled.validation_files": {"data__validation_files": ["OTHER ROWS"]},
    "data:labelled.task": {"data__task": "multilabel"},
    "data:labelled.columns.text": {"data__columns": {"text": "second"}},
    "data:labelled.columns.label": {"data__columns": {"label": "mood"}},
    "data:labelled.columns.other": {"data__columns": {"other": "second"}},
    "data:labelled.columns.group": {"data__columns": {"group": "team"}},
    "data:labelled.columns.time": {"data__columns": {"time": "team"}},
    "data:labelled.columns.candidates": {"data__columns": {"candidates": ["two", "one"]}},
    "data:labelled.labels": {"data__labels": ["place", "colour", "animal"]},
    "data:labelled.label_separator": {"data__label_separator": "/"},
    "data:labelled.minimum_rows_per_label": {"data__minimum_rows_per_label": 10},
    "data:labelled.malformed_limit": {"data__malformed_limit": 0.5},
    "data:labelled.max_length": {"data__max_length": 5},
    "data:labelled.over_long": {"data__over_long": "drop"},
    "data:labelled.remove_duplicates": {"data__remove_duplicates": True},
    "data:labelled.split.kind": {"data__split": {"kind": "random"}},
    "data:labelled.split.leaks": {"data__split": {"leaks": "drop"}},
    "data:labelled.split.seed": {"data__split": {"seed": 5}},
    "data:labelled.split.test": {"data__split": {"test": 0.4}},
    "data:labelled.split.validation": {"data__split": {"validation": 0.4}},
    "data:labelled.context": {"data__context": 64},
    "data:labelled.balanced": {"data__balanced": True},
    "data:labelled.augment.drop": {"data__augment": {"drop": 0.3}},
    "data:labelled.augment.move": {"data__augment": {"move": 3}},
    "data:labelled.augment.mask": {"data__augment": {"mask": 0.3}},
    "data:labelled.augment.replace": {"data__augment": {"replace": 0.3}},
    "head.pooling": {"head": {"pooling": "first"}},
    "head.pooler": {"head": {"pooler": True}},
    "head.dropout": {"head": {"dropout": 0.3}},
    "head.normalise": {"head": {"normalise": False}},
    "objective:masked_token.share": {"objective": {"kind": "masked_token", "share": 0.3}},
    "objective:classify.label_smoothing": {"objective": {"kind": "classify", "label_smoothing": 0.2}},
    "objective:classify.focal_gamma": {"objective": {"kind": "classify", "focal_gamma": 2.0}},
    "objective:classify.class_weights": {"objective": {"kind": "classify", "class_weights": WEIGHTS}},
    "objective:tag.label_smoothing": {"objective": {"kind": "tag", "label_smoothing": 0.2}},
    "objective:tag.focal_gamma": {"objective": {"kind": "tag", "focal_gamma": 2.0}},
    "objective:tag.class_weights": {"objective": {"kind": "tag", "class_weights": WEIGHTS}},
    "objective:multilabel.positive_weights": {"objective": {"kind": "multilabel", "positive_weights": WEIGHTS}},
    "objective:regress.huber_delta": {"objective": {"kind": "regress", "huber_delta": 0.1}},
    "objective:contrast.temperature": {"objective": {"kind": "contrast", "temperature": 0.5}},
    "adapters:grow.words": {"words": ["house", "cat"]},
    "adapters:grow.controls": {"controls": ["<|tool|>"]},
    "adapters:grow.init": {"init": "mean"},
    "adapters:freeze.patterns": {"patterns": ["*.q_proj.weight"]},
    "adapters:freeze.first_layers": {"first_layers": 1},
    "adapters:freeze.all_but_last": {"all_but_last": 1},
    "adapters:freeze.embeddings": {"embeddings": True},
    "adapters:freeze.train": {"train": ["norm.weight"]},
    "adapters:freeze.unfreeze": {"unfreeze": [{"step": 3, "patterns": ["norm.weight"]}]},
    "adapters:lora.rank": {"rank": 3},
    "adapters:lora.alpha": {"alpha": 8.0},
    "adapters:lora.targets": {"targets": ["*.q_proj"]},
    "adapters:lora.rank_by": {"rank_by": {"*.q_proj": 5}},
    "adapters:lora.alpha_by": {"alpha_by": {"*.q_proj": 5.0}},
    "adapters:lora.dropout": {"dropout": 0.5},
    "adapters:lora.variant": {"variant": "dora"},
    "adapters:lora.name": {"name": "mine"},
    "adapters:lora.train": {"train": ["norm.weight"]},
    "adapters:quantize.bits": {"bits": "int8"},
    "adapters:quantize.targets": {"targets": ["*.q_proj"]},
    "adapters:quantize.group": {"group": 8},
    "adapters:quantize.double": {"double": False},
    "adapters:quantize.embedding": {"embedding": "float32"},
    "adapters:prompt.tokens": {"tokens": 3},
    "adapters:prompt.train": {"train": ["*norm.weight"]},
    "adapters:scale.outputs": {"outputs": ["*.v_proj"]},
    "adapters:scale.inputs": {"inputs": ["*.o_proj"]},
    "adapters:scale.train": {"train": ["norm.weight"]},
    "optim.layer_decay": {"optim__model__layer_decay": 0.5},
    "optim.groups": {"optim__model__groups": [{"pattern": "*.q_proj.weight", "rate": 0.5}]},
    "optim.kind": {"optim": {"model": {"kind": "sgd", "learning_rate": 0.01}}},
    "optim.learning_rate": {"optim__model__learning_rate": 0.02},
    "optim.weight_decay": {"optim__model__weight_decay": 0.3},
    "optim.clip": {"optim__model__clip": 0.5},
    "optim.schedule.kind": {"optim__model__schedule": {"kind": "cosine"}},
    "optim.schedule.warmup": {"optim__model__schedule": {"warmup": 5}},
    "optim.schedule.final": {"optim__model__schedule": {"final": 0.3}},
    "optim.schedule.decay": {"optim__model__schedule": {"decay": 0.9}},
    "optim.beta1": {"optim__model__beta1": 0.8},
    "optim.beta2": {"optim__model__beta2": 0.99},
    "optim.epsilon": {"optim__model__epsilon": 1e-6},
    "optim.momentum": {"optim__model__momentum": 0.5},
    "optim.nesterov": {"optim__model__nesterov": True},
    "optim.iterations": {"optim__model__iterations": 3},
    "optim.adamw_scale": {"optim__model__adamw_scale": 0.5},
    "budget.steps": {"budget__steps": 13},
    "budget.tokens": {"budget__steps": None, "budget__tokens": 5000},
    "budget.minutes": {"budget__steps": None, "budget__minutes": 0.01},
    "budget.epochs": {"budget__steps": None, "budget__epochs": 3.0},
    "budget.tokens_per_step": {"budget__tokens_per_step": 256},
    "budget.micro_batch": {"budget__micro_batch": 4},
    "hardware.precision": {"hardware__precision": "bfloat16"},
    "hardware.compile": {"hardware__compile": "on"},
    "hardware.threads": {"hardware__threads": 3},
    "hardware.recompute": {"hardware__recompute": True},
    "hardware.price_per_hour": {"hardware__price_per_hour": 2.5},
    "events.log_every": {"events__log_every": 3},
    "events.save_every": {"events__save_every": 4},
    "events.keep": {"events__keep": 3},
    "events.keep_every": {"events__keep_every": 2},
    "events.evaluate_every": {"events__evaluate_every": 3},
    "events.evaluate_tokens": {"events__evaluate_tokens": 200},
    "events.sample_every": {"events__sample_every": 3},
    "events.sample_tokens": {"events__sample_tokens": 3},
    "events.prompts": {"events__prompts": ["the cat"]},
    "events.early_stopping.metric": {"events__early_stopping": {"metric": "perplexity"}},
    "events.early_stopping.patience": {"events__early_stopping": {"patience": 7}},
    "events.early_stopping.minimum_change": {"events__early_stopping": {"minimum_change": 0.5}},
    "events.average": {"events__average": 0.9},
    "guard.stop_after": {"guard": {"stop_after": 2}},
    "guard.spike": {"guard": {"spike": 3.0}},
    "guard.window": {"guard": {"window": 9}},
    "guard.rewind": {"guard": {"rewind": True}},
}  # fmt: skip
RECURRENT = {"model": {"family": "recurrent_text", "width": 16, "layers": 2}}
NEUTRAL: dict[str, dict[str, Any]] = {
    # leaf: what the recipe it is compared with already has
    "tokenizer.vocabulary": {"tokenizer": {"kind": "bpe", "vocabulary": 280}},
    "tokenizer.minimum_frequency": {"data__files": ["RARE"]},
    "model.experts": {"model__family": "moe"},
    "model.experts_per_token": {"model__family": "moe"},
    "model.cell": RECURRENT,
    "model.bidirectional": RECURRENT,
    "model.dropout": RECURRENT,
    "data:labelled.columns.text": {"data__files": ["WIDE"]},
    "data:labelled.columns.label": {"data__files": ["WIDE"]},
    "data:labelled.columns.other": {"data__files": ["WIDE"]},
    "data:labelled.columns.group": {"data__files": ["WIDE"], "data__split": {"kind": "grouped"}},
    "data:labelled.columns.time": {
        "data__files": ["WIDE"],
        "data__columns": {"time": "user"},
        "data__split": {"kind": "time"},
    },
    "data:labelled.columns.candidates": {"data__files": ["CHOICES"], "data__task": "choice"},
    "data:labelled.label_separator": {"data__files": ["JOINED"], "data__task": "multilabel"},
    "data:labelled.minimum_rows_per_label": {"data__files": ["RARE ROWS"]},
    "data:labelled.malformed_limit": {"data__files": ["BROKEN ROWS"]},
    "data:labelled.over_long": {"data__max_length": 24},
    "data:labelled.remove_duplicates": {"data__files": ["TWICE ROWS"]},
    "data:labelled.augment.mask": {"tokenizer": {"kind": "byte", "mask": True}},
    "data:labelled.split.leaks": {"data__validation_files": ["SOME ROWS"]},
    "head.normalise": {"data__files": ["PAIRS"], "data__task": "embed"},
    "objective:masked_token.share": {
        "model": {"family": "bert", "width": 16, "layers": 2, "heads": 2},
        "objective": {"kind": "masked_token"},
    },
    "objective:tag.label_smoothing": {"data__files": ["TAGS"], "data__task": "tag"},
    "objective:tag.focal_gamma": {"data__files": ["TAGS"], "data__task": "tag"},
    "objective:tag.class_weights": {"data__files": ["TAGS"], "data__task": "tag"},
    "objective:multilabel.positive_weights": {"data__files": ["SEVERAL"], "data__task": "multilabel"},
    "objective:regress.huber_delta": {"data__files": ["NUMBERS"], "data__task": "regress"},
    "objective:contrast.temperature": {"data__files": ["PAIRS"], "data__task": "embed"},
    "data:text.documents": {"data__files": ["PLAIN"]},
    "data:text.malformed_limit": {"data__files": ["BROKEN"]},
    "data:text.prepared": {"data__files": ["OTHER"]},
    "data:chat.train_on": {"data__files": ["TURNS"]},
    "data:chat.over_long": {"data__context": 32},
    "data:chat.malformed_limit": {"data__files": ["BROKEN"]},
    "data:chat.remove_duplicates": {"data__files": ["TWICE"]},
    "events.early_stopping.metric": {"events__early_stopping": {}},
    "events.early_stopping.patience": {"events__early_stopping": {}},
    "events.early_stopping.minimum_change": {"events__early_stopping": {}},
}
ADAPTERS: dict[str, list[dict[str, Any]]] = {
    # the adapters that those of a kind are compared with; the first one is changed
    "freeze": [{"kind": "freeze", "patterns": ["*norm.weight"]}],
    "grow": [{"kind": "grow", "words": ["house"]}, {"kind": "lora", "rank": 4}],
    "lora": [{"kind": "lora", "rank": 4}],
    "quantize": [{"kind": "quantize"}, {"kind": "lora", "rank": 4}],
    "prompt": [{"kind": "prompt", "tokens": 4}],
    "scale": [{"kind": "scale"}],
}
REFUSED_BEFORE = ("malformed_limit", "split.leaks")
KINDS = {"optim.momentum": "sgd", "optim.nesterov": "sgd", "optim.iterations": "muon", "optim.adamw_scale": "muon"}


BY_KIND = ("data", "adapters", "objective")
"""Sections whose kinds have fields of their own: `data:chat.template`."""


def alternatives(kind: Any) -> list[type[BaseModel]]:
    """The types of options that a field may hold, out of Annotated, unions and None."""
    if get_origin(kind) is Annotated:
        return alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [option for part in get_args(kind) for option in alternatives(part)]
    return [kind] if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def leaves(kind: Any, prefix: str = "") -> Iterator[str]:
    """The dotted path of every field below a type; alternatives share their paths, but for those of `BY_KIND`."""
    if (get_origin(kind), prefix) in ((dict, "optim"), (list, "adapters")):
        kind = get_args(kind)[-1]
    options = alternatives(kind)
    if not options:
        yield prefix
    options = [option for option in options if not of_rows(option, prefix)]
    for option in options:
        own = prefix
        if prefix in BY_KIND:
            own = f"{prefix}:{get_args(option.model_fields['kind'].annotation)[0]}"
        for name, field in option.model_fields.items():
            if not (name == "kind" and prefix in BY_KIND):
                yield from leaves(field.annotation, f"{own}.{name}" if own else name)


def of_rows(option: type[BaseModel], prefix: str) -> bool:
    """Whether a type is one of recipes of rows alone, whose leaves test_row_leaves flips."""
    if prefix not in ("data", "model", "objective"):
        return False
    field = option.model_fields["family" if prefix == "model" else "kind"]
    known = {"data": LANGUAGE, "model": FAMILIES, "objective": OBJECTIVES_OF_TEXTS}[prefix]
    return not set(get_args(field.annotation)) & set(known)


OBJECTIVES_OF_TEXTS = ("next_token", "masked_token", "classify", "multilabel", "tag", "regress", "contrast", "choice")
ALL = sorted(set(leaves(Recipe)))


def excepted(leaf: str) -> bool:
    return leaf in EXCEPTIONS or any(name.endswith(".") and leaf.startswith(name) for name in EXCEPTIONS)


def test_every_leaf_is_flipped_or_has_its_reason() -> None:
    missing = [leaf for leaf in ALL if leaf not in FLIPS and not excepted(leaf)]
    assert not missing, f"a new field needs a flip here: {missing}"
    assert not [leaf for leaf in FLIPS if leaf not in ALL], "a flip of a field that is gone"
    assert not [leaf for leaf in FLIPS if excepted(leaf)], "a leaf both flipped and excepted"
    assert all(reason for reason in EXCEPTIONS.values())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The inputs that flips speak of."""
    root = tmp_path_factory.mktemp("files")
    texts = text_file(root, 80)
    rows = [{"text": f"the cat sees number {n}", "title": f"a tree {n}"} for n in range(60)]
    turn = [{"role": "user", "content": "who"}, {"role": "assistant", "content": "me"}]
    answered = [*turn, {"role": "user", "content": "and then"}]
    turns = [{"messages": [*answered, {"role": "assistant", "content": f"number {n}"}]} for n in range(30)]
    pairs = [{"prompt": f"who is {n % 20}", "response": "the cat"} for n in range(40)]
    template = root / "template.jinja"
    template.write_text(
        "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>+{% if message['role'] == 'assistant' %}"
        "{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}{% else %}{{ message['content'] }}<|end|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>+{% endif %}"
    )
    plain = root / "plain.txt"
    plain.write_text("".join(f"the dog runs over {n}\n" for n in range(100)))
    made = {
        "FILE": texts,
        "TITLED": write_rows(root / "titled.jsonl", rows),
        "OTHER": text_file(root, 80, seed=3),
        "RARE": write_rows(root / "rare.jsonl", [*rows, {"text": "Älter und größer"}]),
        "PLAIN": plain,
        "BROKEN": write_rows(root / "broken.jsonl", [*rows, *[{"text": 5}] * 6]),
        "CHATS": chat_file(root, 40),
        "OTHER CHATS": chat_file(root, 40, seed=4),
        "BROKEN CHATS": write_rows(root / "broken-chats.jsonl", [*pairs, *[{"prompt": 5, "response": "x"}] * 6]),
        "TURNS": write_rows(root / "turns.jsonl", turns),
        "TWICE": write_rows(root / "twice.jsonl", pairs + pairs),
        "TEMPLATE": template,
        "BASE": root / "base",
    }
    made |= labelled_files(root)
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        run(text_recipe(texts, model={"width": 32, "layers": 2, "heads": 2}, budget__steps=1), root / "base")
    return {name: str(path) for name, path in made.items()}


def labelled_files(root: Path) -> dict[str, Path]:
    """The tables that flips of labelled data speak of. Each text is there once unless that is what matters."""
    rows = [{"text": f"{row['text']} {n}", "label": row["label"]} for n, row in enumerate(labelled_rows("classify"))]
    other = [{"text": f"again {row['text']}", "label": row["label"]} for row in rows]
    wide = [
        row | {"second": f"number {n}", "mood": "ab"[n % 2], "user": n % 30, "team": n % 20}
        for n, row in enumerate(rows)
    ]
    choices = [
        {"question": f"which {n}", "choices": ["a tree", "a cat"], "one": "red", "two": "blue", "answer": n % 2}
        for n in range(60)
    ]
    joined = [{"text": row["text"], "labels": f"{row['label']}/all"} for row in rows]
    rare = [row if n % 10 else {"text": row["text"], "label": "rare"} for n, row in enumerate(rows)]
    made = {
        "ROWS": rows, "SOME ROWS": rows[:9], "OTHER ROWS": other, "WIDE": wide, "CHOICES": choices,
        "JOINED": joined, "RARE ROWS": rare, "TWICE ROWS": [*rows, *rows],
        "BROKEN ROWS": [*rows, *[{"text": 5, "label": "animal"}] * 6],
        "TAGS": labelled_rows("tag"), "SEVERAL": labelled_rows("multilabel"), "NUMBERS": labelled_rows("regress"),
        "PAIRS": labelled_rows("embed"),
    }  # fmt: skip
    return {name: write_rows(root / f"{name.lower()}.jsonl", some) for name, some in made.items()}


def place(value: Any, files: dict[str, str], chat: bool) -> Any:
    """The names of files in a change, replaced by their paths."""
    if isinstance(value, dict):
        return {name: place(item, files, chat) for name, item in value.items()}
    if isinstance(value, list):
        return [place(item, files, chat) for item in value]
    if isinstance(value, str) and value.startswith("BASE"):
        return files["BASE"] + value.removeprefix("BASE")
    if chat and isinstance(value, str) and f"{value} CHATS" in files:
        return files[f"{value} CHATS"]
    return files.get(value, value) if isinstance(value, str) else value


def digest(tensors: dict[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def visible(recipe: Options, folder: Path) -> dict[str, Any]:
    """What can be seen of the run that a recipe builds."""
    checked = read_recipe(recipe)
    try:
        parts = parts_of(recipe, folder)
    except GroundupError as fault:
        return {"refused": fault.code}
    asked: dict[str, Any] = {}

    def noted_sampling(*arguments: Any, **keywords: Any) -> Any:
        asked.update(prompts=arguments[2], **keywords)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "answers_of", noted_sampling)
        patch.setattr(assembling, "compile_blocks", lambda blocks: asked.update(compiled=len(blocks)))
        return seen_in(assemble(parts, folder, listeners=(), stop=Stop()), parts, asked, checked)


def seen_in(
    made: tuple[Run, EventLog, Saver], parts: LanguageWork, asked: dict[str, Any], checked: Recipe
) -> dict[str, Any]:
    run, log, save = made
    state, optimizer = run.state, run.state.optimizers["model"]
    block = state.module.layers[0]
    unfreeze, steps, evaluate, sample, saves = run.events
    assert isinstance(unfreeze, Unfreeze) and isinstance(steps, LogSteps) and isinstance(evaluate, Evaluate)
    assert isinstance(sample, Sample) and isinstance(saves, Save)
    plan = plan_of(parts, 1.0, 0)
    seen: dict[str, Any] = {
        "folder": str(run_folder(checked, None)),
        "network": parts.options.model_dump(),
        "weights": digest(state.module.state_dict()),
        "tokenizer": parts.tokenizer.digest,
        "batches": [digest(parts.source().next("model"))] + [digest(state.source.next("model")) for _ in range(3)],
        "rows": parts.rows_per_epoch,
        "template": parts.template.digest if parts.template else None,
        "loop": [run.steps, run.accumulate, run.clip],
        "rates": [optimizer.learning_rate(step) for step in range(run.steps)],
        "groups": [
            [{name: value for name, value in group.items() if name != "params"} for group in part.param_groups]
            for part in optimizer.parts
        ],
        "precision": parts.precision,
        "threads": torch.get_num_threads(),
        "recompute": isinstance(block.forward, functools.partial),
        "intervals": [steps.every, evaluate.every, sample.every, saves.every],
        "kept": [save.events.keep, save.events.keep_every],
        "stopping": evaluate.stopping and evaluate.stopping.model_dump(),
        "average": state.average and state.average.decay,
        "guard": run.guard.options.model_dump(),
        "plan": {name: plan[name] for name in ("steps", "tokens", "disk_bytes", "epochs")} | {"c": plan.get("cost")},
    }
    sample.sample()
    log.close()
    return seen | {"evaluation": evaluate.evaluate(), "asked": asked, "learning": learning(run, parts)}


def learning(run: Run, parts: LanguageWork) -> dict[str, Any]:
    """What is trained, when, and with which gradients, in the first batch."""
    model, objective = run.state.module, run.state.objective
    unfreeze = run.events[0]
    assert isinstance(unfreeze, Unfreeze)
    torch.manual_seed(0)
    batch = parts.source().next("model")
    weight = float(objective.weight("model", batch))
    (objective.loss("model", batch).total / weight).backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return {"weight": weight, "gradients": digest(found), "trained": trained, "unfreezing": sorted(unfreeze.steps)}


@pytest.fixture(scope="module")
def plain(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is visible of a recipe, kept so that each base is built once."""
    known: dict[str, dict[str, Any]] = {}

    def look(recipe: Options) -> dict[str, Any]:
        key = repr(recipe)
        if key not in known:
            known[key] = visible(recipe, tmp_path_factory.mktemp("base") / "run")
        return known[key]

    return look


def base_of(leaf: str, files: dict[str, str]) -> Options:
    """The recipe that a leaf is flipped in."""
    if leaf == "objective:masked_token.share":
        return changed(text_recipe(Path(files["FILE"])), events__sample_every=None)
    if leaf.startswith(("data:labelled", "head.", "objective:", "model.cell", "model.bidirectional", "model.dropout")):
        return labelled_recipe(Path(files["ROWS"]), "classify", tokenizer={"kind": "byte"})
    if leaf.startswith("adapters:prompt"):  # which stands in front of whole texts alone
        return labelled_recipe(Path(files["ROWS"]), "classify", tokenizer=None, model={"init_from": files["BASE"]})
    chat = leaf.startswith("data:chat")
    base = chat_recipe(Path(files["CHATS"])) if chat else text_recipe(Path(files["FILE"]))
    if leaf.startswith("adapters:"):
        base = changed(base, model={"init_from": files["BASE"]}, tokenizer=None)
    return changed(base, events__sample_every=6, events__sample_tokens=6)


@pytest.mark.parametrize("leaf", FLIPS)
def test_each_leaf_changes_the_run(leaf: str, files: dict[str, str], plain: Any, tmp_path: Path) -> None:
    chat = leaf.startswith("data:chat")
    base = base_of(leaf, files)
    flip = FLIPS[leaf]
    if leaf == "data:text.text_field":
        base = changed(base, data__files=[files["TITLED"]])
    if leaf in KINDS:
        base = changed(base, optim={"model": {"kind": KINDS[leaf], "learning_rate": 0.01}})
    if leaf.startswith("adapters:"):
        first, *rest = ADAPTERS[leaf.removeprefix("adapters:").partition(".")[0]]
        base, flip = changed(base, adapters=[first, *rest]), {"adapters": [first | flip, *rest]}
    base = changed(base, **place(NEUTRAL.get(leaf, {}), files, chat))
    threads = torch.get_num_threads()
    try:
        before = plain(base)
        after = visible(changed(base, **place(flip, files, chat)), tmp_path / "run")
    finally:
        torch.set_num_threads(threads)
    assert before != after, f"{leaf} does nothing that can be seen"
    if leaf not in ("data:chat.format", "data:text.malformed_limit", "data:chat.malformed_limit"):
        assert "refused" not in after, after
    if leaf.startswith(("data:labelled", "head", "objective", "adapters")) and not leaf.endswith(REFUSED_BEFORE):
        assert "refused" not in before, before
