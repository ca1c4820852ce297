"""Tests of the fields in proc_pid_stat(5), and of the kernel's transport protocols."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from linux import proc
from linux.proc import ProcessStat, protocol_available

_NAMED = ("sh", "-c", 'printf %s "$1" > /proc/$$/comm; echo; read _', "sh")
"""A shell that sets its name, prints a line, and ends at the next line of input."""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that waits."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("name", ["plain", "a) R 1 (b", "three words ) ("])
def test_stat_is_parsed_for_any_command_name(name: str) -> None:
    """The fields of stat are correct if a command's name has spaces and parentheses."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*_NAMED, name], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        found = ProcessStat.of(f"/proc/{process.pid}")
        assert (found.command.decode(), found.parent, found.ended) == (name, os.getpid(), False)
        process.communicate(b"\n")


def test_only_living_processes_have_a_start_time(child: subprocess.Popen[bytes]) -> None:
    """A child's start time is not before that of its parent.

    An ended process has no start time, whether it is a zombie or not.
    """
    where = f"/proc/{child.pid}"
    assert 0 < proc.born("/proc/self") <= proc.born(where) == ProcessStat.of(where).born
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert ProcessStat.of(where).ended
    assert proc.born(where) == 0
    child.wait()
    assert proc.born(where) == 0


def test_touched_page_counts_as_one_page_fault() -> None:
    """The first access to a page counts as one page fault, further accesses as none."""
    before = ProcessStat.of("/proc/self").faults
    with mmap.mmap(-1, 100 * mmap.PAGESIZE) as area:
        with contextlib.suppress(OSError):  # the kernel may have no other
            area.madvise(mmap.MADV_NOHUGEPAGE)
        for _ in range(2):
            area[:: mmap.PAGESIZE] = bytes(100)
    assert 100 <= ProcessStat.of("/proc/self").faults - before < 200


def test_pending_signals_and_command_line_are_parsed() -> None:
    """A blocked signal that was raised is pending.

    The address range of the command line is not empty.
    """
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


@pytest.mark.parametrize("name", ["TCP", "UDP", "TCPv6", "UDPv6"])
def test_common_protocols_are_available(name: str) -> None:
    """TCP and UDP are available in both families.

    A prefix of a protocol's name is no name.
    """
    assert protocol_available(name)
    assert not protocol_available(name[:2])


def test_sctp_is_available_only_with_sockets() -> None:
    """If SCTP is reported as available, a socket for it can be opened."""
    available = protocol_available("SCTP")
    if available:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    else:
        assert not protocol_available("SCTPv6")
