"""Published ports of a running container that is connected to networks, and taken off them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest

from harness.model.plan import ATTACKER, HOST, NS1, Bridge, Family
from harness.model.topology import Address
from harness.plugin.marks import requirement
from harness.testbench.addressing import LOOPBACKS
from harness.testbench.listener import Transport
from harness.testbench.scene import Scene
from suites.ports.published import OWN, PortCall, PublishedContainer, PublishNetwork, both, shops

HOME, OTHER = "home", "other"
OUTSIDE: Final = (ATTACKER, NS1)
PORT: Final = OWN + 5


@dataclass(frozen=True, slots=True)
class MovingContainer:
    """`web` publishes `PORT` and is on `HOME` with `mate`; nobody is on `OTHER`."""

    scene: Scene
    shop: PublishedContainer

    def own(self) -> Address:
        """The host's address on the LAN."""
        return self.scene.world.address(HOST, self.shop.family)

    def heard(self, *callers: str) -> set[str]:
        """Who of these is heard, by the host's address; the host by its loopback too."""
        found = set(self.shop.overhears(PortCall(caller, self.own()) for caller in callers))
        if self.shop.reaches(HOST, LOOPBACKS[self.shop.family]):
            found.add("host by its loopback")
        return found


@pytest.fixture
def moving(scene: Scene, transport: Transport, family: Family) -> MovingContainer:
    """The container listens only while it is called."""
    for name in (HOME, OTHER):
        scene.network(name, ipv6=family == 6)
    web = scene.container("web", Bridge(HOME), ports=both(PORT))
    scene.container("mate", Bridge(HOME))
    scene.ready()
    return MovingContainer(scene, PublishedContainer(scene, web, transport, family, PORT))


@requirement("NET-3", "PUB-1")
def test_every_way_to_them_stays_open(moving: MovingContainer) -> None:
    """From outside, the host, a peer and itself: when it is connected to a network more."""
    callers = (*OUTSIDE, HOST, "mate", "web")
    before = moving.heard(*callers)
    assert before
    moving.scene.connect("web", OTHER)
    assert moving.heard(*callers) >= before


@requirement("NET-3", "PUB-1")
def test_they_go_on_by_the_network_that_is_left(moving: MovingContainer) -> None:
    """Taken off the one that led to them, the container is reached by the other at once."""
    before = moving.heard(*OUTSIDE, HOST)
    moving.scene.connect("web", OTHER)
    moving.scene.disconnect("web", HOME)
    assert moving.shop.serves(ATTACKER, moving.own())
    assert moving.heard(*OUTSIDE, HOST) >= before


@requirement("NET-3", "PUB-1")
def test_they_come_back_with_the_network(fair: PublishNetwork) -> None:
    """Taken off the only one that it is on, and connected to it again, a container is called."""
    found = fair.opened("web")
    for change in (fair.scene.disconnect, fair.scene.connect):
        change("web", fair.home.network)
    for shop in found:
        assert shop.serves(ATTACKER, fair.own(shop.family))


@requirement("PUB-1", "INT-1")
@pytest.mark.parametrize("inner", ["a-vault", "z-vault"])
def test_they_lead_to_the_network_that_leads_out(scene: Scene, family: Family, inner: str) -> None:
    """Not to an internal one, whichever is first: by name, or in what was asked for."""
    scene.network(inner, internal=True, ipv6=family == 6)
    scene.network(HOME, ipv6=family == 6)
    own = scene.world.address(HOST, family)
    for number, (first, second) in enumerate([(inner, HOME), (HOME, inner)]):
        port = PORT + number
        web = scene.container(f"web{number}", Bridge(first), also=(second,), ports=both(port))
        for shop in shops(web, scene, family, port):
            assert shop.serves(ATTACKER, own), shop
