"""Runtimes that stay in the foreground while their container runs.

Such a runtime only starts containers and reports no pid. Its process runs in the background, and
nsenter runs commands in the container. The container's pid 1 is the child that is the first process
of a pid namespace and has executed another program.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.adapters.bare.protocol import StartRequest
from harness.adapters.support.program import BOUND, ProgramBroken, failure
from harness.world import process
from linux.proc import process_born

ENTERING: Final = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
"""The namespaces that nsenter(1) enters: all but the user namespace."""
_AGAIN: Final = 0.005
"""Polling interval in seconds: the kernel does not notify of a new child."""


def start(argv: Sequence[str], request: StartRequest, environment: Mapping[str, str]) -> int:
    """Start a container's runtime, and return the container's pid once its command executes.

    If the runtime ends earlier, raises `ProgramRefused` with its output, or `ProgramBroken` if it
    wrote nothing or crashed. It also raises `ProgramBroken` if no pid is found within `BOUND`
    seconds.
    """
    request.log.unlink(missing_ok=True)
    monitor = process.spawn(argv, str(request.log), environment)
    deadline = time.monotonic() + BOUND
    while time.monotonic() < deadline:
        if found := _container(monitor):
            return found
        if not process_born(monitor):
            output = request.log.read_text(encoding="utf-8", errors="replace").strip()
            raise failure(shlex.join(argv), "ended at once", output)
        select.select([], [], [], _AGAIN)
    raise ProgramBroken(f"{shlex.join(argv)} started no process within {BOUND:g} s")


def forget(home: Path) -> None:
    """Wait for the end of a container's runtime, or kill it if the container still runs.

    The runtime's process is found by the container's directory in its arguments, because an
    interrupted start has left no record of a pid.
    """
    for monitor in _started_for(home):
        with contextlib.suppress(ProcessLookupError):
            for child in process.children(monitor):
                os.kill(child, signal.SIGKILL)
            os.kill(monitor, signal.SIGTERM)
        process.wait_for_end(monitor, BOUND)


def _started_for(home: Path) -> Iterator[int]:
    own = f"{home}/".encode()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if own in Path(f"/proc/{name}/cmdline").read_bytes():
                yield int(name)


def nsenter_command(pid: int) -> tuple[str, ...]:
    """Return the nsenter command prefix that runs a command in the namespaces of a process."""
    return ("nsenter", "--target", str(pid), *ENTERING, "--")


def _container(monitor: int) -> int:
    for child in process.children(monitor):
        with contextlib.suppress(OSError, StopIteration):
            with open(f"/proc/{child}/status", encoding="utf-8") as file:
                ids = next(line for line in file if line.startswith("NSpid:")).split()[1:]
            own, its = os.stat(f"/proc/{child}/exe"), os.stat(f"/proc/{monitor}/exe")
            executed = (own.st_dev, own.st_ino) != (its.st_dev, its.st_ino)
            if executed and len(ids) > 1 and ids[-1] == "1":
                return child
    return 0
