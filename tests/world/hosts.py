"""Helpers that start a host without a world, and examine its processes from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from harness.world.host import HOSTNAME, HostMachine

RESOLVER = "203.0.113.53"
WITHIN = 10.0
"""Time limit of every wait, in seconds."""
KINDS = ("mnt", "net", "pid", "uts", "ipc", "cgroup")


def started() -> HostMachine:
    """Start a host without a world."""
    return HostMachine.start(
        resolver=RESOLVER, hosts={"127.0.0.1": "localhost", "127.0.1.1": HOSTNAME}
    )


@pytest.fixture(scope="module")
def host() -> Iterator[HostMachine]:
    """Start a host that is shared by the tests that do not end it."""
    running = started()
    yield running
    running.stop()


@pytest.fixture
def doomed() -> Iterator[HostMachine]:
    """Start a host for a single test, which may end the host."""
    running = started()
    yield running
    running.stop()


def members(init: int) -> list[int]:
    """Return the processes in the pid namespace of a host's init, by this process's pids."""
    own = namespace(init)
    return [pid for pid in pids() if namespace(pid) == own]


def pids() -> list[int]:
    """Return the pids of all processes that this process sees in /proc."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def namespace(pid: int) -> tuple[int, int] | None:
    """Return the pid namespace of a process, or `None` if the process has ended."""
    with contextlib.suppress(OSError):  # the process has ended, or is ending
        status = os.stat(f"/proc/{pid}/ns/pid")
        return status.st_dev, status.st_ino
    return None


def look() -> dict[str, object]:
    """Return the pids, namespaces, hostname, directory and descriptors that this process sees."""
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
        "namespaces": {kind: os.stat(f"/proc/1/ns/{kind}").st_ino for kind in KINDS},
        "hostname": socket.gethostname(),
        "cwd": os.getcwd(),
        "open": {
            number: os.readlink(f"/proc/1/fd/{number}") for number in os.listdir("/proc/1/fd")
        },
    }


def killed(pid: int) -> bool:
    """Kill a process; return whether its parent reaps it within the time limit."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + WITHIN
    while os.path.exists(f"/proc/{pid}"):
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True
