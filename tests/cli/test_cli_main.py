"""The command line: verbs and flags found, faults in five parts, and an edge that nothing falls over."""

from __future__ import annotations

import argparse
import errno
import json
import os
import subprocess
import sys

import pytest
from pydantic import BaseModel, Field, ValidationError

from groundup.cli import main as entry
from groundup.cli.arguments import Parser
from groundup.cli.main import as_fault, dispatch, find_verb, load_verb, main, overview
from groundup.cli.parsers import VERBS
from groundup.errors import CATALOGUE, GroundupError

SMALLEST = {
    "quickstart": [],
    "serve": ["--port", "0"],
    "new": ["chat"],
    "plan": ["r.yaml"],
    "prepare": ["r.yaml"],
    "data check": ["a.txt"],
    "data show": ["r.yaml"],
    "tokenizer train": ["--files", "a.txt", "--vocab", "300", "--out", "t"],
    "tokenizer inspect": ["t", "--files", "a.txt"],
    "train": ["r.yaml"],
    "evaluate": ["m", "--files", "a.txt"],
    "generate": ["m", "--prompt", "To be"],
    "chat": ["m"],
    "report": ["r"],
    "runs": [],
    "verify": ["r"],
    "doctor": [],
    "explain": [],
    "find-lr": ["r.yaml"],
    "profile": ["r.yaml"],
    "import": ["m.gguf"],
    "inspect": ["m"],
    "merge": ["m", "--out", "d"],
    "export": ["m", "--to", "gguf", "--out", "f.gguf"],
    "predict": ["m", "--files", "f"],
    "cross-validate": ["r.yaml"],
    "explain-prediction": ["m"],
}


def parsed(line: str, *more: str) -> argparse.Namespace:
    name, verb, rest = find_verb([*line.split(), *more])
    assert verb is not None
    parser = Parser(name, verb.summary)
    verb.arguments(parser)
    return parser.parse(rest)


def refused(line: str, code: str) -> GroundupError:
    with pytest.raises(GroundupError) as caught:
        dispatch(line.split())
    fault = caught.value
    assert fault.code == code and code in CATALOGUE and fault.exit_code == 2
    assert fault.what and fault.where and fault.why and fault.fix
    return fault


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "groundup", *words],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


def test_the_fixed_flags_are_understood() -> None:
    for name, words in SMALLEST.items():
        assert parsed(name, *words) is not None
    assert set(SMALLEST) == set(VERBS)
    quick = parsed("quickstart --minutes 2.5 --text a.txt --code --out q")
    assert (quick.minutes, quick.text, quick.code, quick.out) == (2.5, "a.txt", True, "q")
    assert parsed("quickstart").minutes == 6
    prepare = parsed("prepare --files a b --out d --workers 2 --json")
    assert (prepare.recipe, prepare.files, prepare.workers, prepare.json) == (None, ["a", "b"], 2, True)
    train = parsed("train r.yaml model.depth=2 --out o budget.minutes=1 --resume lr=[1,2]")
    assert train.overrides == ["model.depth=2", "budget.minutes=1", "lr=[1,2]"] and train.resume
    assert parsed("plan r.yaml --json --fix a=1").overrides == ["a=1"]
    assert parsed("prepare --files a --out d split.kind=tail").recipe == "split.kind=tail"
    tokenizer = parsed("tokenizer train --files a --vocab 300 --kind unigram --out t")
    assert (tokenizer.kind, tokenizer.vocab) == ("unigram", 300)
    evaluate = parsed("evaluate m --files a --metric loss f1 --against n")
    assert (evaluate.model, evaluate.metric, evaluate.against) == ("m", ["loss", "f1"], "n")
    generate = parsed("generate m --max-tokens 5 --temperature 0 --seed 7 --prompt", "two words")
    assert (generate.prompt, generate.max_tokens, generate.temperature, generate.seed) == (
        "two words",
        5,
        0.0,
        7,
    )
    assert parsed("chat m").temperature is None and parsed("chat m --temperature -1").temperature == -1
    assert parsed("explain").code is None and parsed("runs").folder == "."
    assert parsed("data show r.yaml --rows 2").rows == 2


def test_U1_typo_in_a_verb_gets_the_nearest() -> None:
    assert refused("tran r.yaml", "E-USE-001").fix == "did you mean groundup train?"
    assert refused("data chekc", "E-USE-001").fix == "did you mean groundup data check?"
    assert refused("tokenize", "E-USE-001").fix == "did you mean groundup tokenizer?"
    assert refused("recipe.yaml", "E-USE-001").fix == "groundup train recipe.yaml"
    assert refused("xyzzy", "E-USE-001").fix.startswith("groundup --help")
    assert refused("--versio", "E-USE-002").fix == "did you mean --version?"


def test_U1_typo_in_a_flag_or_word_gets_the_nearest() -> None:
    fault = refused("train r.yaml --resum", "E-USE-002")
    assert "--resum" in fault.what and fault.fix.startswith("did you mean --resume?\ngroundup train ")
    assert "usage:" not in str(fault)
    assert "did you mean bpe?" in refused("tokenizer train --files a --vocab 9 --out t --kind bpi", "E-USE-004").what
    refused("train r.yaml --res", "E-USE-002")  # an abbreviation could mean something else tomorrow


