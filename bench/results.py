"""What the recipes reach on real data: `make results`, or `python bench/results.py NAME …`; `--list` names the cases.

Each case trains a recipe with three seeds, each in a process of its own, and writes the mean, its 95 % interval over
the seeds, the bar and a simple baseline to bench/results/NAME.json. docs/results.md is a table of these files, so that
cases can be run one at a time. The data sets are those of the tests (see tests/shared.py); a case whose data or
package is absent says so and is skipped.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.shared import ROOT as DATA

from groundup.evaluation.cross_validation import student

HERE = Path(__file__).resolve().parent
RECIPES, RESULTS, PAGE = HERE.parent / "recipes", HERE / "results", HERE.parent / "docs" / "results.md"
MNIST, TATOEBA = "vision/mnist", "translate/tatoeba_en_zh.tsv"
ON_MNIST = (f"data.files=['{DATA / MNIST}']",)
CONFIDENCE, AT_THE_END = 0.95, 2_000_003
"""`AT_THE_END` is what run/acting.py adds to the seed for its closing episodes: baselines play the same ones."""

Found = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recipe, what is measured of it, and the bar.

    Attributes:
        row: of the table of systems.
        recipe, overrides: what is trained.
        metric: how the figure is called.
        measure: the figure, from the folder of a run.
        bar: to be reached; None where the figure is reported only.
        higher: whether more is better.
        every: the bar holds for each seed, not only for the mean.
        minutes: of all seeds together on two quiet cores, roughly.
        needs, package: a shared data file, and a package, without which the case is skipped.
        own_split: each seed also divides the rows anew, since the test part is small.
        baseline: {name: figure} from the recipe and the folder of a run.
        more: further figures of a run, reported beside it.
    """

    row: str
    recipe: str
    overrides: tuple[str, ...] = ()
    metric: str = "test accuracy"
    measure: Callable[[Path], float] = field(default=lambda run: evaluated(run, "accuracy"))
    bar: float | None = None
    higher: bool = True
    every: bool = False
    minutes: float
    seeds: tuple[int, ...] = (1, 2, 3)
    needs: str | None = None
    package: str = "numpy"
    own_split: bool = False
    baseline: Callable[[list[str], Path], dict[str, float]] | None = None
    more: Callable[[Path], dict[str, float]] | None = None


def evaluated(run: Path, metric: str, column: str = "after") -> float:
    """A figure of the closing table."""
    lines = json.loads((run / "report.json").read_text(encoding="utf-8"))["evaluations"]
    return float(next(line[column] for line in lines if line["metric"] == metric))


def said(run: Path, *path: str) -> Any:
    """An entry of results.json."""
    entry = json.loads((run / "results.json").read_text(encoding="utf-8"))
    for name in path:
        entry = entry[name]
    return entry


def train(recipe: str, overrides: list[str], seed: int, out: Path) -> float:
    """Train in a process of its own; the seconds that it took, start and evaluations included."""
    words = [str(RECIPES / f"{recipe}.yaml"), *overrides, f"seed={seed}", "--out", str(out)]
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "groundup", "train", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"groundup train {' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return time.perf_counter() - began


