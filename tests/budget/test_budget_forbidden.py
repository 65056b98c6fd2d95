"""What the code may not contain: reads that cannot fail, errors swallowed, ways to run foreign code."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sources import ROOT, File, dotted, files

CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "__import__": "use importlib, and only for groundup's own modules",
    "hasattr": "a question that cannot fail: use a type, a protocol or a field",
    "getattr": "a read by text: use a field; only the recipe room reads types that way",
    "torch.load": "unpickles: weights are safetensors",
    "torch.save": "pickles: weights are safetensors",
    "torch.hub.load": "runs remote code",
    "numpy.load": "can unpickle: say allow_pickle=False",
    "np.load": "can unpickle: say allow_pickle=False",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "yaml.load": "builds objects from text",
    "yaml.full_load": "builds objects from text",
    "yaml.unsafe_load": "builds objects from text",
    "yaml.load_all": "builds objects from text",
    "jinja2.Environment": "a template could run code: only the immutable sandbox",
    "jinja2.Template": "a template could run code: only the immutable sandbox",
    "jinja2.sandbox.SandboxedEnvironment": "its values can be changed: only the immutable sandbox",
}
MODULES = {
    "pickle": "runs code when it is read",
    "cPickle": "runs code when it is read",
    "cloudpickle": "runs code when it is read",
    "dill": "runs code when it is read",
    "joblib": "pickles",
    "shelve": "pickles",
    "marshal": "crashes on foreign bytes",
    "yaml": "only recipe/yaml.py knows YAML",
}
BROAD = ("Exception", "BaseException")

EXCEPTIONS: dict[tuple[str, str], str] = {
    # (file, what it may use): the reason
    ("serving/conformance.py", "except Exception"): "a probe of the server itself: whatever it meets is its result",
    ("inference/engine.py", "except BaseException"): "the outermost edge of the engine's thread",
    (
        "cli/main.py",
        "except Exception",
    ): "the outermost edge of the process: every fault becomes five lines here",
    (
        "serving/edge.py",
        "except Exception",
    ): "the outermost edge of a request: every fault becomes an answer, and the server lives",
    (
        "tracking/follow.py",
        "except Exception",
    ): "the outermost edge of a tracker's thread: whatever its library raises, the run goes on",
    (
        "data/environments.py",
        "except Exception",
    ): "the outermost edge of an environment's drawing: whatever its libraries raise, there is no picture",
    ("recipe/yaml.py", "yaml"): "the one file that knows YAML",
    (
        "report/reading.py",
        "yaml",
    ): "reads the recipe of any run as plain values; a room may not import the recipe's",
    ("recipe/shape.py", "getattr"): "reads types, whose constraints come in classes without a common parent",
}


def uses(file: File) -> Iterator[tuple[str, int, str]]:
    """Everything forbidden in a file: what, the line, why not."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            unpickled = not any(
                keyword.arg == "allow_pickle" and ast.unparse(keyword.value) == "False" for keyword in node.keywords
            )
            if name in CALLS and (unpickled or not name.endswith(".load")):
                yield name, node.lineno, CALLS[name]
            for keyword in node.keywords:
                on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                if keyword.arg in ("shell", "allow_pickle", "trust_remote_code") and on:
                    yield f"{keyword.arg}=True", node.lineno, "lets text from outside run"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            base = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                root = full.split(".")[0]
                if root in MODULES and not (isinstance(node, ast.ImportFrom) and node.level):
                    yield root, node.lineno, MODULES[root]
                elif full in CALLS:
                    yield full, node.lineno, CALLS[full]
        elif isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            for kind in caught:
                if kind is None:
                    yield "except", node.lineno, "catches everything: name what can go wrong"
                elif dotted(kind) in BROAD:
                    yield f"except {dotted(kind)}", node.lineno, "catches everything: name what can go wrong"


def test_nothing_forbidden_is_used() -> None:
    faults = [
        f"{file.name}:{line} {what}: {why}"
        for file in files()
        for what, line, why in uses(file)
        if (file.name, what) not in EXCEPTIONS
    ]
    assert not faults, "\n" + "\n".join(faults)


def test_exceptions_are_still_needed() -> None:
    found = {(file.name, what) for file in files() for what, _, _ in uses(file)}
    for entry, reason in EXCEPTIONS.items():
        assert reason and entry in found, f"{entry} is not used any more: remove the exception"


def test_the_search_finds_what_it_looks_for() -> None:
    text = (
        "import pickle\nfrom torch import load\nfrom jinja2 import Environment\nimport yaml.reader\n"
        "eval('1')\nmodel.eval()\ntorch.load('x')\nrun('ls', shell=True)\nhasattr(a, 'b')\n"
        "try: pass\nexcept (OSError, Exception): pass\nfinally: pass\n"
        "try: pass\nexcept: pass\n"
    )
    found = [(what, line) for what, line, _ in uses(File("x.py", text, ast.parse(text)))]
    assert sorted(found) == sorted(
        [("pickle", 1), ("torch.load", 2), ("jinja2.Environment", 3), ("yaml", 4), ("eval", 5),
         ("torch.load", 7), ("shell=True", 8), ("hasattr", 9), ("except Exception", 11), ("except", 14)]
    )  # fmt: skip


def test_no_path_of_a_workplace() -> None:
    marks = ("/" + "work/", "." + "library/", "/" + "tmp/bash_jobs")
    for folder in ("src", "tests", "docs", "recipes", "bench", "notes"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".yaml", ".toml", ".txt"):
                text = path.read_text(encoding="utf-8")
                assert not any(mark in text for mark in marks), f"{path.relative_to(ROOT)} names a workplace"
