"""Mode bridge: a veth pair to the runtime's bridge, an address of its subnet, and masquerading.

The tests run on the default network, on a user-defined one, and on one with both families.
"""

from __future__ import annotations

import re

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6

from harness.adapters.protocol import Adapter
from harness.model.plan import (
    ATTACKER,
    BR0,
    BY_NAME,
    CONTAINER01,
    DEFAULT_NETWORK,
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
from harness.testbench import container
from harness.testbench.listener import TRANSPORTS, Transport, ask_echo_service
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from linux.rtnetlink import mac_bytes
from linux.rtnetlink_dump import Route
from suites.modes.conftest import BridgeNetwork, in_each_family

# --- configuration -------------------------------------------------------------------


@requirement("BR-1")
def test_bridged_container_has_only_lo_and_eth0(network: BridgeNetwork) -> None:
    """A bridged container has only lo and eth0, both up, and exec'd processes see the same."""
    for name in network.containers:
        links = network.scene[name].net.links()
        assert links.keys() == {"lo", "eth0"}, name
        assert all(link.up for link in links.values()), name
        assert links["eth0"].carrier, name
        view = container.view(network.scene[name])
        assert view.interfaces == {"lo", "eth0"}, name
        assert view.netns == network.scene[name].net.identity[1], name


@requirement("BR-1")
def test_bridged_container_has_one_reported_address_per_family(network: BridgeNetwork) -> None:
    """A bridged container has one address per family of its network, with the subnet's prefix.

    The runtime reports the same addresses.
    """
    gateways = network.facts().gateways
    for name in network.containers:
        held = network.scene[name].net.interfaces("eth0")
        assert [item.network for item in held] == [item.network for item in gateways], name
        endpoint = network.scene[name].endpoint(network.name)
        assert held == [item for item in (endpoint.address, endpoint.address6) if item], name


@requirement("BR-1")
def test_loopback_addresses_of_bridged_container_are_as_declared(network: BridgeNetwork) -> None:
    """A bridged container's lo has 127.0.0.1/8, and has ::1 if the network or runtime has IPv6."""
    six = any(item.version == 6 for item in network.facts().gateways)
    wanted = {"127.0.0.1/8"}
    if six or network.scene.runtime.dialect.bridge_loopback6:
        wanted.add("::1/128")
    for name in network.containers:
        held = {str(item) for item in network.scene[name].net.interfaces("lo")}
        assert held == wanted, name


@requirement("BR-1")
@in_each_family
def test_bridged_container_reaches_itself(network: BridgeNetwork) -> None:
    """A bridged container reaches itself by its own address and by the loopback."""
    row = network.scene.promised(list(cells(network.containers, (SELF, LOOPBACK))))
    assert network.scene.observed(row) == row


@requirement("BR-1", "BR-2")
def test_default_bridge_name_and_address_are_as_declared(
    cast: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """The default bridge is up and has the name and address that the runtime declares.

    A container is on the bridge, because some runtimes create it with the first container.
    """
    assert CONTAINER01 in {item.name for item in cast.plan.containers}
    facts = runtime.network_facts(DEFAULT_NETWORK)
    assert runtime.dialect.bridge_name in (None, facts.interface)
    (gateway,) = (item for item in facts.gateways if item.version == 4)
    assert runtime.dialect.bridge_address in (None, gateway)
    assert facts.interface is not None
    assert host.links()[facts.interface].up
    assert host.interfaces(facts.interface) == list(facts.gateways)


@requirement("BR-2")
def test_bridged_container_has_only_default_and_on_link_routes(network: BridgeNetwork) -> None:
    """A bridged container's only routes are, per family, a default route and an on-link route.

    The default route leads to the bridge.
    """
    for name in network.containers:
        inside = network.scene[name].net
        eth0 = inside.links()["eth0"].ifindex
        expected = []
        for gateway in network.facts().gateways:
            expected += [
                Route(None, gateway.ip, eth0, gateway.version),
                Route(gateway.network, None, eth0, gateway.version),
            ]
        assert sorted(inside.routes(), key=str) == sorted(expected, key=str), name


@requirement("BR-2")
def test_bridged_container_has_no_policy_routing(network: BridgeNetwork) -> None:
    """A bridged container has the policy rules of a new netns and no routes in other tables."""
    fresh = network.scene.netns(NS1).snapshot().facts
    for name in network.containers:
        inside = network.scene[name].net.snapshot().facts
        rules = [[it for it in facts if it.startswith("rule ")] for facts in (inside, fresh)]
        assert rules[0] == rules[1], name
        assert rules[0], name
        routes = [it for it in inside if it.startswith("route ")]
        assert routes, name
        assert [it for it in routes if not re.search(r" in table (254|255),", it)] == [], name


@requirement("BR-3")
def test_host_end_of_veth_pair_is_a_bridge_port(network: BridgeNetwork) -> None:
    """The host's end of a container's veth pair is up and a port of the network's bridge."""
    links = network.scene.netns(GATEWAY).links()
    bridge = network.facts().interface
    assert bridge is not None
    assert links[bridge].kind == "bridge"
    for name in network.containers:
        eth0 = network.scene[name].net.kernel_link("eth0")
        (end,) = (link for link in links.values() if link.ifindex == eth0.peer)
        assert (eth0.kind, end.kind, end.peer) == ("veth", "veth", eth0.ifindex), name
        assert (end.up, end.master) == (True, links[bridge].ifindex), name


@requirement("BR-10")
def test_addresses_of_bridged_containers_are_unique_host_addresses(network: BridgeNetwork) -> None:
    """Containers' addresses are unique and never the network, broadcast or gateway address."""
    gateways, names = network.facts().gateways, network.containers
    held = [item.ip for name in names for item in network.scene[name].net.interfaces("eth0")]
    taken = {gateway.ip for gateway in gateways}
    taken |= {gateway.network.network_address for gateway in gateways}
    taken |= {gateway.network.broadcast_address for gateway in gateways if gateway.version == 4}
    assert len(held) == len(set(held)) == len(names) * len(gateways)
    assert not taken & set(held)


@requirement("BR-11")
def test_macs_of_bridged_containers_are_unique_and_as_declared(network: BridgeNetwork) -> None:
    """Containers' MACs are unique, unicast, locally administered, and derived as declared."""
    derived = network.scene.runtime.dialect.mac == "from-address"
    inside = {name: network.scene[name].net for name in network.containers}
    macs = {name: mac_bytes(net.links()["eth0"].mac) for name, net in inside.items()}
    assert len(set(macs.values())) == len(network.containers)
    assert {mac[0] & 0b11 for mac in macs.values()} == {0b10}
    for name, mac in macs.items():
        address = inside[name].address(4)
        assert address is not None, name
        assert (mac == b"\x02\x42" + address.packed) == derived, name


# --- reachability --------------------------------------------------------------------


@in_each_family
@pytest.mark.parametrize(
    ("targets", "routers"),
    [
        pytest.param((), 0, id="peers", marks=requirement("BR-4")),
        pytest.param((GATEWAY, HOST, BR0), 0, id="host", marks=requirement("BR-5", "BR-6")),
        pytest.param((NS1, NS2), 1, id="behind-the-host", marks=requirement("BR-6")),
    ],
)
def test_replies_to_bridged_container_have_ttl_64_minus_routers(
    network: BridgeNetwork, targets: tuple[str, ...], routers: int
) -> None:
    """Replies to a bridged container have TTL 64 minus the number of routers on the way.

    The TTL is 64 on link and from the host's own addresses, and 63 behind the host. The targets
    answer as promised by ICMP, UDP and TCP.
    """
    pairs = cells(network.containers, targets or network.containers, families=(network.family,))
    row = network.scene.promised([cell for cell in pairs if cell.source != cell.target])
    seen = network.scene.observed(row)
    assert seen == row
    if not targets:
        assert {cell: met.seen_from for cell, met in seen.items()} == {it: it.source for it in row}
    pings = {seen[cell].ttl for cell in row if cell.protocol is Protocol.ICMP}
    assert pings == {START_TTL - routers}


@requirement("BR-7")
@in_each_family
@pytest.mark.parametrize(
    "target", [INTERNET, pytest.param(BY_NAME, marks=requirement("BR-8"))], ids=["address", "name"]
)
def test_internet_replies_to_bridged_container_and_sees_host_address(
    network: BridgeNetwork, target: str
) -> None:
    """The internet answers a bridged container and sees only the host's address.

    The TTL of the reply is 64 minus one for the host and one for each router on the way.
    """
    scene, family = network.scene, network.family
    row = scene.promised(list(cells(network.containers, (target,), families=(family,))))
    seen = scene.observed(row)
    assert seen == row
    assert {met.outcome for met in seen.values()} == {Outcome.REPLY}
    assert {met.seen_from for met in seen.values()} == {HOST}
    pings = {seen[Cell(it, target, Protocol.ICMP, family)].ttl for it in network.containers}
    assert pings == {START_TTL - 1 - scene.world.topology.routers}


@requirement("BR-7")
@in_each_family
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_internet_server_sees_host_address_of_bridged_container(
    network: BridgeNetwork, internet: NetnsView, transport: Transport
) -> None:
    """A server on the internet reports the host's address as the client of a bridged container."""
    address, inside = internet.address(network.family), network.scene[network.containers[0]].net
    assert address is not None
    exchange = ask_echo_service(inside, address, transport)
    assert exchange.own[0] == inside.address(network.family)
    assert exchange.seen[0] == network.scene.world.address(HOST, network.family)


@requirement("BR-7")
@in_each_family
def test_no_packet_with_container_address_leaves_the_host(
    network: BridgeNetwork, host: NetnsView, internet: NetnsView
) -> None:
    """The host masquerades all packets of containers: none leaves with a container's address."""
    scene, family, subnet = network.scene, network.family, network.gateway().network
    with host.capture("eth0") as lan, internet.capture("eth0") as wire:
        scene.observed(list(cells(network.containers, (INTERNET, BY_NAME), families=(family,))))
        scene.settle()
    head, ping = (IP, ICMP()) if family == 4 else (IPv6, ICMPv6EchoRequest())
    for protocol in (ping, UDP(), TCP()):
        assert wire.matching(head(src=str(scene.world.address(HOST, family))) / protocol)
    for seen in (lan, wire):
        seen.expect_none(head(src=subnet))
        seen.expect_none(head(dst=subnet))


@requirement("V6-1", "BR-9")
@pytest.mark.parametrize("network", ["dual-stack"], indirect=True, scope="module")
@pytest.mark.parametrize("outsider", [ATTACKER, INTERNET, NS1, NS2])
def test_outsider_opens_no_ipv6_flow_to_unpublished_container(
    network: BridgeNetwork, outsider: str
) -> None:
    """No outsider opens an IPv6 flow to an unpublished container, even with a static route.

    As a control, the host reaches the container.
    """
    scene, family = network.scene, network.family
    control = scene.promised(list(cells((HOST,), network.containers, families=(family,))))
    assert {met.outcome for met in scene.observed(control).values()} == {Outcome.REPLY}
    row = scene.promised(list(cells((outsider,), network.containers, families=(family,))))
    assert row
    assert scene.observed(row) == row
