"""ARP requests and neighbour solicitations for the host's loopback addresses."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from harness.adapters.protocol import Adapter
from harness.model.features import Feature
from harness.model.plan import DEFAULT_NETWORK, Family, Publish
from harness.plugin.marks import requirement
from harness.testbench.packets.capture import TapPool
from harness.testbench.scene import LOOPBACKS, Scene
from harness.world.build import World
from suites.support.arp_ndp import assert_no_proxy_answer
from suites.support.three_containers import ThreeContainers, TrioNetwork, both_families, plan

PORT: Final = 8197
INSIDE: Final = 31081
APART: Final = "apart"
"""A network without other published ports, whose sysctls a bridge may keep."""


@requirement("BR-18")
@both_families
@pytest.mark.parametrize("published", [False, True], ids=["no-published-port", "published-port"])
def test_host_answers_no_arp_or_nd_for_loopback_addresses(
    world: World, runtime: Adapter, wires: TapPool, family: Family, *, published: bool
) -> None:
    """The host answers no ARP request or neighbour solicitation for its loopback addresses.

    A runtime could break this with settings that make ports published on the loopback work.
    """
    own = family == 6 or Feature.NETWORKS in runtime.features
    home = TrioNetwork(family, APART if own else DEFAULT_NETWORK)
    ports = (Publish(PORT, INSIDE),) if published and Feature.PUBLISH in runtime.features else ()
    usual = plan(home)
    *others, last = usual.containers
    asked = replace(usual, containers=(*others, replace(last, ports=ports)))
    with Scene(world, runtime, asked) as scene, TapPool() as taps:
        scene.ready()
        assert_no_proxy_answer(
            ThreeContainers(scene, family, home.network, wires, taps), LOOPBACKS[family]
        )
