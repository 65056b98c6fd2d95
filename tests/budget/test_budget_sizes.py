"""Small parts: files, functions, options, the loop, the dependencies. Each exception has its reason here."""

from __future__ import annotations

import ast
import functools
import re
import tomllib

import pytest
from sources import ROOT, files, functions, length

FILE_LINES, FUNCTION_LINES, OPTION_FIELDS, LOOP_LINES, DEPENDENCIES = 400, 60, 15, 60, 12

EXCEPTIONS: dict[str, str] = {
    # "file", "file:function" or "file:Class": the reason
    "recipe/tree.py:ModelOptions": "the sizes of every family, flat: a user thinks of one network",
    "recipe/tree.py:LabelledData": "the options of labelled rows, flat beside four of its own",
    "serving/schema.py:Sampling": "the fields of a request as OpenAI has them: the wire is flat",
    "serving/schema.py:ChatRequest": "the fields of a request as OpenAI has them: the wire is flat",
    "serving/schema.py:CompletionRequest": "the fields of a request as OpenAI has them: the wire is flat",
    "recipe/tree.py:TextData": "the options of preparation, flat beside five of its own: a user thinks of one section",
}


@functools.cache
def over_budget() -> dict[str, str]:
    """Everything that is larger than it may be: its name and what it is."""
    found: dict[str, str] = {}
    for file in files():
        lines = len(file.text.splitlines())
        if lines > FILE_LINES:
            found[file.name] = f"{lines} lines, at most {FILE_LINES}"
        for function in functions(file):
            if length(function) > FUNCTION_LINES:
                found[f"{file.name}:{function.name}"] = f"{length(function)} lines, at most {FUNCTION_LINES}"
    for name, fields in option_fields().items():
        if len(fields) > OPTION_FIELDS:
            found[name] = f"{len(fields)} fields, at most {OPTION_FIELDS}"
    return found


def option_fields() -> dict[str, set[str]]:
    """The fields of every pydantic model of the package, inherited ones included, by "file:Class"."""
    classes = {
        node.name: (file.name, node)
        for file in files()
        for node in ast.walk(file.tree)
        if isinstance(node, ast.ClassDef)
    }

    def parents(node: ast.ClassDef) -> list[str]:
        return [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]

    def is_model(name: str) -> bool:
        # a class may have the name of the one that it extends, such as torch's BatchNorm2d
        return name == "BaseModel" or (
            name in classes and any(is_model(parent) for parent in parents(classes[name][1]) if parent != name)
        )

    def fields(name: str) -> set[str]:
        if name not in classes:
            return set()
        node = classes[name][1]
        own = {
            statement.target.id
            for statement in node.body
            if isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and "ClassVar" not in ast.unparse(statement.annotation)
            and statement.target.id != "model_config"
        }
        return own.union(*map(fields, parents(node)))

    return {f"{classes[name][0]}:{name}": fields(name) for name in classes if is_model(name)}


def test_files_functions_and_options_are_small() -> None:
    faults = {name: what for name, what in over_budget().items() if name not in EXCEPTIONS}
    assert not faults, "\n".join(f"{name}: {what}" for name, what in faults.items())


def test_exceptions_are_still_needed() -> None:
    for name, reason in EXCEPTIONS.items():
        assert reason and name in over_budget(), f"{name} keeps its budget: remove the exception"


def test_the_loop_fits_on_a_screen() -> None:
    (loop,) = [file for file in files() if file.name == "engine/loop.py"]
    lines = sum(length(function) for function in functions(loop))
    assert lines <= LOOP_LINES, f"the functions of engine/loop.py have {lines} lines, at most {LOOP_LINES}"


def requirements() -> list[str]:
    found: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return found


def test_dependencies_are_few() -> None:
    assert len(requirements()) <= DEPENDENCIES


@pytest.mark.parametrize("requirement", requirements())
def test_only_packages_before_1_0_are_capped(requirement: str) -> None:
    lowest = re.search(r">=\s*([0-9.]+)", requirement)
    assert lowest, f"{requirement} says no lowest version"
    assert "==" not in requirement and "~=" not in requirement
    if "<" in requirement:
        assert lowest[1].startswith("0."), f"{requirement}: a cap is for packages before 1.0 only"


def test_constraints_pin_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pinned[re.sub(r"[-_.]+", "-", name).lower()] = version
    for requirement in named:
        name = re.sub(r"[-_.]+", "-", re.split(r"[><=\[; ]", requirement)[0]).lower()
        if name != "groundup":
            assert name in pinned, f"{requirement} is not in constraints.txt"
    assert all("+" not in version for version in pinned.values())  # torch comes in builds: +cpu, +cu128 …
