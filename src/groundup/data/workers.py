"""A pool of worker processes whose death is noticed and named.

Each worker is a fresh interpreter that runs this file and is spoken to over its own socket, so it imports
neither the caller's script (which needs no `if __name__ == "__main__"`) nor torch, and when one dies it is
known which piece of work killed it. With one worker everything runs in this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from groundup.errors import GroundupError

STALLED_AFTER = 900.0
"""Seconds without any answer after which the pool gives up; a chunk takes a few."""


def usable_cores() -> int:
    """Processor cores that this process may use; where the system cannot say, all that there are."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


class Task(NamedTuple):
    """One piece of work: what it is called in errors, and the argument after the shared one."""

    name: str
    argument: Any


class _Worker:
    def __init__(self, function: Callable[[Any, Any], Any], shared: Any) -> None:
        self.connection, theirs = Pipe()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "TOKENIZERS_PARALLELISM": "false",  # one thread each: the pool has a process for every core
            "OMP_NUM_THREADS": "1",
            "RAYON_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "groundup.data.workers", str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        self.task = "starting up"
        self.connection.send((function, shared))

    def give(self, task: Task) -> None:
        self.task = task.name
        self.connection.send(task.argument)

    def died(self) -> GroundupError:
        code = self.process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return GroundupError(
            "E-DATA-013",
            f"a worker process died ({how})",
            where=f"process {self.process.pid}, while working on: {self.task}",
            why="without its answer that piece is missing; usually the machine ran out of memory (SIGKILL)",
            fix="give the same command again: finished pieces are kept; with less memory, --workers 1",
        )


def run_tasks(
    function: Callable[[Any, Any], Any], shared: Any, tasks: Iterable[Task], workers: int
) -> Iterator[tuple[str, Any]]:
    """Apply `function(shared, argument)` to all tasks; yields the name and result of each as it is done.

    Args:
        function: a function at the top level of a module that imports fast.
        shared: sent to each worker once.
        tasks: read only as fast as workers ask for them.

    Raises:
        GroundupError: raised by a task, or a worker died or stalled; the others are stopped.
    """
    if workers <= 1:
        for task in tasks:
            yield task.name, function(shared, task.argument)
        return
    pending = iter(tasks)
    pool: list[_Worker] = []
    busy: dict[Connection, _Worker] = {}
    try:
        for task in pending:
            if len(pool) < workers:
                worker = _Worker(function, shared)
                pool.append(worker)
            else:
                worker, done = _next_answer(busy)
                yield done
            _send(worker, task)
            busy[worker.connection] = worker
        while busy:
            yield _next_answer(busy)[1]
    finally:
        for worker in pool:
            worker.connection.close()  # an idle worker ends at the end of its input
            worker.process.terminate()
        for worker in pool:
            worker.process.wait()


def _send(worker: _Worker, task: Task) -> None:
    try:
        worker.give(task)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise worker.died() from error


def _next_answer(busy: dict[Connection, _Worker]) -> tuple[_Worker, tuple[str, Any]]:
    ready = wait(list(busy), timeout=STALLED_AFTER)
    if not ready:
        raise GroundupError(
            "E-DATA-013",
            f"no worker process has answered for {STALLED_AFTER:.0f} s",
            where="\n".join(f"process {w.process.pid}, while working on: {w.task}" for w in busy.values()),
            why="one piece of work takes a few seconds",
            fix="look at the named pieces, then give the same command again: finished pieces are kept",
        )
    connection = ready[0]
    worker = busy.pop(connection)  # type: ignore[call-overload]
    try:
        kind, value = worker.connection.recv()
    except (EOFError, ConnectionResetError) as error:
        raise worker.died() from error
    if kind == "error":
        error_type, fields = value
        raise error_type(**fields)
    return worker, (worker.task, value)


def _serve(connection: Connection) -> None:
    """The life of a worker: what to do once, then one argument after another."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    function, shared = connection.recv()
    while True:
        try:
            argument = connection.recv()
        except EOFError:
            return
        try:
            answer = ("done", function(shared, argument))
        except GroundupError as error:
            names = ("code", "what", "where", "why", "fix", "exit_code")
            answer = ("error", (type(error), {name: vars(error)[name] for name in names}))
        connection.send(answer)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
