"""Mode bridge: a veth into the runtime's bridge, an address on its network, the host before all."""

from __future__ import annotations

import re
from ipaddress import IPv4Interface

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP

from harness.adapters.protocol import Adapter
from harness.model.plan import (
    BR0,
    BY_NAME,
    CONTAINER01,
    CONTAINER02,
    DEFAULT_NETWORK,
    GATEWAY,
    HOST,
    INTERNET,
    LOOPBACK,
    NS1,
    NS2,
    Cell,
    Outcome,
    Protocol,
    cells,
)
from harness.model.topology import START_TTL
from harness.plugin.marks import requirement
from harness.testbench import container
from harness.testbench.listener import TRANSPORTS, Transport, introduce
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from linux.rtnetlink_dump import Route

BRIDGED = (CONTAINER01, CONTAINER02)


# --- what it is given ----------------------------------------------------------------


@requirement("BR-1")
@pytest.mark.parametrize("name", BRIDGED)
def test_it_has_lo_and_eth0_only(cast: Scene, name: str) -> None:
    """Both are up, and a process inside is shown the same."""
    links = cast[name].net.links()
    assert links.keys() == {"lo", "eth0"}
    assert all(link.up for link in links.values())
    assert links["eth0"].carrier
    view = container.view(cast[name])
    assert view.interfaces == {"lo", "eth0"}
    assert view.netns == cast[name].net.identity[1]


@requirement("BR-1")
@pytest.mark.parametrize("name", BRIDGED)
def test_it_has_one_address_inside_the_subnet(cast: Scene, runtime: Adapter, name: str) -> None:
    """With the subnet's prefix, the one that the runtime reports; none of another family."""
    gateways = runtime.network_facts(DEFAULT_NETWORK).gateways
    held = cast[name].net.interfaces("eth0")
    assert [item.network for item in held] == [gateway.network for gateway in gateways]
    assert not {item.ip for item in held} & {gateway.ip for gateway in gateways}
    endpoint = cast[name].endpoint()
    reported = (endpoint.address, endpoint.address6)
    assert held == [item for item in reported if item]


@requirement("BR-1")
@pytest.mark.parametrize("name", BRIDGED)
def test_its_loopback_answers(cast: Scene, runtime: Adapter, name: str) -> None:
    """127.0.0.1/8 is on lo, and ::1 as declared; what is there answers."""
    held = {str(item) for item in cast[name].net.interfaces("lo")}
    assert held == {"127.0.0.1/8"} | ({"::1/128"} if runtime.dialect.bridge_loopback6 else set())
    row = cast.promised().select(source=name, target=LOOPBACK)
    assert cast.observed(row) == row


@requirement("BR-1", "BR-2")
def test_the_network_is_the_declared_one(cast: Scene, runtime: Adapter, host: NetnsView) -> None:
    """The bridge is up under its name and holds its address, where the runtime documents them.

    With somebody on it: some runtimes make a bridge only then.
    """
    assert BRIDGED[0] in {item.name for item in cast.plan.containers}
    facts = runtime.network_facts(DEFAULT_NETWORK)
    assert runtime.dialect.bridge_name in (None, facts.interface)
    assert runtime.dialect.bridge_address in (None, ipv4_gateway(runtime))
    assert facts.interface is not None
    assert host.links()[facts.interface].up
    assert host.interfaces(facts.interface) == list(facts.gateways)


@requirement("BR-2")
@pytest.mark.parametrize("name", BRIDGED)
def test_it_has_a_default_and_an_on_link_route(cast: Scene, runtime: Adapter, name: str) -> None:
    """One by way of the bridge's address, one for the subnet, and no third."""
    inside = cast[name].net
    eth0 = inside.links()["eth0"].ifindex
    expected = []
    for gateway in runtime.network_facts(DEFAULT_NETWORK).gateways:
        expected += [
            Route(None, gateway.ip, eth0, gateway.version),
            Route(gateway.network, None, eth0, gateway.version),
        ]
    assert sorted(inside.routes(), key=str) == sorted(expected, key=str)


@requirement("BR-2")
@pytest.mark.parametrize("name", BRIDGED)
def test_no_policy_rule_leads_to_other_routes(cast: Scene, name: str) -> None:
    """It has the rules that a namespace has by itself, and no route in any table beside."""
    leads_to_no_other_routes(cast, name)


@requirement("BR-3")
@pytest.mark.parametrize("name", BRIDGED)
def test_the_host_end_of_its_veth_is_a_port_of_the_bridge(
    cast: Scene, runtime: Adapter, host: NetnsView, name: str
) -> None:
    """The other end of eth0 is on the host, up, with the bridge as its master."""
    eth0, links = cast[name].net.cable("eth0"), host.links()
    (end,) = (link for link in links.values() if link.ifindex == eth0.peer)
    bridge = runtime.network_facts(DEFAULT_NETWORK).interface
    assert bridge is not None
    assert (eth0.kind, end.kind, end.peer) == ("veth", "veth", eth0.ifindex)
    assert end.up
    assert end.master == links[bridge].ifindex
    assert links[bridge].kind == "bridge"


# --- whom it reaches -----------------------------------------------------------------


