"""Promises for a container that is connected to and disconnected from networks while it runs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Final

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import ARP, Ether

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.model.features import Feature
from harness.model.plan import (
    ATTACKER,
    GATEWAY,
    HOST,
    INTERNET,
    NS1,
    Bridge,
    ContainerSpec,
    Family,
    NetworkSpec,
    Plan,
    Protocol,
)
from harness.model.topology import Address, pick
from harness.plugin.marks import requirement
from harness.probe.sockets import ADDRESS_FAMILIES
from harness.testbench.attach import last_address
from harness.testbench.client import Client
from harness.testbench.listener import TRANSPORTS, Listener, Transport, ask_echo_service, free_port
from harness.testbench.netns_view import NetnsView
from harness.testbench.packets import craft
from harness.testbench.packets.capture import TapPool
from harness.testbench.packets.craft import EVERYBODY_MAC, GROUPS, send_frame
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.leak_guard import LeakGuard
from linux.rtnetlink import mac_bytes
from suites.support.dns import held
from suites.support.features import has_ipv6, restarts
from suites.support.three_containers import both_families

HOME, MORE, LESS = "home", "more", "less"
OWN_PORT: Final = 31075
PORT: Final = 31076
UNASSIGNED: Final[dict[int, Address]] = {
    4: IPv4Address("192.0.2.250"),
    6: IPv6Address("2001:db8:99::1"),
}
"""Source addresses that are not assigned."""
ROOM_FOR_ONE: Final = IPv4Network("172.30.71.0/30")
SUBNET: Final = IPv4Network("172.30.72.0/24")


@pytest.fixture(scope="module")
def reconnected(world: World, runtime: Adapter) -> Iterator[Scene]:
    """Share `moved`, a running container whose networks have changed.

    `moved` starts on one network, is connected to two others, and is disconnected from one of
    these. `still` stays on the first network. `third` is on the network that `moved` remains
    connected to, and is restarted where the runtime can restart.
    """
    dual = has_ipv6(runtime)
    plan = Plan(
        networks=(
            *(NetworkSpec(name, ipv6=dual) for name in (HOME, LESS)),
            NetworkSpec(MORE, subnet=SUBNET, ipv6=dual),
        ),
        containers=(
            ContainerSpec("moved", Bridge(HOME)),
            ContainerSpec("still", Bridge(HOME)),
            ContainerSpec("third", Bridge(MORE)),
        ),
    )
    with Scene(world, runtime, plan) as made:
        if Feature.CONNECT in runtime.features:
            made.connect("moved", LESS)
            made.connect("moved", MORE)
            made.disconnect("moved", LESS)
        if restarts(runtime):
            made["third"].stop()
            made.start("third")
        made.ready()
        yield made


@requirement("NET-3", "BR-7")
@both_families
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", ["moved", "still"], ids=["connected", "peer"])
def test_internet_sees_host_address_of_connected_container(
    reconnected: Scene, internet: NetnsView, name: str, transport: Transport, family: Family
) -> None:
    """The internet sees the host's address as the source of a connected container and its peer."""
    address = internet.address(family)
    assert address is not None
    exchange = ask_echo_service(reconnected[name].net, address, transport)
    assert exchange.own[0] in {item.ip for item in reconnected[name].net.interfaces()}
    assert exchange.seen[0] == reconnected.world.address(HOST, family)


@requirement("NET-3", "BR-10")
def test_reported_endpoint_of_connected_container_matches_interface(reconnected: Scene) -> None:
    """A connected container's interface on each network has the reported MAC and addresses."""
    inside = reconnected["moved"].net
    for network in (HOME, MORE):
        reported, link = (
            reconnected["moved"].endpoint(network),
            link_on(reconnected, "moved", network),
        )
        assert inside.links()[link].mac == reported.mac
        assert inside.interfaces(link) == [
            item for item in (reported.address, reported.address6) if item
        ]


@requirement("NET-3", "BR-11")
def test_macs_of_connected_container_are_unique_and_as_declared(reconnected: Scene) -> None:
    """The MACs of a container on two networks are unique and as declared.

    They are unicast and locally administered.
    """
    macs = [link.mac for name, link in reconnected["moved"].net.links().items() if name != "lo"]
    macs += [reconnected[name].net.links()["eth0"].mac for name in ("still", "third")]
    assert len(set(macs)) == len(macs) == 4
    assert {mac_bytes(mac)[0] & 0b11 for mac in macs} == {0b10}
    derived = reconnected.runtime.dialect.mac == "from-address"
    for network in (HOME, MORE):
        mac = reconnected["moved"].net.links()[link_on(reconnected, "moved", network)].mac
        (own,) = held(reconnected, "moved", 4, network)
        assert (mac_bytes(mac) == b"\x02\x42" + own.packed) == derived


