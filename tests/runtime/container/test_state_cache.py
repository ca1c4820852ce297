"""What every call looks at of all containers, and what it need not read again."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

from linux import proc
from runtime.container.state_cache import StateCache
from runtime.engine import Engine
from runtime.store import Store
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.killing import killed_at
from tests.support.processes import descriptors


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
    glance = StateCache(Store(str(root)))
    read.clear()
    for _ in range(3):
        assert list(glance.unsettled()) == []
    assert read == [web.id]


def test_a_new_state_is_read(engine: Engine, root: Path, read: list[str]) -> None:
    """Though it was written by somebody else."""
    web = engine.run("base", FOR_EVER, network="none")
    glance = StateCache(Store(str(root)))
    assert list(glance.unsettled()) == []
    Engine(root).stop(web.id, timeout=0)
    read.clear()
    assert list(glance.unsettled()) == []
    assert read == [web.id]


def test_an_end_is_noticed(engine: Engine, root: Path) -> None:
    """Whatever was read before: nobody writes down that a process was killed."""
    web = engine.run("base", FOR_EVER, network="none")
    glance = StateCache(Store(str(root)))
    assert list(glance.unsettled()) == []
    handle = os.pidfd_open(web.state.pid)
    os.kill(web.state.pid, signal.SIGKILL)
    assert proc.ended_within(handle, 10_000)
    os.close(handle)
    assert list(glance.unsettled()) == [web.id]


def test_one_that_runs_is_not_looked_at_again(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found running twice, it is watched: nothing is asked of it until it ends."""
    web = engine.run("base", FOR_EVER, network="none")
    glance = StateCache(Store(str(root)))
    for _ in range(2):
        assert list(glance.unsettled()) == []
    monkeypatch.setattr(StateCache, "_look", pytest.fail)
    assert list(glance.unsettled()) == []
    monkeypatch.undo()
    handle = os.pidfd_open(web.state.pid)
    os.kill(web.state.pid, signal.SIGKILL)
    assert proc.ended_within(handle, 10_000)
    os.close(handle)
    assert list(glance.unsettled()) == [web.id]


def test_who_was_killed_while_connecting_is_noticed(engine: Engine, root: Path) -> None:
    """Though the container runs on, and is watched."""
    engine.network_create("lan")
    web = engine.run("base", FOR_EVER)
    glance = StateCache(Store(str(root)))
    for _ in range(2):
        assert list(glance.unsettled()) == []
    step = (Store, "write_state", True)
    killed_at(step, lambda: Engine(root).network_connect("lan", web.id))
    assert list(glance.unsettled()) == [web.id]
    engine.containers()
    assert list(glance.unsettled()) == []


def test_a_watch_ends_with_who_watches(engine: Engine, root: Path) -> None:
    """No descriptor outlives it, nor the container."""
    web = engine.run("base", FOR_EVER, network="none")
    gc.collect()  # or what earlier tests' engines had open goes meanwhile
    before = len(descriptors())
    glance = StateCache(Store(str(root)))
    for _ in range(2):
        assert list(glance.unsettled()) == []
    assert len(descriptors()) == before + 1
    del glance
    assert len(descriptors()) == before
    glance = StateCache(Store(str(root)))
    for _ in range(2):
        assert list(glance.unsettled()) == []
    engine.remove(web.id, force=True)
    assert list(glance.unsettled()) == []
    assert len(descriptors()) == before
