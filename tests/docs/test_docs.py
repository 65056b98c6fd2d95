"""The documentation keeps its word: links lead somewhere, commands parse, the reference is that of the types.

Commands are checked with the parser of the program itself; those that are quick are run. Nothing is trained.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from groundup.cli.arguments import Parser
from groundup.cli.main import find_verb, main
from groundup.cli.parsers import VERBS
from groundup.recipe.reference import reference
from groundup.recipe.tree import Recipe

ROOT = Path(__file__).parents[2]
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*READMES, *DOCS]
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
MACHINE_PATH = re.compile(r"(?<![\w.])(?:/(?:work|home|root|tmp|Users|mnt|opt|usr/local)/|[A-Z]:\\)")
QUICK = ("explain", "new")
"""Verbs whose commands are run here; `groundup --help` is run too."""


class Fence(NamedTuple):
    """A fenced block: the word after its opening fence, and its lines."""

    language: str
    lines: list[str]


def fences(text: str) -> Iterator[Fence]:
    """The fenced blocks of a page."""
    for matched in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Fence(matched[1], matched[2].splitlines())


def prose(text: str) -> str:
    """A page without its fenced blocks and comments."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def headings(page: Path) -> list[str]:
    """The heading lines of a page."""
    return re.findall(r"^#+ .*$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)


def anchor(heading: str) -> str:
    """The name that a heading has in a link, as GitHub makes it."""
    kept = re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower())
    return kept.replace(" ", "-")


def commands(page: Path) -> list[list[str]]:
    """The words after `groundup` of every command in the fenced blocks of a page."""
    found = []
    for fence in fences(page.read_text(encoding="utf-8")):
        for line in fence.lines:
            if line.startswith(("groundup ", "$ groundup ")):
                found.append(shlex.split(line.removeprefix("$ "), comments=True)[1:])
    return found


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    dead = []
    for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        path, _, fragment = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        if not goal.exists() or (fragment and fragment not in map(anchor, headings(goal))):
            dead.append(target)
    assert not dead


def test_every_page_is_linked_from_another() -> None:
    linked = set()
    for page in PAGES:
        for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
            linked.add((page.parent / target.partition("#")[0]).resolve())
    assert [name(page) for page in DOCS if page.resolve() not in linked] == []


def test_the_recipe_reference_is_that_of_the_types() -> None:
    written = (ROOT / "docs/recipe.md").read_text(encoding="utf-8")
    assert written == reference(Recipe), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_parses(page: Path) -> None:
    for words in commands(page):
        if words[0].startswith("-"):
            assert words[0] in ("--help", "--version"), words
            continue
        verb_name, verb, rest = find_verb(words)
        assert verb is not None, words
        parser = Parser(verb_name, verb.summary)
        verb.arguments(parser)
        parser.parse(rest)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_verb_named_in_prose_exists(page: Path) -> None:
    for words in re.findall(r"`groundup ([a-z][^`]*)`", prose(page.read_text(encoding="utf-8"))):
        find_verb(words.split())


def test_the_documentation_shows_enough_commands() -> None:
    shown = {find_verb(words)[0] for page in DOCS for words in commands(page) if words[0][0] != "-"}
    assert shown == set(VERBS)  # or the search for commands finds nothing and the tests above say nothing


@pytest.mark.parametrize("verb", sorted(VERBS))
@pytest.mark.parametrize("pages", [DOCS, READMES[:1], READMES[1:]], ids=["docs", "README", "README.zh-CN"])
def test_every_verb_is_mentioned(verb: str, pages: list[Path]) -> None:
    assert any(f"groundup {verb}" in page.read_text(encoding="utf-8") for page in pages)


def test_both_readmes_have_the_same_shape() -> None:
    english, chinese = ([heading.count("#") for heading in headings(page)] for page in READMES)
    assert english == chinese


def test_both_readmes_show_the_same_code() -> None:
    english, chinese = (
        [fence for fence in fences(page.read_text(encoding="utf-8")) if fence.language != "text"] for page in READMES
    )
    assert english == chinese


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=name)
def test_no_page_names_a_path_of_one_machine(page: Path) -> None:
    assert MACHINE_PATH.findall(page.read_text(encoding="utf-8")) == []


def quick_commands() -> list[list[str]]:
    """The commands that take no time, each once."""
    every = [words for page in PAGES for words in commands(page)]
    quick = [words for words in every if words[0] in QUICK]
    return [["--help"], *(list(words) for words in dict.fromkeys(map(tuple, quick)))]


@pytest.mark.parametrize("words", quick_commands(), ids=" ".join)
def test_quick_commands_run(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0
    assert capsys.readouterr().out.strip()
    if "--out" in words:
        assert (tmp_path / words[words.index("--out") + 1]).is_file()
