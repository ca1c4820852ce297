"""Ranges of ports, ports of the runtime's choice, and ports on IPv6 addresses."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Final

import pytest

from harness.model.plan import ATTACKER, FAMILIES, HOST, Family
from harness.plugin.marks import requirement
from harness.testbench.addressing import LOOPBACKS
from harness.testbench.container import Container
from harness.testbench.listener import TRANSPORTS, Listener, Transport
from harness.testbench.scene import Scene
from suites.ports.published import (
    CHOSEN,
    INSIDE,
    OWN,
    both,
    dual,
    has_taps,
    heard_in,
    home,
    ranged,
    shops,
)

FIRST: Final = 8120
COUNT: Final = 4


@pytest.fixture(scope="module")
def stalls(market: Scene, family: Family) -> Iterator[Container]:
    """A container that publishes a range, and a port of the runtime's choice."""
    ports = ranged(FIRST, COUNT)
    yield market.container("stalls", home(market.runtime, family), ports=ports)
    market.remove("stalls")


@requirement("PUB-12")
def test_a_range_leads_port_to_port(
    market: Scene, transport: Transport, family: Family, stalls: Container
) -> None:
    """Each of the host's to its own of the container's, from the first to the last."""
    address, attacker = market.world.address(HOST, family), market.place(ATTACKER)
    heard = heard_in(market.runtime, family)
    for number in range(COUNT):
        with Listener(stalls.net, transport, family=heard, port=INSIDE + number) as ear:
            assert ear.hears(attacker, at=address, port=FIRST + number, answered=True)
            others = [FIRST + other for other in range(COUNT) if other != number]
            calls = [(attacker, address, port) for port in others]
            assert ear.overhears(calls, market.settle) == []


@requirement("PUB-12")
def test_a_range_ends_where_it_ends(
    market: Scene, transport: Transport, family: Family, stalls: Container
) -> None:
    """Neither the port before nor the one behind leads anywhere near."""
    address, attacker = market.world.address(HOST, family), market.place(ATTACKER)
    heard = heard_in(market.runtime, family)
    for number in range(-1, COUNT + 1):
        with Listener(stalls.net, transport, family=heard, port=INSIDE + number) as ear:
            outside = [(attacker, address, port) for port in (FIRST - 1, FIRST + COUNT)]
            assert ear.overhears(outside, market.settle) == []
            if 0 <= number < COUNT:
                assert ear.hears(attacker, at=address, port=FIRST + number, answered=True)


@requirement("PUB-12")
def test_each_port_of_a_range_is_told(family: Family, stalls: Container) -> None:
    """As ports of their own, or as the range."""
    for transport in TRANSPORTS:
        told = {
            (item.host_port + number, item.container_port + number)
            for item in stalls.facts().ports
            for number in range(item.count)
            if item.protocol == transport and item.container_port != CHOSEN
        }
        assert told == {(FIRST + number, INSIDE + number) for number in range(COUNT)}


@requirement("PUB-12")
def test_a_port_of_the_runtimes_choice_is_told(
    market: Scene, transport: Transport, family: Family, stalls: Container
) -> None:
    """And leads there, in every family that the container has."""
    (port,) = {
        item.host_port
        for item in stalls.facts().ports
        if (item.protocol, item.container_port) == (transport, CHOSEN)
    }
    for each in FAMILIES if family == 6 or has_taps(market.runtime) else (family,):
        heard = heard_in(market.runtime, each)
        with Listener(stalls.net, transport, family=heard, port=CHOSEN) as ear:
            at = market.world.address(HOST, each)
            assert ear.hears(market.place(ATTACKER), at=at, port=port, answered=True)
            assert ear.hears(market.place(HOST), at=LOOPBACKS[each], port=port, answered=True)


@requirement("PUB-12")
@pytest.mark.parametrize("where", ["::1", "the host's"])
def test_a_port_is_published_on_an_ipv6_address(scene: Scene, where: str) -> None:
    """It answers there, and is told as it was asked for."""
    address = IPv6Address("::1") if where == "::1" else scene.world.address(HOST, 6)
    web = scene.container("web", dual(scene), ports=both(OWN, at=address))
    scene.ready()
    for shop in shops(web, scene, 6):
        assert shop.serves(HOST, address)
    told = {(item.host_ip, item.host_port, item.protocol) for item in web.facts().ports}
    assert told == {(address, OWN, transport) for transport in TRANSPORTS}
