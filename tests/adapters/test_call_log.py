"""Logs of calls and commands, which are evidence of a failure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.adapters.bare.adapter import BareFactory
from harness.adapters.docker_cli.adapter import CliAdapter
from harness.adapters.protocol import RuntimeBroken, RuntimeRefused
from harness.adapters.support.call_log import CallLog
from harness.model.plan import ContainerSpec, Nothing
from harness.world.build import World
from tests.adapters.acme import acme
from tests.adapters.unasked import Unasked


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Build a world without a runtime."""
    with World.build() as built:
        yield built


def test_call_log_keeps_verbs_of_a_bare_runtime(world: World) -> None:
    """An entry has arguments, result or refusal, and the time."""
    before = time.time()
    factory = BareFactory(name="sh", command=("bash",), make=Unasked, packages=())
    adapter = factory(world.host)
    with pytest.raises(RuntimeRefused):
        adapter.inspect("nobody")
    (kept,) = adapter.commands
    assert kept.argv == ("inspect nobody", "'nobody'")
    assert kept.returncode == 1
    assert "nobody" in kept.stderr
    assert before <= kept.at <= kept.at + kept.seconds <= time.time()


def test_call_log_keeps_the_time_of_a_command(world: World, tmp_path: Path) -> None:
    """The command is run by a command-line adapter."""
    before = time.time()
    adapter = acme(tmp_path)(world.host)
    assert isinstance(adapter, CliAdapter)
    with pytest.raises(RuntimeRefused):
        adapter.inspect("nobody")
    assert before <= adapter.commands[-1].at <= time.time()


def test_call_log_keeps_a_command_that_timed_out(world: World, tmp_path: Path) -> None:
    """It is the command to look for."""
    adapter = acme(tmp_path, trick="[ $1 != run ] || sleep 60", timeout=1)(world.host)
    assert isinstance(adapter, CliAdapter)
    with pytest.raises(RuntimeBroken):
        adapter.run(ContainerSpec("web", Nothing()))
    assert "launch" in adapter.commands[-1].argv
    assert adapter.commands[-1].returncode == 124
    assert "did not end within 1" in adapter.commands[-1].stderr


def test_call_log_drops_the_oldest_entries(world: World) -> None:
    """The log has a bounded size, and results are cut off."""
    calls = CallLog(world.host)
    for number in range(300):
        calls.call("say", _say, number)
    told = calls.entries
    assert len(told) == 200
    assert told[-1].argv == ("say", "299")
    assert len(told[-1].stdout) == 2000


def _say(number: int) -> str:
    return f"{number}" * 3000
