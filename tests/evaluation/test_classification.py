"""Classifiers and their like: every number against scikit-learn and scipy, and small cases counted by hand."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

from groundup.errors import GroundupError
from groundup.evaluation import (
    classification_results,
    classification_scores,
    compare_classifiers,
    confused_pairs,
    counts,
    mcnemar,
    multilabel_scores,
    pair_scores,
    regression_scores,
    retrieval_scores,
    sigmoid,
    softmax,
    sure_mistakes,
    worst_slices,
)
from groundup.evaluation.classification import ranks
from groundup.evaluation.label_curves import delong, thin_curve
from groundup.evaluation.multilabel import choose_thresholds
from groundup.evaluation.slices import length_quarters, wilson
from groundup.evaluation.statistics import Interval
from groundup.evaluation.tagging import Entity, entities, tagging_scores

metrics = pytest.importorskip("sklearn.metrics")
NEAR = {"rel": 0, "abs": 1e-9}


def example(rows: int = 300, labels: int = 5, *, seed: int = 0, round_to: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels; rounded logits make ties."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, labels, rows)
    logits = generator.normal(size=(rows, labels))
    logits[np.arange(rows), label] += 1.5
    return softmax(np.round(logits, round_to)), label


def names(count: int) -> list[str]:
    return [f"label {index}" for index in range(count)]


CASES = {
    "plain": example(),
    "ties": example(round_to=0),
    "two labels": example(labels=2),
    "a label that is never true": (example(labels=6)[0], example(labels=5)[1]),
    "one label only": (example(40, 3)[0], np.full(40, 1)),
    "one row": (example(1, 3)[0], np.array([2])),
}


@pytest.mark.parametrize("case", CASES)
def test_every_number_is_that_of_scikit_learn(case: str) -> None:
    probability, label = CASES[case]
    size = probability.shape[1]
    found = classification_scores(probability, label, names(size), resamples=20)
    predicted, value = probability.argmax(axis=1), {name: one.value for name, one in found.headline.items()}
    assert value["accuracy"] == pytest.approx(metrics.accuracy_score(label, predicted), **NEAR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert value["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(label, predicted), **NEAR)
    for average in ("micro", "macro", "weighted"):
        for name, score in (
            ("precision", metrics.precision_score),
            ("recall", metrics.recall_score),
            ("f1", metrics.f1_score),
        ):
            expected = score(label, predicted, average=average, zero_division=0)
            assert value[f"{name}_{average}"] == pytest.approx(expected, **NEAR), (name, average)
    assert value["log_loss"] == pytest.approx(metrics.log_loss(label, probability, labels=range(size)), **NEAR)
    assert (found.confusion_LL == metrics.confusion_matrix(label, predicted, labels=range(size))).all()
    for index, one in enumerate(found.per_label):
        truth, score = label == index, probability[:, index]
        assert one.f1 == pytest.approx(metrics.f1_score(truth, predicted == index, zero_division=0), **NEAR)
        assert one.support == truth.sum() and one.predicted == (predicted == index).sum()
        if 0 < truth.sum() < len(label):
            assert one.roc_area == pytest.approx(metrics.roc_auc_score(truth, score), **NEAR)
            assert one.average_precision == pytest.approx(metrics.average_precision_score(truth, score), **NEAR)
        else:
            assert one.roc_area is None and one.average_precision is None
    json.dumps(found.as_dict(), allow_nan=False)


@pytest.mark.parametrize("case", ["plain", "ties", "two labels", "a label that is never true"])
def test_areas_are_means_over_labels_that_occur_and_pooled(case: str) -> None:
    probability, label = CASES[case]
    truth = np.eye(probability.shape[1], dtype=int)[label]
    occur = truth.any(axis=0)
    found = classification_scores(probability, label, names(len(occur)), resamples=20).headline
    roc = metrics.roc_auc_score(truth[:, occur], probability[:, occur], average="macro")
    assert found["roc_area_macro"].value == pytest.approx(roc, **NEAR)
    precision = metrics.average_precision_score(truth[:, occur], probability[:, occur], average="macro")
    assert found["average_precision_macro"].value == pytest.approx(precision, **NEAR)
    pooled = truth.ravel(), probability.ravel()
    assert found["roc_area_micro"].value == pytest.approx(metrics.roc_auc_score(*pooled), **NEAR)
    assert found["average_precision_micro"].value == pytest.approx(metrics.average_precision_score(*pooled), **NEAR)


def test_top_k_is_that_of_scikit_learn_with_ties_in_the_order_of_the_labels() -> None:
    for case in ("plain", "ties"):
        probability, label = CASES[case]
        found = classification_scores(probability, label, names(5), resamples=20).headline["top_3_accuracy"].value
        # scikit-learn puts the last of equal labels first: the labels turned round give our order
        turned = metrics.top_k_accuracy_score(4 - label, probability[:, ::-1], k=3, labels=range(5))
        assert found == pytest.approx(turned, **NEAR)
        assert ((ranks(probability, label) == 0) == (probability.argmax(axis=1) == label)).all()


def test_curves_are_points_of_scikit_learns_curves_and_short() -> None:
    probability, label = example(2000, 3)
    found = classification_scores(probability, label, names(3), resamples=20)
    assert [curve.name for curve in found.curves["roc"]] == ["all labels pooled", *names(3)]
    false_rate, true_rate, _ = metrics.roc_curve(label == 1, probability[:, 1])
    curve = found.curves["roc"][2]
    assert set(zip(curve.x, curve.y)) <= set(zip(false_rate.tolist(), true_rate.tolist()))
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    precision, recall, _ = metrics.precision_recall_curve(label == 1, probability[:, 1])
    other = found.curves["precision_recall"][2]
    assert set(zip(other.x, other.y)) <= set(zip(recall.tolist(), precision.tolist()))
    assert all(len(one.x) == len(one.y) <= 200 for kind in found.curves.values() for one in kind)
    assert abs(np.trapezoid(curve.y, curve.x) - curve.area) < 0.005  # what is drawn is the curve


def test_of_many_labels_the_worst_curves_are_drawn_and_of_two_one() -> None:
    probability, label = example(400, 9)
    found = classification_scores(probability, label, names(9), resamples=20)
    worst = sorted(found.per_label, key=lambda one: one.roc_area or 0)[:3]
    assert [curve.name for curve in found.curves["roc"][1:]] == [one.label for one in worst]
    probability, label = CASES["two labels"]
    found = classification_scores(probability, label, ["no", "yes"], resamples=20)
    assert [curve.name for curve in found.curves["roc"]] == ["yes"]


def test_thinning_keeps_short_curves_whole() -> None:
    assert thin_curve(np.array([0.0, 1.0]), np.array([0.5, 0.25])) == ([0.0, 1.0], [0.5, 0.25])


def test_a_case_by_hand() -> None:
    probability = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.5, 0.0]])
    found = classification_scores(probability, [0, 1, 1, 1], ["a", "b", "c"], resamples=20)
    assert found.confusion_LL.tolist() == [[1, 0, 0], [2, 1, 0], [0, 0, 0]]
    assert found.headline["accuracy"].value == 0.5
    assert found.headline["balanced_accuracy"].value == pytest.approx((1 + 1 / 3) / 2)
    assert found.headline["f1_macro"].value == pytest.approx((0.5 + 0.5) / 2)  # c does not occur
    assert found.as_dict()["confusion"] == [[0, 0, 1], [1, 0, 2], [1, 1, 1]]
    assert any("1 of 3 labels are true of no row (c)" in note for note in found.notes)
    assert any("1 row has several most probable labels" in note for note in found.notes)


def test_intervals_follow_the_seed_and_the_plain_bootstrap() -> None:
    probability, label = example(150, 3)
    first, again, other = (
        classification_scores(probability, label, names(3), resamples=400, seed=seed) for seed in (1, 1, 2)
    )
    assert first.as_dict() == again.as_dict() != other.as_dict()
    predicted, generator = probability.argmax(axis=1), np.random.default_rng(0)
    drawn = generator.integers(0, 150, size=(200, 150))
    f1 = [metrics.f1_score(label[row], predicted[row], average="macro") for row in drawn]
    found = classification_scores(probability, label, names(3)).headline["f1_macro"]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(f1, (0.025, 0.975))), abs=0.02)
    assert found.low < found.value < found.high


def test_counts_agree_with_the_values() -> None:
    for case in CASES:
        probability, label = CASES[case]
        size = probability.shape[1]
        count_U, column_UC = counts.cells(label, probability.argmax(axis=1), size)
        own = counts.label_metrics(counts.split(count_U.astype(float) @ column_UC))
        found = classification_scores(probability, label, names(size), resamples=20).headline
        for name, value in own.items():
            assert float(value) == pytest.approx(found[name].value, **NEAR), (case, name)


def test_the_interval_of_the_area_is_that_of_delong() -> None:
    probability, label = CASES["ties"]
    truth, score = label == 1, probability[:, 1]
    above = score[truth][:, None] > score[~truth]
    kernel = above + 0.5 * (score[truth][:, None] == score[~truth])
    variance = kernel.mean(axis=1).var(ddof=1) / truth.sum() + kernel.mean(axis=0).var(ddof=1) / (~truth).sum()
    assert (delong(score, truth) ** 2).sum() == pytest.approx(variance)


def test_one_row_has_no_interval() -> None:
    found = classification_scores(*CASES["one row"], names(3)).headline
    assert all(math.isnan(one.low) for one in found.values())


def test_arguments_that_do_not_fit_are_refused() -> None:
    probability, label = example(10, 3)
    for wrong in (
        (probability, label[:9], names(3)),
        (probability, label, names(4)),
        (probability, label + 1, names(3)),
        (probability * 2, label, names(3)),
        (probability[:0], label[:0], names(3)),
        (np.full((10, 3), np.nan), label, names(3)),
    ):
        with pytest.raises(ValueError, match=r"label|probabilities"):
            classification_scores(*wrong)
    with pytest.raises(GroundupError) as fault:
        softmax([[0.0, 1.0], [math.inf, 0.0]])
    assert fault.value.code == "E-EVAL-003" and "1 of 2 rows" in fault.value.what


def test_softmax_and_sigmoid_do_not_overflow() -> None:
    assert softmax([[1e4, -1e4]]).tolist() == [[1.0, 0.0]]
    assert sigmoid([[1e4, -1e4, 0.0]]).tolist() == [[1.0, 0.0, 0.5]]


@pytest.mark.parametrize("empty", [False, True])
def test_several_labels_a_row_equal_scikit_learn(empty: bool) -> None:
    generator = np.random.default_rng(4)
    truth = generator.random((80, 4)) < 0.3
    truth[:, 3] &= not empty
    probability = sigmoid(np.round(generator.normal(size=(80, 4)) + 2 * truth - 1, 1))
    threshold = [0.5, 0.4, 0.6, 0.5]
    found = multilabel_scores(probability, truth, names(4), threshold, resamples=50)
    predicted = probability >= threshold
    value = {name: one.value for name, one in found.headline.items()}
    assert value["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted), **NEAR)
    for average in ("micro", "macro", "weighted"):
        expected = metrics.f1_score(truth, predicted, average=average, zero_division=0)
        assert value[f"f1_{average}"] == pytest.approx(expected, **NEAR)
        assert found.headline[f"f1_{average}"].low <= expected <= found.headline[f"f1_{average}"].high
    occur = truth.any(axis=0)
    expected = metrics.average_precision_score(truth[:, occur], probability[:, occur], average="macro")
    assert value["average_precision_macro"] == pytest.approx(expected, **NEAR)
    assert found.confusion_LL.size == 0 and [one.threshold for one in found.per_label] == threshold
    chosen = choose_thresholds(probability, truth)
    for index in np.flatnonzero(occur):
        tried = [
            metrics.f1_score(truth[:, index], probability[:, index] >= t) for t in np.unique(probability[:, index])
        ]
        reached = metrics.f1_score(truth[:, index], probability[:, index] >= chosen[index])
        assert reached == pytest.approx(max(tried), **NEAR)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    binomtest = pytest.importorskip("scipy.stats").binomtest
    generator = np.random.default_rng(0)
    for rows in (1, 20, 500):
        before, after = generator.random((2, rows)) < [[0.6], [0.7]]
        found = mcnemar(before, after)
        both = found.only_before + found.only_after
        expected = binomtest(found.only_before, both, 0.5).pvalue if both else 1.0
        assert found.p == pytest.approx(expected, **NEAR)
    assert mcnemar([True, True], [True, True]).p == 1.0


def test_two_classifiers_are_judged_on_the_same_rows() -> None:
    better, label = example(600, 4)
    noise = np.random.default_rng(1).normal(size=better.shape)
    worse = softmax(np.log(better) + noise)
    found = compare_classifiers(worse, better, label, names(4), resamples=400)
    rows = {one.metric: one for one in found.metrics}
    assert rows["accuracy"].verdict == rows["log_loss"].verdict == "better"
    assert rows["accuracy"].difference.value == pytest.approx(
        rows["accuracy"].after.value - rows["accuracy"].before.value
    )
    alone = classification_scores(better, label, names(4), resamples=400).headline
    assert rows["f1_macro"].after.value == pytest.approx(alone["f1_macro"].value, **NEAR)
    turned = compare_classifiers(better, worse, label, names(4), resamples=400)
    assert {one.verdict for one in turned.metrics} == {"worse"}
    same = compare_classifiers(better, better, label, names(4), resamples=100)
    assert {one.verdict for one in same.metrics} == {"within noise"}
    paired, single = rows["accuracy"].difference, rows["accuracy"].after
    assert paired.high - paired.low < 2 * (single.high - single.low)
    json.dumps(found.as_dict(), allow_nan=False)


def test_slices_are_sorted_by_what_is_surely_bad() -> None:
    label, predicted = np.array([0] * 50 + [1] * 50), np.array([0] * 50 + [1] * 20 + [0] * 30)
    texts = ["x" * (1 + index % 4) for index in range(100)]
    groups = {"source": ["rare" if index == 99 else "mail" for index in range(100)]}
    found = worst_slices(label, predicted, ["a", "b"], texts=texts, groups=groups)
    assert (found[0].kind, found[0].name, found[0].rows, found[0].accuracy) == ("label", "b", 50, 0.4)
    rare = next(one for one in found if one.name == "rare")
    assert rare.accuracy == 0 and rare.high > found[0].high
    assert {one.name for one in found if one.kind == "text length"} == {f"{n} to {n} characters" for n in (1, 2, 3, 4)}
    assert worst_slices(label, predicted, ["a", "b"], groups={"all": ["same"] * 100}, limit=99)[-1].kind != "all"
    with pytest.raises(ValueError, match="source has 3 values for 100 rows"):
        worst_slices(label, predicted, ["a", "b"], groups={"source": ["x"] * 3})


def test_equal_lengths_share_a_quarter() -> None:
    assert set(length_quarters(["abc"] * 9)) == {"3 to 3 characters"}


def test_wilson_by_hand() -> None:
    assert wilson(0, 10)[0] == 0.0 and wilson(0, 10)[1] == pytest.approx(0.2775, abs=1e-4)
    assert wilson(10, 10) == pytest.approx((1 - 0.2775, 1.0), abs=1e-4)
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_sure_mistakes_and_confused_pairs() -> None:
    probability = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.9, 0.1]])
    found = sure_mistakes(probability, [1, 1, 1, 0], ["a", "b"], ["long " * 100, "x", "y", "z"])
    assert [(one.row, one.label, one.predicted, one.probability) for one in found] == [
        (0, "b", "a", 0.9),
        (2, "b", "a", 0.6),
    ]
    assert len(found[0].text) == 300 and found[0].text.endswith("…")
    pairs = confused_pairs(np.array([[5, 1, 0], [3, 9, 0], [1, 0, 0]]), ["a", "b", "c"])
    assert [(one.label, one.predicted, one.rows) for one in pairs] == [("b", "a", 3), ("c", "a", 1), ("a", "b", 1)]
    assert pairs[1].share == 1.0


def test_everything_together_is_json() -> None:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 80)
    logits = generator.normal(size=(80, 2)) + 2 * np.eye(2)[label]
    found = classification_results(
        logits, label, ["no", "yes"], texts=["t"] * 80, validation=(logits, label), before_NL=-logits, resamples=50
    )
    assert found.keys() >= {
        "headline",
        "confusion",
        "curves",
        "calibration",
        "threshold",
        "slices",
        "mistakes",
        "comparison",
    }
    assert found["calibration"]["after"]["log_loss"] <= found["calibration"]["before"]["log_loss"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_regression_equals_scikit_learn_and_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    value = np.round(generator.normal(3, 2, 300), 1)
    predicted = np.round(value + generator.normal(0, 1, 300), 1)
    found = regression_scores(predicted, value)
    head = found.headline
    assert head["mae"].value == pytest.approx(metrics.mean_absolute_error(value, predicted), **NEAR)
    assert head["rmse"].value == pytest.approx(metrics.root_mean_squared_error(value, predicted), **NEAR)
    assert head["r2"].value == pytest.approx(metrics.r2_score(value, predicted), **NEAR)
    assert head["spearman"].value == pytest.approx(stats.spearmanr(predicted, value).statistic, **NEAR)
    assert all(one.low < one.value < one.high for one in head.values())
    drawn = generator.integers(0, 300, size=(600, 300))
    r2 = [metrics.r2_score(value[row], predicted[row]) for row in drawn]
    assert (head["r2"].low, head["r2"].high) == pytest.approx(tuple(np.quantile(r2, (0.025, 0.975))), abs=0.02)
    assert len(found.residuals) == 300 and len(regression_scores(range(900), range(900)).residuals) == 500


def test_regression_on_constants() -> None:
    flat = regression_scores([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    assert flat.as_dict()["headline"]["r2"]["value"] is None and "All true values are equal" in flat.notes[0]
    same = regression_scores([2.0, 2.0, 2.0], [1.0, 2.0, 3.0])
    assert same.headline["r2"].value == 0.0 and math.isnan(same.headline["spearman"].value)
    with pytest.raises(ValueError, match="not finite"):
        regression_scores([math.nan], [1.0])


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-PER I-PER O", [Entity(1, 3, "PER")]),
        ("B-PER B-PER", [Entity(0, 1, "PER"), Entity(1, 2, "PER")]),
        ("I-PER I-PER", [Entity(0, 2, "PER")]),  # I at the start of a sentence opens one
        ("O I-LOC", [Entity(1, 2, "LOC")]),  # so it does after O
        ("B-PER I-LOC I-LOC", [Entity(0, 1, "PER"), Entity(1, 3, "LOC")]),  # and after another type
        ("B-a-b I-a-b", [Entity(0, 2, "a-b")]),
        ("O O", []),
    ],
)
def test_entities_by_the_rules_of_conlleval(tags: str, expected: list[Entity]) -> None:
    assert entities(tags.split()) == expected


def test_tagging_by_hand() -> None:
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC"]]
    guess = [["B-PER", "I-PER", "O", "B-PER"], ["B-LOC", "I-LOC"]]
    found = tagging_scores(guess, truth, resamples=50)
    value = {name: one.value for name, one in found.headline.items()}
    assert value == pytest.approx({"token_accuracy": 3 / 6, "precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3})
    assert [(one.type, one.support, one.predicted, one.f1) for one in found.per_type] == [
        ("LOC", 2, 1, 0.0),
        ("PER", 1, 2, pytest.approx(2 / 3)),
    ]
    nothing = tagging_scores([["O"]], [["O"]]).headline
    assert nothing["f1"].value == 0.0 and nothing["token_accuracy"].value == 1.0
    for wrong in (([["O"]], [["O", "O"]]), ([["X-PER"]], [["O"]]), ([["B-"]], [["O"]]), ([], [])):
        with pytest.raises(ValueError, match="label"):
            tagging_scores(*wrong)


def test_retrieval_by_hand() -> None:
    score = np.array([[0.9, 0.5, 0.1], [0.2, 0.8, 0.4], [0.5, 0.5, 0.5], [0.1, 0.2, 0.3]])
    relevant = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 1], [0, 0, 0]])
    found = retrieval_scores(score, relevant, among=(1, 2))
    assert found["mrr_at_10"].value == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)  # ties count against; row 4 is left out
    assert found["recall_at_1"].value == pytest.approx(1 / 3)
    assert found["recall_at_2"].value == pytest.approx((1 + 1 + 0.5) / 3)
    late = retrieval_scores(np.arange(12.0)[None], np.eye(12)[:1])
    assert late["mrr_at_10"].value == 0.0 and late["recall_at_10"].value == 0.0
    assert pair_scores([1, 2, 3, 4], [1, 2, 3, 4])["spearman"] == Interval(1.0, 1.0, 1.0)
