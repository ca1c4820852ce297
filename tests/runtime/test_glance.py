"""What every call looks at of all containers, and what it need not read again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from runtime import container
from runtime.engine import Engine
from runtime.glance import Glance
from runtime.state import Store
from tests.runtime.conftest import FOR_EVER


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids whose state is read from now on, one entry for each time."""
    found: list[str] = []
    original = Store.state

    def state(store: Store, identity: str) -> object:
        found.append(identity)
        return original(store, identity)

    monkeypatch.setattr(Store, "state", state)
    return found


def test_a_state_is_read_once(engine: Engine, root: Path, read: list[str]) -> None:
    """As long as its file is the same, by whatever process it was written."""
    web = engine.run("base", FOR_EVER, network="none")
    glance = Glance(Store(str(root)))
    read.clear()
    for _ in range(3):
        assert list(glance.unsettled()) == []
    assert read == [web.id]


def test_a_new_state_is_read(engine: Engine, root: Path, read: list[str]) -> None:
    """Though it was written by somebody else."""
    web = engine.run("base", FOR_EVER, network="none")
    glance = Glance(Store(str(root)))
    assert list(glance.unsettled()) == []
    Engine(root).stop(web.id, timeout=0)
    read.clear()
    assert list(glance.unsettled()) == []
    assert read == [web.id]


def test_an_end_is_noticed(engine: Engine, root: Path) -> None:
    """Whatever was read before: nobody writes down that a process was killed."""
    web = engine.run("base", FOR_EVER, network="none")
    glance = Glance(Store(str(root)))
    assert list(glance.unsettled()) == []
    handle = os.pidfd_open(web.state.pid)
    os.kill(web.state.pid, signal.SIGKILL)
    assert container.ended_within(handle, 10_000)
    os.close(handle)
    assert list(glance.unsettled()) == [web.id]
