"""What adapters do inside the host, whatever runtime they drive."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def together(verb: Callable[[str], object], names: Sequence[str], *, most: int) -> None:
    """Do the same to all of them, up to `most` at a time; then raise the first failure."""
    with ThreadPoolExecutor(min(len(names), most)) as pool:
        going = [pool.submit(verb, name) for name in names]
    for gone in going:
        gone.result()


def wait_for_end(pid: int, seconds: float) -> None:
    """Wait so long for the end of a process; one that is not there has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([handle], [], [], seconds)
    finally:
        os.close(handle)


def children(pid: int) -> list[int]:
    """The processes that a process has started, and not yet collected."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return [int(item) for item in text.split()]
    return []


def kill_with_children(pid: int) -> None:
    """Kill a process, and whatever it has started that is still its own.

    Not by its group: that is the caller's, who may be killed with all that he has started.
    """
    below = children(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for child in below:
        kill_with_children(child)


def killed_after(seconds: float, work: Callable[[], object], *, group: bool = False) -> None:
    """Do the work in a process that is killed after so many seconds, if it is not through before.

    With `group` the commands that it has started are killed with it.
    """
    pid = os.fork()
    if not pid:
        try:
            if group:
                os.setsid()
            work()
        finally:
            os._exit(0)
    # Nobody but us collects it: until then its pid is nobody else's.
    wait_for_end(pid, seconds)
    try:
        if group:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it was through before
    finally:
        os.waitpid(pid, 0)