@requirement("NET-3", "NET-5")
def test_address_of_connected_container_is_refused_to_others(reconnected: Scene) -> None:
    """A new container that requests the address of a connected container is refused."""
    (own,) = held(reconnected, "moved", 4, MORE)
    reconnected.refusal("late", Bridge(MORE), ip=own)


@requirement("NET-3", "BR-12")
def test_mtu_of_connected_container_is_equal_on_every_link(reconnected: Scene) -> None:
    """On each of a container's networks, both veth ends and the bridge have the same MTU."""
    host = {link.ifindex: link for link in reconnected.netns(GATEWAY).links().values()}
    inside = [link for name, link in reconnected["moved"].net.links().items() if name != "lo"]
    ends = [host[link.peer or 0] for link in inside]
    bridges = [host[end.master or 0] for end in ends]
    own = {reconnected.runtime.network_facts(name).interface for name in (HOME, MORE)}
    assert {bridge.name for bridge in bridges} == own
    assert len({link.mtu for link in (*inside, *ends, *bridges)}) == 1


@requirement("NET-3", "BR-13")
@both_families
def test_unicast_to_connected_container_is_not_flooded(reconnected: Scene, family: Family) -> None:
    """An echo request to a connected container reaches that container and no third one."""
    addresses = {name: held(reconnected, name, family, MORE).pop() for name in ("moved", "third")}
    with TapPool() as own, own.capture(reconnected["third"].net) as wire:
        for address in addresses.values():
            with Client(reconnected.netns(HOST), Protocol.ICMP, address, own_port=OWN_PORT) as call:
                call.send()
                assert call.receive() == b""
        reconnected.settle()
    asked = {
        name: craft.ip(family, dst=address)
        / craft.request(family, Protocol.ICMP, sport=OWN_PORT, dport=0)
        for name, address in addresses.items()
    }
    wire.expect_one(asked["third"])
    wire.expect_none(asked["moved"])


@requirement("NET-3", "BR-17")
@both_families
def test_connected_container_receives_broadcasts_of_peers(
    reconnected: Scene, family: Family
) -> None:
    """A container that was connected to a network receives the broadcasts of a peer there."""
    everyone = [GROUPS[family][0]]
    if family == 4:
        gateway = pick(reconnected.runtime.network_facts(MORE).gateways, 4)
        everyone.append(gateway.network.broadcast_address)
    with (
        Listener(reconnected["moved"].net, "udp", family=family, port=PORT) as listener,
        reconnected["third"].net.socket(ADDRESS_FAMILIES[family], socket.SOCK_DGRAM) as caller,
    ):
        if family == 4:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        else:
            index = reconnected["third"].net.links()["eth0"].ifindex
            caller.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        for address in everyone:
            word = f"to {address}, all peers".encode()
            caller.sendto(word, (str(address), PORT))
            assert listener.receive()[0] == word


@requirement("NET-3", "BR-18")
def test_connected_container_answers_arp_only_for_its_own_address(reconnected: Scene) -> None:
    """A connected container answers ARP requests for its own address only."""
    (own,) = held(reconnected, "moved", 4, MORE)
    (asker,) = held(reconnected, "third", 4, MORE)
    unused = last_address(pick(reconnected.runtime.network_facts(MORE).gateways, 4)).ip
    third = reconnected["third"].net
    mac = third.links()["eth0"].mac
    with TapPool() as wires, wires.capture(third) as wire:
        for address in (unused, own):
            asked = ARP(op=1, hwsrc=mac, psrc=str(asker), pdst=str(address))
            send_frame(third, Ether(src=mac, dst=EVERYBODY_MAC) / asked)
        reconnected.settle()
    wire.expect_one(ARP(op=2, psrc=str(own)))
    wire.expect_none(ARP(op=2, psrc=str(unused)))


