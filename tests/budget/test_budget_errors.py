"""Every error names its fix (G7), and the catalogue and the code agree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sources import dotted, files

from groundup.errors import CATALOGUE, GroundupError

ROOMS = "USE|RECIPE|DATA|TOKEN|CHAT|MODEL|RUN|CKPT|EVAL|GEN|REPORT|MACHINE|FORMAT|TRACK|ADAPT|ENV|SERVE"
CODE = re.compile(rf"E-({ROOMS})-\d{{3}}")
PARTS = ("code", "what", "where", "why", "fix", "exit_code", "others")

EXCEPTIONS: dict[str, str] = {
    # code that stands in the catalogue but not in src, or the reverse: the reason
}


def used_codes() -> dict[str, str]:
    """Every code that a file of the package writes as a text, with one place that does."""
    return {
        node.value: f"{file.name}:{node.lineno}"
        for file in files()
        if file.name != "errors.py"
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value)
    }


def raises() -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Every place that makes a GroundupError, with the parts it gives by name."""
    for file in files():
        for node in ast.walk(file.tree):
            if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] == "GroundupError":
                if any(isinstance(part, ast.Starred) for part in node.args):
                    continue
                given = dict(zip(PARTS, node.args))
                given.update({keyword.arg: keyword.value for keyword in node.keywords if keyword.arg})
                if not any(keyword.arg is None for keyword in node.keywords):
                    yield f"{file.name}:{node.lineno}", given


def test_every_code_in_use_is_in_the_catalogue() -> None:
    unknown = {code: place for code, place in used_codes().items() if code not in CATALOGUE}
    assert not {code for code in unknown if code not in EXCEPTIONS}, unknown


def test_every_code_of_the_catalogue_is_in_use() -> None:
    unused = sorted(set(CATALOGUE) - set(used_codes()) - set(EXCEPTIONS))
    assert not unused, f"remove from the catalogue, or raise: {unused}"


def test_the_catalogue_is_sorted_and_says_something() -> None:
    assert list(CATALOGUE) == sorted(CATALOGUE)
    for code, text in CATALOGUE.items():
        assert CODE.fullmatch(code), code
        assert len(text) > 20 and text.endswith((".", "?")), f"{code}: {text}"


def test_G7_every_raise_has_all_five_parts() -> None:
    faults = []
    for place, given in raises():
        for part in ("code", "what", "where", "why", "fix"):
            value = given.get(part)
            if value is None or (isinstance(value, ast.Constant) and not str(value.value or "").strip()):
                faults.append(f"{place}: GroundupError without {part}")
    assert not faults, "\n" + "\n".join(faults)


def test_the_five_parts_are_printed_in_order() -> None:
    fault = GroundupError(
        "E-USE-001", "what", where="a\nb", why="c", fix="d", others=[GroundupError("E-USE-002", "x", fix="y")]
    )
    assert str(fault) == ("E-USE-001  what\n  where  a\n         b\n  why    c\n  fix    d\n\nE-USE-002  x\n  fix    y")
