"""Names that lead nowhere, outside or astray: whatever a request or a recipe calls a file, the server answers with an
error of its own shape, below 500, and shows nothing from outside the folders that it was given."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.report.example_run import write_lines

from groundup.recipe.tree import Recipe
from groundup.recipe.yaml import dump
from groundup.run import preview_networks
from groundup.run.library import RunsLibrary
from groundup.run.library_rows import NAMING, named_files

pytest.importorskip("fastapi", reason="the server is an extra: pip install 'groundup[serve]'")

from house import Caller, error_of
from made_runs import prepared_text

from groundup.serving.app import build
from groundup.serving.options import ServerOptions
from groundup.serving.specimen import shelf

TABLE = "a,b,label\n" + "".join(f"{i},{i % 7},{'yes' if i % 2 else 'no'}\n" for i in range(300))
ODD_IDS = (
    "\0", "a\0b", "x" * 5000, "..", "../..", "../../etc/passwd", "/etc/passwd", "//etc/passwd", "%2e%2e%2fetc", "%00",
    "é", "\u202e", "\U0001f600", "run", "run/data", "~root", "~nobody-of-this-name", "\\\\host\\share", "C:\\",
    "\r\nSet-Cookie: a=b", "{id}", "0" * 16,
)  # fmt: skip


def run_of(runs: Path, **data: Any) -> Path:
    """A run on a table, of which only the recipe and an empty card are there."""
    write_lines(runs / "run" / "data" / "card.json", [{"rows": {"kept": 40}}])
    recipe = {"name": "rows", "model": {"family": "mlp", "hidden": [4]}, "budget": {"steps": 2}}
    (runs / "run" / "recipe.yaml").write_text(dump({**recipe, "data": {"kind": "table", **data}}))
    return runs / "run"


def server_of(runs: Path) -> Caller:
    return Caller(build(shelf(), ServerOptions(), library=RunsLibrary(runs)))


def rows_of(server: Caller, **query: Any) -> Any:
    (line,) = server.get("/api/data").json()
    return server.get(f"/api/data/{line['id']}/rows", params=query)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder from which the server is started; a table lies beside it, which is none of the server's business."""
    (tmp_path / "secret.csv").write_text(TABLE)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "rows.csv").write_text(TABLE)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.mark.parametrize("id", ODD_IDS)
def test_an_odd_id_is_not_found(work: Path, id: str) -> None:
    run_of(work / "runs", files=["rows.csv"])
    server = server_of(work / "runs")
    for path in ("/api/runs/{}", "/api/runs/{}/events", "/api/runs/{}/report", "/api/data/{}", "/api/data/{}/rows"):
        error_of(server.get(path.format(quote(id, safe=""))), 404)
    answer = server.get("/api/compare", params={"first": id, "second": id})
    error_of(answer, 400 if len(id) > 64 else 404)


@pytest.mark.parametrize("word", ODD_IDS)
def test_odd_words_of_a_question_name_nothing(work: Path, word: str) -> None:
    prepared_text(work / "runs" / "run" / "data")
    write_lines(work / "runs" / "run" / "events.jsonl", [{"event": "start"}])
    server = server_of(work / "runs")
    too_long = len(word) > 500
    for query in ({"part": word}, {"search": word}):
        answer = rows_of(server, **query)
        assert answer.status_code == (400 if too_long else 200), answer.text
    (run,) = server.get("/api/runs").json()
    answer = server.get(f"/api/runs/{run['id']}/events", params={"after": 3, "mark": word})
    assert answer.status_code == (400 if len(word) > 64 else 200)


NAMES = {
    # what a recipe calls its file: status, code
    "/etc/passwd": (403, "E-SERVE-042"),
    "../secret.csv": (403, "E-SERVE-042"),
    "runs/../../secret.csv": (403, "E-SERVE-042"),
    "../*.csv": (403, "E-SERVE-042"),
    "*/../../secret.csv": (403, "E-SERVE-042"),
    "linked.csv": (403, "E-SERVE-042"),
    "linked*": (403, "E-SERVE-042"),
    "away/secret.csv": (403, "E-SERVE-042"),
    "folder": (403, "E-SERVE-042"),
    "~root/secret.csv": (403, "E-SERVE-042"),
    "hf:owner/set": (403, "E-SERVE-042"),
    "https://example.org/rows.csv": (403, "E-SERVE-042"),
    "~nobody-of-this-name/rows.csv": (409, "E-SERVE-043"),
    "nul\0byte.csv": (409, "E-SERVE-043"),
    "x" * 5000 + ".csv": (409, "E-SERVE-043"),
    "circle.csv": (409, "E-SERVE-043"),
    "broken.csv": (409, "E-DATA-"),
    "no such.csv": (409, "E-DATA-"),
    "%2e%2e%2fsecret.csv": (409, "E-DATA-"),
    "é\u202e\U0001f600.csv": (409, "E-DATA-"),
    "rows.csv/below.csv": (409, "E-"),
    "empty": (409, "E-DATA-"),
    "named.csv": (409, "E-DATA-"),
    "": (403, "E-SERVE-042"),  # the folder itself, in which there are links that lead outside
}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_that_names_an_odd_file_is_refused(work: Path, name: str) -> None:
    (work / "linked.csv").symlink_to(work.parent / "secret.csv")
    (work / "away").symlink_to(work.parent)
    (work / "broken.csv").symlink_to(work / "nowhere.csv")
    (work / "circle.csv").symlink_to(work / "circle.csv")
    (work / "folder").mkdir()
    (work / "folder" / "inner.csv").symlink_to(work.parent / "secret.csv")
    (work / "empty").mkdir()
    (work / "named.csv").mkdir()
    run_of(work / "runs", files=[name])
    status, code = NAMES[name]
    error = error_of(rows_of(server_of(work / "runs")), status)
    assert error["code"].startswith(code), error
    assert "\0" not in error["message"] and len(error["message"]) < 3000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("test_files", ["../secret.csv"]), ("validation_files", ["../secret.csv"]),
        ("files", ["rows.csv", "/etc/passwd"]),
    ],
)  # fmt: skip
def test_every_field_that_names_files_is_judged(work: Path, field: str, value: list[str]) -> None:
    run_of(work / "runs", **{"files": ["rows.csv"], field: value})
    assert error_of(rows_of(server_of(work / "runs")), 403)["code"] == "E-SERVE-042"