def summary(values: list[float]) -> Found:
    """Mean and interval by Student's distribution; a single value has no interval."""
    mean, low, high = statistics.fmean(values), None, None
    if len(values) > 1:
        reach = student(CONFIDENCE, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
        low, high = mean - reach, mean + reach
    return {"values": values, "mean": mean, "low": low, "high": high}


def met(values: list[float], bar: float | None, *, higher: bool, every: bool) -> bool | None:
    """Whether the bar is reached by the mean, or by every value."""
    if bar is None:
        return None
    judged = values if every else [statistics.fmean(values)]
    return all(value >= bar if higher else value <= bar for value in judged)


def measured(case: Case, folder: Path) -> Found:
    """Train with every seed."""
    values, seconds, more, baselines = [], [], {}, {}
    for seed in case.seeds:
        run = folder / str(seed)
        overrides = [*case.overrides, *([f"data.split.seed={seed}"] if case.own_split else [])]
        seconds.append(train(case.recipe, overrides, seed, run))
        values.append(case.measure(run))
        print(f"  seed {seed}: {values[-1]:.4f} after {seconds[-1]:.0f} s", flush=True)
        for name, value in (case.more(run) if case.more else {}).items():
            more.setdefault(name, []).append(value)
        if case.baseline is not None and (case.own_split or not baselines):
            for name, value in case.baseline([*overrides, f"seed={seed}"], run).items():
                baselines.setdefault(name, []).append(value)
    return {
        "row": case.row,
        "recipe": case.recipe,
        "metric": case.metric,
        **summary(values),
        "bar": case.bar,
        "higher_is_better": case.higher,
        "bar_holds_for": "every seed" if case.every else "the mean",
        "met": met(values, case.bar, higher=case.higher, every=case.every),
        "seconds": seconds,
        "baselines": {name: statistics.fmean(many) for name, many in baselines.items()},
        "more": more,
    }


# baselines, on the rows that the run was measured on


def parts_of(recipe: str, overrides: list[str]) -> tuple[Any, Any, Any, Any]:
    """Features and answers of the training part and of the test part, as the run had them."""
    from groundup.data.image_options import ImageOptions
    from groundup.data.image_set import read_images
    from groundup.data.table_options import TableOptions
    from groundup.data.table_set import read_table
    from groundup.recipe.tree import ImageData
    from groundup.run.entry import read_recipe
    from groundup.run.prediction import room_options

    data = read_recipe(RECIPES / f"{recipe}.yaml", overrides).data
    if isinstance(data, ImageData):
        images = read_images(room_options(data, ImageOptions), [])
        sides = [images.part(side) for side in ("train", "test")]
        arrays = [
            (part.images[part.index] / 255.0, None if part.answers is None else part.answers[part.index])
            for part in sides
        ]
    else:
        table = read_table(room_options(data, TableOptions), [])
        arrays = [(table.parts[side].features_NF, table.parts[side].target) for side in ("train", "test")]
    return *arrays[0], *arrays[1]


def guessed(recipe: str, method: str) -> Callable[[list[str], Path], dict[str, float]]:
    """The accuracy of the most frequent label, and of a classical method of evaluation/baselines.py."""

    def baseline(overrides: list[str], run: Path) -> dict[str, float]:
        from groundup.evaluation import baselines

        features, labels, test, right = parts_of(recipe, overrides)
        fit = baselines.logistic_regression if method == "logistic regression" else baselines.nearest_neighbours
        majority = float(baselines.majority_label(labels, right).accuracy.value)
        return {"most frequent label": majority, method: float((fit(features, labels, test) == right).mean())}

    return baseline


def mean_image(overrides: list[str], run: Path) -> dict[str, float]:
    """The error of a pixel where every image is taken to be the mean of the training images."""
    train_images, _, test, _ = parts_of("mnist_autoencoder", overrides)
    return {"mean image": float(((test - train_images.mean(axis=0)) ** 2).mean())}


def lone_pixels(overrides: list[str], run: Path) -> dict[str, float]:
    """The nats of an image whose pixels are independent, each as often white as in training."""
    train_images, _, test, _ = parts_of("mnist_vae", overrides)
    share = ((train_images > 0.5).sum(axis=0) + 1) / (len(train_images) + 2)
    nats = -np.where(test > 0.5, np.log(share), np.log1p(-share))
    return {"independent pixels": float(nats.reshape(len(nats), -1).sum(axis=1).mean())}


def acted(overrides: list[str], run: Path) -> dict[str, float]:
    """Random actions on the episodes of the closing evaluation, and in the counting environment the best ones."""
    from groundup.evaluation.episodes import play, random_policy
    from groundup.run.acting import environments_of
    from groundup.run.entry import read_recipe

    recipe = read_recipe(run / "recipe.yaml")
    options: Any = recipe.data.environment  # type: ignore[union-attr]
    make, seed = environments_of(options, count=10), recipe.seed + AT_THE_END
    found = {"random actions": play(random_policy(make(seed)), make, 100, seed=seed).returns_N.mean()}
    if options.id == "groundup/Counters-v0":
        found["best possible"] = play(best_counter, make, 100, seed=seed).returns_N.mean()
    return {name: float(value) for name, value in found.items()}


def best_counter(observation_EO: Any, generator: Any) -> Any:
    """The first counter that is not zero; an observation has ten columns for each counter, the first for zero."""
    return (observation_EO.view(len(observation_EO), 10, 10)[:, :, 0] == 0).long().argmax(dim=1)


def behind_best(run: Path) -> float:
    """How far the return stays behind the best one of the same episodes."""
    return acted([], run)["best possible"] - evaluated(run, "return")


# figures that take more than the report


def drawn_digits(run: Path) -> tuple[float, float]:
    """How right a classifier is about real digits that has seen drawn ones alone, and how many of the ten digits a
    classifier of real ones recognises with confidence among the drawn."""
    import torch

    from groundup.evaluation.generated import class_coverage
    from groundup.run.networks import load_network

    model: Any = load_network(run, torch.device("cpu")).model
    images, labels, test, right = parts_of("mnist_gan", [f"data.files={said_files(run)}"])
    label_N = torch.arange(4000) % 10
    with torch.inference_mode():
        drawn_NCHW = model.sample(4000, torch.Generator().manual_seed(0), label_N)
    as_bytes = [(one * 255).round().astype(np.uint8)[:, 0] for one in (drawn_NCHW.numpy(), images, test)]
    own: list[float] = []
    for name, x, y in (("drawn", as_bytes[0], label_N.numpy()), ("real", as_bytes[1], labels)):
        file, out = run / f"{name}.npz", run / name
        np.savez(file, x_train=x, y_train=y, x_test=as_bytes[2], y_test=right)
        train("mnist_cnn", [f"data.files=['{file}']", "data.split.leaks=allow", "data.augment.operations=[]"], 1, out)
        own.append(evaluated(out, "accuracy"))
    judge, preparation = judge_of(run / "real")
    covered = class_coverage(lambda now: judge({"image_BCHW": preparation.to_model(now)}), drawn_NCHW).covered
    (run / "digits.json").write_text(json.dumps({"covered": covered, "trained on real": own[1]}))
    return own[0], float(covered)


def said_files(run: Path) -> list[str]:
    """The files that a run was trained on."""
    from groundup.run.entry import read_recipe

    return list(read_recipe(run / "recipe.yaml").data.files)


def judge_of(run: Path) -> tuple[Any, Any]:
    """A trained classifier of images, and how it wants them."""
    import torch

    from groundup.data.image_set import Preparation
    from groundup.run.networks import load_network

    loaded = load_network(run, torch.device("cpu"))
    form = {name: value for name, value in loaded.said.preparation.items() if name != "kind"}
    return loaded.model, Preparation.from_dict(form)


def digits_said(run: Path) -> dict[str, float]:
    """What `drawn_digits` left."""
    found: dict[str, float] = json.loads((run / "digits.json").read_text())
    return found


def chrf(run: Path, who: str) -> float:
    """chrF of greedy search, beam search or the memory."""
    return float(said(run, "translation", "scores", who, "headline", "chrf", "value"))


def gained_chrf(run: Path) -> float:
    """How far beam search is above the translation memory."""
    return chrf(run, "beam") - chrf(run, "memory")


def chrf_of_all(run: Path) -> dict[str, float]:
    """All three."""
    return {who: chrf(run, who) for who in ("beam", "greedy", "memory")}


def roc_area(run: Path) -> float:
    """The area under the ROC curve on the test rows."""
    return float(said(run, "classification", "headline", "roc_area_macro", "value"))


# the command


def run_case(name: str) -> bool:
    """Run one case and write its JSON; False if it was skipped."""
    from result_cases import CASES

    case = CASES[name]
    if case.needs is not None and not (DATA / case.needs).exists():
        print(f"{name}: skipped, it needs {case.needs}: set GROUNDUP_SHARED_DATA to a folder that holds it")
        return False
    if importlib.util.find_spec(case.package) is None:
        print(f"{name}: skipped, it needs the package {case.package}")
        return False
    print(f"{name}: about {case.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="groundup-results-") as folder:
        if isinstance(case, Case):
            found = measured(case, Path(folder))
        else:
            found = case.run(Path(folder))
            found = {**summary(found["values"]), **found, "row": case.row, "metric": case.metric, "bar": case.bar}
            found |= {"higher_is_better": case.higher, "bar_holds_for": "every value" if case.every else "the mean"}
            found["met"] = met(found["values"], case.bar, higher=case.higher, every=case.every)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"  {name}: {shown(found)}", flush=True)
    return True


def shown(found: Found) -> str:
    """One line of a result."""
    reached = {None: "no bar", True: "met", False: "NOT met"}[found["met"]]
    bar = "" if found["bar"] is None else f" (bar {'≥' if found['higher_is_better'] else '≤'} {figure(found['bar'])})"
    beside = "; ".join(f"{name} {figure(value)}" for name, value in found.get("baselines", {}).items())
    seconds = sum(found.get("seconds", []))
    return f"{found['metric']} {interval(found)}, {reached}{bar}; {beside or 'no baseline'}; {seconds:.0f} s"


def figure(value: float) -> str:
    """A number with as many places as its size deserves."""
    size = abs(value)
    if 0 < size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.4f}" if size < 10 else f"{value:.1f}"


