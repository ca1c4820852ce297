"""Tests of the guard's time limits for resources that outlive the runtime's command."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import pytest

from harness.world.build import World
from harness.world.leak_guard import BOUND, LeakGuard, Violation
from tests.world.hosts import killed

SOON = 0.1
"""Time limit in seconds; it may be short, because no leftover here ends by itself."""


def test_only_declared_fleeting_process_may_end_by_itself(
    guard: LeakGuard, world: World, allow: Callable[..., None]
) -> None:
    """A process may end by itself only if it matches a declared pattern of fleeting processes.

    The end of any other process is a violation.
    """
    for pattern in ("process * (sleep)", "process * (other)"):
        pid = world.host.spawn(["sleep", "60"], log="/dev/null")
        allow(fleeting=(pattern,))
        with (
            contextlib.nullcontext()
            if "sleep" in pattern
            else pytest.raises(Violation, match=r"process \d+ \(sleep\): gone"),
            guard.holding(bound=BOUND if "sleep" in pattern else SOON),
        ):
            assert world.host.call(killed, pid)


@pytest.mark.parametrize("pattern", ["process * (sleep)", "process * (other)"])
def test_declared_fleeting_process_has_longer_time_to_end(
    guard: LeakGuard, world: World, allow: Callable[..., None], pattern: str
) -> None:
    """A declared fleeting process has more time to end than other leftovers."""
    allow(fleeting=(pattern,))
    with (
        contextlib.nullcontext()
        if "sleep" in pattern
        else pytest.raises(Violation, match=r"after 0.1 s:\n.*process \d+ \(sleep\): new"),
        guard.holding(bound=SOON),
    ):
        world.host.spawn(["sleep", str(10 * SOON)], log="/dev/null")


def test_effects_of_ended_process_have_the_usual_time_limit(
    guard: LeakGuard, world: World, allow: Callable[..., None]
) -> None:
    """The time limit for a process's effects starts when the process ends."""
    allow(fleeting=("process *",))
    leaves = f"sleep {5 * SOON}; ip link add late type bridge; sleep {SOON / 2}; ip link del late"
    with guard.holding(bound=2 * SOON):
        world.host.spawn(["sh", "-c", leaves], log="/dev/null")


def test_fleeting_process_does_not_extend_limit_of_other_leftovers(
    guard: LeakGuard, world: World, allow: Callable[..., None]
) -> None:
    """A fleeting process does not give other leftovers more time."""
    allow(fleeting=("process *",))
    add = "ip link add stays type bridge; exec sleep 60"
    pid = 0
    try:
        with (
            pytest.raises(Violation, match=r"after 0\.1 s:(\n.*)*stays"),
            guard.holding(bound=SOON),
        ):
            pid = world.host.spawn(["sh", "-c", add], log="/dev/null")
    finally:
        assert world.host.call(killed, pid)
        world.host.run(["ip", "link", "del", "stays"])


def test_process_that_is_ending_when_a_test_begins_is_no_leak(
    guard: LeakGuard, world: World
) -> None:
    """A process that is ending when a test begins is no leak.

    An example is a runtime's command, a zombie until its parent waits for it.
    """
    pid = world.host.call(_ended)
    with guard.holding(bound=SOON):
        assert world.host.call(os.waitpid, pid, 0) == (pid, 0)


def _ended() -> int:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid
