"""Tests of `stop`: the stop signal, the timeout, and several containers at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from linux.proc import process_born
from runtime.engine import Engine
from runtime.records import ContainerRecord
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import WITHIN, until
from tests.support.programs import environment

STUBBORN = "trap 'echo signal' TERM; echo ready; while :; do sleep 0.01; done"


def _run_ready(engine: Engine, script: str, name: str = "web") -> ContainerRecord:
    """Start a container, and wait for the first output of its script."""
    found = engine.run("base", ["sh", "-c", script], name=name, network="none")
    until(lambda: any(engine.logs(name)), "the command is ready")
    return found


def test_stop_sends_sigterm_and_keeps_the_exit_code(engine: Engine) -> None:
    """`stop` sends SIGTERM to the command and keeps its exit code."""
    handler = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"
    web = _run_ready(engine, handler)
    stopped = engine.stop("web")
    assert (stopped.state.status, stopped.state.exit_code, stopped.state.pid) == ("exited", 3, 0)
    assert process_born(web.state.pid) == 0


def test_stop_kills_the_container_at_the_timeout(engine: Engine) -> None:
    """`stop` ends all processes with SIGKILL at the timeout: exit code 137."""
    _run_ready(engine, "trap '' TERM; echo ready; sleep 1000")
    assert engine.stop("web", timeout=0.05).state.exit_code == 137


@pytest.mark.parametrize("how", ["kill", "remove"])
def test_stopping_container_can_be_killed_or_removed(engine: Engine, how: str) -> None:
    """A kill or removal does not wait for a stop's timeout, and the stop succeeds."""
    _run_ready(engine, STUBBORN)
    with ThreadPoolExecutor() as pool:
        stopped = pool.submit(engine.stop, "web", timeout=60)
        until(lambda: len(list(engine.logs("web"))) == 2, "the command has the signal")
        engine.kill("web") if how == "kill" else engine.remove("web", force=True)
        assert stopped.result(timeout=10).config.name == "web"


def test_stop_of_a_stopped_container_is_no_error(engine: Engine) -> None:
    """`stop` of a stopped container succeeds."""
    engine.run("base", FOR_EVER, name="web")
    assert engine.stop("web") == engine.stop("web")


def test_stop_signal_right_after_start_is_not_lost(engine: Engine) -> None:
    """The signal of a stop right after the start is not lost.

    The signal waits until pid 1 can pass it on, so the stop does not time out.
    """
    for _ in range(20):
        web = engine.run("base", FOR_EVER)
        assert engine.stop(web.id, timeout=WITHIN).state.exit_code == 128 + signal.SIGTERM


def test_stop_timeouts_of_several_containers_run_in_parallel(engine: Engine) -> None:
    """The timeouts of containers that ignore the stop signal run in parallel."""
    names = [f"web{number}" for number in range(6)]
    for name in names:
        _run_ready(engine, STUBBORN, name)
    began = time.monotonic()
    stopping = [engine.stopping(name, timeout=1) for name in names]
    assert {item.finish().state.exit_code for item in stopping} == {137}
    assert 1 <= time.monotonic() - began < len(names)


def test_stop_signals_all_containers_before_waiting(engine: Engine, root: Path) -> None:
    """`stop` signals all containers before it waits for them, also those after a missing one.

    The command then reports the missing container.
    """
    for name in ("a", "b", "c"):
        _run_ready(engine, STUBBORN, name)
    with subprocess.Popen(
        [sys.executable, "-m", "runtime", "stop", "-t", "1000", "a", "nope", "b", "c"],
        env=environment(MYDOCKER_ROOT=str(root)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as stopping:
        for name in ("c", "b", "a"):
            until(lambda: len(list(engine.logs(name))) == 2, f"{name} has the signal")  # noqa: B023
            engine.kill(name)
        out, err = stopping.communicate(timeout=30)
    assert (stopping.returncode, out) == (1, "a\nb\nc\n")
    assert "'nope'" in err