def interval(found: Found) -> str:
    """Mean and interval."""
    if found["low"] is None:
        return figure(found["mean"])
    return f"{figure(found['mean'])} [{figure(found['low'])}, {figure(found['high'])}]"


def write_page() -> None:
    """docs/results.md from the JSON files that are there."""
    from result_cases import CASES

    lines = [
        "# What the recipes reach",
        "",
        "Made by `make results` on a machine with two cores: mean and 95 % interval (Student) over the seeds, the bar",
        "that was set beforehand, and simple baselines on the same rows or episodes. Seconds are those of all seeds",
        "together, start and evaluations included. One case alone: `make results ONLY=NAME`.",
        "",
        "| case | system | figure | mean and interval | n | bar | met | baselines | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in CASES:
        file = RESULTS / f"{name}.json"
        if not file.exists():
            continue
        one = json.loads(file.read_text(encoding="utf-8"))
        bar = "–" if one["bar"] is None else f"{'≥' if one['higher_is_better'] else '≤'} {figure(one['bar'])}"
        bar += ", every one" if one["bar_holds_for"].startswith("every") and one["bar"] is not None else ""
        beside = [f"{key} {figure(value)}" for key, value in one.get("baselines", {}).items()]
        beside += [f"{key} {', '.join(map(figure, many))}" for key, many in one.get("more", {}).items()]
        answer = {None: "–", True: "yes", False: "**no**"}[one["met"]]
        cells = [f"`{name}`", one["row"], one["metric"], interval(one), str(len(one["values"])), bar, answer]
        lines.append("| " + " | ".join([*cells, "; ".join(beside) or "–", f"{sum(one.get('seconds', [])):.0f}"]) + " |")
    missing = [name for name in CASES if not (RESULTS / f"{name}.json").exists()]
    if missing:
        lines += ["", "Not measured yet: " + ", ".join(f"`{name}`" for name in missing) + "."]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(words: list[str]) -> int:
    """Run the named cases, or all."""
    from result_cases import CASES

    if words == ["--list"]:
        for name, case in CASES.items():
            print(f"{name:28} {case.minutes:6g} min  {case.row}")
        print(f"{'together':28} {sum(case.minutes for case in CASES.values()):6g} min")
        return 0
    names = [name for word in words for name in word.split(",") if name]
    unknown = [name for name in names if name not in CASES]
    if unknown:
        print(f"no case called {', '.join(unknown)}; there are {', '.join(CASES)}")
        return 2
    for name in names or CASES:
        run_case(name)
        write_page()
    return 0


if __name__ == "__main__":
    sys.modules["results"] = sys.modules["__main__"]  # the cases import this file by its name
    sys.exit(main(sys.argv[1:]))
