"""Daemons of a runtime: start them in the host, wait until ready, stop them, read logs."""

from __future__ import annotations

import contextlib
import glob
import os
import select
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.adapters.protocol import HostHandle, RuntimeBroken
from harness.adapters.support import programs
from harness.model.dialect import Dialect
from harness.world import process
from linux import proc


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSpec:
    """A daemon of a runtime; it is ready when its Unix `socket` accepts connections."""

    command: tuple[str, ...]
    socket: str

    @property
    def program(self) -> str:
        """The name."""
        return self.command[0].rpartition("/")[2]

    @property
    def log(self) -> str:
        """The path of its log in the host."""
        return f"/run/netmodes/{self.program}.log"

    def resolved(self, found: Mapping[str, str]) -> DaemonSpec:
        """Return the daemon with the path of its program if that was found."""
        return replace(self, command=programs.resolved(self.command, found))


_AGAIN: Final = 0.005
"""Polling interval in seconds: the kernel does not notify of a listening socket."""
_LINES: Final = 25
_COMM: Final = 15
"""Length of a process name in the kernel: proc(5)."""


def allow_restarts(host: HostHandle, dialect: Dialect, daemons: Sequence[DaemonSpec]) -> Dialect:
    """Return a dialect that allows for a restarted daemon: another process in the host's netns."""
    if not daemons:
        return dialect
    own = glob.escape(host.call(os.readlink, "/proc/self/ns/net"))
    patterns = [
        pattern
        for item in daemons
        for pattern in (
            f"process * ({item.program[:_COMM]})",
            f"descriptor of {own} in process * ({item.program[:_COMM]})",
        )
    ]
    return replace(
        dialect,
        residue=(*dialect.residue, *patterns),
        fleeting=(*dialect.fleeting, *patterns),
    )


def start_missing(
    host: HostHandle,
    daemons: Sequence[DaemonSpec],
    pids: list[int],
    env: Mapping[str, str],
    bound: float,
) -> None:
    """Start the daemons that do not run, in order, and update `pids`."""
    for number, wanted in enumerate(daemons):
        if number >= len(pids) or ended(host, pids[number : number + 1]):
            pids[number : number + 1] = [start(host, wanted, env, bound)]


def start(host: HostHandle, daemon: DaemonSpec, env: Mapping[str, str], bound: float) -> int:
    """Start a daemon and return its pid in the host once its socket accepts connections.

    Raises `RuntimeBroken` with its log if it ends before, or is not ready after `bound` seconds.
    """
    host.call(_forget_socket, daemon.socket)  # left by a killed daemon
    pid = host.spawn(daemon.command, log=daemon.log, env=env)
    failed = host.call(_await_socket, daemon.socket, pid, bound)
    if failed:
        raise RuntimeBroken(f"{daemon.command[0]} {failed}.\n{tail(host, daemon.log)}")
    return pid


def ended(host: HostHandle, pids: Sequence[int]) -> bool:
    """Return True if any of these daemons has ended."""
    return any(not host.call(_exists, pid) for pid in pids)


def hints(host: HostHandle, daemons: Sequence[DaemonSpec], runtime: str) -> list[str]:
    """Return hints for a broken runtime: the ends of the logs, and the lab command."""
    lab = f"`netmodes lab --runtime {shlex.quote(runtime)}` gives a shell where it can be tried."
    return [*(tail(host, item.log) for item in daemons), lab]


def tail(host: HostHandle, log: str) -> str:
    """Return the last lines of a log in the host, with a heading."""
    lines = host.call(_last, log)
    return f"The end of its log, {log}:\n" + ("".join(f"  {line}\n" for line in lines) or "  -\n")


# --- inside the host -----------------------------------------------------------


def _forget_socket(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _await_socket(path: str, pid: int, bound: float) -> str:
    """Wait until the socket listens; return an empty text, or the failure."""
    deadline = time.monotonic() + bound
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as call:
            call.settimeout(bound)
            try:
                call.connect(path)
            except OSError:
                if not _exists(pid):
                    return f"ended before it listened on {path}"
                select.select([], [], [], _AGAIN)
            else:
                return ""
    process.end(pid, 0.0)
    return f"was not listening on {path} after {bound:g} s, and was killed"


def _exists(pid: int) -> bool:
    """Return True while a process runs; a zombie has ended."""
    return bool(proc.born(f"/proc/{pid}"))


def _last(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()[-_LINES:]
    except OSError:
        return []
