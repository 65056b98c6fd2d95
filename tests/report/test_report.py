"""Whole, partial, crashed, empty and hostile runs: what their reports say, and that opening them is safe."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import example_run as example
import pytest

from groundup.errors import CATALOGUE, GroundupError
from groundup.report import collect, render, stages_of, summarize, write_report
from groundup.report.charts import thin
from groundup.report.markup import escape, visible

VOID = {"br", "hr", "input", "link", "meta"}
KEYS = {
    "outcome", "command", "recipe_digest", "steps", "tokens", "seconds",
    "predicted", "measured", "ledger", "hardware", "evaluations",
}  # fmt: skip
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31mred\u202egnp.exe\ud800&\"'"


class Checker(HTMLParser):
    """Every element closed in order; ids unique; headings, links and scripts remembered."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if "id" in found:
            self.ids.append(found["id"] or "")
        if tag == "script":
            self.scripts.append(found)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(page: str) -> Checker:
    """The page, found to be well-formed, complete in itself and without any hand-made script."""
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert [one for one in checker.scripts if one.get("type") != "application/json"] == [{}]
    for tag, attributes in checker.elements:
        assert tag not in {"iframe", "object", "embed", "link", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in {"srcset", "style"}
            if name == "src":
                assert tag == "img" and value is not None
                assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/]+=*", value)
            if name == "href":
                assert value is not None and (value.startswith("#") or value.endswith("/report.html"))
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page), "loads or names an address"
    assert "url(" not in page and "@import" not in page
    policy = next(a["content"] for t, a in checker.elements if a.get("http-equiv"))
    assert policy is not None and "default-src 'none'" in policy and "unsafe" not in policy
    pictures = any(tag == "img" for tag, _ in checker.elements)
    assert ("img-src data:" in policy) == pictures and policy.count("img-src") == pictures
    return checker


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example.example_run(tmp_path_factory.mktemp("runs") / "pretrain", steps=120)


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example.example_run(tmp_path_factory.mktemp("runs") / "little", steps=24)


@pytest.fixture
def small(little: Path, tmp_path: Path) -> Path:
    """A copy of a run of a few steps, for tests that render many times."""
    return Path(shutil.copytree(little, tmp_path / "little"))


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "pretrain"))


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def test_report_json_has_the_promised_keys_and_the_numbers_of_the_events(run: Path) -> None:
    page = write_report(run)
    summary = json.loads((run / "report.json").read_text(encoding="utf-8"))
    steps = [event for event in events_of(run) if event["event"] == "step"]
    assert page == run / "report.html"
    assert summary.keys() >= KEYS
    assert summary["outcome"] == "finished"
    assert summary["steps"] == steps[-1]["step"] == 120
    assert summary["tokens"] == steps[-1]["tokens"]
    assert summary["seconds"] == steps[-1]["clock"]["seconds"]
    assert summary["final"]["loss"] == steps[-1]["loss"]
    assert summary["command"].startswith("groundup train recipes/pretrain.yaml")
    assert summary["ledger"]["tokens"]["balanced"] is True
    assert summary["measured"].keys() <= summary["predicted"].keys()
    row = summary["evaluations"][0]
    assert row.keys() >= {"stage", "data", "metric", "before", "after", "low", "high"}
    assert row["low"] < row["after"] < row["high"] < row["before"] and row["verdict"] == "better"
    assert sorted(path.name for path in run.iterdir() if ".tmp" in path.name) == []


