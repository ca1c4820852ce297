"""Open flows, which must survive while other containers and networks are created and removed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from harness.model.plan import HOST, INTERNET, Bridge, Family, Host, Joined, Mode, Nothing
from harness.plugin.marks import requirement
from harness.testbench.listener import TRANSPORTS
from harness.testbench.netns_view import until
from harness.testbench.scene import Scene
from suites.support.features import has_ipv6, lan
from suites.support.open_flows import Flows, assert_flows_continue, assert_flows_survive, open_flow
from suites.support.three_containers import both_families


@pytest.fixture
def flows(scene: Scene, family: Family) -> Iterator[Flows]:
    """Open flows from `stays` to the internet and from a peer to `stays`, over UDP and TCP."""
    own = lan(scene, family=family)
    stays, mate = (scene.container(name, own).net for name in ("stays", "mate"))
    scene.ready()
    address, beyond = stays.address(family), scene.world.address(INTERNET, family)
    assert address
    with ExitStack() as stack:
        yield {
            f"{transport}, {way}": stack.enter_context(open_flow(*ends, transport=transport))
            for transport in TRANSPORTS
            for way, ends in {
                "to the internet": (stays, scene.netns(INTERNET), beyond),
                "from a peer": (mate, stays, address),
            }.items()
        }


@requirement("LIFE-8")
@both_families
def test_open_flows_survive_lifecycle_of_other_containers(scene: Scene, flows: Flows) -> None:
    """Open flows continue while another container starts, restarts, is killed and is removed.

    They also continue while another container fails to start.
    """
    own = scene.plan.container("stays").mode
    assert own is not None
    scene.refusal("guest", own, command=("/no/such/command",))
    assert_flows_continue(flows, "refused")
    guest = scene.container("guest", own)
    assert_flows_survive(flows, guest, scene.runtime)
    scene.world.host.call(os.kill, guest.facts().pid, signal.SIGKILL)
    until(
        scene.netns(HOST),
        lambda: not guest.facts().running,
        "the runtime reports the container as ended",
    )
    assert_flows_continue(flows, "killed")
    scene.remove("guest")
    assert_flows_continue(flows, "removed")


@requirement("LIFE-8")
@pytest.mark.parametrize("family", [4], ids=["IPv4"])
@pytest.mark.parametrize("mode", [Nothing(), Host(), Joined("stays")], ids=str)
def test_open_flows_survive_lifecycle_of_containers_of_other_modes(
    scene: Scene, flows: Flows, mode: Mode
) -> None:
    """Open flows continue while a container in another mode starts, stops and is removed.

    The container has no bridge port of its own.
    """
    guest = scene.container("guest", mode)
    assert_flows_survive(flows, guest, scene.runtime)
    scene.remove("guest")
    assert_flows_continue(flows, "removed")


@requirement("LIFE-8", "NET-1")
@both_families
def test_open_flows_survive_creation_and_removal_of_other_networks(
    scene: Scene, flows: Flows
) -> None:
    """Open flows continue while another network is created, used and removed."""
    scene.network("passing", ipv6=has_ipv6(scene.runtime))
    scene.container("guest", Bridge("passing"))
    assert_flows_continue(flows, "a network is created")
    scene.remove("guest")
    scene.remove_network("passing")
    assert_flows_continue(flows, "the network is removed")
