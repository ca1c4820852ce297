"""Published ports of a container after its restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import ATTACKER, HOST, INTERNET, Family
from harness.plugin.marks import requirement
from harness.testbench.container import Container
from harness.testbench.listener import Listener, Transport
from harness.testbench.scene import Scene
from suites.ports.published import (
    CHOSEN,
    INSIDE,
    PortCall,
    PublishedContainer,
    assert_seen_as_declared,
    home,
    inner_family,
    is_closed,
    ranged,
    reaches_host,
)

FIRST: Final = 8140
COUNT: Final = 3


@pytest.fixture(scope="module")
def restarted(ports_scene: Scene, family: Family) -> Iterator[Container]:
    """Start a container with a published range and an automatic host port, and restart it."""
    ports = ranged(FIRST, COUNT)
    made = ports_scene.container("again", home(ports_scene.runtime, family), ports=ports)
    made.stop()
    made.start()
    yield made
    ports_scene.remove("again")


@pytest.fixture
def restarted_port(
    ports_scene: Scene, restarted: Container, transport: Transport, family: Family
) -> PublishedContainer:
    """Return the first port of the restarted container's range, over one transport."""
    return PublishedContainer(ports_scene, restarted, transport, family, FIRST)


@requirement("PUB-12", "LIFE-7")
def test_each_port_of_published_range_survives_restart(
    ports_scene: Scene, restarted: Container, transport: Transport, family: Family
) -> None:
    """After a restart, each port of a published range answers, and so does the automatic port."""
    led = {FIRST + number: INSIDE + number for number in range(COUNT)}
    reported = (item for item in restarted.facts().ports if item.container_port == CHOSEN)
    (chosen,) = {item.host_port for item in reported if item.protocol == transport}
    for port, inside in (led | {chosen: CHOSEN}).items():
        with Listener(
            restarted.net, transport, family=inner_family(ports_scene.runtime, family), port=inside
        ) as listener:
            at = ports_scene.world.address(HOST, family)
            assert listener.reached_from(
                ports_scene.netns(ATTACKER), at=at, port=port, answered=True
            ), port


@requirement("PUB-6", "LIFE-7")
def test_restarted_container_sees_source_at_published_port_as_declared(
    restarted_port: PublishedContainer, family: Family
) -> None:
    """A restarted container sees the source of an outsider at its port as the runtime declares."""
    assert_seen_as_declared(
        restarted_port, ATTACKER, restarted_port.scene.world.address(HOST, family)
    )


@requirement("PUB-5", "LIFE-7")
def test_container_on_other_network_reaches_port_after_restart_as_declared(
    ports_scene: Scene, runtime: Adapter, restarted: Container, family: Family
) -> None:
    """A container on another network reaches a restarted container's port if declared.

    The client uses TCP and the host's LAN address. A neighbour on the LAN is the control.
    """
    restarted_port, address = (
        PublishedContainer(ports_scene, restarted, "tcp", family, FIRST),
        ports_scene.world.address(HOST, family),
    )
    assert restarted_port.serves(ATTACKER, address)
    if reaches_host(ports_scene, "outside", address):
        if runtime.dialect.published_across == "reachable":
            assert restarted_port.serves("outside", address)
        else:
            assert restarted_port.delivered([PortCall("outside", address)]) == []


@requirement("PUB-9", "LIFE-7")
def test_port_on_the_internet_is_not_redirected_after_restart(
    ports_scene: Scene, restarted_port: PublishedContainer, family: Family
) -> None:
    """A peer reaches a port number on the internet although a restarted container publishes it."""
    assert restarted_port.serves(ATTACKER, ports_scene.world.address(HOST, family))
    if not is_closed(ports_scene.runtime, family):
        internet, beyond = ports_scene.netns(INTERNET), ports_scene.world.address(INTERNET, family)
        with Listener(
            internet, restarted_port.transport, address=beyond, port=restarted_port.port
        ) as listener:
            assert listener.reached_from(ports_scene.netns("peer"), answered=True)