@requirement("NET-3", "BR-19")
@both_families
def test_time_exceeded_reaches_connected_container(reconnected: Scene, family: Family) -> None:
    """A connected container that sends a packet with TTL 1 gets time-exceeded from the host."""
    beyond = reconnected.world.address(INTERNET, family)
    with Client(reconnected["moved"].net, Protocol.UDP, beyond, port=9, ttl=1) as call:
        call.send(b"not far")
        reconnected.settle()
        assert call.error() == "ttl-exceeded"


@requirement("NET-3", "BR-20")
@both_families
@pytest.mark.parametrize(
    ("protocol", "refusal"), [(Protocol.UDP, "port-unreachable"), (Protocol.TCP, "reset")]
)
def test_closed_port_of_connected_container_rejects_packets(
    reconnected: Scene, family: Family, protocol: Protocol, refusal: str
) -> None:
    """A connected container rejects packets from the host to a closed port."""
    (own,) = held(reconnected, "moved", family, MORE)
    port = free_port(reconnected["moved"].net, "udp" if protocol is Protocol.UDP else "tcp")
    with Client(reconnected.netns(HOST), protocol, own, port=port) as call:
        call.send(b"is anybody in?")
        reconnected.settle()
        assert call.error() == refusal


@requirement("NET-3", "BR-21")
@both_families
def test_port_unreachable_from_internet_reaches_connected_container(
    reconnected: Scene, family: Family
) -> None:
    """Port-unreachable from the internet reaches a connected container, translated by the host."""
    beyond, port = reconnected.netns(INTERNET), free_port(reconnected.netns(INTERNET), "udp")
    address = reconnected.world.address(INTERNET, family)
    with Client(reconnected["moved"].net, Protocol.UDP, address, port=port) as call:
        call.send(f"is anybody in at {beyond.name}?".encode())
        reconnected.settle()
        assert call.error() == "port-unreachable"


@requirement("NET-3", "BR-26")
@both_families
def test_spoofed_source_of_connected_container_is_dropped(
    reconnected: Scene, wires: TapPool, family: Family
) -> None:
    """The host drops packets with a spoofed source from a connected container or a restarted peer.

    Packets with the container's own address leave the host masqueraded.
    """
    for name in ("moved", "third"):
        assert_forged_sources_stay(reconnected, wires, name, family)


@requirement("NET-3", "BR-16")
def test_connect_to_network_without_free_address_is_refused(scene: Scene, guard: LeakGuard) -> None:
    """A connect to a network without a free address is refused with a reason and leaves nothing."""
    scene.network("full", subnet=ROOM_FOR_ONE)
    scene.network("roomy")
    scene.containers(only=Bridge("full"), late=Bridge("roomy"))
    inside = scene["late"].net.snapshot()
    with guard.holding(), pytest.raises(RuntimeRefused) as refused:
        scene.runtime.connect("late", "full")
    assert str(refused.value).strip()
    assert inside.changes(scene["late"].net.snapshot()) == []


def assert_forged_sources_stay(
    reconnected: Scene, wires: TapPool, name: str, family: Family
) -> None:
    """Assert that, of a container's packets, only those with its own address leave the host."""
    inside, link = reconnected[name].net, link_on(reconnected, name, MORE)
    bridge = reconnected.runtime.network_facts(MORE).interface
    assert bridge is not None
    macs = inside.links()[link].mac, reconnected.netns(GATEWAY).links()[bridge].mac
    (own,) = held(reconnected, name, family, MORE)
    attacker = reconnected.world.address(ATTACKER, family)
    spoofed = [reconnected.world.address(NS1, family), UNASSIGNED[family]]
    with wires.capture(reconnected.netns(HOST)) as wire:
        for source in (*spoofed, own):
            packet = craft.ip(family, src=source, dst=attacker) / UDP(dport=PORT)
            head = Ether(src=macs[0], dst=macs[1])
            send_frame(inside, head / packet / f"as {source}".encode(), link=link)
        reconnected.settle()
    for source in spoofed:
        wire.expect_none(craft.ip(family, src=source) / UDP(dport=PORT))
    said = craft.ip(family, src=reconnected.world.address(HOST, family), dst=attacker) / UDP(
        dport=PORT
    )
    wire.expect_one(said / f"as {own}".encode())


def link_on(scene: Scene, name: str, network: str) -> str:
    """Return the interface of a container on a network."""
    subnets = {item.network for item in scene.runtime.network_facts(network).gateways}
    inside = scene[name].net
    (found,) = (
        link
        for link in inside.links()
        if subnets & {item.network for item in inside.interfaces(link)}
    )
    return found
