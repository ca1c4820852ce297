"""Daemons of a runtime in the host: start, wait for readiness, stop, read logs."""

from __future__ import annotations

import contextlib
import glob
import os
import select
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from harness.adapters.protocol import HostHandle, RuntimeBroken
from harness.adapters.support import programs
from harness.model.dialect import Dialect
from harness.world import process
from linux.proc import process_born


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSpec:
    """A daemon of a runtime; it is ready when its Unix `socket` accepts connections."""

    command: tuple[str, ...]
    socket: str

    @property
    def program(self) -> str:
        """The file name of the daemon's program, without its directory."""
        return self.command[0].rpartition("/")[2]

    @property
    def log(self) -> str:
        """The path of the daemon's log in the host."""
        return f"/run/netmodes/{self.program}.log"

    def resolved(self, found: Mapping[str, str]) -> DaemonSpec:
        """Return a copy of this specification with the program's path from `found`.

        A program that is not in `found` keeps its name.
        """
        return replace(self, command=programs.resolved(self.command, found))


_AGAIN: Final = 0.005
"""Polling interval in seconds: the kernel does not notify of a listening socket."""
_LINES: Final = 25
_COMM: Final = 15
"""Length of a process name in the kernel: proc(5)."""


@dataclass(slots=True)
class Daemons:
    """The daemons of one adapter in its host; `bound` is the time limit of a step, in seconds."""

    host: HostHandle
    specs: Sequence[DaemonSpec]
    env: Mapping[str, str]
    bound: float
    pids: list[int] = field(default_factory=list)
    """Pids in the host, in the order of the specs."""

    def start(self) -> None:
        """Start the daemons that are not running, in order: wait for each before starting the next.

        Raises `RuntimeBroken`, with the daemon's log, if a daemon ends or is not ready in time.
        """
        for number, spec in enumerate(self.specs):
            if number < len(self.pids) and self.host.call(_exists, self.pids[number]):
                continue
            self.host.call(_forget_socket, spec.socket)  # left by a killed daemon
            pid = self.host.spawn(spec.command, log=spec.log, env=self.env)
            if failed := self.host.call(_await_socket, spec.socket, pid, self.bound):
                raise RuntimeBroken(f"{spec.command[0]} {failed}.\n{self._tail(spec.log)}")
            self.pids[number : number + 1] = [pid]

    def stop(self) -> None:
        """Stop all daemons, the last one first."""
        while self.pids:
            self.host.call(process.end, self.pids.pop(), self.bound)

    @property
    def ended(self) -> bool:
        """True if any daemon has ended."""
        return not all(self.host.call(_exists, pid) for pid in self.pids)

    def hints(self, runtime: str) -> list[str]:
        """Return hints for a broken runtime: the last lines of the logs, and the lab command."""
        lab = f"`netmodes lab --runtime {shlex.quote(runtime)}` gives a shell to try the daemon in."
        return [*(self._tail(item.log) for item in self.specs), lab]

    def _tail(self, log: str) -> str:
        lines = self.host.call(_last, log)
        text = "".join(f"  {line}\n" for line in lines) or "  -\n"
        return f"The end of its log, {log}:\n{text}"

    def allow_restarts(self, dialect: Dialect) -> Dialect:
        """Return a dialect that allows restarted daemons to be new processes in the host."""
        if not self.specs:
            return dialect
        own = glob.escape(self.host.call(os.readlink, "/proc/self/ns/net"))
        processes = [f"process * ({item.program[:_COMM]})" for item in self.specs]
        patterns = (*processes, *(f"descriptor of {own} in {name}" for name in processes))
        return replace(
            dialect,
            residue=(*dialect.residue, *patterns),
            fleeting=(*dialect.fleeting, *patterns),
        )


# --- inside the host -----------------------------------------------------------


def _forget_socket(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _await_socket(path: str, pid: int, bound: float) -> str:
    """Wait until the socket listens; return an empty text, or the reason why it does not."""
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
    """Return True while a process runs; a zombie counts as ended."""
    return bool(process_born(pid))


def _last(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()[-_LINES:]
    except OSError:
        return []
