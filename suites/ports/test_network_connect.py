"""Published ports of a container that is connected to and disconnected from networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest

from harness.model.plan import ATTACKER, HOST, NS1, Bridge, Family
from harness.model.topology import Address
from harness.plugin.marks import requirement
from harness.testbench.listener import Transport
from harness.testbench.scene import LOOPBACKS, Scene
from suites.ports.published import (
    OWN,
    PortCall,
    PublishedContainer,
    PublishNetwork,
    both,
    published_on,
)

HOME, OTHER = "home", "other"
OUTSIDE: Final = (ATTACKER, NS1)
PORT: Final = OWN + 5


@dataclass(frozen=True, slots=True)
class MovingContainer:
    """The container `web`, which publishes `PORT` and is on network `HOME` together with `mate`.

    The network `OTHER` has no container yet.
    """

    scene: Scene
    published: PublishedContainer

    def own(self) -> Address:
        """Return the host's address on the LAN."""
        return self.scene.world.address(HOST, self.published.family)

    def served(self, *callers: str) -> set[str]:
        """Return the clients that get a reply; the host also tries its loopback address."""
        found = set(self.published.delivered(PortCall(caller, self.own()) for caller in callers))
        if self.published.reaches(HOST, LOOPBACKS[self.published.family]):
            found.add("host by its loopback")
        return found


@pytest.fixture
def moving(scene: Scene, transport: Transport, family: Family) -> MovingContainer:
    """Start `web` and `mate`; `web` listens only while a client sends."""
    for name in (HOME, OTHER):
        scene.network(name, ipv6=family == 6)
    web = scene.container("web", Bridge(HOME), ports=both(PORT))
    scene.container("mate", Bridge(HOME))
    scene.ready()
    return MovingContainer(scene, PublishedContainer(scene, web, transport, family, PORT))


@requirement("NET-3", "PUB-1")
def test_published_port_survives_connect_to_another_network(moving: MovingContainer) -> None:
    """A published port answers the same clients after its container is on another network too."""
    callers = (*OUTSIDE, HOST, "mate", "web")
    before = moving.served(*callers)
    assert before
    moving.scene.connect("web", OTHER)
    assert moving.served(*callers) >= before


@requirement("NET-3", "PUB-1")
def test_published_port_moves_to_the_remaining_network(moving: MovingContainer) -> None:
    """A published port answers after its container leaves the network to which the port led."""
    before = moving.served(*OUTSIDE, HOST)
    moving.scene.connect("web", OTHER)
    moving.scene.disconnect("web", HOME)
    assert moving.published.serves(ATTACKER, moving.own())
    assert moving.served(*OUTSIDE, HOST) >= before


@requirement("NET-3", "PUB-1")
def test_published_port_answers_after_disconnect_and_connect(
    publish_network: PublishNetwork,
) -> None:
    """A published port answers after its container is disconnected and connected again.

    The container has no other network in between.
    """
    found = publish_network.publish("web")
    for change in (publish_network.scene.disconnect, publish_network.scene.connect):
        change("web", publish_network.home.network)
    for published in found:
        assert published.serves(ATTACKER, publish_network.own(published.family))


@requirement("PUB-1", "INT-1")
@pytest.mark.parametrize("inner", ["a-vault", "z-vault"], ids=["internal-first", "internal-last"])
def test_published_port_answers_if_container_is_on_open_and_internal_network(
    scene: Scene, family: Family, inner: str
) -> None:
    """If a container is on an internal and an open network, its published port answers.

    The order of the networks, by name and in the request, makes no difference.
    """
    scene.network(inner, internal=True, ipv6=family == 6)
    scene.network(HOME, ipv6=family == 6)
    own = scene.world.address(HOST, family)
    for number, (first, second) in enumerate([(inner, HOME), (HOME, inner)]):
        port = PORT + number
        web = scene.container(f"web{number}", Bridge(first), also=(second,), ports=both(port))
        for published in published_on(web, scene, family, port):
            assert published.serves(ATTACKER, own), published
