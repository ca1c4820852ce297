"""Ports published on one address of the host: they answer there and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import pytest

from harness.addresses import LOOPBACKS
from harness.marks import requirement
from harness.model import ATTACKER, FAMILIES, HOST, INTERNET, NS1, Bridge, Family
from harness.scene import Scene
from harness.topology import Address, pick
from harness.traffic import Transport
from suites.ports.shop import (
    DUAL,
    OWN,
    Shop,
    addresses,
    assert_theirs,
    both,
    home,
    shops,
)

FRONT: Final = 8100
"""The port of the host that both containers publish, each on an address of its own."""
CALLERS: Final = (ATTACKER, INTERNET, NS1, HOST, "shop")
"""Everybody outside, the host itself, and a container beside them."""


@pytest.fixture(scope="module")
def fronts(market: Scene, family: Family) -> Iterator[Mapping[str, Address]]:
    """Two containers that publish one port, by name, each on another address of the host."""
    own = _two_addresses(market, family)
    for name, address in own.items():
        market.container(name, home(market, family), ports=both(FRONT, at=address))
    yield own
    market.remove(*own)


def _two_addresses(scene: Scene, family: Family) -> dict[str, Address]:
    world = scene.world
    return {"first": world.address(HOST, family), "second": pick(world.topology.br0, family).ip}


@requirement("PUB-2")
@pytest.mark.parametrize("name", ["first", "second"])
def test_it_answers_on_the_one_address_only(
    market: Scene, transport: Transport, family: Family, fronts: Mapping[str, Address], name: str
) -> None:
    """Whoever calls, and on none of the host's others, its loopback's included."""
    shop = Shop(market, market[name], transport, family, FRONT)
    for caller in CALLERS:
        for address in addresses(market, family):
            if address == fronts[name]:
                assert shop.serves(caller, address), f"{caller} calls {address}"
            else:
                assert shop.misses(caller, address), f"{caller} calls {address}"
    assert shop.misses(HOST, LOOPBACKS[family])


@requirement("PUB-2", "PUB-12")
def test_an_address_of_one_family_is_none_of_the_other(scene: Scene, family: Family) -> None:
    """A container that has both publishes on an address of one: over the other nobody hears."""
    scene.network(DUAL, ipv6=True)
    (other,) = set(FAMILIES) - {family}
    own = scene.world.address(HOST, family)
    web = scene.container("web", Bridge(DUAL), ports=both(OWN, at=own))
    for shop in shops(scene, web, family, OWN):
        assert shop.serves(ATTACKER, own)
        for address in addresses(scene, other):
            assert shop.misses(ATTACKER, address)
            assert shop.misses(HOST, address)
        assert shop.misses(HOST, LOOPBACKS[other])
        assert shop.misses(HOST, LOOPBACKS[family])


@requirement("PUB-11")
def test_one_port_on_two_addresses_leads_to_two_containers(
    market: Scene, transport: Transport, family: Family, fronts: Mapping[str, Address]
) -> None:
    """Each address to its own, and each container tells which it is."""
    for name, address in fronts.items():
        shop = Shop(market, market[name], transport, family, FRONT)
        for caller in CALLERS:
            assert shop.serves(caller, address), f"{caller} calls {name}"
        told = {(item.host_ip, item.host_port) for item in shop.container.facts().ports}
        assert told == {(address, FRONT)}


@requirement("PUB-11", "PUB-10")
def test_the_other_goes_on_when_one_has_ended(scene: Scene, family: Family) -> None:
    """Only the address of the one that is gone is closed; it can be published again."""
    first, second = _two_addresses(scene, family).values()
    left = scene.container("left", home(scene, family), ports=both(OWN, at=first))
    gone = scene.container("gone", home(scene, family), ports=both(OWN, at=second))
    for shop in shops(scene, gone, family, OWN):
        assert shop.serves(ATTACKER, second)
    gone.remove()
    for shop in shops(scene, left, family, OWN):
        assert shop.serves(ATTACKER, first)
        assert shop.misses(ATTACKER, second)
    new = scene.container("new", home(scene, family), ports=both(OWN, at=second))
    for shop in shops(scene, new, family, OWN):
        assert shop.serves(ATTACKER, second)
        assert shop.misses(ATTACKER, first)


@requirement("PUB-9")
def test_on_other_machines_the_port_is_theirs(
    market: Scene, transport: Transport, family: Family, fronts: Mapping[str, Address]
) -> None:
    """Who calls them there, by way of the host or from it, reaches them."""
    shop = Shop(market, market["first"], transport, family, FRONT)
    assert shop.serves(NS1, fronts["first"])
    assert_theirs(market, transport, family, FRONT)
