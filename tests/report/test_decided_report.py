"""What decided a few answers, in the report: drawn as on the page of one explanation, nothing of what is malformed."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import example_run as example
import pytest
from test_measures_report import WRONG, shown
from test_report import HOSTILE

from groundup.report import RunRecord, collect, render
from groundup.report.decided import decided
from groundup.report.png import png

PNG = base64.b64encode(png(bytes(6 * 4 * 3), 6, 4, 3)).decode()
PICTURE = {"png": PNG, "caption": "seen", "description": "An image"}


def row(kind: str = "table", **more: Any) -> dict[str, Any]:
    cell = "x" if kind == "table" else None
    parts = [{"name": f" part{n}", "cell": cell, "amount": 2.0 - n / 2} for n in range(9)]
    return {
        "right": False, "truth": "no", "kind": kind, "place": "rows.csv:7", "method": "integrated_gradients",
        "steps": 64, "answer": {"label": "yes", "probabilities": {"yes": 0.912}}, "label": "yes", "score": 2.3421,
        "baseline": "nothing", "baseline_score": -0.5, "sum": 2.84321, "gap": 0.00111, "relative_gap": 0.00039,
        "rough": False, "cut_tokens": 0, "parts": parts, "pictures": [],
    } | more  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return example.example_run(tmp_path / "run", steps=6)


def page_of(run: Path, *rows: Any, left_out: Any = 0) -> str:
    record = collect(run)
    record.results["explanations"] = {"data": "test", "rows": list(rows), "left_out": left_out}
    return render(record)


def test_a_row_with_its_columns_and_its_gap(run: Path) -> None:
    page = page_of(run, row(), row(right=True, truth="yes"))
    text = shown(page)
    assert "says yes (91.2 %), is no" in text and "mistake" in text and "right" in text and "rows.csv:7" in text
    assert "Log-odds of yes: 2.342 here, −0.500 for the baseline (nothing)" in text
    assert "In 64 steps the amounts add up to +2.84321: gap +0.0011 (0.00039 of it)." in text
    assert text.count("3 more columns") == 2 and page.count('class="for"') == 8 and "miss the difference" not in text


def test_a_text_is_coloured_and_an_image_drawn(run: Path) -> None:
    page = page_of(run, row("text", cut_tokens=12, rough=True), row("image", pictures=[PICTURE, PICTURE]))
    text = shown(page)
    assert 'class="for-4">part0</span>' in page and "All 9 words" in text and "All 9 regions" in text
    assert page.count(f'src="data:image/png;base64,{PICTURE["png"]}"') == 2 and "img-src data:" in page
    assert 'alt="An image" width="222" height="148"' in page
    assert "12 tokens at the end did not fit" in text and "miss the difference" in text


def test_a_number_has_no_mistakes(run: Path) -> None:
    page = page_of(run, row(label=None, truth=48.0, answer={"value": 199.1234}))
    text = shown(page)
    assert "says 199.1, is 48" in text and "far off" in text and "raises the number" in text
    assert "mistake" not in str(decided(record_of(row(label=None, truth=48.0, answer={"value": 1.0}))))


def record_of(*rows: Any) -> RunRecord:
    return RunRecord("x", Path(), results={"explanations": {"rows": list(rows)}})


def test_rows_that_were_left_out_are_told_of(run: Path) -> None:
    text = shown(page_of(run, left_out=1))
    assert "1 row that was chosen would have taken too long here" in text and "Any other row" in text
    assert "further columns" not in text and decided(record_of()) == ""


def test_columns_that_are_not_named_are_counted(run: Path) -> None:
    text = shown(page_of(run, row(unlisted={"parts": 583, "amount": -0.25})))
    assert "583 further columns add −0.25 together" in text


def test_U4_wrong_types_and_hostile_texts_in_an_explanation(run: Path) -> None:
    for wrong in WRONG:
        assert decided(RunRecord("x", run, results={"explanations": wrong})) == ""
        assert decided(RunRecord("x", run, results={"explanations": {"rows": wrong}})) == ""
        for key in row():
            decided(record_of(row() | {key: wrong}, row("image", pictures=[PICTURE | {"png": wrong}])))
        for key in ("name", "cell", "amount"):
            decided(record_of(row(parts=[{"name": "a", "cell": "b", "amount": 1.0} | {key: wrong}])))
    part = {"name": HOSTILE, "cell": HOSTILE, "amount": 1.0}
    names = dict.fromkeys(("label", "truth", "place", "baseline"), HOSTILE)
    for kind in ("table", "text", "image"):
        page = page_of(run, row(kind, parts=[part], pictures=[PICTURE | {"caption": HOSTILE}], **names))
        assert "<script>alert" not in page
    assert page_of(run, *(row() for _ in range(500))).count('class="verdict"') == 12
