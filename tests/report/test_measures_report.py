"""Runs of rows, images, pairs and environments: their unit, their curves, and what they measured besides labels."""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import example_run as example
import numpy as np
import pytest
from test_report import HOSTILE, Checker, checked

from groundup.report import RunRecord, collect, measures, render, run_line, summarize, write_report
from groundup.report.charts import Series, line_chart
from groundup.report.curves import curves
from groundup.report.made import contact_sheet, images_of, made_images
from groundup.report.png import png
from groundup.report.summary import headline, less_is_better

NAMES = {"loss": "label_loss"}
"""What a metric of the evaluations while training is called in the closing table, where that differs."""
WRONG: list[Any] = [None, True, -1, 1e308, "text", [], {}, [[1]], [None], {"a": {"b": [1]}}, [10**400]]


def unpacked(data: bytes) -> tuple[tuple[int, ...], bytes]:
    """The header and the unfiltered pixels of a PNG, its checksums checked."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (length,), name = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        chunks[name] = data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert checksum == zlib.crc32(name + chunks[name])
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    header = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    wide = header[0] * {0: 1, 4: 2, 2: 3, 6: 4}[header[3]]
    raw = zlib.decompress(chunks[b"IDAT"])
    lines = [raw[i : i + wide + 1] for i in range(0, len(raw), wide + 1)]
    assert len(lines) == header[1] and all(line[0] == 0 for line in lines)
    return header, b"".join(line[1:] for line in lines)


def rewrite(folder: Path, unit: str, kind: str, metrics: dict[str, float], results: dict[str, Any]) -> Path:
    """The example run as a run of another kind of data: no bits per byte, other metrics, other results."""
    lines = []
    for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "start":
            event |= {"unit": unit, "units_per_step": 64}
        if event["event"] == "step":
            event["bits_per_byte"] = None
        if event["event"] == "evaluate":
            grown = {name: value * (1 + event["step"]) for name, value in metrics.items()}
            event |= {"data": "CartPole-v1" if kind == "environment" else "validation", "metrics": grown}
            event["intervals"] = {name: [value * 0.9, value * 1.1] for name, value in grown.items()}
        lines.append(json.dumps(event))
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "recipe.yaml").write_text(f"data: {{kind: {kind}}}\nobjective: {{kind: other}}\n")
    said = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    rows = [
        {
            "stage": "train",
            "data": "test",
            "metric": NAMES.get(name, name),
            "before": 0.1,
            "after": 0.9,
            "low": 0.8,
            "high": 1.0,
        }
        for name in metrics
    ]
    ledger = {"data": {}, "tokens": {"seen": 500, "trained": 500, "masked": 0, "padded": 0, "cut": 0}}
    (folder / "results.json").write_text(json.dumps({**said, "evaluations": rows, "ledger": ledger, **results}))
    (folder / "data" / "card.json").unlink()
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return example.example_run(tmp_path / "run", steps=24)


def shown(page: str) -> str:
    """The words of a page, found to be well-formed."""
    return " ".join("".join(checked(page).text).split())


def test_a_run_of_rows_never_says_tokens(run: Path) -> None:
    rewrite(run, "rows", "table", {"accuracy": 0.03, "loss": 0.1}, {"command": "groundup train t.yaml", "samples": []})
    (run / "plan.json").write_text(json.dumps({"predicted": {"tokens": 480, "steps": 24}}))
    write_report(run)
    text = shown((run / "report.html").read_text(encoding="utf-8"))
    summary = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert summary["unit"] == "rows" and summary["tokens"] == 500 and summary["ledger"]["tokens"]["balanced"] is True
    for said in ("500 trained rows", "Trained rows", "rows/s", "rows per second", "Rows seen", "Ledger of rows"):
        assert said in text, said
    visible = re.sub(r"<(style|script)[^>]*>.*?</\1>", "", render(collect(run)), flags=re.S)
    visible = re.sub(r'\b(value|data-\w+|id|class|name|aria-labelledby)="[^"]*"', "", visible)
    left = visible.split("The recipe as it was given")[0]
    assert "token" not in left.lower() and "per byte" not in left.lower()
    assert 'data-unit="rows"' in render(collect(run)) and "masked" not in text and "padded" not in text
    line = run_line(run, run.parent)
    assert (line["unit"], line["metric"], line["value"]) == ("rows", "accuracy", 0.9)


def test_stages_may_count_different_things(run: Path, tmp_path: Path) -> None:
    rewrite(run, "tokens", "pairs", {"token_loss": 1.0}, {})
    assert summarize(collect(run))["unit"] == "tokens"
    other = rewrite(example.example_run(tmp_path / "rows", steps=24), "rows", "table", {"accuracy": 0.1}, {})
    both = tmp_path / "both"
    both.mkdir()
    assert collect(both, stages=[run, other]).unit == "units"
    assert collect(both, stages=[run, run]).unit == "tokens"
    for said in (None, 5, HOSTILE, "", "a" * 100):
        assert RunRecord("x", run, start={"unit": said}).unit == "tokens"


def test_returns_lead_with_their_band(run: Path) -> None:
    environment = {"environment": {"id": "CartPole-v1", "count": 8}}
    ledger = {"data": environment, "tokens": {"seen": 500, "trained": 500, "masked": 0, "padded": 0, "cut": 0}}
    rewrite(run, "rows", "environment", {"return": 8.0}, {"ledger": ledger})
    page = render(collect(run))
    text = shown(page)
    assert "500 trained rows of experience" in text and "Return rewards of an episode, summed" in text
    figures = re.findall(r'<figure( class="wide")?><figcaption><strong>([^<]*)', page)
    assert figures[0] == (' class="wide"', "Return") and ("", "Loss") in figures
    assert ("", "Bits per byte") not in figures
    assert page.count('class="band held-0"') == 3  # against steps, rows and time
    assert "CartPole-v1" in text and "what earned rewards where it learned" in text
    row = headline(summarize(collect(run)))
    assert row is not None and row["metric"] == "return" and row["verdict"] == "better"
    block = json.loads(re.search(r'id="points">(.*?)</script>', page)[1])  # type: ignore[index]
    line = block["evaluated-0"][0]
    assert line["name"] == "CartPole-v1" and line["y"][-1] == 8.0 * 25 and line["high"][-1] == pytest.approx(220)


def test_every_metric_of_the_evaluations_has_a_curve(run: Path) -> None:
    metrics = {"pixel_error": 0.1, "loss": 2.0, "token_accuracy": 0.01, "perplexity": 3.0, HOSTILE: 1.0}
    rewrite(run, "rows", "images", metrics, {})
    drawn = curves(collect(run))
    titles = re.findall(r"<figcaption><strong>([^<]*)", drawn)
    assert titles[:3] == ["Loss", "Pixel error", "Token accuracy"] and "Perplexity" not in titles
    assert len([title for title in titles if "&lt;script" in title]) == 1
    one = re.search(r'id="evaluated-0-steps".*?data-last="([0-9.]+)"', drawn, flags=re.S)
    assert one and float(one[1]) == 24  # all charts end where the run ends


def test_a_band_passes_over_missing_intervals_and_one_point_has_none() -> None:
    def chart(low: list[float]) -> str:
        series = Series("s", "main", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], low, [4.0] * 3, band=True)
        return line_chart("c", "t", "d", [series], x_format=str, y_format=str)

    drawn = re.search(r'd="(M[^"]*Z)"', chart([0.0, math.nan, 1.0]))
    assert drawn and drawn[1].count("L") == 3 and "whisker" not in chart([0.0, math.nan, 1.0])
    assert "Z" not in chart([0.0, math.nan, math.nan]) and "whisker" in chart([0.0, math.nan, math.nan])


def test_a_share_of_the_ceiling_that_was_not_counted_is_not_drawn(run: Path) -> None:
    content = (run / "events.jsonl").read_text(encoding="utf-8")
    (run / "events.jsonl").write_text(re.sub(r'"ceiling_share": [0-9.]+', '"ceiling_share": 0.0', content))
    assert "Share of the ceiling" not in curves(collect(run))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_holds_the_pixels(channels: int) -> None:
    pixels = np.random.default_rng(channels).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    header, found = unpacked(png(pixels.tobytes(), 7, 5, channels))
    assert header == (7, 5, 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0) and found == pixels.tobytes()
    for wrong in ((pixels.tobytes()[:-1], 7, 5, channels), (b"", 0, 5, channels), (pixels.tobytes(), 7, 5, 5)):
        with pytest.raises(ValueError, match="no image"):
            png(*wrong)


@pytest.mark.parametrize("channels", [1, 3])
def test_contact_sheet_places_every_image(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, channels), dtype=np.uint8)
    images = images_of({"shape": [5, 4, 6, channels], "bytes": pixels.tobytes().hex()})
    assert images is not None
    data, width, height = contact_sheet(images, 3)
    assert (width, height) == (3 * 8 - 2, 2 * 6 - 2)
    sheet = np.frombuffer(unpacked(data)[1], dtype=np.uint8).reshape(height, width, channels + 1)
    for index in range(5):
        top, left = index // 3 * 6, index % 3 * 8
        part = sheet[top : top + 4, left : left + 6]
        assert (part[..., :channels] == pixels[index]).all() and (part[..., channels] == 255).all()
    assert (sheet[..., channels] == 255).sum() == 5 * 4 * 6  # the rest is transparent


def test_made_images_stand_in_the_page(run: Path) -> None:
    made = {"shape": [64, 28, 28, 1], "bytes": bytes(64 * 784).hex()}
    rewrite(run, "rows", "images", {}, {"made_images": made})
    page = render(collect(run))
    assert "64 images" in shown(page) and page.count("<img ") == 1 and 'width="476"' in page
    assert 'alt="64 images made by the network, in 8 columns"' in page and page == render(collect(run))
    assert 'id="results"' not in page  # nothing was evaluated, and nothing is said about it
    wrong = [*WRONG, *({**made, "shape": shape} for shape in (*WRONG, [64, 28, 28, 2], [64, 28, 28], [0, 28, 28, 1]))]
    wrong += [{**made, "bytes": "zz" * 64 * 784}, {**made, "bytes": made["bytes"][:-2]}, {**made, "bytes": None}]
    for value in wrong:
        assert made_images(RunRecord("x", run, results={"made_images": value})) == "", value
    assert "img-src" not in render(collect(example.example_run(run.parent / "plain", steps=6)))


def translated(text: str = "a sentence") -> dict[str, Any]:
    from groundup.evaluation.translation import translation_scores

    references = [f"{text} {index} of some words" for index in range(12)]
    said = {
        "beam": references,
        "greedy": [one[:-3] for one in references],
        "memory": references[::-1],
    }
    return {
        "data": "test",
        "sentences": 12,
        "scores": {name: translation_scores(one, references, resamples=50).as_dict() for name, one in said.items()},
        "examples": [
            {"source": text, "reference": references[i], **{name: one[i] for name, one in said.items()}}
            for i in range(3)
        ],
    }


def measured() -> dict[str, Any]:
    """What evaluation writes under each of the names that this part of the page draws."""
    from groundup.evaluation.regression import regression_scores
    from groundup.evaluation.retrieval import retrieval_scores
    from groundup.evaluation.tagging import tagging_scores

    generator = np.random.default_rng(0)
    value = generator.normal(size=60) * 40
    tags = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC"]]
    said = [["B-PER", "I-PER", "O", "O"], ["O", "B-LOC"]]
    found = retrieval_scores(generator.normal(size=(20, 20)) + 3 * np.eye(20), np.eye(20, dtype=bool), resamples=50)
    regressed = regression_scores(value + generator.normal(size=60), value, resamples=50).as_dict()
    return {
        "regression": regressed | {"data": "test"},
        "tagging": tagging_scores(said, tags, resamples=50).as_dict() | {"data": "test"},
        "retrieval": {"headline": {name: one.as_dict() for name, one in found.items()}, "data": "test"},
        "translation": translated(),
    }


def test_what_was_measured_besides_labels_is_drawn(run: Path) -> None:
    found = measured()
    rewrite(run, "rows", "table", {"squared_error": 0.1}, found)
    page = render(collect(run))
    text = shown(page)
    for name in ("regression", "tagging", "retrieval", "translation"):
        assert f'<section id="{name}"' in page, name
    for headline_, name in ((found["regression"], "rmse"), (found["tagging"], "f1"), (found["retrieval"], "mrr_at_10")):
        score = headline_["headline"][name]
        assert f"{score['value']:.3f}" in text and f"{score['low']:.3f} to {score['high']:.3f}" in text
    assert "Numbers predicted for 60 rows (test), with intervals of 95 %" in text
    assert "Tags of 6 words in 2 sentences (test)" in text and "Each type of entity" in text and "LOC" in text
    assert "Translations of 12 sentences (test), with intervals of 95 %" in text
    chrf = found["translation"]["scores"]["memory"]["headline"]["chrf"]
    assert f"chrF, translation memory (no model){chrf['value']:.3f}" in text
    assert page.count('<circle cx="') > 60 and "a sentence 1 of some words" in text


def test_true_numbers_stand_under_the_predicted_ones(run: Path) -> None:
    record = RunRecord("x", run, results={"regression": {"residuals": [[10.0, 0.0], [30.0, 20.0], [20.0, 10.0]]}})
    drawn = measures.regression(record)
    places = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([0-9.]+)" cy="([0-9.]+)"', drawn)]
    assert len(places) == 3
    assert len({x for x, _ in places}) == 1  # all of them are 10 in truth
    assert places[0][1] > places[2][1] > places[1][1]  # the larger the prediction, the higher


def test_several_labels_a_row_are_drawn_like_labels(run: Path) -> None:
    pytest.importorskip("sklearn")
    from groundup.evaluation import multilabel_scores

    generator = np.random.default_rng(0)
    scores = multilabel_scores(generator.random((60, 3)), generator.random((60, 3)) < 0.4, list("abc"), resamples=50)
    rewrite(run, "rows", "table", {"accuracy": 0.1}, {"multilabel": scores.as_dict() | {"data": "test"}})
    text = shown(render(collect(run)))
    assert "rows with every label right" in text and "Classification of 60 rows (test)" in text


def test_rows_without_a_text_are_called_by_their_place(run: Path) -> None:
    mistake = {"text": "digits/7/a.png", "predicted": "1", "probability": 0.9, "label": "7", "true_probability": 0.1}
    slices = [{"kind": "text length", "name": "65 to 69 characters", "rows": 9, "accuracy": 0.5}]
    slices.append({"kind": "label", "name": "seven", "rows": 9, "accuracy": 0.5})
    found = {"labels": ["1", "7"], "mistakes": [mistake], "slices": slices}
    rewrite(run, "rows", "images", {"accuracy": 0.1}, {"classification": found})
    page = render(collect(run))
    assert 'scope="col">image</th>' in page and "digits/7/a.png" in page
    assert "65 to 69 characters" not in page and "seven" in page


def test_U4_wrong_types_and_hostile_texts_in_every_measure(run: Path) -> None:
    parts = (measures.regression, measures.tagging, measures.retrieval, measures.translation)
    whole = {**measured(), "translation": translated(HOSTILE.replace("\ud800", ""))}

    def damaged(found: Any, value: Any) -> Any:
        """Every leaf replaced."""
        if isinstance(found, dict):
            return {key: damaged(item, value) for key, item in found.items()}
        return [damaged(item, value) for item in found] if isinstance(found, list) else value

    for name, found in whole.items():
        for value in WRONG:
            for broken in (value, damaged(found, value), *({**found, key: value} for key in found)):
                for part in parts:
                    checker = Checker()
                    checker.feed(part(RunRecord("x", run, results={name: broken})))
                    assert checker.open == []
    rewrite(run, "rows", "table", {"accuracy": 0.1}, whole)
    page = render(collect(run))
    assert not any(tag == "img" for tag, _ in checked(page).elements)
    assert "<script>alert" not in page and "\x1b" not in page and "\u202e" not in page


@pytest.mark.parametrize(
    ("metric", "less"),
    [("return", False), ("negative_bound", True), ("pixel_error", True), ("reciprocal_rank", False)],
)
def test_the_direction_of_new_metrics_is_known(metric: str, less: bool) -> None:
    assert less_is_better(metric) is less
