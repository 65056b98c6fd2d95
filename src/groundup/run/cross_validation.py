"""Cross-validation from a recipe: a run for each fold, and what they measured together.

The division is part of each run's recipe (data.split.folds), so every fold is an ordinary run: its preprocessing and
tokenizer are fitted on its own training rows, its folder says what was trained on, and it can be resumed. What one
fold measures is in folds.py, how it is shown in the report room and the command line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.labelled_options import Fold
from groundup.errors import GroundupError, printable
from groundup.evaluation.cross_validation import CrossValidated, best_setting, summarise
from groundup.evaluation.label_noise import LabelNoise, find_label_noise
from groundup.recipe import difference, format_difference, load
from groundup.recipe.check_rows import GENERATIVE
from groundup.recipe.load import read
from groundup.recipe.tree import ImageData, LabelledData, Recipe, TableData
from groundup.recipe.yaml import parse_any
from groundup.report.cross_validation import render_cross_validation
from groundup.report.write import write_report
from groundup.run.answers import METRICS_OF
from groundup.run.assemble import RECIPE_FILE, SOURCE_FILE
from groundup.run.entry import read_recipe
from groundup.run.folds import ANSWERS_FILE, FOLD_FILE, FoldMeasure, measure_fold, rises
from groundup.run.train import Result, train_recipe, write_json, write_whole
from groundup.run.work import Say

INNER_FOLDS = 3
"""Folds inside each fold, that a setting is chosen on."""

FOUND_FILE, SUSPECTS_FILE, PAGE_FILE = "cross_validation.json", "suspects.csv", "report.html"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be done with a recipe.

    Attributes:
        folds: parts that the rows are divided into.
        repeats: divisions, each drawn anew.
        sizes: shares of the training rows below 1 to train on as well.
        settings: lists of overrides of which each fold chooses one; none trains the recipe as it is.
        find_label_noise: look for rows whose label is probably wrong.
    """

    folds: int = 5
    repeats: int = 1
    sizes: tuple[float, ...] = ()
    settings: tuple[tuple[str, ...], ...] = ()
    find_label_noise: bool = False


class Stopped(Exception):
    """A run was interrupted and can be resumed."""

    def __init__(self, result: Result) -> None:
        super().__init__(str(result.folder))
        self.result = result


@dataclass(frozen=True, kw_only=True)
class Study:
    """The folds of one recipe, in one folder.

    Attributes:
        recipes: of each setting, by its name; a single one without settings.
        asked: what is to be done.
        folder: where every run goes.
        command: the command line, for the reports.
        say: receives a line for each run.
    """

    recipes: dict[str, Recipe]
    asked: Asked
    folder: Path
    command: Sequence[str]
    say: Say

    @property
    def recipe(self) -> Recipe:
        """One of the recipes: all have the same data."""
        return next(iter(self.recipes.values()))

    def outer(self) -> list[tuple[str, Fold, int]]:
        """The name, the fold and the repetition of each fold of each division."""
        def name(number: int, repeat: int) -> str:
            return f"fold-{number + 1}" + (f"-repeat-{repeat + 1}" if repeat else "")

        asked = self.asked
        return [(name(i, repeat), Fold(of=asked.folds, number=i), repeat)
                for repeat in range(asked.repeats) for i in range(asked.folds)]  # fmt: skip

    def measured(self, name: str, recipe: Recipe) -> FoldMeasure:
        """What a run of this study measured; it is trained, or gone on with, unless it is done."""
        folder = self.folder / name
        require_same_recipe(name, folder, [recipe])
        if not (folder / FOLD_FILE).exists():
            self.say(f"{name}: training")
            try:
                again, finished = (folder / RECIPE_FILE).exists(), partial(measure_fold, folder=folder)
                result = train_recipe(recipe, folder, resume=again, command=self.command, finished=finished)
            finally:
                if (folder / "events.jsonl").exists():
                    write_report(folder)
            if result.exit_code:
                raise Stopped(result)
        found = FoldMeasure.read(folder)
        rows, main = found.rows, main_metric(found.task)
        self.say(f"{name}: {main} {found.metrics[main]:.4f}  ({rows['train']} rows trained on, {rows['test']} tested)")
        return found

    def choose(self, name: str, fold: Fold, repeat: int) -> tuple[str, dict[str, float]]:
        """The setting that does best on folds of the rows that this fold trains on, and the mean of each."""
        means: dict[str, float] = {}
        metrics: set[str] = set()
        metric = ""
        for place, (setting, recipe) in enumerate(self.recipes.items(), start=1):
            inner = [Fold(of=INNER_FOLDS, number=number) for number in range(INNER_FOLDS)]
            names = [f"{name}-setting-{place}-inner-{one.number + 1}" for one in inner]
            found = [self.measured(n, in_fold(recipe, [fold, one], repeat)) for n, one in zip(names, inner)]
            metric = main_metric(found[0].task)
            means[setting] = float(np.mean([one.metrics[metric] for one in found]))
            metrics |= set(found[0].metrics)
        return best_setting(means, metric, rises(metric), name, sorted(metrics)), means


