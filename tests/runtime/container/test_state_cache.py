"""Tests of the cache of container states: a call reads only states that may have changed."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

from linux import proc
from runtime.container.lifecycle import StateCache
from runtime.engine import Engine
from runtime.store import Store
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.killing import killed_at
from tests.support.processes import descriptors


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the id of each container whose state is read from now on."""
    found: list[str] = []
    original = Store.state

    def state(store: Store, identity: str) -> object:
        found.append(identity)
        return original(store, identity)

    monkeypatch.setattr(Store, "state", state)
    return found


def test_unchanged_state_is_read_once(engine: Engine, root: Path, read: list[str]) -> None:
    """An unchanged state file is read once, whichever process wrote it."""
    web = engine.run("base", FOR_EVER, network="none")
    cache = StateCache(Store(str(root)))
    read.clear()
    for _ in range(3):
        assert list(cache.unsettled()) == []
    assert read == [web.id]


def test_state_changed_by_another_process_is_read(
    engine: Engine, root: Path, read: list[str]
) -> None:
    """A state is read again after another process changed it."""
    web = engine.run("base", FOR_EVER, network="none")
    cache = StateCache(Store(str(root)))
    assert list(cache.unsettled()) == []
    Engine(root).stop(web.id, timeout=0)
    read.clear()
    assert list(cache.unsettled()) == []
    assert read == [web.id]


@pytest.mark.parametrize("watched", [False, True])
def test_state_cache_notices_a_killed_container(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch, *, watched: bool
) -> None:
    """The state cache notices a killed container, although no process records its end.

    A container that was found running twice is watched and not read again.
    """
    web = engine.run("base", FOR_EVER, network="none")
    cache = StateCache(Store(str(root)))
    assert list(cache.unsettled()) == []
    if watched:
        assert list(cache.unsettled()) == []
        with monkeypatch.context() as patch:
            patch.setattr(StateCache, "_look", pytest.fail)
            assert list(cache.unsettled()) == []
    handle = os.pidfd_open(web.state.pid)
    os.kill(web.state.pid, signal.SIGKILL)
    assert proc.ended_within(handle, 10_000)
    os.close(handle)
    assert list(cache.unsettled()) == [web.id]


def test_state_cache_notices_a_killed_connect(engine: Engine, root: Path) -> None:
    """The state cache notices a killed connect of a container that runs and is watched."""
    engine.network_create("lan")
    web = engine.run("base", FOR_EVER)
    cache = StateCache(Store(str(root)))
    for _ in range(2):
        assert list(cache.unsettled()) == []
    step = (Store, "write_state", True)
    killed_at(step, lambda: Engine(root).network_connect("lan", web.id))
    assert list(cache.unsettled()) == [web.id]
    engine.containers()
    assert list(cache.unsettled()) == []


def test_watched_pidfd_is_closed_with_engine_or_container(engine: Engine, root: Path) -> None:
    """No pidfd of a watched container outlives the engine or the container."""
    web = engine.run("base", FOR_EVER, network="none")
    gc.collect()  # or descriptors of earlier tests' engines are closed meanwhile
    before = len(descriptors())
    cache = StateCache(Store(str(root)))
    for _ in range(2):
        assert list(cache.unsettled()) == []
    assert len(descriptors()) == before + 1
    del cache
    assert len(descriptors()) == before
    cache = StateCache(Store(str(root)))
    for _ in range(2):
        assert list(cache.unsettled()) == []
    engine.remove(web.id, force=True)
    assert list(cache.unsettled()) == []
    assert len(descriptors()) == before
