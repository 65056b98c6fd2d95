"""The episode in the report: its frames with what was done in them, and nothing of what is malformed."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import example_run as example
import pytest
from test_measures_report import WRONG, shown
from test_report import HOSTILE

from groundup.report import RunRecord, collect, render
from groundup.report.episode import action_text, episode, picture_of, scale_of
from groundup.report.png import png

PICTURE = base64.b64encode(png(bytes(6 * 4 * 3), 6, 4, 3)).decode()


def frame(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "action": 1, "reward": -2.0, "return": -2.0 * step} | more


def told(*frames: Any, name: str = "Pole-v1") -> dict[str, Any]:
    return {"environment": name, "greedy": True, "frames": list(frames)}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return example.example_run(tmp_path / "run", steps=6)


def page_of(run: Path, found: Any) -> str:
    record = collect(run)
    record.results["episode"] = found
    return render(record)


def test_pictures_stand_in_the_page_with_what_was_done(run: Path) -> None:
    page = page_of(run, told(frame(1, png=PICTURE), frame(700, png=PICTURE, reward=0.5)))
    assert page.count("<img ") == 2 and "img-src data:" in page and f'src="data:image/png;base64,{PICTURE}"' in page
    assert 'alt="Pole-v1 before step 1"' in page and 'width="6" height="4" class="coarse"' in page
    text = shown(page)
    assert "An episode" in text and "700 steps, return −1,400" in text and "the best action each time" in text
    assert "step1action1reward−2return−2" in text and "reward+0.5" in text and "There is no picture" not in text


def test_numbers_are_drawn_where_there_is_no_picture(run: Path) -> None:
    page = page_of(run, told(frame(1, numbers=[3, 0, 9]), frame(2, numbers=[0, 0, 9])))
    assert "<img " not in page and "img-src" not in page
    assert 'aria-label="observation before step 1: 3, 0, 9"' in page and "There is no picture" in shown(page)
    many = page_of(run, told(frame(1, numbers=[0.5] * 64, size=100)))
    assert "the first 64 of 100 numbers" in shown(many) and "0.5, …" in many and 'class="numbers"' not in many


def test_counts_share_one_scale_and_measures_have_their_own() -> None:
    assert scale_of([[3.0, 0.0], [1.0, 9.0]]) == [9.0, 9.0]
    assert scale_of([[0.5, -20.0], [-0.25, 10.0], []]) == [0.5, 20.0]
    assert scale_of([[0.0, 0.0]]) == [1.0, 1.0] and scale_of([[]]) == []


def test_bars_stay_within_their_drawing() -> None:
    found = told(frame(1, numbers=[-0.5, 2.0, 0.0]), frame(2, numbers=[0.25, -1e300, 0.0]))
    drawn = str(episode(RunRecord("x", Path(), results={"episode": found})))
    for rect in drawn.split("<rect ")[1:]:
        place = {part.split("=")[0]: float(part.split('"')[1]) for part in rect.split("/>")[0].split(" ")}
        assert place["x"] >= 0 and place["x"] + place["width"] <= 160
        assert place["y"] >= 6 and place["y"] + place["height"] <= 84.1 and place["height"] >= 0


def test_actions_in_few_digits() -> None:
    assert action_text(3) == "3" and action_text([0.12345, -1.0]) == "0.12, −1"
    assert action_text([0.0] * 8) == "0, 0, 0, 0, 0, 0, …" and action_text("x") == "–"


@pytest.mark.parametrize("wrong", [
    *WRONG, "zz", "é", base64.b64encode(b"GIF89a" * 10).decode(), base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(),
    base64.b64encode(png(bytes(2000 * 3), 2000, 1, 3)).decode(), PICTURE + '"><script>',
])  # fmt: skip
def test_what_is_no_picture_is_not_shown(wrong: Any) -> None:
    assert picture_of(wrong) is None


def test_U4_wrong_types_and_hostile_texts_in_an_episode(run: Path) -> None:
    for wrong in WRONG:
        assert episode(RunRecord("x", run, results={"episode": wrong})) == ""
        assert episode(RunRecord("x", run, results={"episode": {"frames": wrong}})) == ""
        for key in ("step", "action", "reward", "return", "png", "numbers", "size"):
            shown(page_of(run, told(frame(1, numbers=[1.0]), frame(2) | {key: wrong})))
    assert "<script>alert" not in page_of(run, told(frame(1, action=HOSTILE, numbers=[HOSTILE]), name=HOSTILE))
    assert page_of(run, told(*(frame(n, png=PICTURE) for n in range(1000)))).count("<img ") == 24