def cross_validate(
    recipe: str | Path | dict[str, Any],
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    asked: Asked | None = None,
    command: Sequence[str] = (),
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Train and measure a recipe on every fold. Given again, it goes on where it was stopped.

    Args:
        recipe, overrides: as for `train`.
        out: the folder; `runs/` and the recipe's name with `-folds` by default.
        asked: what is to be done.
        command: the command line, for the reports.
        say: receives a line for each run.

    Returns:
        What cross_validation.json holds; see docs/cross-validate.md. Of a study that was stopped {outcome, folder,
        exit_code}.

    Raises:
        GroundupError: E-RUN-070 data that has no folds; -071 a folder of something else; -072 settings that cannot be
            compared; -073 no label noise to find; -074 a division by time repeated; E-DATA-104 too few rows; and what
            training raises.
    """
    asked = asked or Asked()
    recipes = {
        ", ".join(setting) or "as it is": read_recipe(recipe, [*overrides, *setting])
        for setting in asked.settings or ((),)
    }
    first = next(iter(recipes.values()))
    folder = Path(out).expanduser() if out is not None else Path("runs") / f"{first.name}-folds"
    study = Study(recipes=recipes, asked=asked, folder=folder, command=command, say=say)
    require_folds(study)
    require_same_study(study)
    try:
        found = run(study)
    except Stopped as stopped:
        return {"outcome": "stopped", "folder": str(folder), "exit_code": stopped.result.exit_code}
    write_json(folder / FOUND_FILE, found)
    write_whole(folder / PAGE_FILE, render_cross_validation(found))
    return found


def run(study: Study) -> dict[str, Any]:
    """Every fold in its order, then what they say together."""
    asked, recipe = study.asked, study.recipe
    chosen: dict[str, str] = {}
    inner: dict[str, dict[str, float]] = {}
    measured: dict[str, FoldMeasure] = {}
    smaller: dict[float, list[FoldMeasure]] = {}
    for name, fold, repeat in study.outer():
        if asked.settings:
            chosen[name], inner[name] = study.choose(name, fold, repeat)
            study.say(f"{name}: chosen {chosen[name]}")
        best = study.recipes[chosen[name]] if asked.settings else recipe
        measured[name] = study.measured(name, in_fold(best, [fold], repeat))
        for share in sorted(asked.sizes):
            part = in_fold(best, [fold.model_copy(update={"share": share})], repeat)
            smaller.setdefault(share, []).append(study.measured(f"{name}-size-{share:g}", part))
    found = summary(list(measured.values()))
    found = {"outcome": "finished", "name": recipe.name, "folder": str(study.folder), **found}
    found |= {"folds": asked.folds, "repeats": asked.repeats, "runs": list(measured), "split": _split_kind(recipe)}
    if asked.settings:
        found["nested"] = {"inner_folds": INNER_FOLDS, "chosen": list(chosen.values()), "means": list(inner.values())}
    if smaller:
        whole = list(measured.values())
        found["learning_curve"] = [
            {"share": share, **summary(some, baselines=False)} for share, some in [*smaller.items(), (1.0, whole)]
        ]
    if asked.find_label_noise:
        found["label_noise"] = write_suspects(study, list(measured))
    return found


def summary(folds: Sequence[FoldMeasure], *, baselines: bool = True) -> dict[str, Any]:
    """Means with corrected intervals of what folds measured, and of how far they are from each baseline."""
    found = _together([one.metrics for one in folds], folds)
    shown: dict[str, Any] = {
        "task": folds[0].task,
        "main": main_metric(folds[0].task),
        "rows": {side: [one.rows[side] for one in folds] for side in folds[0].rows},
        "higher_is_better": {name: rises(name) for name in folds[0].metrics},
        **found.as_dict(),
    }
    if baselines:
        shown["baselines"] = {}
        for name in folds[0].baselines:
            theirs = [one.baselines[name] for one in folds]
            gains = [{m: one.metrics[m] - other[m] for m in other} for one, other in zip(folds, theirs, strict=True)]
            gain = _together(gains, folds)
            verdicts = {m: _verdict(change.low, change.high, rises(m)) for m, change in gain.metrics.items()}
            shown["baselines"][name] = _together(theirs, folds).as_dict() | {
                "difference": gain.as_dict()["metrics"], "verdict": verdicts
            }  # fmt: skip
    return shown


def _together(scores: Sequence[dict[str, float]], folds: Sequence[FoldMeasure]) -> CrossValidated:
    return summarise(scores, [(one.rows["train"], one.rows["test"]) for one in folds])


def _verdict(low: float, high: float, higher_is_better: bool) -> str:
    """What the interval of a difference says; NaN says nothing."""
    if low > 0 or high < 0:
        return "better" if (low > 0) == higher_is_better else "worse"
    return "within noise"


def main_metric(task: str) -> str:
    """The metric that a setting is chosen by and a line of progress shows."""
    return "rmse" if task == "regress" else METRICS_OF[task][-1]


def in_fold(recipe: Recipe, chain: list[Fold], repeat: int) -> Recipe:
    """The recipe of one fold: its test set is the fold. Test files of the recipe take no part."""
    data = recipe.data
    assert isinstance(data, LabelledData | TableData | ImageData)
    split = data.split.model_copy(update={"folds": chain, "seed": (data.split.seed + repeat) % (1 << 63)})
    return recipe.model_copy(update={"data": data.model_copy(update={"split": split, "test_files": []})})


def _split_kind(recipe: Recipe) -> str:
    assert isinstance(recipe.data, LabelledData | TableData | ImageData)
    return recipe.data.split_kind


def require_folds(study: Study) -> None:
    """The data can be divided as asked. Raises E-RUN-070, 072, 073 or 074."""
    recipe, data, asked = study.recipe, study.recipe.data, study.asked
    rows = isinstance(data, LabelledData | TableData | ImageData)
    if not rows or (isinstance(data, ImageData) and (data.task == "none" or recipe.model.family in GENERATIVE)):
        raise _refused(
            "E-RUN-070", f"a recipe of {data.kind} data with a {recipe.model.family} cannot be cross-validated",
            f"recipe {printable(recipe.name)}", "a fold tests on rows with answers: labelled texts, tables or images",
            "hold out a part instead: groundup train RECIPE",
        )  # fmt: skip
    assert isinstance(data, LabelledData | TableData | ImageData)
    if data.split.folds:
        raise _refused(
            "E-RUN-070", "the recipe is that of one fold already", "data.split.folds",
            "the folds are drawn here, and a fold of a fold would be measured as if it were all",
            "remove data.split.folds, or give the recipe that the folds were made from",
        )  # fmt: skip
    for name, other in study.recipes.items():
        if (changes := difference(recipe, other)) and (moved := [c for c in changes if _divides(c.path)]):
            raise _refused(
                "E-RUN-072", f"the setting {printable(name)} changes what is compared", format_difference(moved),
                "settings are chosen among by the same rows with the same answers",
                "take these fields out of the settings, or override them for all of them on the command line",
            )  # fmt: skip
    if asked.find_label_noise and data.task != "classify":
        raise _refused(
            "E-RUN-073", f"label noise is found for one label a row, and the task is {data.task}", "--find-label-noise",
            "the estimate counts which label is given for which", "leave --find-label-noise out",
        )  # fmt: skip
    if asked.repeats > 1 and data.split_kind == "time":
        raise _refused(
            "E-RUN-074", "a division by time is the same each time it is drawn", f"--repeats {asked.repeats}",
            "nothing is drawn: the folds go forward in time", "leave --repeats out, or give more --folds",
        )  # fmt: skip


def _divides(path: tuple[Any, ...]) -> bool:
    """Whether a field decides which rows there are and what is right of them."""
    free = ("preprocessing", "augment", "balanced", "noise", "swap", "max_length", "over_long", "context", "normalise")
    return path[0] == "data" and path[1] not in (*free, "size", "resize", "channels")


def require_same_study(study: Study) -> None:
    """What lies in the folder already belongs to this study. Raises E-RUN-071."""
    if (study.folder / RECIPE_FILE).exists():
        raise _refused(
            "E-RUN-071", "the folder holds a run, and not the folds of a recipe", printable(str(study.folder)),
            "the folds are runs of their own, and go into a folder that has none", "choose another one with --out DIR",
        )  # fmt: skip
    for name, fold, repeat in study.outer():
        wanted = [in_fold(recipe, [fold], repeat) for recipe in study.recipes.values()]
        require_same_recipe(name, study.folder / name, wanted)


def require_same_recipe(name: str, folder: Path, wanted: Sequence[Recipe]) -> None:
    """What the folder of a fold holds, if anything, was trained by one of the recipes. Raises E-RUN-071."""
    source = folder / SOURCE_FILE
    if not source.exists():
        return
    began = load(source, [], Recipe)
    if all(difference(began, one) for one in wanted):
        raise _refused(
            "E-RUN-071", f"{name} in this folder was trained by another recipe, or on another division",
            f"{printable(str(source))}\n{format_difference(difference(began, wanted[0]))}",
            "folds of several recipes would be averaged as if they were of one",
            "choose another folder with --out DIR, or put the recipe back",
        )  # fmt: skip


def _refused(code: str, what: str, where: str, why: str, fix: str) -> GroundupError:
    return GroundupError(code, what, where=where, why=why, fix=fix, exit_code=2)


def read_settings(path: str | Path) -> tuple[tuple[str, ...], ...]:
    """The lists of overrides of a YAML file, such as `- ["model.hidden=[32]"]`; an empty one is the recipe as it is.

    Raises:
        GroundupError: E-RUN-072 it is something else, or has fewer than two that differ; what reading YAML raises.
    """
    path = Path(path).expanduser()
    found = parse_any(read(path), str(path))
    lists = found if isinstance(found, list) else []
    right = all(isinstance(one, list) and all(isinstance(word, str) for word in one) for one in lists)
    if not right or len({tuple(one) for one in lists}) < max(2, len(lists)):
        raise _refused(
            "E-RUN-072", "the settings are no list of different lists of overrides", printable(str(path)),
            "each fold chooses among two or more settings, each of them overrides of the recipe",
            'write one setting a line, such as:\n- []\n- ["model.hidden=[32]", "optim.model.learning_rate=0.01"]',
        )  # fmt: skip
    return tuple(tuple(one) for one in lists)


def write_suspects(study: Study, names: Sequence[str]) -> dict[str, Any]:
    """Find rows whose label is probably wrong by what models said of them that did not train on them, the mean over
    repetitions; writes suspects.csv."""
    said: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for name in names:
        with (study.folder / name / ANSWERS_FILE).open(encoding="utf-8") as file:
            for line in map(json.loads, file):
                said.setdefault((line["file"], line["line"]), []).append(line)
    rows = [said[place] for place in sorted(said)]
    labels = list(dict.fromkeys(label for row in rows for one in row for label in one["probability"]))
    probability = np.array(
        [np.mean([[one["probability"].get(label, 0.0) for label in labels] for one in row], axis=0) for row in rows]
    )
    probability /= probability.sum(axis=1, keepdims=True)
    given = np.array([labels.index(row[0]["labels"][0]) for row in rows])
    found = find_label_noise(probability, given, labels)
    write_whole(study.folder / SUSPECTS_FILE, _as_csv(found, [row[0]["place"] for row in rows]))
    return {
        "rows": len(rows),
        "share": found.share,
        "suspects": len(found.suspects),
        "file": SUSPECTS_FILE,
        "first": [
            {"place": rows[one.row][0]["place"], "given": labels[one.given], "suggested": labels[one.suggested],
             "score": one.score} for one in found.suspects[:20]
        ],
    }  # fmt: skip


def _as_csv(found: LabelNoise, places: Sequence[str]) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["row", "place", "given", "suggested", "score"])
    for one in found.suspects:
        names = found.labels[one.given], found.labels[one.suggested]
        lines.writerow([one.row + 1, places[one.row], *names, f"{one.score:.6f}"])
    return text.getvalue()
