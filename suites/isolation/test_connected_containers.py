"""What holds of a container holds of it when it has been connected, and taken off, while it ran."""

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
from harness.testbench.attach import last_address
from harness.testbench.client import Client
from harness.testbench.listener import TRANSPORTS, Listener, Transport, free_port, introduce
from harness.testbench.netns_view import NetnsView
from harness.testbench.packets import craft
from harness.testbench.packets.craft import EVERYBODY_MAC, GROUPS, send_frame
from harness.testbench.packets.tap_pool import TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.guard import LeakGuard
from linux.rtnetlink import mac_bytes
from suites.support.dns import held
from suites.support.features import has_ipv6, restarts
from suites.support.three_containers import both_families

HOME, MORE, LESS = "home", "more", "less"
OWN_PORT: Final = 31075
PORT: Final = 31076
NOBODY: Final[dict[int, Address]] = {
    4: IPv4Address("192.0.2.250"),
    6: IPv6Address("2001:db8:99::1"),
}
"""Addresses of nobody's."""
ROOM_FOR_ONE: Final = IPv4Network("172.30.71.0/30")
SUBNET: Final = IPv4Network("172.30.72.0/24")


@pytest.fixture(scope="module")
def moved(world: World, runtime: Adapter) -> Iterator[Scene]:
    """`moved` was started on one network, connected to two, and taken off one.

    `still` stays on the first, `third` on the one that it is on besides; that one has been
    started again, where it can be.
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
@pytest.mark.parametrize("name", ["moved", "still"])
def test_the_internet_sees_the_host(
    moved: Scene, internet: NetnsView, name: str, transport: Transport, family: Family
) -> None:
    """Whoever was connected, and whoever only was beside it."""
    address = internet.address(family)
    assert address is not None
    meeting = introduce(moved[name].net, address, transport)
    assert meeting.own[0] in {item.ip for item in moved[name].net.interfaces()}
    assert meeting.seen[0] == moved.world.address(HOST, family)


@requirement("NET-3", "BR-10")
def test_what_the_runtime_reports_is_what_is_inside(moved: Scene) -> None:
    """Of each network: the MAC of an interface, and the addresses that this one has."""
    inside = moved["moved"].net
    for network in (HOME, MORE):
        told, link = moved["moved"].endpoint(network), link_on(moved, "moved", network)
        assert inside.links()[link].mac == told.mac
        assert inside.interfaces(link) == [item for item in (told.address, told.address6) if item]


@requirement("NET-3", "BR-11")
def test_its_macs_are_its_own(moved: Scene) -> None:
    """Unicast and locally administered on either network, nobody's beside it, and as declared."""
    macs = [link.mac for name, link in moved["moved"].net.links().items() if name != "lo"]
    macs += [moved[name].net.links()["eth0"].mac for name in ("still", "third")]
    assert len(set(macs)) == len(macs) == 4
    assert {mac_bytes(mac)[0] & 0b11 for mac in macs} == {0b10}
    derived = moved.runtime.dialect.mac == "from-address"
    for network in (HOME, MORE):
        mac = moved["moved"].net.links()[link_on(moved, "moved", network)].mac
        (own,) = held(moved, "moved", 4, network)
        assert (mac_bytes(mac) == b"\x02\x42" + own.packed) == derived


@requirement("NET-3", "NET-5")
def test_the_address_that_it_has_there_is_given_to_nobody_else(moved: Scene) -> None:
    """Not to who asks for it."""
    (own,) = held(moved, "moved", 4, MORE)
    moved.refusal("late", Bridge(MORE), ip=own)


@requirement("NET-3", "BR-12")
def test_every_link_of_it_agrees_on_the_mtu(moved: Scene) -> None:
    """Each interface, its end in the host, and the bridge that this is a port of."""
    host = {link.ifindex: link for link in moved.place(GATEWAY).links().values()}
    inside = [link for name, link in moved["moved"].net.links().items() if name != "lo"]
    ends = [host[link.peer or 0] for link in inside]
    bridges = [host[end.master or 0] for end in ends]
    own = {moved.runtime.network_facts(name).interface for name in (HOME, MORE)}
    assert {bridge.name for bridge in bridges} == own
    assert len({link.mtu for link in (*inside, *ends, *bridges)}) == 1


@requirement("NET-3", "BR-13")
@both_families
def test_a_third_container_receives_nothing_that_is_for_it(moved: Scene, family: Family) -> None:
    """On the network that it was connected to: an echo request goes to whom it is for."""
    addresses = {name: held(moved, name, family, MORE).pop() for name in ("moved", "third")}
    with TapPool() as own, own.capture(moved["third"].net) as wire:
        for address in addresses.values():
            with Client(moved.place(HOST), Protocol.ICMP, address, own_port=OWN_PORT) as call:
                call.say()
                assert call.hear() == b""
        moved.settle()
    asked = {
        name: craft.ip(family, dst=address)
        / craft.request(family, Protocol.ICMP, sport=OWN_PORT, dport=0)
        for name, address in addresses.items()
    }
    wire.expect_one(asked["third"])
    wire.expect_none(asked["moved"])


@requirement("NET-3", "BR-17")
@both_families
def test_it_hears_what_is_said_to_all(moved: Scene, family: Family) -> None:
    """On the network that it was connected to, by a peer there."""
    everyone = [GROUPS[family][0]]
    if family == 4:
        gateway = pick(moved.runtime.network_facts(MORE).gateways, 4)
        everyone.append(gateway.network.broadcast_address)
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with (
        Listener(moved["moved"].net, "udp", family=family, port=PORT) as ear,
        moved["third"].net.socket(kind, socket.SOCK_DGRAM) as caller,
    ):
        if family == 4:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        else:
            index = moved["third"].net.links()["eth0"].ifindex
            caller.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        for address in everyone:
            word = f"to {address}, whom it may concern".encode()
            caller.sendto(word, (str(address), PORT))
            assert ear.heard()[0] == word


