"""The classification part of the page: from two labels to many, whatever stands in results.json, safe to open."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import example_run as example
import numpy as np
import pytest
from test_report import HOSTILE, Checker, checked

from groundup.report import RunRecord, collect, render
from groundup.report.classification import classification
from groundup.report.confusion import MOST_LABELS, labels_to_draw, matrix, renumbered

pytest.importorskip("sklearn")


def measured(labels: int, rows: int = 200, *, name: str = "label", text: str = "a text") -> dict[str, Any]:
    """What evaluation writes of a classifier that is often right."""
    from groundup.evaluation import classification_results

    generator = np.random.default_rng(labels)
    label = generator.integers(0, labels, rows)
    logits = generator.normal(size=(rows, labels))
    logits[np.arange(rows), label] += 2.5
    names = [f"{name} {index}" for index in range(labels)]
    return classification_results(
        logits,
        label,
        names,
        texts=[f"{text} {index}" for index in range(rows)],
        validation=(logits * 2, label),
        before_NL=generator.normal(size=(rows, labels)),
        resamples=50,
    )


@pytest.fixture(scope="module")
def of_five() -> dict[str, Any]:
    return measured(5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example.example_run(tmp_path_factory.mktemp("runs") / "classify", steps=12)


def page_with(run: Path, found: Any) -> tuple[str, Checker]:
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    (run / "results.json").write_text(json.dumps({**results, "classification": found}), encoding="utf-8")
    page = render(collect(run))
    return page, checked(page)


def test_a_run_without_a_classifier_has_no_such_section(run: Path) -> None:
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    results.pop("classification", None)
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert 'id="classification"' not in render(collect(run))


def test_page_shows_the_numbers(run: Path, of_five: dict[str, Any]) -> None:
    page, checker = page_with(run, of_five)
    text = " ".join("".join(checker.text).split())
    accuracy = of_five["headline"]["accuracy"]
    assert f"{accuracy['value']:.3f}" in text and f"{accuracy['low']:.3f} to {accuracy['high']:.3f}" in text
    for said in (
        "Classification of 200 rows (test), with intervals of 95 %",
        "Confusion matrix",
        "ROC curves",
        "Precision and recall",
        "Reliability",
        "If only sure answers count",
        "expected calibration error",
        "Each label against all others: 5 labels",
        "Worst slices",
        "Most confused",
        "Most confident mistakes",
        "Two models on the same rows",
        "McNemar",
    ):
        assert said in text, said
    drawings = [a for t, a in checker.elements if t == "svg" and a.get("class") == "square"]
    assert len(drawings) == 4 and all(a["role"] == "img" and a["aria-labelledby"] for a in drawings)
    assert not any(a.get("class") == "chart" and "data-points" not in a for t, a in checker.elements if t == "svg")
    assert page == render(collect(run))


def test_matrix_says_each_cell_when_pointed_at(of_five: dict[str, Any]) -> None:
    cells = [tuple(cell) for cell in of_five["confusion"]]
    drawn = matrix(of_five["labels"], cells, "m")  # type: ignore[arg-type]
    assert drawn.count('class="right"') + drawn.count('class="wrong"') == len(cells)
    truth, predicted, rows = next(cell for cell in cells if cell[0] != cell[1])
    share = 100 * rows / sum(n for t, _, n in cells if t == truth)
    said = f"{rows} rows of label {truth} taken for label {predicted} \\(([0-9.]+) %\\)"
    found = re.search(said, drawn)
    assert found and float(found[1]) == pytest.approx(share, abs=0.06)
    right = sum(n for t, p, n in cells if t == p)
    assert f"{right} of 200 rows on the diagonal" in drawn


@pytest.mark.parametrize(("labels", "written"), [(2, True), (12, True), (30, True), (77, False)])
def test_matrix_fits_the_page_and_writes_numbers_where_there_is_room(labels: int, written: bool) -> None:
    names = [f"a rather long name of label {index}" for index in range(labels)]
    drawn = matrix(names, [(index, index, 7) for index in range(labels)], "m")
    width = float(re.search(r'width="([0-9.]+)" height="[0-9.]+" font-size', drawn)[1])  # type: ignore[index]
    assert width <= 1032  # the page is 1080 pixels wide, 24 of them on either side empty
    assert (">7</text>" in drawn) is written
    assert drawn.count(f"<title>{names[-1]}</title>") == 2  # cut names are told in full


def test_of_too_many_labels_those_with_the_most_mistakes_are_drawn() -> None:
    cells = [(index, index, 9) for index in range(300)] + [(299, 150, 1)]
    kept = labels_to_draw(300, cells)
    assert len(kept) == MOST_LABELS and {150, 299} <= set(kept) and kept == sorted(kept)
    shares = {(t, p): share for t, p, _, share in renumbered(cells, kept)}
    assert shares[kept.index(299), kept.index(150)] == pytest.approx(0.1)
    assert "Of 300 labels the 120" in matrix([str(index) for index in range(300)], cells, "m")


def test_several_sets_and_two_labels_render(run: Path, of_five: dict[str, Any]) -> None:
    two = measured(2) | {"data": "held_out"}
    _, checker = page_with(run, [of_five, two])
    text = "".join(checker.text)
    assert "(test)" in text and "(held-out)" in text and "Best threshold for label 1" in text
    alone = classification(RunRecord("x", run, results={"classification": two}))
    first = alone[: alone.index("</table>")]  # of two labels the pooled areas are left out, and nothing else
    assert "F1, mean over labels" in first and "all labels pooled" not in first


def test_several_labels_a_row_render_without_a_matrix(run: Path) -> None:
    from groundup.evaluation import multilabel_scores

    generator = np.random.default_rng(0)
    truth = generator.random((60, 3)) < 0.4
    scores = multilabel_scores(generator.random((60, 3)), truth, ["a", "b", "c"], resamples=50)
    page, checker = page_with(run, scores.as_dict())
    text = "".join(checker.text)
    assert "rows with every label right" in text and "F1 over all decisions" in text and "threshold" in text
    assert 'class="heat"' not in page


def test_U4_hostile_texts_and_labels_are_escaped(run: Path) -> None:
    found = measured(3, name=HOSTILE, text=HOSTILE)
    found |= {"data": HOSTILE, "notes": [HOSTILE]}
    page, checker = page_with(run, found)
    assert not any(tag == "img" for tag, _ in checker.elements)
    assert "<script>alert" not in page and "\x1b" not in page and "\u202e" not in page
    assert page.count("&lt;script&gt;alert(1)") > 30


def test_U4_wrong_types_everywhere_render(run: Path) -> None:
    whole = measured(3, 30)
    values: list[Any] = [
        None,
        True,
        -1,
        1e308,
        "text",
        [],
        [[1, 2, 3]],
        {},
        {"a": {"b": [1]}},
        [10**400],
        [[0, 0, 2**80]],
    ]

    def section(found: Any) -> None:
        """Only this part of the page, found to be well-formed."""
        checker = Checker()
        checker.feed(classification(RunRecord("x", run, results={"classification": found})))
        assert checker.open == [] and len(checker.ids) == len(set(checker.ids))

    for value in values:
        section(value)
        for key in whole:
            section({**whole, key: value})

    def damaged(found: Any, value: Any) -> Any:
        """Every leaf of the second level and below replaced."""
        if isinstance(found, dict):
            return {key: damaged(item, value) for key, item in found.items()}
        return [damaged(item, value) for item in found] if isinstance(found, list) else value

    for value in (None, "text", -5, 1e308, True, [1], {"x": 1}):
        section(damaged(whole, value))
    page_with(run, damaged(whole, None))
