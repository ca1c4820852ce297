"""Concurrent starts and removals of containers, whose addresses must stay unique."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from harness.adapters.protocol import Adapter, ContainerInfo
from harness.model.plan import HOST, ContainerSpec, Protocol
from harness.plugin.marks import requirement
from harness.testbench.concurrent import at_once
from harness.testbench.scene import Scene
from suites.support.features import lan

MANY = 20


@pytest.mark.timeout(300)  # twenty commands, each with a bound, on a busy machine
@requirement("LIFE-4")
def test_twenty_concurrent_starts_get_unique_addresses(scene: Scene, runtime: Adapter) -> None:
    """Twenty containers that start at once get unique addresses and MACs.

    The runtime reports the addresses that the interfaces have, in each family. The host reaches all
    containers.
    """
    own = lan(scene)
    specs = [ContainerSpec(f"member{number:02}", own) for number in range(MANY)]
    _adopt(scene, specs, at_once(scene.world.host, [partial(runtime.run, spec) for spec in specs]))
    _assert_unique(scene, [spec.name for spec in specs])


@pytest.mark.timeout(300)  # many commands, each with a bound
@requirement("LIFE-4")
def test_starts_racing_removals_get_unique_addresses(scene: Scene, runtime: Adapter) -> None:
    """Containers that start while others are removed get unique addresses and are reachable."""
    own = lan(scene)
    scene.container("stays", own)
    for number in range(MANY // 2):
        scene.container(f"old{number}", own)
    specs = [ContainerSpec(f"new{number}", own) for number in range(MANY // 2)]
    old = [f"old{number}" for number in range(MANY // 2)]
    starts = [partial(runtime.run, spec) for spec in specs]
    removals = [partial(_removed, runtime, name) for name in old]
    jobs = [job for both in zip(starts, removals, strict=True) for job in both]
    outcomes = at_once(scene.world.host, jobs)
    scene.forget(*old)
    _adopt(scene, specs, outcomes[::2])
    assert outcomes[1::2] == [None] * len(old)
    _assert_unique(scene, ["stays", *(spec.name for spec in specs)])


def _removed(runtime: Adapter, name: str) -> ContainerInfo | None:
    runtime.remove(name)
    return None


def _adopt(scene: Scene, specs: list[ContainerSpec], outcomes: Sequence[object]) -> None:
    for spec, outcome in zip(specs, outcomes, strict=True):
        assert isinstance(outcome, ContainerInfo), outcome
        scene.adopt(spec, outcome)


def _assert_unique(scene: Scene, names: list[str]) -> None:
    macs = {scene[name].net.links()["eth0"].mac for name in names}
    assert len(macs) == len(names)
    network = scene.plan.container(names[0]).networks[0]
    for family in scene.plan.network(network).families:
        inside = [scene[name].net.address(family) for name in names]
        assert len(set(inside)) == len(names)
        endpoints = [scene[name].endpoint(network) for name in names]
        reported = [item.address if family == 4 else item.address6 for item in endpoints]
        assert [item and item.ip for item in reported] == inside
    asked = scene.promised().select(source=HOST, protocol=Protocol.ICMP)
    wanted = [cell for cell in asked if cell.target in names]
    assert scene.observed(wanted) == scene.promised(wanted)
