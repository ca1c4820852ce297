"""Flows by a published port go on while others' ports are published and given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from harness.model.plan import ATTACKER
from harness.plugin.marks import requirement
from harness.testbench.listener import ANYWHERE
from suites.ports.published import PublishNetwork, both
from suites.support.open_flows import PORT, Flows, go_on, go_on_beside, talking


@pytest.fixture
def flows(fair: PublishNetwork) -> Iterator[Flows]:
    """From the LAN to a port that `web` publishes on one address in each family, UDP and TCP."""
    ports = [
        item for family in fair.families for item in both(fair.port, PORT, at=fair.own(family))
    ]
    web = fair.container("web", *ports)
    fair.await_taps()
    with ExitStack() as stack:
        yield {
            f"{shop.transport}, IPv{shop.family}": stack.enter_context(
                talking(
                    fair.scene.place(ATTACKER),
                    web.net,
                    ANYWHERE[shop.heard_in],
                    transport=shop.transport,
                    by=(fair.own(shop.family), fair.port),
                )
            )
            for shop in fair.shops(web)
        }


@requirement("LIFE-8", "PUB-1", "PUB-2")
def test_open_flows_go_on_beside_another_port(fair: PublishNetwork, flows: Flows) -> None:
    """Published for the same one inside; its container is stopped, started again and removed."""
    guest = fair.container("guest", *both(fair.port + 1, PORT))
    go_on_beside(flows, guest, fair.scene.runtime)
    fair.scene.remove("guest")
    go_on(flows, "removed")


@requirement("LIFE-8", "PUB-11")
def test_open_flows_go_on_beside_the_same_port_of_another_address(
    fair: PublishNetwork, flows: Flows
) -> None:
    """Which is another container's."""
    ports = [
        item for family in fair.families for item in both(fair.port, PORT, at=fair.on_br0(family))
    ]
    fair.container("guest", *ports)
    go_on(flows, "started")
    fair.scene.remove("guest")
    go_on(flows, "removed")
