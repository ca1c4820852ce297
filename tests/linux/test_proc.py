"""What proc_pid_stat(5) tells of a process, whatever it is called."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from linux import proc
from linux.proc import ProcessStat

_NAMED = ("sh", "-c", 'printf %s "$1" > /proc/$$/comm; echo; read _', "sh")
"""A shell that gives itself a name, says so, and waits to be told to end."""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """One that waits."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("name", ["plain", "a) R 1 (b", "three words ) ("])
def test_a_name_is_no_field(name: str) -> None:
    """However it looks."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*_NAMED, name], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        found = ProcessStat.of(f"/proc/{process.pid}")
        assert (found.command.decode(), found.parent, found.ended) == (name, os.getpid(), False)
        process.communicate(b"\n")


def test_it_is_told_apart_by_its_birth(child: subprocess.Popen[bytes]) -> None:
    """Which comes after its parent's; there is none when it has ended, collected or not."""
    where = f"/proc/{child.pid}"
    assert 0 < proc.born("/proc/self") <= proc.born(where) == ProcessStat.of(where).born
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert ProcessStat.of(where).ended
    assert proc.born(where) == 0
    child.wait()
    assert proc.born(where) == 0


def test_a_page_that_is_touched_counts() -> None:
    """Once."""
    before = ProcessStat.of("/proc/self").faults
    with mmap.mmap(-1, 100 * mmap.PAGESIZE) as area:
        with contextlib.suppress(OSError):  # a kernel that has no others
            area.madvise(mmap.MADV_NOHUGEPAGE)
        for _ in range(2):
            area[:: mmap.PAGESIZE] = bytes(100)
    assert 100 <= ProcessStat.of("/proc/self").faults - before < 200


def test_a_signal_that_waits_is_seen() -> None:
    """And where the command line is."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert ProcessStat.of("/proc/thread-self").pending & 1 << (signal.SIGUSR1 - 1)
        assert signal.sigtimedwait([signal.SIGUSR1], 5) is not None
        assert not ProcessStat.of("/proc/thread-self").pending & 1 << (signal.SIGUSR1 - 1)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    start, end = ProcessStat.of("/proc/self").arguments
    assert start < end
