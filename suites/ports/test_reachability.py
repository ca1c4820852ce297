"""Where a published port answers, and whom it sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from harness.adapters.protocol import Adapter
from harness.model.plan import ATTACKER, FAMILIES, HOST, INTERNET, NS1, Family
from harness.plugin.marks import requirement
from harness.testbench.addressing import LOOPBACKS
from harness.testbench.listener import Listener, Transport
from harness.testbench.scene import Scene
from suites.ports.published import (
    INSIDE,
    PORTS,
    PortCall,
    PublishedContainer,
    addresses,
    assert_seen_as_declared,
    callers,
    is_relayed,
    one_more,
)

OUTSIDE: Final = (ATTACKER, INTERNET, NS1)
"""The LAN, beyond the routers, and a bystander behind the host."""


@requirement("PUB-1")
def test_it_answers_on_every_address_of_the_host(
    market: Scene, shop: PublishedContainer, family: Family
) -> None:
    """To the LAN, the internet, a bystander and the host, and on the host's loopback."""
    bridge = 0 if is_relayed(market.runtime) else 1
    assert len(addresses(market, family)) >= 2 + bridge  # its own, br0's, the network's
    for caller, address in callers(market, family, OUTSIDE):
        assert shop.serves(caller, address), f"{caller} calls {address}"


@requirement("PUB-1")
def test_an_address_that_the_host_is_given_later_counts_too(
    market: Scene, shop: PublishedContainer, family: Family
) -> None:
    """To the LAN, and to the host itself."""
    with one_more(market, family) as address:
        for caller in (ATTACKER, HOST):
            assert shop.serves(caller, address), caller


@requirement("PUB-1")
def test_only_what_is_published_is_let_in(
    market: Scene, shop: PublishedContainer, family: Family
) -> None:
    """Neither other ports, nor over the other transport."""
    address = market.world.address(HOST, family)
    (other,) = set(PORTS.values()) - {shop.port}
    for caller in OUTSIDE:
        assert shop.serves(caller, address)
        ports = (INSIDE, other, shop.port - 1, shop.port + 1)
        assert shop.overhears([PortCall(caller, address, port) for port in ports]) == []


@requirement("PUB-1", "BR-9")
def test_its_own_address_is_as_open_as_declared(
    market: Scene, runtime: Adapter, shop: PublishedContainer, family: Family
) -> None:
    """Where the container listens; the port of the host's leads nowhere there."""
    for caller in OUTSIDE:
        assert shop.serves(caller, market.world.address(HOST, family))
        assert shop.overhears([PortCall(caller, shop.own(), shop.port)]) == []
        direct = shop.overhears([PortCall(caller, shop.own(), INSIDE)])
        assert bool(direct) == (runtime.dialect.direct_routing == "accept")


@requirement("PUB-15")
def test_what_listens_on_the_containers_own_loopback_is_not_called(
    market: Scene, transport: Transport, family: Family
) -> None:
    """Though at the port to which the published one leads: the container alone is heard there."""
    shop = PublishedContainer(market, market["shop"], transport, family, PORTS[transport])
    inside = shop.container.net
    with Listener(inside, transport, address=LOOPBACKS[shop.heard_in], port=INSIDE) as ear:
        assert ear.hears(inside)
        everybody = [
            *callers(market, family, OUTSIDE),
            ("peer", market.world.address(HOST, family)),
        ]
        calls = [PortCall(caller, address) for caller, address in everybody]
        assert replace(shop, ears=dict.fromkeys(FAMILIES, ear)).overhears(calls) == []


@requirement("PUB-6")
def test_the_caller_is_seen_as_declared(
    market: Scene, shop: PublishedContainer, family: Family
) -> None:
    """By its own address and port, or as the gateway; by whichever address of the host."""
    for caller in OUTSIDE:
        for address in addresses(market, family):
            assert_seen_as_declared(shop, caller, address)


@requirement("PUB-6")
def test_nobody_is_seen_as_the_loopback(
    market: Scene, runtime: Adapter, shop: PublishedContainer, family: Family
) -> None:
    """Not even the host when it calls there: inside, that would be the container itself.

    As which it is not seen either, unless it is declared, or has the same address.
    """
    hosts = shop.own() in addresses(market, family)
    alike = hosts or runtime.dialect.published_source == "own"
    for caller, address in callers(market, family, (ATTACKER,)):
        meeting = shop.serves(caller, address)
        assert meeting
        assert not meeting.seen[0].is_loopback, f"{caller} calls {address}"
        assert alike or meeting.seen[0] != shop.own()