@requirement("BR-4")
@pytest.mark.parametrize(("source", "target"), [BRIDGED, BRIDGED[::-1]])
def test_peers_reach_each_other(cast: Scene, source: str, target: str) -> None:
    """By ICMP, UDP and TCP, with TTL 64, and the target sees the source's own address."""
    row = cast.promised().select(source=source, target=target)
    seen = cast.observed(row)
    assert seen == row
    assert {met.seen_from for met in seen.values()} == {source}
    assert ttls(cast, source, (target,)) == {target: START_TTL}


@requirement("BR-5")
@pytest.mark.parametrize("source", BRIDGED)
def test_the_bridge_and_the_host_answer(cast: Scene, source: str) -> None:
    """Both are the host's own addresses: TTL 64, also by TCP and UDP."""
    row = cast.promised(list(cells((source,), (GATEWAY, HOST))))
    assert cast.observed(row) == row
    assert ttls(cast, source, (GATEWAY, HOST)) == {GATEWAY: START_TTL, HOST: START_TTL}


@requirement("BR-6")
@pytest.mark.parametrize("source", BRIDGED)
def test_other_networks_behind_the_host_answer(cast: Scene, source: str) -> None:
    """One router takes one from the TTL; the host's own address there does not."""
    row = cast.promised(list(cells((source,), (NS1, NS2, BR0))))
    assert cast.observed(row) == row
    assert ttls(cast, source, (NS1, NS2, BR0)) == {
        NS1: START_TTL - 1,
        NS2: START_TTL - 1,
        BR0: START_TTL,
    }


@requirement("BR-7")
@pytest.mark.parametrize("source", BRIDGED)
def test_the_internet_answers_with_what_the_routers_leave(cast: Scene, source: str) -> None:
    """The host and every router of the chain take one from the TTL, and it sees the host."""
    row = cast.promised().select(source=source, target=INTERNET)
    seen = cast.observed(row)
    assert seen == row
    assert {met.seen_from for met in seen.values() if met.outcome is Outcome.REPLY} == {HOST}
    left = START_TTL - 1 - cast.world.topology.routers
    assert ttls(cast, source, (INTERNET,)) == {INTERNET: left}


@requirement("BR-7")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_on_the_internet_sees_the_hosts_address(
    cast: Scene, internet: NetnsView, transport: Transport
) -> None:
    """It is told by the server itself; the container's own socket has the container's address."""
    address, own = internet.address(4), cast[CONTAINER01].net.address(4)
    assert address is not None
    meeting = introduce(cast[CONTAINER01].net, address, transport)
    assert meeting.own[0] == own
    assert meeting.seen[0] == cast.world.address(HOST, 4)


@requirement("BR-7")
def test_no_packet_with_a_containers_address_leaves_the_host(
    cast: Scene, runtime: Adapter, host: NetnsView, internet: NetnsView
) -> None:
    """Pings, datagrams and connections all carry the host's address, on the LAN already."""
    subnet = ipv4_gateway(runtime).network
    with host.capture("eth0") as lan, internet.capture("eth0") as wire:
        cast.observed(list(cells(BRIDGED, (INTERNET, BY_NAME), families=(4,))))
        cast.settle()
    for protocol in (ICMP(), UDP(), TCP()):
        assert wire.matching(IP(src=str(cast.world.address(HOST, 4))) / protocol)
    for seen in (lan, wire):
        seen.expect_none(IP(src=subnet))
        seen.expect_none(IP(dst=subnet))


@requirement("BR-8")
@pytest.mark.parametrize("source", BRIDGED)
def test_the_internet_answers_by_name(cast: Scene, source: str) -> None:
    """The resolver that its resolv.conf names tells the address, and that address answers."""
    row = cast.promised().select(source=source, target=BY_NAME, family=4)
    seen = cast.observed(row)
    assert seen == row
    assert {met.outcome for met in seen.values()} == {Outcome.REPLY}


def leads_to_no_other_routes(scene: Scene, name: str) -> None:
    """A container has the rules of any namespace, and routes in the main and the local table."""
    inside, fresh = (place.snapshot().facts for place in (scene[name].net, scene.place(NS1)))
    rules = [[thing for thing in facts if thing.startswith("rule ")] for facts in (inside, fresh)]
    assert rules[0] == rules[1]
    assert rules[0]
    routes = [thing for thing in inside if thing.startswith("route ")]
    assert routes
    assert [thing for thing in routes if not re.search(r" in table (254|255),", thing)] == []


def ipv4_gateway(runtime: Adapter) -> IPv4Interface:
    """The bridge's address on the default network, as the runtime reports it."""
    gateways = runtime.network_facts(DEFAULT_NETWORK).gateways
    (gateway,) = (item for item in gateways if isinstance(item, IPv4Interface))
    return gateway


def ttls(scene: Scene, source: str, targets: tuple[str, ...]) -> dict[str, int | None]:
    """The TTL with which each of `targets` answers a ping."""
    pings = [Cell(source, target, Protocol.ICMP, 4) for target in targets]
    seen = scene.observed(pings)
    return {cell.target: seen[cell].ttl for cell in pings}
