"""What the page is told about runs, prepared data and models: whole, bounded, and nothing from outside the folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from groundup.checkpoint.process import process_started
from groundup.data.card import quarantine_lines
from groundup.errors import GroundupError
from groundup.run import library, library_data, library_events, library_rows
from groundup.run.library import RunsLibrary
from groundup.run.library_events import read_piece

pytest.importorskip("fastapi", reason="the server is an extra: pip install 'groundup[serve]'")

from fastapi import FastAPI
from house import Caller
from made_runs import HOSTILE, REASONS, append, live_run, prepared_text, runs_folder
from tests.report.example_run import example_run, write_lines
from tests.small_models import small_tokenizer, writing_model

from groundup.serving.library import RunsFolder
from groundup.serving.library_routes import REPORT_POLICY, router


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs_folder(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def shelf(folder: Path) -> RunsLibrary:
    return RunsLibrary(folder)


@pytest.fixture(scope="module")
def caller(shelf: RunsLibrary) -> Caller:
    app = FastAPI()
    app.include_router(router(shelf))
    return Caller(app)


def ids(found: list[Any]) -> dict[str, str]:
    return {one.name: one.id for one in found}


def code_of(call: Any) -> str:
    with pytest.raises(GroundupError) as caught:
        call()
    return caught.value.code


def test_every_run_is_listed_in_whatever_state_it_is(shelf: RunsLibrary) -> None:
    lines = {line.name: line for line in shelf.runs()}
    assert set(lines) == {"finished", "live", "crashed", "broken", "judged", HOSTILE}
    assert (lines["finished"].outcome, lines["finished"].steps, lines["finished"].live) == ("finished", 90, False)
    assert (lines["live"].outcome, lines["live"].live) == ("unfinished", True)
    assert lines["broken"].outcome == "empty"
    for line in lines.values():
        detail = shelf.run(line.id)
        assert detail.line == line
        assert "<html" in shelf.report(line.id)
        assert re.fullmatch("[0-9a-f]{16}", line.id)


def test_a_run_is_live_no_longer_when_its_process_died(tmp_path: Path) -> None:
    live_run(tmp_path / "run", steps=5)
    assert RunsLibrary(tmp_path).runs()[0].live
    lock = {"pid": 2**22 + 1, "started": 0.0, "host": socket.gethostname()}
    (tmp_path / "run" / "lock").write_text(json.dumps(lock))
    assert not RunsLibrary(tmp_path).runs()[0].live
    mine = {**lock, "pid": os.getpid(), "started": process_started(os.getpid())}
    (tmp_path / "run" / "lock").write_text(json.dumps(mine))
    assert RunsLibrary(tmp_path).runs()[0].live
    (tmp_path / "run" / "lock").write_text(json.dumps({**mine, "started": 1.0}))
    assert not RunsLibrary(tmp_path).runs()[0].live, "another process has that number now"
    (tmp_path / "run" / "lock").write_text(json.dumps(mine))
    assert RunsLibrary(tmp_path).runs()[0].live
    os.utime(tmp_path / "run" / "events.jsonl", (1, 1))
    assert not RunsLibrary(tmp_path).runs()[0].live


def test_a_folder_that_comes_later_is_empty_until_then(tmp_path: Path) -> None:
    shelf = RunsLibrary(tmp_path / "later")
    assert (shelf.runs(), shelf.data(), shelf.models()) == ([], [], [])
    assert shelf.folder() == RunsFolder(path=str(tmp_path / "later"), exists=False)
    (tmp_path / "later").mkdir()
    assert shelf.folder().exists


def test_pieces_of_events_join_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example_run(tmp_path, steps=200)
    path = tmp_path / "events.jsonl"
    written = [json.loads(line) for line in path.read_text().splitlines()]
    monkeypatch.setattr(library_events, "PIECE", 5000)
    place, mark, steps, others = 0, "", [], []
    for _ in range(1000):
        piece = read_piece(path, place, mark)
        assert not piece.reset and piece.next - place <= 5000
        steps += list(zip(piece.steps.get("step", []), piece.steps.get("loss", [])))
        others += piece.events
        if piece.next == place:
            break
        place, mark = piece.next, piece.mark
    assert place == path.stat().st_size == piece.size
    assert steps == [(event["step"], event["loss"]) for event in written if event["event"] == "step"]
    assert others == [event for event in written if event["event"] != "step"]


def test_a_line_without_its_end_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "step", "step": 1, "loss": 2.0}\n{"event": "st')
    first = read_piece(path, 0, "")
    assert first.steps["loss"] == [2.0] and first.next < first.size
    with path.open("a") as file:
        file.write('ep", "step": 2, "loss": NaN}\nno JSON\n[]\n')
    second = read_piece(path, first.next, first.mark)
    assert (second.steps["step"], second.steps["loss"], second.unreadable) == ([2.0], [None], 2)


def test_a_resumed_run_that_was_cut_back_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines = [json.dumps({"event": "step", "step": step, "loss": 1.0}) + "\n" for step in range(1, 9)]
    path.write_text("".join(lines))
    piece = read_piece(path, 0, "")
    path.write_text("".join(lines[:4]))
    assert read_piece(path, piece.next, piece.mark).reset  # shorter than what was read
    path.write_text("".join(lines[:4] + [line.replace("1.0", "7.0") for line in lines[4:]]))
    again = read_piece(path, piece.next, piece.mark)  # as long as before, and other steps
    assert again.reset and again.steps["loss"] == [1.0] * 4 + [7.0] * 4
    path.unlink()
    assert read_piece(path, again.next, again.mark).reset


def test_a_line_longer_than_a_piece_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_events, "PIECE", 1000)
    path = tmp_path / "events.jsonl"
    path.write_text("x" * 2500 + "\n" + json.dumps({"event": "step", "step": 1, "loss": 1.0}) + "\n")
    place, mark, steps, unreadable = 0, "", 0, 0
    while (piece := read_piece(path, place, mark)).next > place:
        place, mark = piece.next, piece.mark
        steps, unreadable = steps + len(piece.steps["step"]), unreadable + piece.unreadable
    assert place == path.stat().st_size and steps == 1 and unreadable >= 1


def test_a_long_file_is_thinned_and_keeps_its_spikes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_events, "LONG", 1000)
    losses = [1.0] * 5000
    losses[2345] = 99.0
    rows = [{"event": "step", "step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
    write_lines(tmp_path / "events.jsonl", rows)
    piece = read_piece(tmp_path / "events.jsonl", 0, "")
    assert piece.thinned and len(piece.steps["step"]) <= library_events.MOST_STEPS + 2
    assert 99.0 in piece.steps["loss"] and piece.steps["step"][-1] == 5000


def test_S13_links_that_lead_outside_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "outside"
    example_run(secret, steps=10)
    runs = tmp_path / "runs"
    live_run(runs / "own", steps=5)
    (runs / "linked").symlink_to(secret)
    example_run(runs / "stray", steps=10)
    (runs / "stray" / "events.jsonl").unlink()
    (runs / "stray" / "events.jsonl").symlink_to(secret / "events.jsonl")
    example_run(runs / "card", steps=10)
    (runs / "card" / "data" / "card.json").unlink()
    (runs / "card" / "data" / "card.json").symlink_to("/etc/passwd")
    shelf = RunsLibrary(runs)
    assert [line.name for line in shelf.runs()] == ["own"]
    assert shelf.data() == []


def test_ids_are_looked_up_and_never_paths(shelf: RunsLibrary, caller: Caller) -> None:
    for id in ("finished", "../finished", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "", "0" * 16):
        assert code_of(lambda id=id: shelf.run(id)) == "E-SERVE-041"
        assert code_of(lambda id=id: shelf.events(id, 0, "")) == "E-SERVE-041"
        assert code_of(lambda id=id: shelf.prepared(id)) == "E-SERVE-041"
        for path in (f"/api/runs/{id}/events", f"/api/runs/{id}/report", f"/api/data/{id}/rows"):
            assert caller.get(path).status_code == 404


def test_rows_come_with_tokens_and_mask_page_by_page(shelf: RunsLibrary) -> None:
    id = ids(shelf.data())["finished"]
    first = shelf.rows(id, "train", 0, 10, "")
    assert (len(first.rows), first.next, first.total) == (10, 10, 25)
    row = first.rows[3]
    assert row.number == 4 and row.text == "<|begin|>Document 3 says hello."
    assert "".join(row.tokens) == row.text and len(row.ids) == len(row.tokens) == len(row.learned)
    assert row.learned[0] is False and all(row.learned[1:])
    last = shelf.rows(id, "train", 20, 10, "")
    assert (len(last.rows), last.next) == (5, None)
    assert shelf.rows(id, "held_out", 0, 10, "").total == 2
    assert shelf.rows(id, "no such part", 0, 3, "").rows == first.rows[:3]


def test_rows_are_searched(shelf: RunsLibrary) -> None:
    id = ids(shelf.data())["finished"]
    found = shelf.rows(id, "train", 0, 3, "DOCUMENT 1")
    assert [row.number for row in found.rows] == [2, 11, 12]
    more = shelf.rows(id, "train", found.next or 0, 20, "DOCUMENT 1")
    assert [row.number for row in more.rows] == [13, 14, 15, 16, 17, 18, 19, 20] and more.next is None
    assert (found.found, more.found, more.total) == (11, 11, 25), "all that fit are counted, on every page"
    assert [row.number for row in shelf.rows(id, "held_out", 0, 9, "你").rows] == [2]


def test_a_search_that_would_take_too_long_counts_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_rows, "SCANNED", 100)
    shelf = RunsLibrary(folder)
    page = shelf.rows(ids(shelf.data())["finished"], "train", 0, 3, "document 24")
    assert page.found is None and page.next is not None


def test_of_a_long_table_the_first_rows_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_lines(runs / "run" / "data" / "card.json", [{"rows": {"kept": 1000}}])
    text = "a,b,label\n" + "".join(f"{i},{i % 7},{'yes' if i % 2 else 'no'}\n" for i in range(1000))
    (tmp_path / "rows.csv").write_text(text)
    (runs / "run" / "recipe.yaml").write_text(
        f"name: rows\nmodel: {{family: mlp, hidden: [4]}}\ndata: {{kind: table, files: [{tmp_path / 'rows.csv'}]}}\n"
        "budget: {steps: 2}\n"
    )
    shelf = RunsLibrary(runs, data=[tmp_path])
    id = next(line.id for line in shelf.data() if line.kind == "table")
    page = shelf.rows(id, "", 0, 10, "")
    assert page.total is not None and page.total > 700 and (page.within, page.found) == (200, None)
    found = shelf.rows(id, "", 0, 10, "yes")
    assert found.found is not None and 10 < found.found < 200 and (found.total, found.within) == (page.total, 200)
    assert len(found.rows) == 10 and found.next == 10


def test_a_folder_is_not_walked_for_every_question(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(library_data, "read_object", lambda path, notes: read.append(path.name) or {})
    monkeypatch.setattr(library_data, "read_yaml", lambda text, name, notes: read.append(name) or {})
    monkeypatch.setattr(library, "LISTING_SECONDS", 3600.0)
    shelf = RunsLibrary(folder)
    shelf.data()
    first = len(read)
    monkeypatch.setattr(library_data.os, "walk", lambda place: pytest.fail(f"{place} is walked again"))
    for line in shelf.data():
        shelf.prepared(line.id)
    assert first and len(read) == first, "cards and recipes that did not change are not read again"


def test_the_quarantine_is_paged_filtered_and_searched(shelf: RunsLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    id = ids(shelf.data())["finished"]
    assert shelf.prepared(id).reasons == REASONS
    first = shelf.quarantine(id, 0, 25, "", "")
    rest = shelf.quarantine(id, first.next or 0, 25, "", "")
    assert len(first.rows) == 25 and len(rest.rows) == 6 and rest.next is None
    assert [row["text"] for row in shelf.quarantine(id, 0, 25, "malformed: not JSON", "").rows] == [HOSTILE]
    assert [row["line"] for row in shelf.quarantine(id, 0, 25, "", "COPY 7").rows] == [8]
    monkeypatch.setattr(library_data, "SCANNED", 500)  # a long file: nothing found yet is no end
    some = shelf.quarantine(id, 0, 25, "malformed: not JSON", "")
    assert some.rows == [] and some.next


def test_rows_of_a_recipe_are_read_only_where_the_server_may_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs, inside, outside = tmp_path / "work" / "runs", tmp_path / "work" / "rows.csv", tmp_path / "secret.csv"
    recipe = (
        "name: rows\nmodel: {{family: mlp, hidden: [4]}}\ndata: {{kind: table, files: [{0}]}}\nbudget: {{steps: 2}}\n"
    )
    for name, file in (("good", inside), ("bad", outside), ("up", Path("../secret.csv"))):
        write_lines(runs / name / "data" / "card.json", [{"rows": {"kept": 40}}])
        (runs / name / "recipe.yaml").write_text(recipe.format(file))
    text = "a,b,label\n" + "".join(f"{i},{i % 7},{'yes' if i % 2 else 'no'}\n" for i in range(40))
    inside.write_text(text)
    outside.write_text(text)
    monkeypatch.chdir(tmp_path / "work")
    shelf = RunsLibrary(runs)
    data = ids(shelf.data())
    page = shelf.rows(data["good"], "", 0, 3, "")
    assert len(page.rows) == 3 and page.next == 3 and page.rows[0].answer in ("yes", "no")
    assert page.rows[0].headers == ["feature", "cell", "number"]
    assert (page.total, page.within, page.found) == (32, None, None)
    for name in ("bad", "up"):
        assert code_of(lambda name=name: shelf.rows(data[name], "", 0, 3, "")) == "E-SERVE-042"


def test_a_named_folder_of_prepared_data_is_found(tmp_path: Path) -> None:
    prepared_text(tmp_path / "sets" / "first")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sets" / "linked").symlink_to(tmp_path / "elsewhere")
    shelf = RunsLibrary(tmp_path / "runs", data=[tmp_path / "sets"])
    (line,) = shelf.data()
    assert (line.name, line.kind, line.rows, line.kept, line.set_aside) == ("sets/first", "text", "stored", 27, 31)
    assert shelf.rows(line.id, "train", 0, 1, "").rows[0].number == 1
    (tmp_path / "sets" / "first" / "tokens" / "train-00000.tokens").write_bytes(b"cut")
    assert code_of(lambda: shelf.rows(line.id, "train", 0, 1, "")) == "E-DATA-004"


def test_a_model_that_cannot_be_read_is_listed_with_its_fault(tmp_path: Path) -> None:
    example_run(tmp_path / "run", steps=10)
    (line,) = RunsLibrary(tmp_path).models()
    assert line.name == "run" and line.fault and not line.family


def test_models_that_no_run_made_and_nobody_serves_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = {"weight": np.zeros((2, 2), dtype=np.float32)}
    inside, outside = tmp_path / "runs", tmp_path / "elsewhere"
    for place in (tmp_path / "models" / "small", inside / "merged" / "model", inside / "linked", outside):
        place.mkdir(parents=True)
        (place / "model.json").write_text("{}")
        if place.name == "linked":
            (place / "model.safetensors").symlink_to(outside / "model.safetensors")
        else:
            save_file(weights, place / "model.safetensors")
    (inside / "away").symlink_to(outside)
    example_run(inside / "run", steps=10)
    shelf = RunsLibrary(inside, models=[Path("models/small")])
    assert [(line.name, line.path) for line in shelf.models()] == [
        ("merged", str(inside / "merged" / "model")), ("run", str(inside / "run")), ("small", "models/small"),
    ]  # fmt: skip


def test_the_routes_answer_in_the_shapes_that_they_promise(caller: Caller, shelf: RunsLibrary) -> None:
    runs, data = ids(shelf.runs()), ids(shelf.data())
    assert {line["name"] for line in caller.get("/api/runs").json()} == set(runs)
    assert caller.get("/api/folder").json() == {"path": str(shelf.root), "exists": True}
    assert caller.get(f"/api/runs/{runs['judged']}").json()["classification"][0]["labels"] == ["cat", "dog"]
    events = caller.get(f"/api/runs/{runs['live']}/events", params={"after": 0}).json()
    assert len(events["steps"]["loss"]) == 20 and events["next"] == events["size"]
    report = caller.get(f"/api/runs/{runs[HOSTILE]}/report")
    assert report.headers["content-security-policy"] == REPORT_POLICY and "sandbox" in REPORT_POLICY
    assert HOSTILE not in report.text and "&lt;img" in report.text
    found = caller.get("/api/compare", params={"first": runs["finished"], "second": runs["judged"]}).json()
    assert {"recipe", "metrics", "notes"} <= found.keys()
    assert len(caller.get(f"/api/data/{data['finished']}/rows", params={"count": 4}).json()["rows"]) == 4
    assert len(caller.get(f"/api/data/{data['finished']}/quarantine").json()["rows"]) == 20
    assert {model["name"] for model in caller.get("/api/models").json()} == {"finished", "judged", HOSTILE}


@pytest.mark.parametrize("query", ["after=-1", "after=x", f"after={2**64}", f"mark={'a' * 65}"])
def test_bad_questions_are_refused(caller: Caller, shelf: RunsLibrary, query: str) -> None:
    id = ids(shelf.runs())["live"]
    assert caller.get(f"/api/runs/{id}/events?{query}").status_code in (400, 422)


def test_an_error_has_the_shape_of_the_interface(caller: Caller) -> None:
    answer = caller.get("/api/runs/0000")
    assert answer.status_code == 404 and answer.headers["cache-control"] == "no-store"
    assert answer.json()["error"]["code"] == "E-SERVE-041"
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_growing_run_is_told_piece_by_piece(tmp_path: Path) -> None:
    rest = live_run(tmp_path / "run", steps=5)
    shelf = RunsLibrary(tmp_path)
    (line,) = shelf.runs()
    first = shelf.events(line.id, 0, "")
    assert shelf.events(line.id, first.next, first.mark).steps["step"] == []
    append(tmp_path / "run", rest[:3])
    more = shelf.events(line.id, first.next, first.mark)
    assert len(more.steps["step"]) + len(more.events) == 3 and not more.reset


def test_a_quarantine_of_half_a_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    path.write_bytes(quarantine_lines([{"order": 0, "reason": "a", "text": "b"}]) + b'{"reason": "cut')
    rows = library_data.set_aside(path, 0, 10, "", "").rows
    assert [row["reason"] for row in rows] == ["a", "not readable"]


def test_a_line_too_long_to_be_shown_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    giant = json.dumps({"reason": "huge", "text": "x" * (3 * library_data.LONGEST)})
    path.write_text(giant + "\n" + json.dumps({"reason": "small"}) + "\n")
    page = library_data.set_aside(path, 0, 10, "", "")
    assert [row["reason"] for row in page.rows] == ["not readable", "small"] and page.next is None


def test_a_model_listed_before_its_run_ended_is_described_anew(tmp_path: Path) -> None:
    folder = example_run(tmp_path / "run")
    shutil.rmtree(folder / "model", ignore_errors=True)
    writing_model(folder / "model", small_tokenizer())
    lines = (folder / "events.jsonl").read_text().splitlines()
    ends = [line for line in lines if json.loads(line)["event"] == "end"]
    assert ends, "the example has an end"
    (folder / "events.jsonl").write_text("\n".join(line for line in lines if line not in ends) + "\n")
    shelf = RunsLibrary(tmp_path)
    before = {line.id: line.lineage.get("outcome") for line in shelf.models()}
    assert before, "the run has a model"
    with (folder / "events.jsonl").open("a") as file:
        file.write("\n".join(ends) + "\n")
    after = {line.id: line.lineage.get("outcome") for line in RunsLibrary(tmp_path).models()}
    shelf._summaries = type(shelf._summaries)()  # as if the time had passed for which a summary is believed
    assert {line.id: line.lineage.get("outcome") for line in shelf.models()} == after != before
