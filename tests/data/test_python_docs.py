"""The corpus from the standard library: what is found, what is left out, and the questions made from it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from groundup.data import python_docs, python_questions
from groundup.data.python_docs import Document, Entry, documentation, entries, held_out_module, write_corpus
from groundup.data.python_questions import Row, questions, summary, write_questions
from groundup.errors import GroundupError

MODULE = '''"""Text wrapping and filling."""
import sys
raise SystemExit("an imported module would end the tests")

class Wrapper:
    """Object for wrapping text."""
    def __init__(self, width=70, *, tab: int = 8):
        """Not shown."""
    def fill(self, text: str) -> str:
        """Reformat the single paragraph in text."""
    def _secret(self):
        """Never shown."""
    @property
    def width(self):
        """The number of columns."""
    def undocumented(self):
        pass

if sys.platform == "x":
    def dedent(text):
        """Remove common leading whitespace.   \n        \n        From every line.
        """
else:
    def dedent(text):
        """Another text of the same name."""

if __name__ == "__main__":
    def main():
        """Never shown either."""
'''
TOPICS = 'topics = {"big": "Big chapter\\n\\n' + "a" * 80 + "\\n\\n" + "b" * 80 + '\\n", "part": "' + "a" * 80
TOPICS += '\\n", "kin": "Kin\\n\\n' + "b" * 80 + "\\n\\n" + "c" * 80 + '", "own": "' + "d" * 80 + '"}\n'


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    files = {
        "wrap.py": MODULE,
        "pack/__init__.py": '"""A package of things."""\n',
        "pack/_private.py": 'def hidden():\n    """Has no public name."""\n',
        "test/test_wrap.py": '"""A test."""\n',
        "site-packages/other.py": '"""Installed by somebody."""\n',
        "this.py": '"""A joke."""\n',
        "broken.py": "def (:\n",
        "latin.py": "# -*- coding: latin-1 -*-\n'''Caf\xe9 au lait is served.'''\n",
        "pydoc_data/topics.py": TOPICS,
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1"))
    return folder


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return list(documentation())


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return questions()


def by_module(folder: Path, code: bool = False) -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = {}
    for document in documentation(code=code, stdlib=folder):
        found.setdefault(document.module, []).append(document)
    return found


def test_a_module_becomes_one_document_of_signatures_and_docstrings(library: Path) -> None:
    (document,) = by_module(library)["wrap"]
    assert document == Document(
        "wrap",
        "module wrap\n\nText wrapping and filling.\n\n"
        "class wrap.Wrapper(width=70, *, tab: int=8)\n\nObject for wrapping text.\n\n"
        "method wrap.Wrapper.fill(text: str)\n\nReformat the single paragraph in text.\n\n"
        "attribute wrap.Wrapper.width\n\nThe number of columns.\n\n"
        "function wrap.dedent(text)\n\nRemove common leading whitespace.\n\nFrom every line.\n",
        "docs",
    )


def test_tests_installed_packages_jokes_and_private_names_stay_out(library: Path) -> None:
    found = by_module(library)
    assert {"wrap", "pack", "latin"} <= found.keys()
    assert not {"test.test_wrap", "test", "other", "this", "broken", "pack._private"} & found.keys()
    assert "hidden" not in found["pack"][0].text
    assert "Café" in found["latin"][0].text


def test_sources_follow_with_code_and_stand_on_the_side_of_their_module(library: Path) -> None:
    found = by_module(library, code=True)
    assert [document.kind for document in found["wrap"]] == ["docs", "code"]
    assert found["wrap"][1].text == MODULE
    assert [document.kind for document in found["pack"]] == ["docs", "code", "code"]
    assert "é" in found["latin"][1].text


def test_topics_that_quote_each_other_are_one_group_and_contained_ones_are_left_out(library: Path) -> None:
    topics = [document for document in documentation(stdlib=library) if document.kind == "topic"]
    assert [document.module for document in topics] == ["topic:big", "topic:big", "topic:own"]
    assert sum("a" * 80 in document.text for document in topics) == 1


def test_an_installation_without_sources_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(GroundupError) as caught:
        list(documentation(stdlib=tmp_path))
    assert caught.value.code == "E-DATA-060" and str(tmp_path) in caught.value.what
    assert "libpython3" in caught.value.fix and "--text" in caught.value.fix


def test_this_installation_gives_about_two_megabytes_of_each_text_once(documents: list[Document]) -> None:
    size = sum(len(document.text) for document in documents)
    assert 1.5e6 < size < 4e6 and len(documents) > 250
    named = {document.module: document.text for document in documents if document.kind == "docs"}
    assert "function textwrap.dedent(text)\n\nRemove any common leading whitespace" in named["textwrap"]
    assert "function math.gcd(*integers)" in named["math"] and "method str.upper" in named["builtins"]
    assert not re.search(r" at 0x7[0-9a-f]{8,}", "".join(named.values()))
    texts = Counter(entry.text for entry in entries() if len(entry.text) > 60)
    assert max(texts.values()) == 1


def test_held_out_text_stands_nowhere_in_training(documents: list[Document]) -> None:
    sides: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for document in documents:
        for paragraph in re.split(r"\n\s*\n", document.text):
            if len(paragraph) >= 100:
                sides[held_out_module(document.module)][paragraph] += len(paragraph)
    share = sum(sides[True].values()) / sum(map(Counter.total, sides.values()))
    copied = sum(size for paragraph, size in sides[True].items() if paragraph in sides[False])
    assert 0.04 < share < 0.2
    assert copied < 0.03 * sum(sides[True].values())


def test_no_module_is_imported_and_processes_write_the_same_bytes(tmp_path: Path, library: Path) -> None:
    program = (
        "import sys, pathlib; from groundup.data import python_docs as d, python_questions as q;"
        "folder, lib = map(pathlib.Path, sys.argv[1:]); d.write_corpus(folder, stdlib=lib);"
        "q.write_questions(folder, stdlib=lib);"
        "print(sorted({'antigravity', 'this', 'tkinter', 'turtle', 'torch', 'wrap'} & set(sys.modules)))"
    )
    own = Path(python_docs.sysconfig.get_paths()["stdlib"])
    for name in ("turtle.py", "antigravity.py", "textwrap.py"):
        (library / name).symlink_to(own / name)
    for name, seed in (("one", "1"), ("two", "2")):
        run = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / name), str(library)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "src", "LC_ALL": "C" if seed == "1" else "C.UTF-8"},
            cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert run.stdout.strip() == "[]"
    for name in ("documents.jsonl", "questions.train.jsonl", "questions.held_out.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_corpus_file_has_a_row_for_each_document(tmp_path: Path, library: Path) -> None:
    written = write_corpus(tmp_path / "new" / "corpus", stdlib=library)
    rows = [json.loads(line) for line in written.documents.read_text(encoding="utf-8").splitlines()]
    assert [tuple(row) for row in rows] == [("module", "text", "kind")] * written.num_documents
    assert sum(len(row["text"].encode()) for row in rows) == sum(written.text_bytes.values())


# ------------------------------------------------------------------------------------------------ questions


def summarised(text: str) -> str:
    return summary(Entry("m", "f", "function", "()", text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Remove whitespace from every line\n\nMore.", "Remove whitespace from every line."),
        ("len(obj) -> int\n\nReturn the number of items.", "Return the number of items."),
        ("fabs(x) -- the absolute value of x", "The absolute value of x."),
        ("f([a]) -> (x,\n         y)\n\nConvert seconds to a time.", "Convert seconds to a time."),
        ("Use :func:`json.loads` here, e.g. ``it`` of all.", "Use `json.loads` here, e.g. `it` of all."),
        ("Print the list.  Then go on to the next.\n\n>>> f()", "Print the list. Then go on to the next."),
        ("Compare both of the files.\nArguments:\n  a -- first", "Compare both of the files."),
        ("Internal: never call this one.", ""),
        ("Return self.", ""),
        (">>> f(1)\n2", ""),
        ("The following names exist here:\n\n a, b", ""),
        ("", ""),
    ],
)
def test_answers_are_whole_sentences_without_code(text: str, expected: str) -> None:
    assert summarised(text) == expected


def test_questions_are_several_thousand_clean_rows_of_every_wording(rows: list[Row]) -> None:
    functions = {row["function"] for row in rows}
    assert len(rows) > 8000 and len(functions) > 3000
    assert len({row["phrasing"] for row in rows}) == 14
    for row in rows:
        contents = [message["content"] for message in row["messages"]]
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * (len(contents) // 2)
        for answer in contents[1::2]:
            assert 4 <= len(answer) <= python_questions.LONGEST_ANSWER and answer[-1] in ".!?"
            assert ">>>" not in answer and "\n" not in answer and answer.count("`") % 2 == 0
    textwrap = [row for row in rows if row["function"] == "textwrap.dedent"]
    answers = {row["messages"][1]["content"] for row in textwrap}
    assert "Remove any common leading whitespace from every line in `text`." in answers


def test_a_function_is_on_one_side_and_a_held_out_module_with_all_its_functions(rows: list[Row]) -> None:
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["function"], set()).add(row["split"])
        if held_out_module(row["module"]):
            assert row["split"] == "held_out"
    assert all(len(side) == 1 for side in sides.values())
    held_out = sum(side == {"held_out"} for side in sides.values())
    assert 0.1 < held_out / len(sides) < 0.3
    seen = [row for row in rows if row["split"] == "held_out" and not held_out_module(row["module"])]
    assert len(seen) > 500, "held-out functions of modules whose documentation was trained on"


def test_no_question_and_no_description_stands_on_both_sides(rows: list[Row]) -> None:
    texts: dict[str, set[str]] = {"train": set(), "held_out": set()}
    for row in rows:
        for message in row["messages"]:
            if message["content"] != python_questions.FOLLOW_UP:
                texts[row["split"]].add(message["content"])
    assert not texts["train"] & texts["held_out"]


def test_another_seed_draws_other_wordings_of_the_same_functions(library: Path) -> None:
    first, second = questions(seed=0, stdlib=library), questions(seed=1, stdlib=library)
    assert first == questions(seed=0, stdlib=library) != second
    assert {row["function"] for row in first} == {row["function"] for row in second}


def test_the_question_files_hold_their_side(tmp_path: Path, library: Path) -> None:
    train, held_out = write_questions(tmp_path, stdlib=library)
    for path, split in ((train, "train"), (held_out, "held_out")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert rows and {row["split"] for row in rows} == {split}


def test_compiled_modules_are_only_ones_that_do_nothing_on_import() -> None:
    for name in python_docs.COMPILED_MODULES:
        spec = python_docs.importlib.util.find_spec(name)
        assert spec is None or spec.origin in ("built-in", None) or not spec.origin.endswith(".py")
