"""The way in: finds the verb, calls it, and is the outermost edge where every fault becomes five lines.

Nothing but the standard library is imported before a verb was chosen. What a verb raises ends here: a
`GroundupError` is printed as it is, anything else is a fault in groundup and is printed as one.
"""

from __future__ import annotations

import argparse
import codecs
import errno
import importlib
import io
import os
import select
import sys
from collections.abc import Callable

from groundup import __version__
from groundup.cli.arguments import Parser
from groundup.cli.parsers import VERBS, Verb
from groundup.errors import GroundupError, nearest, printable

GLOBAL_FLAGS = ("--help", "-h", "--version", "--debug")
MENDS = {
    errno.ENOSPC: "free some space on that disk, or write elsewhere with --out",
    errno.EDQUOT: "free some of your quota, or write elsewhere with --out",
    errno.EACCES: "give this user the permission, or use another path",
    errno.EPERM: "give this user the permission, or use another path",
    errno.EROFS: "use a path that can be written, such as --out /tmp/run",
    errno.ENOENT: "check the path",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after `groundup`; None takes those of this process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong use, 130 or 143 stopped with a checkpoint.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    _prepare_streams()
    try:
        code = dispatch(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001 - the outermost edge of the process
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            # `groundup runs | head`: not a fault; what is still buffered has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        if "--debug" in arguments:
            import traceback

            traceback.print_exc()
        fault = as_fault(error)
    _print_fault(fault, as_json="--json" in arguments)
    return fault.exit_code


def dispatch(arguments: list[str]) -> int:
    """Find the verb, parse its arguments and call it."""
    words = [word for word in arguments if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"groundup {__version__}")
        return 0
    name, verb, rest = find_verb(words)
    if verb is None:
        print(overview(name))
        return 0
    parser = Parser(name, verb.summary)
    verb.arguments(parser)
    try:
        parsed = parser.parse([*rest, *(["--debug"] if "--debug" in arguments else [])])
    except SystemExit as done:  # argparse printed the help of the verb
        return int(done.code or 0)
    return load_verb(verb)(parsed)


def find_verb(words: list[str]) -> tuple[str, Verb | None, list[str]]:
    """The verb that `words` begin with and the words after it; no verb for the name of a group alone."""
    first = words[0]
    if first in VERBS:
        return first, VERBS[first], words[1:]
    members = [name for name in VERBS if name.startswith(f"{first} ")]
    if members and (len(words) == 1 or words[1] in ("-h", "--help")):
        return first, None, []
    if members and f"{first} {words[1]}" in VERBS:
        name = f"{first} {words[1]}"
        return name, VERBS[name], words[2:]
    if members:
        raise _unknown_verb(f"{first} {words[1]}", members)
    if first.startswith("-"):
        meant = nearest(first, GLOBAL_FLAGS)
        raise GroundupError(
            "E-USE-002",
            f'groundup has no flag "{printable(first)}" before the verb',
            where="the command line",
            why="flags of a verb stand behind it",
            fix=f"did you mean {meant}?" if meant else "groundup --help",
            exit_code=2,
        )
    raise _unknown_verb(first, sorted({part for name in VERBS for part in (name, name.split()[0])}))


def _unknown_verb(word: str, known: list[str]) -> GroundupError:
    meant = nearest(word, known)
    if word.endswith((".yaml", ".yml")):
        fix = f"groundup train {printable(word)}"
    elif meant is not None:
        fix = f"did you mean groundup {meant}?"
    else:
        fix = "groundup --help   (lists the verbs)"
    return GroundupError(
        "E-USE-001",
        f'groundup has no verb "{printable(word)}"',
        where="the command line",
        why=f"the verbs are {', '.join(known)}" if len(known) < 4 else "the first word says what is to be done",
        fix=fix,
        exit_code=2,
    )


def load_verb(verb: Verb) -> Callable[[argparse.Namespace], int]:
    """Import the verb's module and return its function."""
    module, _, function = verb.target.partition(":")
    found: Callable[[argparse.Namespace], int] = vars(importlib.import_module(module))[function]
    return found


def overview(group: str = "") -> str:
    """The verbs with a line for each: all of them, or those of one group."""
    names = [name for name in VERBS if not group or name.startswith(f"{group} ")]
    lines = [f"  {name:18} {VERBS[name].summary}" for name in names]
    if group:
        return "\n".join([f"usage: groundup {group} VERB ...", "", *lines])
    return "\n".join(
        [
            "usage: groundup VERB ...        (groundup VERB --help: its arguments)",
            "",
            "From a text to a language model of your own, on the machine you have.",
            "",
            *lines,
            "",
            "  --version          the version of groundup",
            "  --debug            show the traceback of a fault",
            "",
            "Start here: groundup quickstart",
        ]
    )


def as_fault(error: Exception) -> GroundupError:
    """Any exception as the five parts that a user sees."""
    if isinstance(error, GroundupError):
        return error
    kind, detail = type(error).__name__, printable(" ".join(str(error).split()), 300)
    if isinstance(error, MemoryError):
        return GroundupError(
            "E-RUN-901",
            "the memory of this machine is used up" + (f": {detail}" if detail else ""),
            where="this command",
            why="the operating system gave no more memory; what was saved before is untouched",
            fix="groundup plan RECIPE   (says what fits), or close other programs",
        )
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("groundup"):
        return GroundupError(
            "E-MACHINE-901",
            f"the Python package {printable(str(error.name))} is not installed",
            where=printable(sys.executable),
            why="this verb needs it, and the environment does not have it",
            fix=f"{printable(sys.executable)} -m pip install {printable(str(error.name).split('.')[0])}",
        )
    if "pydantic" in sys.modules and (fault := _refused_option(error)) is not None:
        return fault
    if isinstance(error, OSError) and error.errno is not None:
        return GroundupError(
            "E-MACHINE-900",
            f"the operating system refused: {printable(error.strerror or detail)}",
            where=printable(str(error.filename)) if error.filename is not None else "a file or a stream",
            why=f"it answered {errno.errorcode.get(error.errno, str(error.errno))} to a call of groundup",
            fix=MENDS.get(error.errno, "mend the cause and give the command again"),
        )
    return GroundupError(
        "E-RUN-900",
        f"this is a fault in groundup: {kind}: {detail}" if detail else f"this is a fault in groundup: {kind}",
        where="this command",
        why="a case that groundup does not handle; nothing you did should lead here",
        fix="give the command again with --debug and report what it prints",
    )


def _refused_option(error: Exception) -> GroundupError | None:
    """An option that its type refused, when a verb handed the words of the command line on as they were."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return None
    faults = error.errors(include_url=False)
    lines = [
        f"{'.'.join(map(str, fault['loc']))} = {printable(repr(fault['input']), 60)}: {printable(fault['msg'])}"
        for fault in faults
    ]
    return GroundupError(
        "E-USE-007",
        f"{len(faults)} option{'s' if len(faults) > 1 else ''} cannot be used",
        where="\n".join(lines),
        why="a value outside its range would do something else than what was meant",
        fix="give a value that fits; the verb's --help and docs/recipe.md say which do",
        exit_code=2,
    )


def _print_fault(fault: GroundupError, *, as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps({"error": fault.as_dict()}))
    else:
        print(fault, file=sys.stderr)


def _prepare_streams() -> None:
    """No text may end the program because a stream cannot encode it (an ASCII locale, a narrow code page)."""
    codecs.register_error("spelled", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelled")


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Characters that a stream lacks, as `\\uXXXX`: plain to read, and right inside a JSON text too."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    foreign = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    units = [foreign[i : i + 2].hex() for i in range(0, len(foreign), 2)]
    return "".join(f"\\u{unit}" for unit in units), error.end


def _reader_is_gone() -> bool:
    """Whether nobody reads stdout any more; any other broken pipe is a fault."""
    waiting = select.poll()
    waiting.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in waiting.poll(0))