@requirement("NET-3", "BR-18")
def test_it_answers_for_nobody_else(moved: Scene) -> None:
    """Who asks there by ARP for an address that nobody has is not answered; for its own he is."""
    (own,) = held(moved, "moved", 4, MORE)
    (asker,) = held(moved, "third", 4, MORE)
    nobody = last_address(pick(moved.runtime.network_facts(MORE).gateways, 4)).ip
    third = moved["third"].net
    mac = third.links()["eth0"].mac
    with TapPool() as wires, wires.capture(third) as wire:
        for address in (nobody, own):
            asked = ARP(op=1, hwsrc=mac, psrc=str(asker), pdst=str(address))
            send_frame(third, Ether(src=mac, dst=EVERYBODY_MAC) / asked)
        moved.settle()
    wire.expect_one(ARP(op=2, psrc=str(own)))
    wire.expect_none(ARP(op=2, psrc=str(nobody)))


@requirement("NET-3", "BR-19")
@both_families
def test_it_is_told_that_a_ttl_has_run_out(moved: Scene, family: Family) -> None:
    """By the host, of what was meant for the internet."""
    beyond = moved.world.address(INTERNET, family)
    with Client(moved["moved"].net, Protocol.UDP, beyond, port=9, ttl=1) as call:
        call.say(b"not far")
        moved.settle()
        assert call.told() == "ttl-exceeded"


@requirement("NET-3", "BR-20")
@both_families
@pytest.mark.parametrize(
    ("protocol", "refusal"), [(Protocol.UDP, "port-unreachable"), (Protocol.TCP, "reset")]
)
def test_its_closed_ports_refuse(
    moved: Scene, family: Family, protocol: Protocol, refusal: str
) -> None:
    """To the host, by the address that it has on the network that it was connected to."""
    (own,) = held(moved, "moved", family, MORE)
    port = free_port(moved["moved"].net, "udp" if protocol is Protocol.UDP else "tcp")
    with Client(moved.place(HOST), protocol, own, port=port) as call:
        call.say(b"is anybody in?")
        moved.settle()
        assert call.told() == refusal


@requirement("NET-3", "BR-21")
@both_families
def test_it_is_told_of_errors_from_beyond(moved: Scene, family: Family) -> None:
    """That nobody listens on a port of the internet's comes back through the translation."""
    beyond, port = moved.place(INTERNET), free_port(moved.place(INTERNET), "udp")
    address = moved.world.address(INTERNET, family)
    with Client(moved["moved"].net, Protocol.UDP, address, port=port) as call:
        call.say(f"is anybody in at {beyond.name}?".encode())
        moved.settle()
        assert call.told() == "port-unreachable"


@requirement("NET-3", "BR-26")
@both_families
def test_a_forged_source_does_not_leave_the_host(
    moved: Scene, wires: TapPool, family: Family
) -> None:
    """By the network that it was connected to; what it says as itself does, translated.

    Nor does a peer's that has been started again there.
    """
    for name in ("moved", "third"):
        assert_forged_sources_stay(moved, wires, name, family)


@requirement("NET-3", "BR-16")
def test_where_no_address_is_left_it_is_not_connected(scene: Scene, guard: LeakGuard) -> None:
    """With a reason, and leaving nothing behind, neither inside nor in the host."""
    scene.network("full", subnet=ROOM_FOR_ONE)
    scene.network("roomy")
    scene.containers(only=Bridge("full"), late=Bridge("roomy"))
    inside = scene["late"].net.snapshot()
    with guard.holding(), pytest.raises(RuntimeRefused) as refused:
        scene.runtime.connect("late", "full")
    assert str(refused.value).strip()
    assert inside.changes(scene["late"].net.snapshot()) == []


def assert_forged_sources_stay(moved: Scene, wires: TapPool, name: str, family: Family) -> None:
    """Of what somebody says by one network only what it says as itself leaves the host."""
    inside, link = moved[name].net, link_on(moved, name, MORE)
    bridge = moved.runtime.network_facts(MORE).interface
    assert bridge is not None
    macs = inside.links()[link].mac, moved.place(GATEWAY).links()[bridge].mac
    (own,) = held(moved, name, family, MORE)
    attacker = moved.world.address(ATTACKER, family)
    forged = [moved.world.address(NS1, family), NOBODY[family]]
    with wires.capture(moved.place(HOST)) as wire:
        for source in (*forged, own):
            packet = craft.ip(family, src=source, dst=attacker) / UDP(dport=PORT)
            head = Ether(src=macs[0], dst=macs[1])
            send_frame(inside, head / packet / f"as {source}".encode(), link=link)
        moved.settle()
    for source in forged:
        wire.expect_none(craft.ip(family, src=source) / UDP(dport=PORT))
    said = craft.ip(family, src=moved.world.address(HOST, family), dst=attacker) / UDP(dport=PORT)
    wire.expect_one(said / f"as {own}".encode())


def link_on(scene: Scene, name: str, network: str) -> str:
    """The interface by which a container is on a network."""
    subnets = {item.network for item in scene.runtime.network_facts(network).gateways}
    inside = scene[name].net
    (found,) = (
        link
        for link in inside.links()
        if subnets & {item.network for item in inside.interfaces(link)}
    )
    return found
