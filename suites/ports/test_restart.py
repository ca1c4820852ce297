"""Published ports of a container that has been started again: every one, for whoever calls."""

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
    heard_in,
    home,
    is_closed,
    meets,
    ranged,
)

FIRST: Final = 8140
COUNT: Final = 3


@pytest.fixture(scope="module")
def again(market: Scene, family: Family) -> Iterator[Container]:
    """It publishes a range and a port of the runtime's choice, and has been started again."""
    ports = ranged(FIRST, COUNT)
    made = market.container("again", home(market.runtime, family), ports=ports)
    made.stop()
    made.start()
    yield made
    market.remove("again")


@pytest.fixture
def shop(
    market: Scene, again: Container, transport: Transport, family: Family
) -> PublishedContainer:
    """The first port of the range, over one transport."""
    return PublishedContainer(market, again, transport, family, FIRST)


@requirement("PUB-12", "LIFE-7")
def test_each_port_leads_where_it_did(
    market: Scene, again: Container, transport: Transport, family: Family
) -> None:
    """Those of the range, from the first to the last, and the one that the runtime tells of now."""
    led = {FIRST + number: INSIDE + number for number in range(COUNT)}
    told = (item for item in again.facts().ports if item.container_port == CHOSEN)
    (chosen,) = {item.host_port for item in told if item.protocol == transport}
    for port, inside in (led | {chosen: CHOSEN}).items():
        with Listener(
            again.net, transport, family=heard_in(market.runtime, family), port=inside
        ) as ear:
            at = market.world.address(HOST, family)
            assert ear.hears(market.place(ATTACKER), at=at, port=port, answered=True), port


@requirement("PUB-6", "LIFE-7")
def test_the_caller_is_seen_as_declared(shop: PublishedContainer, family: Family) -> None:
    """As by one that has not been."""
    assert_seen_as_declared(shop, ATTACKER, shop.scene.world.address(HOST, family))


@requirement("PUB-5", "LIFE-7")
def test_another_network_reaches_it_as_declared(
    market: Scene, runtime: Adapter, again: Container, family: Family
) -> None:
    """By the host's address on the LAN, over TCP; a neighbour on the LAN is the control."""
    shop, address = (
        PublishedContainer(market, again, "tcp", family, FIRST),
        market.world.address(HOST, family),
    )
    assert shop.serves(ATTACKER, address)
    if meets(market, "stranger", address):
        if runtime.dialect.published_across == "reachable":
            assert shop.serves("stranger", address)
        else:
            assert shop.overhears([PortCall("stranger", address)]) == []


@requirement("PUB-9", "LIFE-7")
def test_on_the_internet_the_port_is_the_internets(
    market: Scene, shop: PublishedContainer, family: Family
) -> None:
    """A peer that calls it there is heard there."""
    assert shop.serves(ATTACKER, market.world.address(HOST, family))
    if not is_closed(market.runtime, family):
        internet, beyond = market.place(INTERNET), market.world.address(INTERNET, family)
        with Listener(internet, shop.transport, address=beyond, port=shop.port) as ear:
            assert ear.hears(market.place("peer"), answered=True)
