"""Fixtures for the tests of the harness's world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from harness.testbench.scene import Scene
from harness.world.leak_guard import LeakGuard
from tests.world.hosts import doomed, host
from tests.world.serving import client, namespaces, places, services

__all__ = ["client", "doomed", "host", "namespaces", "places", "services"]


@pytest.fixture
def allow(guard: LeakGuard, scene: Scene) -> Iterator[Callable[..., None]]:
    """Return a function that changes fields of the guard's dialect for the time of one test."""
    dialect = scene.runtime.dialect
    yield lambda **choices: guard.allow(replace(dialect, **choices))
    guard.allow(dialect)
