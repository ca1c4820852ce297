"""Mode bridge on a network with both families: what holds for IPv4 holds for IPv6."""

from __future__ import annotations

from ipaddress import IPv6Interface

import pytest
from scapy.layers.inet6 import IPv6

from harness.adapters.protocol import Adapter
from harness.model.plan import (
    ATTACKER,
    BR0,
    BY_NAME,
    GATEWAY,
    HOST,
    INTERNET,
    LOOPBACK,
    NS1,
    NS2,
    SELF,
    Cell,
    Outcome,
    Protocol,
    cells,
)
from harness.model.topology import START_TTL
from harness.plugin.marks import requirement
from harness.testbench.listener import TRANSPORTS, Transport, introduce
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from linux.rtnetlink_dump import Route
from suites.modes.conftest import BOTH

INMATES = ("a", "b")


@requirement("V6-1", "BR-1")
@pytest.mark.parametrize("name", INMATES)
def test_it_has_one_address_inside_the_subnet(dual: Scene, runtime: Adapter, name: str) -> None:
    """With the subnet's prefix, beside its IPv4 address; ::1 answers as well."""
    gateway = ipv6_gateway(runtime)
    (address,) = (item for item in dual[name].net.interfaces("eth0") if item.version == 6)
    assert address.network == gateway.network
    assert address.ip not in (gateway.ip, gateway.network.network_address)
    assert dual[name].endpoint(BOTH).address6 == address
    row = dual.promised(list(cells((name,), (SELF, LOOPBACK))))
    assert dual.observed(row) == row


@requirement("V6-1", "BR-2")
@pytest.mark.parametrize("name", INMATES)
def test_it_has_a_default_and_an_on_link_route(dual: Scene, runtime: Adapter, name: str) -> None:
    """One by way of the bridge's address, one for the subnet, and no third."""
    gateway = ipv6_gateway(runtime)
    eth0 = dual[name].net.links()["eth0"].ifindex
    routes = [route for route in dual[name].net.routes() if route.family == 6]
    assert sorted(routes, key=str) == sorted(
        [Route(None, gateway.ip, eth0, 6), Route(gateway.network, None, eth0, 6)], key=str
    )


@requirement("V6-1", "BR-4", "BR-5", "BR-6")
@pytest.mark.parametrize(
    ("targets", "hops"),
    [(INMATES, 0), ((GATEWAY, HOST, BR0), 0), ((NS1, NS2), 1)],
    ids=["peers", "the host", "behind the host"],
)
def test_the_hop_limit_tells_how_many_routers_lie_between(
    dual: Scene, targets: tuple[str, ...], hops: int
) -> None:
    """64 on link and at the host's own addresses, 63 one router away; by every protocol."""
    row = dual.promised(list(cells(INMATES, targets, families=(6,))))
    seen = dual.observed(row)
    assert seen == row
    limits = {seen[cell].ttl for cell in row if cell.protocol is Protocol.ICMP}
    assert limits == {START_TTL - hops}


@requirement("V6-1", "BR-7", "BR-8")
@pytest.mark.parametrize("target", [INTERNET, BY_NAME])
def test_the_internet_answers_and_sees_the_host(dual: Scene, target: str) -> None:
    """By address and by name, with the hop limit that the routers leave."""
    row = dual.promised(list(cells(INMATES, (target,), families=(6,))))
    seen = dual.observed(row)
    assert seen == row
    assert {met.seen_from for met in seen.values()} == {HOST}
    ping = seen[Cell("a", target, Protocol.ICMP, 6)]
    assert ping.ttl == START_TTL - 1 - dual.world.topology.routers


@requirement("V6-1", "BR-7")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_on_the_internet_sees_the_hosts_address(
    dual: Scene, internet: NetnsView, transport: Transport
) -> None:
    """It is told by the server itself; the container's own socket has the container's address."""
    address = internet.address(6)
    assert address is not None
    meeting = introduce(dual["a"].net, address, transport)
    assert meeting.own[0] == dual["a"].net.address(6)
    assert meeting.seen[0] == dual.world.address(HOST, 6)


@requirement("V6-1", "BR-7")
def test_no_packet_with_a_containers_address_leaves_the_host(
    dual: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """Pings, datagrams and connections all carry the host's address, on the LAN already."""
    subnet = ipv6_gateway(runtime).network
    with host.capture("eth0") as lan:
        dual.observed(list(cells(INMATES, (INTERNET,), families=(6,))))
        dual.settle()
    outside = str(dual.world.address(INTERNET, 6))
    assert lan.matching(IPv6(src=str(dual.world.address(HOST, 6)), dst=outside))
    lan.expect_none(IPv6(src=subnet))
    lan.expect_none(IPv6(dst=subnet))


@requirement("V6-1", "BR-9")
@pytest.mark.parametrize("outsider", [ATTACKER, INTERNET, NS1, NS2])
def test_an_outsider_opens_no_flow_to_a_container(dual: Scene, outsider: str) -> None:
    """Not by its own address and a static route through the host, by no protocol; the host does."""
    control = dual.promised(list(cells((HOST,), INMATES, families=(6,))))
    assert {met.outcome for met in dual.observed(control).values()} == {Outcome.REPLY}
    row = dual.promised(list(cells((outsider,), INMATES, families=(6,))))
    assert row
    assert dual.observed(row) == row


@requirement("V6-1", "BR-10")
def test_addresses_are_unique(dual: Scene, runtime: Adapter) -> None:
    """No two containers have one in common, nor one with the gateway."""
    held = [dual[name].net.address(6) for name in INMATES]
    assert len({*held, ipv6_gateway(runtime).ip}) == len(held) + 1


def ipv6_gateway(runtime: Adapter) -> IPv6Interface:
    """The bridge's IPv6 address on the network of both families, as the runtime reports it."""
    gateways = runtime.network_facts(BOTH).gateways
    (gateway,) = (item for item in gateways if isinstance(item, IPv6Interface))
    return gateway
