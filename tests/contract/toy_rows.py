"""Tiny tables, images, translations and environments, made here, and recipes of each kind of work that learn them."""

from __future__ import annotations

import csv
import gc
import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.contract.toy_run import Captured, Options, changed
from torch import Tensor

from groundup.cli.main import main
from groundup.contract import Batch
from groundup.engine.guard import Guard
from groundup.engine.loop import Run, update
from groundup.engine.options import GuardOptions
from groundup.engine.state import State
from groundup.engine.stop import Stop
from groundup.recipe.resolve import resolve_steps
from groundup.recipe.yaml import dump
from groundup.run.entry import read_recipe
from groundup.run.gather import gather
from groundup.run.generation import GenerationWork
from groundup.run.prediction import PredictionWork
from groundup.run.translation import TranslationWork
from groundup.run.work import Work

COLOURS = ("amber", "green", "red")
SIDE = 8
FAST = {"kind": "adamw", "learning_rate": 0.02}
EVENTS = {"log_every": 1, "save_every": 2, "evaluate_every": 3}
PLAYERS = {"gan": ("critic", "generator"), "soft_actor_critic": ("critic", "actor", "temperature")}


def table_rows(rows: int = 90, seed: int = 0) -> list[dict[str, Any]]:
    """Rows whose label, labels and number all follow from two of their numbers."""
    chance = random.Random(seed)
    made = []
    for number in range(rows):
        kind = number % 3
        size, weight = kind + chance.gauss(0.0, 0.2), chance.gauss(0.0, 1.0)
        made.append({
            "size": round(size, 4), "weight": round(weight, 4), "colour": chance.choice(COLOURS), "batch": number % 20,
            "label": "abc"[kind], "labels": "a/b" if kind == 1 else "ab"[kind // 2],
            "score": round(3 * size - weight, 4),
        })  # fmt: skip
    return made


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


TARGETS = {"classify": "label", "multilabel": "labels", "regress": "score"}


def table_file(folder: Path, task: str = "classify", rows: int = 90, seed: int = 0, **also: Any) -> Path:
    """The table of a task: its target and the features, and columns of one value if any are named."""
    names = ("size", "weight", "colour", TARGETS[task])
    made = [{name: row[name] for name in names} | also for row in table_rows(rows, seed)]
    return write_csv(folder / f"{task}-{seed}.csv", made)


def pixels(rows: int, seed: int, channels: int = 1) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images uint8 (N, 8, 8[, 3]) that are bright in one of three places, and which one."""
    chance = np.random.default_rng(seed)
    label_N = np.arange(rows) % 3
    shape = (rows, SIDE, SIDE) if channels == 1 else (rows, SIDE, SIDE, channels)
    image = chance.integers(0, 60, shape)
    for number, label in enumerate(label_N):
        image[number, 2 * label : 2 * label + 3, 1:7] += 150
    return image.astype(np.uint8), label_N


def image_file(folder: Path, rows: int = 60, seed: int = 0, channels: int = 1) -> Path:
    """An .npz file of labelled images."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"images-{seed}-{channels}.npz"
    images, labels = pixels(rows, seed, channels)
    np.savez(path, images=images, labels=labels)
    return path


def image_folder(folder: Path, rows: int = 30, seed: int = 1, side: int = SIDE) -> Path:
    """A folder with a sub-folder of PNG files for each class."""
    images, labels = pixels(rows, seed)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / "abc"[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((side, side)).save(place / f"{number:03d}.png")
    return folder


WORDS = {"cat": "chat", "dog": "chien", "red": "rouge", "blue": "bleu", "sees": "voit", "big": "grand", "tree": "arbre"}


def pair_rows(rows: int = 60, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences and their translations, word for word; their lengths differ."""
    chance = random.Random(seed)
    made = []
    for number in range(rows):
        words = chance.choices(list(WORDS), k=1 + number % 4)
        made.append((" ".join(words), " ".join(WORDS[word] for word in words)))
    return made


def pair_file(folder: Path, rows: int = 60, seed: int = 0) -> Path:
    """Pairs as tab-separated lines without names."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"pairs-{seed}.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pair_rows(rows, seed)), encoding="utf-8")
    return path


def recipe_of(model: Options, data: Options, steps: int = 6, **changes: Any) -> Options:
    """A recipe of rows; `changes` are laid over it as in toy_run."""
    players = PLAYERS.get(model.get("family", ""), ("model",))
    recipe: Options = {
        "model": model,
        "data": data,
        "optim": {name: dict(FAST) for name in players},
        "budget": {"steps": steps, "rows_per_step": 16, "micro_batch": 8},
        "events": dict(EVENTS),
        "hardware": {"precision": "float32", "compile": "off"},
    }
    return changed(recipe, **changes)


SPLIT = {"test": 0.2, "validation": 0.2}


def table_recipe(file: Path, task: str = "classify", **changes: Any) -> Options:
    """Learn a table."""
    data = {"kind": "table", "files": [str(file)], "task": task, "split": dict(SPLIT)}
    if task == "multilabel":
        data["label_separator"] = "/"
    return recipe_of({"family": "mlp", "hidden": [12], "norm": "batch", "dropout": 0.1}, data, **changes)


def image_recipe(file: Path, family: str = "convnet", **changes: Any) -> Options:
    """Learn to name images, or to make them."""
    data: Options = {"kind": "images", "files": [str(file)], "split": dict(SPLIT)}
    models: dict[str, Options] = {
        "convnet": {"channels": [4, 4], "kernel": 3, "hidden": [8]},
        "autoencoder": {"kind": "dense", "widths": [16], "latent": 4},
        "vae": {"hidden": [16], "latent": 16},
        "gan": {"kind": "dense", "widths": [16, 32], "latent": 16},
    }
    if family in models and family != "convnet":
        data |= {"task": "none", "normalise": "unit"}
    return recipe_of({"family": family, **models.get(family, {})}, data, **changes)


def pair_recipe(file: Path, **changes: Any) -> Options:
    """Learn to translate."""
    sizes = {"context": 40, "width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "hidden": 32}
    data = {"kind": "pairs", "files": [str(file)], "columns": {"source": 1, "target": 2}}
    recipe = recipe_of({"family": "transformer", **sizes}, data, tokenizer={"kind": "char"})
    return changed(recipe, **changes)


FAMILY_OF = {"dqn": "q_network", "sac": "soft_actor_critic"}
SMALL_REPLAY = {"kind": "replay", "capacity": 200, "warm_up_steps": 40, "n_steps": 2, "priorities": {"beta_steps": 100}}
SMALL_ROLLOUT = {"kind": "rollout", "horizon": 16, "epochs": 2, "minibatches": 2, "normalise_observations": True}


def acting_recipe(method: str, **changes: Any) -> Options:
    """Learn to act: dqn counts, sac swings a pendulum, the others balance a pole."""
    family = FAMILY_OF.get(method, "actor_critic")
    name = {"dqn": "groundup/Counters-v0", "sac": "Pendulum-v1"}.get(method, "CartPole-v1")
    environment: Options = {"id": name, "count": 2, "time_limit": 30}
    objective: Options = {"kind": method} | ({"target_every": 2} if method == "dqn" else {})
    data = {"kind": "environment", "environment": environment, "episodes": 2, "final_episodes": 2}
    recipe = recipe_of({"family": family, "hidden": [12]}, data, objective=objective)
    if family == "actor_critic":
        recipe["data"]["collect"] = dict(SMALL_ROLLOUT)
        if method != "ppo":
            recipe["data"]["collect"] |= {"epochs": 1}
        recipe["budget"] = {"steps": 6}
    else:
        recipe["data"]["collect"] = dict(SMALL_REPLAY)
    return changed(recipe, **changes)


def work_of(recipe: Options, folder: Path) -> Work:
    """Everything but the loop, with its steps settled and nothing timed."""
    work = gather(read_recipe(recipe), folder, say=lambda line: None)
    work.recipe = resolve_steps(work.recipe, rows_per_epoch=work.rows_per_epoch, seconds_per_step=0.01)
    return work


def row_recipes(root: Path) -> dict[str, Options]:
    """A recipe of each kind of work on files, by name."""
    file = image_file(root)
    found = {task: table_recipe(table_file(root, task), task) for task in TARGETS}
    embedded = {"categories": "embed", "unseen": "zeros"}
    found["embedded"] = table_recipe(table_file(root), data__preprocessing=embedded, data__noise=0.1, data__swap=0.2)
    mixed = {"operations": [{"kind": "crop", "padding": 1}, {"kind": "flip_horizontal"}, {"kind": "mixup"}]}
    found["images"] = image_recipe(file, data__augment=mixed)
    found["image values"] = image_recipe(file, data__task="regress")
    found |= {family: image_recipe(file, family) for family in ("autoencoder", "vae", "gan")}
    found["gan"] |= {"objective": {"kind": "adversarial", "critic_steps": 2}}
    noise = {"drop": 0.2, "move": 2, "mask": 0.1, "replace": 0.1}
    return found | {"pairs": pair_recipe(pair_file(root), data__augment=noise)}


METHODS = ("dqn", "ppo", "a2c", "reinforce", "sac")


def quick_rows(patch: pytest.MonkeyPatch) -> None:
    """Leave out more that takes time and changes neither weights nor events: collecting garbage between the rehearsal
    and the run, and the sections of the report."""
    patch.setattr(gc, "collect", lambda *arguments: 0)
    for work in (PredictionWork, GenerationWork, TranslationWork):
        patch.setattr(work, "results", lambda self, model: {})


class Slices:
    """One batch of a stream, handed out in equal parts."""

    def __init__(self, batch: Batch, parts: int) -> None:
        rows = len(next(iter(batch.values()))) // parts
        self.parts = [
            {name: tensor[part * rows : (part + 1) * rows] for name, tensor in batch.items()} for part in range(parts)
        ]

    def next(self, turn: str) -> Batch:
        return self.parts.pop(0)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def gradients(work: Work, folder: Path, turn: str, parts: int, *, training: bool = False) -> dict[str, Tensor]:
    """What the loop hands to a player's optimizer for the first batch of the stream, in so many micro-batches."""
    model = work.network().train(training)
    objective, source = work.learning(model)
    player = Captured(work.player(model, turn))
    batch = source.next(objective.turns[0])
    torch.manual_seed(0)
    state = State(model, {turn: player}, Slices(batch, parts), objective)
    guard = Guard(GuardOptions(), report=lambda *arguments: None, folder=folder)
    update(Run(state, 1, parts, {turn: None}, [], guard, Stop(), work.device, nullcontext), turn)
    return player.gradients


def refused(recipe: Options, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """`groundup train` of a recipe that is refused: the exit code and what was shown. Nothing of a run is written."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "wrong.yaml"
    path.write_text(dump(recipe), encoding="utf-8")
    code = main(["train", str(path), "--out", str(folder / "run")])
    shown = capsys.readouterr().err
    assert "Traceback" not in shown, shown
    for part in ("E-", "where", "why", "fix"):
        assert part in shown, shown
    left = {found.name for found in (folder / "run").glob("*")} if (folder / "run").exists() else set()
    assert not left & {"recipe.yaml", "recipe.source.yaml", "events.jsonl", "model", "checkpoints"}, left
    return code, shown