@pytest.mark.parametrize(
    ("line", "code", "what"),
    [
        ("train", "E-USE-003", "groundup train needs RECIPE"),
        ("train a=1", "E-USE-004", 'RECIPE is "a=1", an override; the recipe comes first'),
        ("generate m", "E-USE-003", "groundup generate needs --prompt"),
        ("train r.yaml --out", "E-USE-004", "--out expected one argument"),
        ("runs a b", "E-USE-006", 'groundup runs has no place for "b"'),
        ("prepare --files a --workers 0", "E-USE-004", '--workers is "0", expected a whole number from 1'),
        ("prepare --files a --workers 1_0", "E-USE-004", '--workers is "1_0", expected'),
        ("generate m --prompt x --temperature nan", "E-USE-004", '--temperature is "nan", expected a number'),
        (
            "generate m --prompt x --temperature warm",
            "E-USE-004",
            '--temperature is "warm", expected a number',
        ),
        ("generate m --prompt x --top-k 1.5", "E-USE-004", '--top-k is "1.5", expected a whole number'),
        ("plan r.yaml --price -1", "E-USE-004", '--price is "-1", expected a number of at least 0'),
        ("generate m --prompt x --seed " + "9" * 5000, "E-USE-004", "--seed is"),
        ("quickstart --minutes 0", "E-USE-004", '--minutes is "0", expected a number above 0'),
        ("explain E-RECIPE-999", "E-USE-005", "there is no error code"),
    ],
)
def test_wrong_use_is_five_parts_and_exit_2(line: str, code: str, what: str) -> None:
    assert refused(line, code).what.startswith(what)


def test_help_and_lists_name_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0 and main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in VERBS) and shown.count("quickstart") == 4
    assert main(["tokenizer"]) == 0
    assert "tokenizer inspect" in capsys.readouterr().out
    assert "data" not in overview("tokenizer")
    for name in VERBS:
        assert main([*name.split(), "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"usage: groundup {name}")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("groundup ")


def test_explain_prints_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "use-001"]) == 0
    assert CATALOGUE["E-USE-001"] in " ".join(capsys.readouterr().out.split())
    assert main(["explain"]) == 0
    shown = capsys.readouterr().out
    assert all(code in shown for code in CATALOGUE)
    assert main(["explain", "E-USE-001", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"E-USE-001": CATALOGUE["E-USE-001"]}
    assert main(["explain", "E-MACHINE-0001"]) == 2
    assert "did you mean E-MACHINE-001?" in capsys.readouterr().err


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Makes every verb raise what the test puts into the list."""
    planned: list[BaseException] = []

    def verb(_: argparse.Namespace) -> int:
        raise planned[0]

    monkeypatch.setattr(entry, "load_verb", lambda _: verb)
    return planned


def test_a_user_error_is_printed_and_its_code_returned(
    raising: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    fault = GroundupError("E-USE-001", "w", where="x", why="y", fix="z", exit_code=2, others=[])
    raising.append(fault)
    assert main(["doctor"]) == 2
    assert capsys.readouterr() == ("", f"{fault}\n")
    assert main(["doctor", "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": fault.as_dict()} and err == ""


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (ZeroDivisionError("by zero\nand more"), "E-RUN-900", 1),
        (RecursionError(), "E-RUN-900", 1),
        (MemoryError(), "E-RUN-901", 1),
        (OSError(errno.ENOSPC, "No space left on device", "/x\x1b[2J"), "E-MACHINE-900", 1),
        (ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow.parquet"), "E-MACHINE-901", 1),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "E-MACHINE-900", 1),
    ],
)
def test_anything_else_is_a_fault_in_five_parts(
    error: Exception,
    code: str,
    status: int,
    raising: list[BaseException],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entry, "_reader_is_gone", lambda: False)
    raising.append(error)
    assert main(["doctor"]) == status
    shown = capsys.readouterr().err
    assert shown.startswith(code) and code in CATALOGUE and "Traceback" not in shown and "\x1b" not in shown
    fault = as_fault(error)
    assert fault.where and fault.why and fault.fix
    assert main(["doctor", "--debug"]) == status
    assert "Traceback" in capsys.readouterr().err


def test_an_option_that_its_type_refuses_is_wrong_use(
    raising: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    class Options(BaseModel):
        size: int = Field(1, ge=1)

    with pytest.raises(ValidationError) as caught:
        Options(size=0)
    raising.append(caught.value)
    assert main(["doctor"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("E-USE-007  1 option cannot be used\n  where  size = 0: ")


def test_ctrl_c_outside_a_run_is_130(raising: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    raising.append(KeyboardInterrupt())
    assert main(["doctor"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_the_process_returns_codes_and_keeps_the_streams_apart() -> None:
    done = run("tran", "--json")
    assert done.returncode == 2 and done.stderr == b""
    assert json.loads(done.stdout)["error"]["fix"] == "did you mean groundup train?"


def test_U2_ascii_locale_and_forty_columns() -> None:
    narrow = {"PYTHONIOENCODING": "ascii", "COLUMNS": "40", "LC_ALL": "C"}
    done = run("唐", **narrow)
    assert done.returncode == 2 and b'"\\u5510"' in done.stderr
    done = run("唐🌱", "--json", **narrow)
    assert json.loads(done.stdout)["error"]["what"] == 'groundup has no verb "唐🌱"'
    done = run("train", "--help", **narrow)
    assert done.returncode == 0 and done.stderr == b""


def test_a_reader_that_leaves_is_no_fault() -> None:
    script = "import sys; sys.argv = ['groundup', 'explain']; from groundup.cli.main import main; "
    script += "sys.stdin.read(); sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_leads_to_a_function(name: str) -> None:
    assert callable(load_verb(VERBS[name]))
