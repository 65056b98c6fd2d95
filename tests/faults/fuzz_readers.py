"""A coverage-guided fuzzer of every reader of files that come from outside; a script, which no test run collects.

    python tests/faults/fuzz_readers.py --minutes 60 [--only gguf,peft] [--seed 1] [--corpus DIR]

Whatever is in a file, a reader returns or raises a GroundupError, within 2 s of processor time and 300 MB. Anything
else is a finding: its file, the folder around it and its traceback are kept, one for each place in groundup that it
comes from, and the run goes on. The targets take turns in processes of their own; what they learned stays in the
corpus, so that a later run goes on from there. `--replay FINDING` gives one finding again, without the fuzzer.

Exit status: 0 nothing was found, 1 something was.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT)]  # instead of the folder of this file

SECONDS = 2.0
"""Of processor time that one input may take; a process that does not end within STUCK seconds is ended."""
STUCK = 120
MEGABYTES = 300
TURN = 60.0
LARGEST = 1 << 16
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "TOKENIZERS_PARALLELISM": "false"}
"""One thread and one arena: others would take address space that the input did not ask for, and end with a fork."""
TARGETS = (
    "gguf", "hf_config", "hf_tokenizer", "hf_weights", "llama2c", "peft", "own", "checkpoint", "tokenizer", "recipe",
    "chat", "labelled", "table", "text", "image", "events",
)  # fmt: skip


class TooSlow(BaseException):
    """More processor time than an input may take; no reader may catch it."""


# ------------------------------------------------------------------------------------------ one process


class Cases:
    """The inputs of one target: a number that says which file of which seed is changed, and its new content."""

    def __init__(self, name: str, seeds: Path, room: Path) -> None:
        from tests.faults.fuzz_targets import TARGETS as KNOWN

        assert tuple(KNOWN) == TARGETS
        self.target, self.name = KNOWN[name], name
        if not (seeds / "whole").exists():
            making = seeds / f"making-{os.getpid()}"
            (making / "whole").mkdir(parents=True)
            self.target.seeds(making / "whole")
            (making / "whole").rename(seeds / "whole")
            shutil.rmtree(making)
        self.place, self.out = room / "in", room / "out"
        shutil.copytree(seeds / "whole", self.place)
        self.files = [
            path
            for variant in sorted(self.place.iterdir())
            for path in sorted({path for pattern in self.target.files for path in variant.glob(pattern)})
            if path.is_file()
        ]
        self.contents = {path: path.read_bytes() for path in self.files}

    def first(self) -> list[bytes]:
        """Each file as it is, where it is small enough to be changed."""
        whole = ((number, self.contents[path]) for number, path in enumerate(self.files))
        return [struct.pack("<H", number) + content for number, content in whole if len(content) < LARGEST - 2]

    def file_of(self, data: bytes) -> Path:
        return self.files[int.from_bytes(data[:2].ljust(2, b"\0"), "little") % len(self.files)]

    def run(self, data: bytes) -> None:
        """Read the folder with the one file changed; it is as it was afterwards."""
        path = self.file_of(data)
        variant = self.place / path.relative_to(self.place).parts[0]
        shutil.rmtree(self.out, ignore_errors=True)
        path.write_bytes(data[2:])
        try:
            self.target.read(variant, self.out)
        finally:
            path.write_bytes(self.contents[path])

    def keep(self, data: bytes, folder: Path) -> None:
        path = self.file_of(data)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "input").write_bytes(data)
        (folder / path.name).write_bytes(data[2:])
        (folder / "where.json").write_text(json.dumps({"target": self.name, "file": str(path.relative_to(self.place))}))


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """The time and the memory that one input may take."""

    def late(signal: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {SECONDS} s of processor time")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEGABYTES * 2**20
    signal.signal(signal.SIGPROF, late)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    faulthandler.dump_traceback_later(STUCK, exit=True)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def fault_of(run: Callable[[bytes], None], data: bytes) -> BaseException | None:
    """What a reader lets out and should not; a slow one is asked twice, for the first time may load a library."""
    for _ in range(2):
        try:
            with limits():
                run(data)
            return None
        except TooSlow as error:
            fault: BaseException = error
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            return error
    return fault


def place_of(fault: BaseException) -> str:
    """The kind of a fault and its innermost line in groundup, which say whether it is known."""
    frames = [f for f in traceback.extract_tb(fault.__traceback__) if "groundup" in Path(f.filename).parts]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "nowhere"
    return f"{type(fault).__name__} {place}"


def keep(findings: Path, cases: Cases, data: bytes, place: str, report: str) -> None:
    """A finding, if its place is new to this target; the shortest input of a place is the one that stays."""
    folder = findings / f"{cases.name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    if (folder / "input").exists() and (folder / "input").stat().st_size <= len(data):
        return
    shutil.rmtree(folder, ignore_errors=True)
    cases.keep(data, folder)
    (folder / "traceback.txt").write_text(f"{place}\n\n{report}", errors="backslashreplace")


def fuzz(name: str, work: Path, room: Path, seconds: int, seed: int) -> None:
    """libFuzzer's loop over one target; it ends the process."""
    import atheris
    from tests.faults.fuzz_mutations import mutate

    cases = Cases(name, work / "seeds" / name, room)
    corpus = work / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for data in cases.first():
        cases.run(data)  # loads what is loaded late; a seed must be read without a fault
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    counted = os.open(room / "executions", os.O_RDWR | os.O_CREAT)
    current = os.open(room / "current", os.O_RDWR | os.O_CREAT)
    number = 0

    def one(data: bytes) -> None:
        nonlocal number
        number += 1
        os.pwrite(counted, struct.pack("<Q", number), 0)
        os.ftruncate(current, len(data))
        os.pwrite(current, data, 0)
        fault = fault_of(cases.run, data)
        if fault is not None:
            keep(work / "findings", cases, data, place_of(fault), "".join(traceback.format_exception(fault)))

    def change(data: bytes, most: int, seed: int) -> bytes:
        draw = random.Random(seed)
        if len(data) < 2 or draw.random() < 0.02:
            return draw.choice(cases.first())
        if draw.random() < 0.2:
            return data[:2] + bytes(atheris.Mutate(data[2:], most - 2))
        return data[:2] + mutate(data[2:], cases.file_of(data).name, draw)[: most - 2]

    faulthandler.enable()
    for folder in sorted((work / "findings").glob(f"{name}-*")):  # what was mended since is found no more
        known = (folder / "input").read_bytes()
        shutil.rmtree(folder)
        one(known)
    flags = [f"-max_total_time={seconds}", f"-max_len={LARGEST}", f"-seed={seed}", "-rss_limit_mb=0", "-timeout=100000"]
    flags += [
        "-handle_segv=0",
        "-handle_abrt=0",
        "-handle_bus=0",
        "-handle_ill=0",
        "-handle_fpe=0",
        f"-artifact_prefix={room}/",
    ]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one, custom_mutator=change)
    atheris.Fuzz()


