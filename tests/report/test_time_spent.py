"""Where the time of a run went, from its events alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundup.report import collect, render
from groundup.report.charts import PARTS
from groundup.report.document import asset
from groundup.report.time_spent import seconds_by_part, shares, time_spent


def written(folder: Path, *events: dict[str, object]) -> Path:
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def step(number: int, **clock: float) -> dict[str, object]:
    return {"event": "step", "step": number, "loss": 1.0, "clock": {"seconds": float(number), **clock}}


def test_parts_are_summed_and_a_shared_clock_counts_once(tmp_path: Path) -> None:
    parts = {"data_seconds": 0.5, "forward_seconds": 1.0, "backward_seconds": 2.0, "optimizer_seconds": 0.25}
    evaluation = {"event": "evaluate", "step": 2, "metrics": {}, "clock": {"seconds": 3.0}}
    record = collect(
        written(
            tmp_path,
            step(1, **parts),
            step(2, **parts),
            {**evaluation, "data": "test"},
            {**evaluation, "data": "other"},
            {"event": "sample", "step": 2, "samples": [], "clock": {"seconds": 0.5}},
            {"event": "save", "step": 2, "path": "checkpoints/step-2", "clock": {"seconds": 0.75}},
        )
    )
    assert seconds_by_part(record) == {
        "making batches": 1.0,
        "forward": 2.0,
        "backward": 4.0,
        "optimizer": 0.5,
        "evaluation": 3.0,
        "samples": 0.5,
        "checkpoints": 0.75,
    }
    assert "13.3 %" in time_spent(record) and "waited" in time_spent(record)
    assert 'id="time"' in render(record)


def test_every_part_has_the_colour_of_its_key(tmp_path: Path) -> None:
    drawn = shares("all", {f"part {number}": 1.0 for number in range(PARTS)})
    for number in range(PARTS):
        assert drawn.count(f"part-{number}") == 2
        assert f".part-{number} " in asset("page.css")


def test_a_run_without_such_clocks_has_no_such_part(tmp_path: Path) -> None:
    record = collect(written(tmp_path, step(1)))
    assert time_spent(record) == "" and 'id="time"' not in render(record)


@pytest.mark.parametrize("wrong", [None, "x", [1], {}, True])
def test_wrong_values_are_left_out(tmp_path: Path, wrong: object) -> None:
    event = {"event": "step", "step": 1, "clock": {"forward_seconds": 1.0, "data_seconds": wrong}}
    lost = {"event": "evaluate", "step": wrong, "clock": wrong}
    record = collect(written(tmp_path, event, lost))
    assert seconds_by_part(record)["forward"] == 1.0
    assert "forward" in time_spent(record)
