"""Ports published on one address of the host, which are closed on every other address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import pytest

from harness.model.plan import ATTACKER, HOST, INTERNET, NS1, Family
from harness.model.topology import Address, pick
from harness.plugin.marks import requirement
from harness.testbench.listener import Transport
from harness.testbench.scene import LOOPBACKS, Scene
from suites.ports.published import (
    BESIDE,
    OWN,
    PortCall,
    PublishedContainer,
    PublishNetwork,
    addresses,
    assert_not_redirected,
    both,
    dual,
    home,
    published_on,
    reaches_host,
)
from suites.support.features import restarts

ALONE: Final = {"first": 8103, "second": 8106}
"""Ports that one container publishes, each on a different address of the host."""
CALLERS: Final = (ATTACKER, INTERNET, NS1, HOST)
"""Clients: outsiders and the host."""


def own_addresses(ports_scene: Scene, family: Family) -> Mapping[str, Address]:
    """Return two addresses of the host: the one on the LAN, and the one on br0."""
    world = ports_scene.world
    return {"first": world.address(HOST, family), "second": pick(world.topology.br0, family).ip}


@pytest.fixture(scope="module")
def single_address(ports_scene: Scene, family: Family) -> Iterator[Scene]:
    """Add the container `alone`, which publishes two ports, each on another address of the host."""
    own = own_addresses(ports_scene, family)
    ports = [item for name, port in ALONE.items() for item in both(port, at=own[name])]
    ports_scene.container("alone", home(ports_scene.runtime, family), ports=tuple(ports))
    ports_scene.ready()
    yield ports_scene
    ports_scene.remove("alone")


def assert_served(published: PublishedContainer, address: Address, beside: str) -> None:
    """Assert that each client that can reach the address gets a reply; `beside` is a client too."""
    for caller in (*CALLERS, beside):
        if reaches_host(published.scene, caller, address):
            assert published.serves(caller, address), f"{caller} calls {address}"


@requirement("PUB-2")
@pytest.mark.parametrize("name", ["first", "second"], ids=["lan-address", "br0-address"])
def test_port_published_on_one_address_answers_only_there(
    single_address: Scene, transport: Transport, family: Family, name: str
) -> None:
    """A port published on one address of the host answers there and on no other address.

    The host's loopback is closed too. The clients are outsiders, the host and containers.
    """
    own = own_addresses(single_address, family)[name]
    others = set(addresses(single_address, family)) - {own}
    with PublishedContainer(
        single_address, single_address["alone"], transport, family, ALONE[name]
    ).open() as published:
        assert_served(published, own, "published")
        calls = [
            PortCall(caller, address) for caller in (*CALLERS, "published") for address in others
        ]
        assert published.delivered([*calls, PortCall(HOST, LOOPBACKS[family])]) == []


@requirement("PUB-2", "LIFE-7")
def test_port_published_on_one_address_answers_only_there_after_restart(
    publish_network: PublishNetwork,
) -> None:
    """After a restart, a port published on one address still answers only on that address."""
    found = publish_network.publish("web", at=publish_network.own)
    found[0].container.stop()
    found[0].container.start()
    for published in found:
        assert published.serves(ATTACKER, publish_network.own(published.family))
        others = set(addresses(publish_network.scene, published.family)) - {
            publish_network.own(published.family)
        }
        calls = [PortCall(caller, at) for caller in (ATTACKER, NS1) for at in others]
        assert published.delivered([*calls, PortCall(HOST, LOOPBACKS[published.family])]) == []


@requirement("PUB-2", "PUB-12")
def test_port_published_in_one_family_is_closed_in_the_other(scene: Scene) -> None:
    """A port published on an IPv4 address is closed on IPv6 addresses, and the other way round.

    The container has addresses of both families.
    """
    both_families = dual(scene)
    ways: list[tuple[Family, Family]] = [(4, 6), (6, 4)]
    for family, other in ways:
        own = scene.world.address(HOST, family)
        web = scene.container(f"web{family}", both_families, ports=both(OWN + family, at=own))
        for published in published_on(web, scene, family, OWN + family):
            assert published.serves(ATTACKER, own)
            calls = [
                PortCall(caller, at)
                for caller in (ATTACKER, HOST)
                for at in addresses(scene, other)
            ]
            loopbacks = [PortCall(HOST, address) for address in LOOPBACKS.values()]
            assert published.delivered(calls + loopbacks) == []


@requirement("PUB-11")
def test_one_port_on_two_addresses_leads_to_two_containers(publish_network: PublishNetwork) -> None:
    """Two containers can publish the same port number on two different addresses of the host."""
    fronts = {"first": publish_network.own, "second": publish_network.on_br0}
    made = {name: publish_network.publish(name, at=where) for name, where in fronts.items()}
    publish_network.await_taps()
    for name, where in fronts.items():
        for published in made[name]:
            with published.open() as opened:
                assert_served(opened, where(published.family), BESIDE)
        reported = {
            (item.host_ip, item.host_port) for item in publish_network.scene[name].facts().ports
        }
        assert reported == {
            (where(family), publish_network.port) for family in publish_network.families
        }


@requirement("PUB-11", "PUB-10")
def test_published_port_survives_end_of_container_on_other_address(
    publish_network: PublishNetwork,
) -> None:
    """A published port answers while another container with that port, on another address, ends.

    The other container is restarted, where possible, and then removed. Only its own address is
    closed after that.
    """
    left = publish_network.publish("left", at=publish_network.own)
    gone = publish_network.publish("gone", at=publish_network.on_br0)
    assert all(
        published.serves(ATTACKER, publish_network.on_br0(published.family)) for published in gone
    )
    if restarts(publish_network.scene.runtime):
        gone[0].container.stop()
        gone[0].container.start()
        assert all(
            published.serves(ATTACKER, publish_network.on_br0(published.family))
            for published in gone
        )
        assert all(
            published.serves(ATTACKER, publish_network.own(published.family)) for published in left
        )
    gone[0].container.remove()
    for published in left:
        assert published.serves(ATTACKER, publish_network.own(published.family))
        assert (
            published.delivered([PortCall(ATTACKER, publish_network.on_br0(published.family))])
            == []
        )


@requirement("PUB-9")
def test_port_published_on_one_address_redirects_no_traffic_to_other_machines(
    single_address: Scene, transport: Transport, family: Family
) -> None:
    """A port published on one address redirects no traffic to that port number on other machines.

    The traffic is sent by the host or forwarded by it.
    """
    port = ALONE["first"]
    published = PublishedContainer(single_address, single_address["alone"], transport, family, port)
    assert published.serves(NS1, own_addresses(single_address, family)["first"])
    assert_not_redirected(single_address, transport, family, port)
