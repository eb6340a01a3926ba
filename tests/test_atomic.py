"""Files that are whole or not there, and what is swept of those that killed processes left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from limbeck import atomic
from limbeck.atomic import ENDING, is_part, put, sweep

WRITER = """
import os, sys, signal
from limbeck import atomic
def at_fsync(descriptor):
    print("written", flush=True)
    if sys.stdin.readline().strip() == "die":
        os.kill(os.getpid(), signal.SIGKILL)
atomic.os.fsync = at_fsync
atomic.put(atomic.Path(sys.argv[1]), b"new")
"""


def writer(path: Path) -> subprocess.Popen[str]:
    """A process that has written a file's content, and has not renamed it yet."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "written\n"
    return process


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    put(tmp_path / "new" / "a.txt", b"one")
    put(tmp_path / "new" / "a.txt", memoryview(b"two"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {"a.txt": b"two"}


@pytest.mark.parametrize("raised", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_what_was_there(
    raised: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a.txt", b"one")

    def fail(descriptor: int) -> None:
        assert any(map(is_part, tmp_path.iterdir()))
        raise raised

    monkeypatch.setattr("limbeck.atomic.os.fsync", fail)
    with pytest.raises(type(raised)):
        put(tmp_path / "a.txt", b"two")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.txt": b"one"}


@pytest.mark.skipif(os.name == "nt", reason="nothing is swept on Windows")
def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a", b"old")
    (tmp_path / f"mine{ENDING}").touch()
    killed, living = writer(tmp_path / "in" / "a"), writer(tmp_path / "in" / "b")
    killed.communicate("die\n")
    assert killed.returncode == -signal.SIGKILL
    assert len(list(filter(is_part, (tmp_path / "in").iterdir()))) == 2
    sweep(tmp_path)
    assert [path.name[:3] for path in (tmp_path / "in").iterdir() if is_part(path)] == [".b."]
    living.communicate("go on\n")
    assert living.returncode == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()} == {"a": b"old", "b": b"new"}
    assert (tmp_path / f"mine{ENDING}").exists()


@pytest.mark.skipif(os.name == "nt", reason="nothing is swept on Windows")
def test_a_file_that_is_swept_before_it_is_locked_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process sweeps between the moment in which the temporary file appears and that in which it is locked."""
    hold, swept = atomic._hold, []

    def late(file: Any) -> Any:
        if not swept:
            swept.extend(tmp_path.iterdir())
            atomic.sweep(tmp_path)
        return hold(file)

    monkeypatch.setattr(atomic, "_hold", late)
    atomic.put(tmp_path / "a", b"content")
    assert len(swept) == 1
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"content")]