def replay(finding: Path) -> int:
    """Give one finding again, in this process and without limits."""
    said = json.loads((finding / "where.json").read_text())
    with tempfile.TemporaryDirectory() as room:
        cases = Cases(said["target"], Path(room) / "seeds", Path(room))
        started = time.process_time()
        try:
            cases.run((finding / "input").read_bytes())
        finally:
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(f"{time.process_time() - started:.2f} s of processor time, at most {used} MB in all", file=sys.stderr)
    return 0


# -------------------------------------------------------------------------------------------- all of them


def turn(name: str, work: Path, seconds: float, seed: int) -> int:
    """One process that fuzzes a target; returns its executions. A process that died is a finding."""
    room = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    log, counted = work / f"{name}.log", room / "executions"
    try:
        process = os.fork()  # of this one, in which everything is loaded
        if process == 0:
            with log.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            try:
                fuzz(name, work, room, max(1, round(seconds)), seed)
            except BaseException:  # noqa: BLE001 - the outermost edge of the process
                traceback.print_exc()
            os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if not counted.exists():
            raise SystemExit(f"{name} did not begin: {log}")
        if code:
            said = log.read_text(errors="replace")
            _, _, stack = said.rpartition("most recent call first")
            place = next((line.strip() for line in stack.splitlines() if "/groundup/" in line), "nowhere")
            cases = Cases(name, work / "seeds" / name, room / "again")
            data = (room / "current").read_bytes()
            keep(work / "findings", cases, data, f"the process died ({code}) {place}", said[-8000:])
        (found,) = struct.unpack("<Q", counted.read_bytes())
        return int(found)
    finally:
        shutil.rmtree(room)


def whole(names: list[str], work: Path, minutes: float, seed: int) -> int:
    """All targets in turns; the exit status."""
    import atheris

    work.mkdir(parents=True, exist_ok=True)
    instrumented = atheris.instrument_imports(include=["groundup"])
    with (work / "loading.log").open("w") as log, contextlib.redirect_stderr(log), instrumented:
        importlib.import_module("tests.faults.fuzz_targets")
    end, executions, seconds = time.monotonic() + 60 * minutes, dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
    share = min(TURN, 60 * minutes / len(names))
    while time.monotonic() < end:
        for name in names:
            started = time.monotonic()
            executions[name] += turn(name, work, share, seed)
            seconds[name] += time.monotonic() - started
            seed += 1
    found = {name: sorted((work / "findings").glob(f"{name}-*")) for name in names}
    print(f"{'target':14}{'executions':>12}{'seconds':>10}{'findings':>10}")
    for name in names:
        print(f"{name:14}{executions[name]:>12,}{seconds[name]:>10.0f}{len(found[name]):>10}")
    for folder in (folder for some in found.values() for folder in some):
        print(f"{folder}: {(folder / 'traceback.txt').read_text().splitlines()[0]}")
    return 1 if any(found.values()) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="for all targets together; each gets a turn at least"
    )
    parser.add_argument("--only", default=",".join(TARGETS), help="targets, with commas between: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the changes")
    parser.add_argument(
        "--corpus", type=Path, default=ROOT / "runs" / "fuzz", help="where inputs and findings are kept"
    )
    parser.add_argument("--replay", type=Path, metavar="FINDING", help="the folder of a finding, to be read once more")
    given: Any = parser.parse_args()
    work = given.corpus.resolve()
    if given.replay:
        return replay(given.replay)
    names = given.only.split(",")
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no such target: {', '.join(unknown)}")
    return whole(names, work, given.minutes, given.seed)


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})
    sys.exit(main())