def test_page_is_well_formed_offline_and_accessible(run: Path) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    checker = checked(page)
    charts = [a for t, a in checker.elements if t == "svg" and str(a.get("class", "")).startswith("chart")]
    assert len(charts) == 7 * 3
    assert all(a["role"] == "img" and a["aria-labelledby"] for a in charts)
    assert sum(tag == "h1" for tag, _ in checker.elements) == 1
    tables = sum(tag == "table" for tag, _ in checker.elements)
    assert tables == sum(tag == "caption" for tag, _ in checker.elements) >= 8
    text = "".join(checker.text)
    for said in (
        "Finished",
        "groundup train recipes/pretrain.yaml",
        "adds up",
        "within 25 %",
        "spike",
        "llama",
    ):
        assert said in text
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_same_run_gives_the_same_bytes(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_curve_points_are_values_of_the_events(run: Path) -> None:
    page = render(collect(run))
    block = re.search(r'<script type="application/json" id="points">(.*?)</script>', page)
    assert block is not None
    losses = {e["step"]: float(f"{e['loss']:.6g}") for e in events_of(run) if e["event"] == "step"}
    raw = json.loads(block[1])["loss"][0]
    assert raw["name"] == "each record" and len(raw["y"]) == 120
    assert dict(zip(raw["steps"], raw["y"])) == losses
    held = json.loads(block[1])["loss"][-1]
    evaluations = [e for e in events_of(run) if e["event"] == "evaluate"]
    assert held["steps"] == [e["step"] for e in evaluations]
    assert held["low"] == [float(f"{e['intervals']['loss'][0]:.6g}") for e in evaluations]


def test_thinning_keeps_ends_and_spikes() -> None:
    y = [1.0] * 10_000
    y[6_789], y[1_234] = 99.0, -5.0
    kept = thin(range(10_000), y, 100)
    assert len(kept) <= 102 and {0, 1_234, 6_789, 9_999} <= set(kept)


def test_hundred_thousand_steps_stay_small(tmp_path: Path) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    with (folder / "events.jsonl").open("w") as file:
        for step in range(1, 100_001):
            loss = 2 + 6 / step**0.3 + (step * 7919 % 101) / 500
            file.write(
                f'{{"event":"step","step":{step},"tokens":{step * 4096},"seen":{step * 4096},"loss":{loss},'
                f'"bits_per_byte":{loss * 0.9},"learning_rate":{1e-3 / step},"gradient_norm":{loss / 3},'
                f'"clock":{{"seconds":{step * 0.1},"tokens_per_second":{40_000 + step % 97},'
                f'"ceiling_share":0.4,"memory_bytes":1000000000}}}}\n'
            )
    page = write_report(folder)
    assert page.stat().st_size < 1_500_000
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["steps"] == 100_000


def test_U4_empty_run_renders(tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    folder.mkdir()
    page = write_report(folder).read_text(encoding="utf-8")
    summary = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    checked(page)
    assert summary["outcome"] == "empty" and summary.keys() >= KEYS
    assert summary["evaluations"] == [] and summary["steps"] is None
    assert "Nothing recorded" in page


@pytest.mark.parametrize("empty", ["events.jsonl", "results.json", "plan.json", "recipe.yaml", "sessions.jsonl"])
def test_U4_empty_or_missing_files_render(small: Path, empty: str) -> None:
    (small / empty).write_text("")
    checked(write_report(small).read_text(encoding="utf-8"))
    (small / empty).unlink()
    checked(write_report(small).read_text(encoding="utf-8"))


def test_U4_crashed_run_tells_how_far_it_came(run: Path) -> None:
    content = (run / "events.jsonl").read_bytes()
    (run / "events.jsonl").write_bytes(content[: int(len(content) * 0.6)])
    for name in ("results.json", "model/model.json"):
        (run / name).unlink()
    page = write_report(run).read_text(encoding="utf-8")
    summary = json.loads((run / "report.json").read_text(encoding="utf-8"))
    checked(page)
    assert summary["outcome"] == "unfinished"
    assert 40 < summary["steps"] < 120
    assert summary["unreadable"] and "events.jsonl: 1 unreadable line" in summary["unreadable"][0]
    evaluated = {row["metric"]: row for row in summary["evaluations"]}
    assert evaluated["loss"]["before"] > evaluated["loss"]["after"]
    assert summary["ledger"]["tokens"]["balanced"] is None
    assert "groundup train" in summary["command"]
    assert "does not add up" not in page


def test_U4_every_cut_of_the_files_renders(small: Path) -> None:
    for name in (
        "events.jsonl",
        "results.json",
        "plan.json",
        "data/card.json",
        "recipe.yaml",
        "sessions.jsonl",
    ):
        content = (small / name).read_bytes()
        for share in (0.5, 0.97):
            (small / name).write_bytes(content[: int(len(content) * share)])
            checked(render(collect(small)))
        (small / name).write_bytes(b"\xff\xfe\x00" + content[:50])
        checked(render(collect(small)))
        (small / name).write_bytes(content)


def test_U4_wrong_types_everywhere_render(small: Path) -> None:
    values: list[Any] = [
        None,
        True,
        -1,
        1e308,
        "text",
        [],
        [[1]],
        {},
        {"a": {"b": [1, {"c": None}]}},
        10**400,
    ]
    sources = {name: json.loads((small / name).read_text(encoding="utf-8")) for name in ("results.json", "plan.json")}
    for value in values:
        for name, source in sources.items():
            (small / name).write_text(json.dumps(dict.fromkeys(source, value)))
        checked(render(collect(small)))
    for name, source in sources.items():
        for key in source:
            (small / name).write_text(json.dumps({**source, key: {"a": [{"b": None}]}}))
            checked(render(collect(small)))
        (small / name).write_text(json.dumps(source))
    lines = [
        {kind: value, "event": event, "step": 400, "clock": value}
        for event in ("step", "evaluate", "sample", "guard", "warning", "end", "start", "save", None)
        for kind in ("step", "loss", "metrics", "intervals", "samples", "detail", "outcome", "message")
        for value in values
    ]
    with (small / "events.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.write('{"event": "step", "step": NaN}\n{"event": "step", "step": 401, "loss": Infinity}\n')
        file.write("[" * 100_000 + "\n" + "9" * 5000 + "\n")
    checked(write_report(small).read_text(encoding="utf-8"))
    json.loads(
        (small / "report.json").read_text(encoding="utf-8"),
        parse_constant=lambda name: pytest.fail(f"{name} is not JSON"),
    )


def test_U4_hostile_names_and_texts_are_escaped(whole: Path, tmp_path: Path) -> None:
    named = HOSTILE.replace("/", "").replace("\ud800", "")
    run = Path(shutil.copytree(whole, tmp_path / named))
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    for row in results["evaluations"]:
        row.update(stage=HOSTILE, data=HOSTILE)
    results |= {"command": HOSTILE, "recipe_digest": HOSTILE, "hardware": {HOSTILE: HOSTILE}}
    results |= {"samples": [{"prompt": HOSTILE, "text": HOSTILE, "finish": HOSTILE}]}
    results |= {"preset_difference": [{HOSTILE: HOSTILE}], "model_card": {"licence": HOSTILE}}
    (run / "results.json").write_text(json.dumps(results))
    (run / "recipe.yaml").write_text(f"# {named}\nmodel: {{family: '<b>x'}}\n")
    (run / "data" / "card.json").write_text(json.dumps({HOSTILE: {HOSTILE: [HOSTILE]}, "ledger": {HOSTILE: 1}}))
    row = {"file": HOSTILE, "line": HOSTILE, "reason": HOSTILE, "text": HOSTILE}
    (run / "data" / "quarantine.jsonl").write_text(json.dumps(row))
    (run / "model" / "model.json").write_text(json.dumps({"family": HOSTILE, "options": {HOSTILE: HOSTILE}}))
    with (run / "events.jsonl").open("a") as file:
        for event in ("warning", "guard", HOSTILE):
            file.write(json.dumps({"event": event, "step": 120, "message": HOSTILE, "detail": {HOSTILE: 1}}) + "\n")
        metrics = {"event": "evaluate", "step": 120, "data": HOSTILE, "metrics": {"loss": 1, HOSTILE: 2}}
        file.write(json.dumps(metrics) + "\n")
        file.write(json.dumps({"event": "end", "step": 120, "outcome": "failed", "reason": HOSTILE}) + "\n")
    page = write_report(run, title=HOSTILE).read_text(encoding="utf-8")
    checker = checked(page)
    assert not any(tag == "img" for tag, _ in checker.elements)
    assert "<script>alert" not in page and "\x1b" not in page and "\u202e" not in page
    assert page.count("&lt;script&gt;alert(1)") > 15
    summary = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert summary["outcome"] == "failed" and "\\ud800" in summary["reason"]


def test_control_characters_are_shown_and_letters_kept() -> None:
    assert visible("a\x1b[31m\x00\u202e\n\tb") == "a\\x1b[31m\\x00\\u202e\n\tb"
    assert escape("诗 👩‍💻 <b>&") == "诗 👩‍💻 &lt;b&gt;&amp;"


def test_repeated_steps_count_once(run: Path) -> None:
    events = events_of(run)
    again = [event for event in events if event["event"] == "step" and event["step"] > 100]
    with (run / "events.jsonl").open("a") as file:
        file.writelines(json.dumps({**event, "loss": 1.0}) + "\n" for event in again)
    record = collect(run)
    assert list(record.columns["step"]) == [float(step) for step in range(1, 121)]
    assert record.columns["loss"][-1] == 1.0
    assert any("repeated" in note for note in record.notes)


def test_stages_make_one_report_with_a_closing_table(tmp_path: Path) -> None:
    stages = example.example_stages(tmp_path / "quick start ✓")
    folder = stages[0].parent
    assert stages_of(folder) == stages
    write_report(stages[0])
    page = write_report(folder, title="Quickstart", stages=stages).read_text(encoding="utf-8")
    checker = checked(page)
    summary = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    parts = [summarize(collect(stage)) for stage in stages]
    assert summary["outcome"] == "finished"
    assert summary["tokens"] == sum(part["tokens"] for part in parts)
    assert summary["seconds"] == pytest.approx(sum(part["seconds"] for part in parts))
    assert [row["stage"] for row in summary["evaluations"]] == ["pretrain"] * 3 + ["finetune"] * 4
    assert [stage["name"] for stage in summary["stages"]] == ["pretrain", "finetune"]
    assert "pretrain/report.html" in page and "finetune/report.html" not in page
    assert {"stage-1", "stage-2"} <= set(checker.ids)


def test_broken_ledger_is_called_broken(run: Path) -> None:
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    results["ledger"]["tokens"]["trained"] -= 1
    (run / "results.json").write_text(json.dumps(results))
    assert "does not add up" in render(collect(run))


def test_missing_folder_and_unwritable_folder_are_user_errors(tmp_path: Path, run: Path) -> None:
    with pytest.raises(GroundupError) as missing:
        write_report(tmp_path / "absent")
    assert missing.value.code == "E-REPORT-001" and missing.value.exit_code == 2
    (run / "report.html").mkdir()
    with pytest.raises(GroundupError) as refused:
        write_report(run)
    assert refused.value.code == "E-REPORT-002" and refused.value.fix
    assert {missing.value.code, refused.value.code} <= CATALOGUE.keys()
    assert [path.name for path in run.iterdir() if ".tmp" in path.name] == []


def test_report_needs_no_torch() -> None:
    code = "import sys, groundup.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
