"""The processes of a running container, as the host sees them."""

from __future__ import annotations

import os
import pwd
import time
from contextlib import suppress
from typing import Final, NamedTuple

from linux.proc import ProcessStat

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PTS_MAJORS: Final = range(136, 144)


class Process(NamedTuple):
    """One process of a container.

    `used` is its CPU time in seconds, `started` its start in seconds since the epoch.
    """

    pid: int
    parent: int
    user: str
    terminal: str
    used: float
    started: float
    command: str


def of(pid: int) -> list[int]:
    """Return the pids in the pid namespace whose pid 1 is `pid`.

    A process that is just ending may be missing.
    """
    try:
        home = os.stat(f"/proc/{pid}/ns/pid").st_ino
    except FileNotFoundError:
        return []
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                if os.stat(f"/proc/{name}/ns/pid").st_ino == home:
                    found.append(int(name))
    return sorted(found)


def described(pid: int) -> list[Process]:
    """Return all processes in the pid namespace of `pid`, with the values that `ps` shows."""
    found = []
    for one in of(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            found.append(_describe(one))
    return found


def _describe(pid: int) -> Process:
    found = ProcessStat.of(f"/proc/{pid}")
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().rstrip(b"\0").split(b"\0")
    major, minor = os.major(found.terminal), os.minor(found.terminal)
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    command = b" ".join(words) or b"[" + found.command + b"]"
    return Process(
        pid,
        found.parent,
        _user(os.stat(f"/proc/{pid}").st_uid),
        f"pts/{(major - _PTS_MAJORS[0]) * 256 + minor}" if major in _PTS_MAJORS else "?",
        found.ticks / _TICKS,
        booted + found.born / _TICKS,
        command.decode(errors="replace"),
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
