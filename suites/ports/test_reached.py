"""Where a published port answers, and whom it sees."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Final

import pytest

from harness.adapters.protocol import Adapter
from harness.addresses import LOOPBACKS
from harness.marks import requirement
from harness.model import ATTACKER, HOST, INTERNET, NS1, Bridge, Family, Publish
from harness.scene import Scene
from harness.traffic import TRANSPORTS, Ear, Transport, free_port
from suites.ports.shop import DUAL, INSIDE, Shop, addresses, callers
from suites.trio import both_families

transports: Final = pytest.mark.parametrize("transport", TRANSPORTS)


@requirement("PUB-1")
@both_families
@transports
def test_it_answers_on_every_address_of_the_host(
    scene: Scene, transport: Transport, family: Family
) -> None:
    """To the LAN, the internet, a bystander and the host, and on the host's loopback."""
    shop = Shop(scene, transport, family)
    assert len(addresses(scene, family)) >= 3  # its own, br0's, the network's
    for caller, address in callers(scene, family, (ATTACKER, INTERNET, NS1)):
        assert shop.hears(caller, address), f"{caller} calls {address}"


@requirement("PUB-1", "BR-9")
@both_families
@transports
def test_only_what_is_published_is_let_in(
    scene: Scene, transport: Transport, family: Family
) -> None:
    """The container's own address and port stay closed to outsiders, and so do other ports."""
    shop = Shop(scene, transport, family)
    address = scene.world.address(HOST, family)
    assert shop.hears(ATTACKER, address)
    for caller in (ATTACKER, INTERNET, NS1):
        assert shop.misses(caller, shop.own(), port=INSIDE)
        assert shop.misses(caller, shop.own(), port=shop.port)
        assert shop.misses(caller, address, port=INSIDE)


@requirement("PUB-6")
@both_families
@transports
@pytest.mark.parametrize("caller", [ATTACKER, INTERNET, NS1])
def test_the_caller_is_seen_as_declared(
    scene: Scene, runtime: Adapter, transport: Transport, family: Family, caller: str
) -> None:
    """By its own address and port, or as the gateway; by whichever address of the host."""
    shop = Shop(scene, transport, family)
    for address in addresses(scene, family):
        meeting = shop.hears(caller, address)
        assert meeting
        if runtime.dialect.published_source == "client":
            assert meeting.seen == meeting.own
        else:
            assert meeting.seen[0] == shop.gateway()


@requirement("PUB-6")
@both_families
@transports
def test_nobody_is_seen_as_the_loopback(scene: Scene, transport: Transport, family: Family) -> None:
    """Not even the host when it calls there: inside, that would be the container itself."""
    shop = Shop(scene, transport, family)
    for caller, address in callers(scene, family, (ATTACKER,)):
        meeting = shop.hears(caller, address)
        assert meeting
        assert not meeting.seen[0].is_loopback, f"{caller} calls {address}"
        assert meeting.seen[0] != shop.own()


@requirement("PUB-12")
@both_families
@transports
def test_a_range_leads_port_to_port(scene: Scene, transport: Transport, family: Family) -> None:
    """Each of the host's to its own of the container's, and none beyond the last."""
    host, count = scene.place(HOST), 4
    first = next(
        port for port in range(free_port(host, transport), 65000) if _all_free(scene, port, count)
    )
    ports = (Publish(first, INSIDE, transport, count=count),)
    scene.network(DUAL, ipv6=family == 6)
    web = scene.container("web", Bridge(DUAL), ports=ports)
    address = scene.world.address(HOST, family)
    for number in range(count):
        with Ear(web.net, transport, family=family, port=INSIDE + number) as ear:
            assert ear.hears(scene.place(ATTACKER), at=address, port=first + number)
            other = first + (number + 1) % count
            assert not ear.hears(scene.place(ATTACKER), at=address, port=other, quiet=scene.settle)
    with Ear(web.net, transport, family=family, port=INSIDE + count) as ear:
        beyond = first + count
        assert not ear.hears(scene.place(ATTACKER), at=address, port=beyond, quiet=scene.settle)


def _all_free(scene: Scene, first: int, count: int) -> bool:
    host = scene.place(HOST)
    try:
        for port in range(first, first + count):
            for transport in TRANSPORTS:
                Ear(host, transport, port=port).close()
    except OSError:
        return False
    return True


@requirement("PUB-12")
@transports
@pytest.mark.parametrize("where", ["::1", "the host's"])
def test_a_port_is_published_on_an_ipv6_address(
    scene: Scene, transport: Transport, where: str
) -> None:
    """It answers there, over IPv6, and on no address of the other family."""
    address = IPv6Address("::1") if where == "::1" else scene.world.address(HOST, 6)
    shop = Shop(scene, transport, 6, at=address)
    assert shop.hears(HOST, address)
    for other in (IPv4Address("127.0.0.1"), scene.world.address(HOST, 4)):
        with Ear(shop.container.net, transport, family=4, port=INSIDE) as ear:
            quiet = scene.settle
            assert not ear.hears(scene.place(HOST), at=other, port=shop.port, quiet=quiet)
    reported = {(item.host_ip, item.host_port) for item in shop.container.facts().ports}
    assert reported == {(address, shop.port)}


@requirement("PUB-12")
@transports
def test_a_port_of_the_runtimes_choice_is_told(scene: Scene, transport: Transport) -> None:
    """And answers in both families."""
    scene.network(DUAL, ipv6=True)
    web = scene.container("web", Bridge(DUAL), ports=(Publish(0, INSIDE, transport),))
    (port,) = {item.host_port for item in web.facts().ports}
    for family in (4, 6):
        with Ear(web.net, transport, family=family, port=INSIDE) as ear:
            at = scene.world.address(HOST, family)
            assert ear.hears(scene.place(ATTACKER), at=at, port=port)
            assert ear.hears(scene.place(HOST), at=LOOPBACKS[family], port=port)
