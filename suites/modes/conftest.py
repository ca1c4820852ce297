"""Scenes that the mode suites share besides the cast."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import Bridge, ContainerSpec, NetworkSpec, Plan
from harness.plugin.fixtures import RuntimeStarter
from harness.testbench.scene import Scene
from harness.world.build import World

CROWD = Plan(containers=tuple(ContainerSpec(f"member{n:02}") for n in range(20)))
BOTH = "both"
"""A network with IPv4 and IPv6, and the containers a and b on it."""
DUAL = Plan(
    networks=(NetworkSpec(BOTH, ipv6=True),),
    containers=(ContainerSpec("a", Bridge(BOTH)), ContainerSpec("b", Bridge(BOTH))),
)


@pytest.fixture
def fresh(start_runtime: RuntimeStarter) -> Iterator[Scene]:
    """An empty scene in a world of its own, in which no container has ever run."""
    with World.build() as world, start_runtime(world) as runtime, Scene(world, runtime) as made:
        yield made


@pytest.fixture(scope="module")
def crowd(world: World, runtime: Adapter) -> Iterator[Scene]:
    """Twenty containers on the default network: look, do not change."""
    with Scene(world, runtime, CROWD) as made:
        yield made


@pytest.fixture(scope="module")
def dual(world: World, runtime: Adapter) -> Iterator[Scene]:
    """Two containers on a network with both families: look, do not change."""
    with Scene(world, runtime, DUAL) as made:
        yield made
