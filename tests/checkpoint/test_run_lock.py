"""One process at a time in a run folder, and locks that killed processes leave behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.checkpoint import RunLock, SaveError, lock
from groundup.errors import GroundupError

HOLD = """
import sys
from pathlib import Path
from groundup.checkpoint.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def refused(folder: Path) -> GroundupError:
    with pytest.raises(GroundupError) as caught, RunLock(folder):
        pass
    assert caught.value.code == "E-RUN-001"
    return caught.value


def test_R10_a_second_process_is_refused_and_a_killed_ones_lock_is_taken_over(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        error = refused(tmp_path)
        assert f"process {first.pid} on" in error.what
        assert f"kill {first.pid}" in error.fix
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    with RunLock(tmp_path) as held:
        assert held.note is not None
        assert f"process {first.pid} on" in held.note
        refused(tmp_path)
    assert not (tmp_path / "lock").exists()
    with RunLock(tmp_path) as held:
        assert held.note is None


def write_holder(folder: Path, *, pid: int, started: float, host: str) -> None:
    (folder / "lock").write_text(json.dumps({"pid": pid, "started": started, "host": host}))


def test_R10_without_flock_a_stale_lock_is_recognised_by_pid_and_start_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    host, started = socket.gethostname(), lock.process_started(os.getpid())
    assert started is not None
    with RunLock(tmp_path) as held:
        assert held.note is None
        assert f"process {os.getpid()}" in refused(tmp_path).what
    assert not (tmp_path / "lock").exists()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for stale in ({"pid": ended.pid, "started": started}, {"pid": os.getpid(), "started": started - 1000}):
        write_holder(tmp_path, host=host, **stale)
        with RunLock(tmp_path) as held:
            assert held.note is not None
    write_holder(tmp_path, pid=ended.pid, started=started, host="another-host")
    assert "another-host" in refused(tmp_path).what
    (tmp_path / "lock").write_bytes(b"")  # its writer may be about to sign it
    assert "another process" in refused(tmp_path).what


@pytest.mark.skipif(lock.fcntl is None, reason="needs flock")
@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[]", b'{"pid": "x"}', b"[" * 4000])
def test_R10_a_lock_file_of_rubbish_does_not_stop_a_run(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    with RunLock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_R10_a_forked_worker_that_outlives_the_run_does_not_keep_the_lock(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    started, starting = os.pipe()
    held = RunLock(tmp_path)
    held.__enter__()
    worker = os.fork()
    if worker == 0:
        os.close(writing)
        os.write(starting, b"!")
        os.read(reading, 1)  # lives until the test lets go
        os._exit(0)
    try:
        os.read(started, 1)
        refused(tmp_path)  # the fork took nothing away
        held.close()  # as the kernel does for a killed process: the file stays
        with RunLock(tmp_path) as next_run:
            assert next_run.note is not None
    finally:
        for descriptor in (writing, reading, started, starting):
            os.close(descriptor)
        os.waitpid(worker, 0)


def test_a_folder_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError), RunLock(tmp_path / "file"):
        pass
