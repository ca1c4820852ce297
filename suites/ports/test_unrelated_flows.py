"""Flows through a published port, which survive while other containers publish ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from harness.model.plan import ATTACKER
from harness.plugin.marks import requirement
from harness.testbench.listener import ANYWHERE
from suites.ports.published import PublishNetwork, both
from suites.support.open_flows import (
    PORT,
    Flows,
    assert_flows_continue,
    assert_flows_survive,
    open_flow,
)


@pytest.fixture
def flows(publish_network: PublishNetwork) -> Iterator[Flows]:
    """Open flows from the LAN to a port published on one address, in each family.

    The flows use UDP and TCP.
    """
    ports = [
        item
        for family in publish_network.families
        for item in both(publish_network.port, PORT, at=publish_network.own(family))
    ]
    web = publish_network.container("web", *ports)
    publish_network.await_taps()
    with ExitStack() as stack:
        yield {
            f"{published.transport}, IPv{published.family}": stack.enter_context(
                open_flow(
                    publish_network.scene.netns(ATTACKER),
                    web.net,
                    ANYWHERE[published.inner_family],
                    transport=published.transport,
                    by=(publish_network.own(published.family), publish_network.port),
                )
            )
            for published in publish_network.views(web)
        }


@requirement("LIFE-8", "PUB-1", "PUB-2")
def test_published_flows_survive_lifecycle_of_another_published_port(
    publish_network: PublishNetwork, flows: Flows
) -> None:
    """Open flows through a published port survive while another port's container starts and ends.

    Both host ports lead to the same container port number.
    """
    guest = publish_network.container("guest", *both(publish_network.port + 1, PORT))
    assert_flows_survive(flows, guest, publish_network.scene.runtime)
    publish_network.scene.remove("guest")
    assert_flows_continue(flows, "removed")


@requirement("LIFE-8", "PUB-11")
def test_published_flows_survive_publishing_same_port_on_another_address(
    publish_network: PublishNetwork, flows: Flows
) -> None:
    """Open flows through a port survive while the port is published on another address.

    Another container publishes the port there, and is removed again.
    """
    ports = [
        item
        for family in publish_network.families
        for item in both(publish_network.port, PORT, at=publish_network.on_br0(family))
    ]
    publish_network.container("guest", *ports)
    assert_flows_continue(flows, "started")
    publish_network.scene.remove("guest")
    assert_flows_continue(flows, "removed")
