"""Tests of the logs of requests and commands, which are part of a failure's evidence."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from harness.adapters.bare.adapter import BareFactory
from harness.adapters.protocol import RuntimeRefused
from harness.adapters.support.call_log import CallLog
from harness.world.build import World
from tests.adapters.acme import Unasked


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Build a world without a runtime."""
    with World.build() as built:
        yield built


def test_call_log_has_requests_to_a_bare_runtime(world: World) -> None:
    """The log has each request to a bare runtime, with its arguments and time.

    It also has the result or the refusal.
    """
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


def test_call_log_drops_the_oldest_entries(world: World) -> None:
    """At its size limit the log drops its oldest entries.

    Long results are truncated.
    """
    calls = CallLog(world.host)
    for number in range(300):
        calls.call("say", _say, number)
    told = calls.entries
    assert len(told) == 200
    assert told[-1].argv == ("say", "299")
    assert len(told[-1].stdout) == 2000


def _say(number: int) -> str:
    return f"{number}" * 3000
