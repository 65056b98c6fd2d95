"""The house is a star: rooms never import each other, and libraries are imported where they are declared."""

from __future__ import annotations

import sys
import tomllib

from sources import ROOT, File, files, imports

CENTRE = ("groundup.contract", "groundup.functional", "groundup.compiled", "groundup.errors")
COMPOSERS = ("recipe", "run", "cli")  # rooms that put the others together; so do the files at the top
ALONE = {"contract.py": {"torch"}, "functional.py": {"torch"}, "errors.py": set()}
IMPORT_NAMES = {"pyyaml": "yaml", "scikit-learn": "sklearn", "pillow": "PIL", "huggingface-hub": "huggingface_hub",
                "mlflow-skinny": "mlflow", "prometheus-client": "prometheus_client"}  # fmt: skip

ROOM_EXTRAS = {"serving": {"fastapi", "starlette", "uvicorn", "prometheus_client"}}
"""Extras that a whole room is made of: it imports them at the top, and nothing imports the room but its verb."""

EXCEPTIONS: dict[tuple[str, str], str] = {
    # (file, module it may import against the rule): the reason
}


def inside(module: str, parents: tuple[str, ...]) -> bool:
    return any(module == parent or module.startswith(f"{parent}.") for parent in parents)


def foreign(file: File) -> list[str]:
    """The imports of a room that lead to another room, or to a file above it."""
    allowed = (*CENTRE, f"groundup.{file.room}")
    return [
        f"{file.name}:{line} imports {module}"
        for module, line in imports(file)
        if inside(module, ("groundup",))
        and module != "groundup"
        and not inside(module, allowed)
        and (file.name, module) not in EXCEPTIONS
    ]


def test_rooms_do_not_import_each_other() -> None:
    faults = [fault for file in files() if file.room and file.room not in COMPOSERS for fault in foreign(file)]
    assert not faults, "what a room needs from another arrives as an argument:\n" + "\n".join(faults)


def test_no_room_imports_what_puts_it_together() -> None:
    for file in files():
        if file.room == "recipe":
            for module, line in imports(file):
                assert not inside(module, ("groundup.cli", "groundup.run", "groundup.api")), f"{file.name}:{line}"


def test_the_centre_imports_almost_nothing() -> None:
    for file in files():
        if file.name in ALONE:
            for module, line in imports(file):
                root = module.split(".")[0]
                allowed = root in sys.stdlib_module_names or root in ALONE[file.name] or inside(module, CENTRE)
                assert allowed, f"{file.name}:{line} imports {module}"


def test_verbs_import_libraries_inside_their_function() -> None:
    for file in files():
        if file.room == "cli":
            for module, line in imports(file, only_at_import=True):
                light = module.split(".")[0] in sys.stdlib_module_names
                assert (
                    light
                    or module in ("groundup", "groundup.__version__")
                    or inside(module, ("groundup.cli", "groundup.errors"))
                ), f"{file.name}:{line} imports {module} at the top: move it into the function"


def declared(extras: bool) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for name, extra in project["optional-dependencies"].items():
        lines += extra if extras and name != "test" else []
    names = {line.split(";")[0].split("[")[0].split(">")[0].split("<")[0].split("=")[0].strip() for line in lines}
    return {IMPORT_NAMES.get(name.lower(), name.lower()) for name in names}


def test_every_library_is_declared_and_extras_are_imported_late() -> None:
    for file in files():
        for late in (False, True):
            known = declared(extras=late) | {"groundup"} | ROOM_EXTRAS.get(file.room, set())
            for module, line in imports(file, only_at_import=not late):
                root = module.split(".")[0]
                assert root in sys.stdlib_module_names or root in known, (
                    f"{file.name}:{line} imports {root}, which is not a"
                    f"{'n extra or a' if late else ''} dependency in pyproject.toml"
                )


def test_exceptions_are_still_needed() -> None:
    names = {file.name: {module for module, _ in imports(file)} for file in files()}
    for (name, module), reason in EXCEPTIONS.items():
        assert reason and module in names.get(name, set()), f"{name} no longer imports {module}"