def test_a_text_that_only_looks_like_a_path_is_none(work: Path) -> None:
    text = TABLE.replace("label", "/label", 1).replace("yes", "a/b")
    (work / "rows.csv").write_text(text)
    run_of(work / "runs", files=["rows.csv"], columns={"target": "/label", "ignore": ["~"]})
    (work / "rows.csv").write_text(text.replace("a,b,", "a,~,", 1))
    page = rows_of(server_of(work / "runs")).json()
    assert page["rows"][0]["answer"] in ("a/b", "no") and page["total"] > 200


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(work: Path) -> None:
    (work / "rows.csv").chmod(0)
    run_of(work / "runs", files=["rows.csv"])
    error_of(rows_of(server_of(work / "runs")), 409)


def test_a_fault_of_the_system_while_rows_are_read_is_no_500(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*words: Any, **more: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "rows.csv")

    run_of(work / "runs", files=["rows.csv"])
    server = server_of(work / "runs")
    monkeypatch.setattr(preview_networks, "preview_network", denied)
    error = error_of(rows_of(server), 409)
    assert error["code"] == "E-SERVE-043" and "Permission denied" in error["message"]
    monkeypatch.undo()
    monkeypatch.chdir(work)
    assert rows_of(server).status_code == 200, "what could not be read is read again"


@pytest.mark.parametrize("name", ["recipe.yaml", "data/card.json", "data/quarantine.jsonl", "events.jsonl"])
@pytest.mark.parametrize("what", ["folder", "broken link", "circle", "noise"])
def test_a_run_whose_file_is_something_else_has_no_500(work: Path, name: str, what: str) -> None:
    place = run_of(work / "runs", files=["rows.csv"]) / name
    place.unlink(missing_ok=True)
    if what == "folder":
        place.mkdir()
    elif what == "noise":
        place.write_bytes(bytes(range(256)) * 20)
    else:
        place.symlink_to(place if what == "circle" else "nowhere")
    server = server_of(work / "runs")
    for path in ("/api/folder", "/api/runs", "/api/data", "/api/models"):
        assert server.get(path).status_code == 200, path
    for run in server.get("/api/runs").json():
        for part in ("", "/events", "/report"):
            assert server.get(f"/api/runs/{run['id']}{part}").status_code == 200
    for line in server.get("/api/data").json():
        for part in ("", "/rows", "/quarantine"):
            answer = server.get(f"/api/data/{line['id']}{part}")
            if answer.status_code != 200:
                error_of(answer, 409)


NOISE = ('{"splits": {"train": [{"documents": "x", "name": "a"}]}}', '{"splits": 7}', "[", "")


@pytest.mark.parametrize("index", NOISE)
@pytest.mark.parametrize("part", ["tokens", "clean"])
def test_an_index_of_noise_has_no_500(work: Path, part: str, index: str) -> None:
    folder = work / "runs" / "run" / "data"
    prepared_text(folder)
    write_lines(work / "runs" / "run" / "events.jsonl", [{"event": "start"}])
    (folder / part / "index.json").write_text(index)
    server = server_of(work / "runs")
    for query in ({}, {"search": "hello"}):
        answer = rows_of(server, **query)
        if answer.status_code != 200:
            error_of(answer, 409)


def test_the_fields_that_name_files_are_known() -> None:
    """A new field of a recipe that says in its description that it names files must be judged too."""
    said = ("files,", "files and folders", "a folder", "a Jinja file", "model folder", "has files of its own")
    found: set[str] = set()

    def walk(schema: Any) -> None:
        if isinstance(schema, dict):
            for name, field in schema.get("properties", {}).items():
                if any(words in field.get("description", "") for words in said):
                    found.add(name)
            for item in schema.values():
                walk(item)
        elif isinstance(schema, list):
            for item in schema:
                walk(item)

    walk(Recipe.model_json_schema())
    found.discard("memory_bytes")
    assert {"files", "test_files", "prepared", "template", "init_from"} <= found <= NAMING, found - NAMING
    nested = {"data": {"sources": {"one": {"files": ["a"]}}, "overlap": {"files": ["b"]}, "labels": ["c"]}}
    assert list(named_files(nested)) == ["a", "b"]
