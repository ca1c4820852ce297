"""Ports published on one address of the host: they answer there and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import pytest

from harness.model.plan import ATTACKER, HOST, INTERNET, NS1, Family
from harness.model.topology import Address, pick
from harness.plugin.marks import requirement
from harness.testbench.addressing import LOOPBACKS
from harness.testbench.listener import Transport
from harness.testbench.scene import Scene
from suites.ports.published import (
    BESIDE,
    OWN,
    PortCall,
    PublishedContainer,
    PublishNetwork,
    addresses,
    assert_theirs,
    both,
    dual,
    home,
    meets,
    shops,
)
from suites.support.features import restarts

ALONE: Final = {"first": 8103, "second": 8106}
"""Ports that one container publishes, each on an address of its own."""
CALLERS: Final = (ATTACKER, INTERNET, NS1, HOST)
"""Everybody outside, and the host itself."""


def own_addresses(market: Scene, family: Family) -> Mapping[str, Address]:
    """Two of the host's: on the LAN, and on br0."""
    world = market.world
    return {"first": world.address(HOST, family), "second": pick(world.topology.br0, family).ip}


@pytest.fixture(scope="module")
def alone(market: Scene, family: Family) -> Iterator[Scene]:
    """The market, with a container that publishes each port of `ALONE` on its own address."""
    own = own_addresses(market, family)
    ports = [item for name, port in ALONE.items() for item in both(port, at=own[name])]
    market.container("alone", home(market.runtime, family), ports=tuple(ports))
    market.ready()
    yield market
    market.remove("alone")


def assert_served(shop: PublishedContainer, address: Address, beside: str) -> None:
    """Whoever gets at the address is served by this one, a container beside it too."""
    for caller in (*CALLERS, beside):
        if meets(shop.scene, caller, address):
            assert shop.serves(caller, address), f"{caller} calls {address}"


@requirement("PUB-2")
@pytest.mark.parametrize("name", ["first", "second"])
def test_it_answers_on_the_one_address_only(
    alone: Scene, transport: Transport, family: Family, name: str
) -> None:
    """Whoever calls, and on none of the host's others, its loopback's included."""
    own = own_addresses(alone, family)[name]
    others = set(addresses(alone, family)) - {own}
    with PublishedContainer(alone, alone["alone"], transport, family, ALONE[name]).open() as shop:
        assert_served(shop, own, "shop")
        calls = [PortCall(caller, address) for caller in (*CALLERS, "shop") for address in others]
        assert shop.overhears([*calls, PortCall(HOST, LOOPBACKS[family])]) == []


@requirement("PUB-2", "LIFE-7")
def test_started_again_it_answers_on_the_one_address_only(fair: PublishNetwork) -> None:
    """As before: the host's others stay closed."""
    found = fair.opened("web", at=fair.own)
    found[0].container.stop()
    found[0].container.start()
    for shop in found:
        assert shop.serves(ATTACKER, fair.own(shop.family))
        others = set(addresses(fair.scene, shop.family)) - {fair.own(shop.family)}
        calls = [PortCall(who, at) for who in (ATTACKER, NS1) for at in others]
        assert shop.overhears([*calls, PortCall(HOST, LOOPBACKS[shop.family])]) == []


@requirement("PUB-2", "PUB-12")
def test_an_address_of_one_family_is_none_of_the_other(scene: Scene) -> None:
    """Containers that have both publish on an address of one: over the other nobody hears."""
    both_families = dual(scene)
    ways: list[tuple[Family, Family]] = [(4, 6), (6, 4)]
    for family, other in ways:
        own = scene.world.address(HOST, family)
        web = scene.container(f"web{family}", both_families, ports=both(OWN + family, at=own))
        for shop in shops(web, scene, family, OWN + family):
            assert shop.serves(ATTACKER, own)
            calls = [
                PortCall(who, at) for who in (ATTACKER, HOST) for at in addresses(scene, other)
            ]
            loopbacks = [PortCall(HOST, address) for address in LOOPBACKS.values()]
            assert shop.overhears(calls + loopbacks) == []


@requirement("PUB-11")
def test_one_port_on_two_addresses_leads_to_two_containers(fair: PublishNetwork) -> None:
    """Each address to its own, and each container tells which it is."""
    fronts = {"first": fair.own, "second": fair.on_br0}
    made = {name: fair.opened(name, at=where) for name, where in fronts.items()}
    fair.await_taps()
    for name, where in fronts.items():
        for shop in made[name]:
            with shop.open() as opened:
                assert_served(opened, where(shop.family), BESIDE)
        told = {(item.host_ip, item.host_port) for item in fair.scene[name].facts().ports}
        assert told == {(where(family), fair.port) for family in fair.families}


@requirement("PUB-11", "PUB-10")
def test_the_other_goes_on_when_one_has_ended(fair: PublishNetwork) -> None:
    """Only the address of the one that is gone is closed.

    Before it goes it is started again, where it can be, and serves its own address alone.
    """
    left = fair.opened("left", at=fair.own)
    gone = fair.opened("gone", at=fair.on_br0)
    assert all(shop.serves(ATTACKER, fair.on_br0(shop.family)) for shop in gone)
    if restarts(fair.scene.runtime):
        gone[0].container.stop()
        gone[0].container.start()
        assert all(shop.serves(ATTACKER, fair.on_br0(shop.family)) for shop in gone)
        assert all(shop.serves(ATTACKER, fair.own(shop.family)) for shop in left)
    gone[0].container.remove()
    for shop in left:
        assert shop.serves(ATTACKER, fair.own(shop.family))
        assert shop.overhears([PortCall(ATTACKER, fair.on_br0(shop.family))]) == []


@requirement("PUB-9")
def test_on_other_machines_the_port_is_theirs(
    alone: Scene, transport: Transport, family: Family
) -> None:
    """Who calls them there, by way of the host or from it, reaches them."""
    port = ALONE["first"]
    shop = PublishedContainer(alone, alone["alone"], transport, family, port)
    assert shop.serves(NS1, own_addresses(alone, family)["first"])
    assert_theirs(alone, transport, family, port)
