"""Kill mydocker at a named step, in a forked process.

A replaced function of mydocker kills the process, before or after the function's work.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

Step = tuple[Any, str, bool]


def in_process(work: Callable[[], object]) -> int:
    """Do the work in a forked process; return its exit status, negative for a signal."""
    pid = os.fork()
    if not pid:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(step: Step, work: Callable[[], object]) -> None:
    """Do the work in a process that is killed when it reaches the step."""
    owner, name, after = step

    def work_until_step() -> None:
        original = getattr(owner, name)

        def kill_process(*args: Any, **kwargs: Any) -> Any:
            if after:
                original(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, kill_process)
        work()

    assert in_process(work_until_step) == -signal.SIGKILL


def steps(*functions: tuple[Any, str]) -> dict[str, Step]:
    """Return the steps before and after each of the functions (owner and name), by test id."""
    return {
        f"{'after' if after else 'before'} {name}": (owner, name, after)
        for owner, name in functions
        for after in (False, True)
    }
