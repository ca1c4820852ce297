"""Traffic of every protocol between bystanders and outsiders while containers run."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator
from typing import Final

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from harness.adapters.protocol import Adapter
from harness.model.plan import ATTACKER, HOST, INTERNET, NS1, NS2, Family, Protocol
from harness.model.topology import START_TTL, Address
from harness.plugin.marks import requirement
from harness.testbench.client import Client, round_trip
from harness.testbench.listener import free_port
from harness.testbench.packets import craft
from harness.testbench.packets.capture import TapPool
from harness.testbench.packets.craft import GROUPS, mac_of, member
from harness.testbench.scene import Scene
from harness.testbench.transfer import Transfer, expected
from harness.world.build import World
from suites.support.features import every_mode, ipv4_and_ipv6
from suites.support.packet_kinds import beginnings

PAIRS: Final = ((NS1, NS2), (NS1, INTERNET), (ATTACKER, NS1), (HOST, NS2))
"""Source and target: between ports of br0, to outsiders, from outsiders, and from the host."""
KINDS: Final = ("net-unreachable", "port-unreachable", "packet-too-big", "ttl-exceeded")
MTU: Final = 1500
"""MTU in packet-too-big errors, in bytes: that of every link, so that no path MTU changes."""
OWN_PORT: Final = 31049
SIZE: Final = 1_000_000
"""Bytes that one connection transfers."""
ETHERNET: Final = 14
"""Length of an Ethernet header in bytes."""
DATAGRAM: Final = hashlib.shake_128(b"between others").digest(8000)

pytestmark = ipv4_and_ipv6
each_pair = pytest.mark.parametrize(("source", "target"), PAIRS)


@pytest.fixture(scope="module")
def mixed_scene(world: World, runtime: Adapter) -> Iterator[Scene]:
    """Share containers of every mode without published ports; tests must not change them."""
    with Scene(world, runtime) as made:
        every_mode(made)
        yield made


@requirement("BYS-2")
@each_pair
def test_every_protocol_passes_between_bystanders_and_outsiders(
    mixed_scene: Scene, wires: TapPool, family: Family, source: str, target: str
) -> None:
    """New flows of every protocol pass between bystanders and outsiders while containers run."""
    here, there = (mixed_scene.world.address(name, family) for name in (source, target))
    head = craft.ip(family, src=here, dst=there, ttl=START_TTL)
    sent = list(beginnings(family, head))
    assert lost(mixed_scene, wires, source, target, sent) == []


@requirement("BYS-2")
@pytest.mark.parametrize(("source", "target"), [(NS1, NS2), (ATTACKER, HOST), (HOST, ATTACKER)])
def test_broadcasts_and_multicasts_reach_bystanders_and_lan(
    mixed_scene: Scene, wires: TapPool, family: Family, source: str, target: str
) -> None:
    """Broadcasts and multicasts pass on br0 and on the LAN while containers run."""
    caller, here = mixed_scene.netns(source), mixed_scene.world.address(source, family)
    heads = [craft.ip(family, src=here, dst=group, ttl=START_TTL) for group in GROUPS[family]]
    word = UDP(sport=OWN_PORT, dport=OWN_PORT) / b"to all"
    with wires.capture(mixed_scene.netns(target)) as wire, contextlib.ExitStack() as stack:
        for group, head in zip(GROUPS[family], heads, strict=True):
            stack.enter_context(member(mixed_scene.netns(target), group))
            mac = caller.links()["eth0"].mac
            craft.send_frame(caller, Ether(src=mac, dst=mac_of(group)) / head / word)
        mixed_scene.settle()
    for head in heads:
        wire.expect_one(head / word)


@requirement("BYS-2")
@pytest.mark.parametrize("target", [INTERNET, ATTACKER])
def test_icmp_errors_from_outside_reach_the_bystander(
    mixed_scene: Scene, wires: TapPool, family: Family, target: str
) -> None:
    """Every kind of ICMP error about a bystander's datagram reaches the bystander."""
    here, there = (mixed_scene.world.address(name, family) for name in (NS1, target))
    port = free_port(mixed_scene.netns(target), "udp")
    caller = mixed_scene.netns(NS1)
    with Client(caller, Protocol.UDP, there, port=port, own_port=OWN_PORT) as call:
        call.send(b"quote me")
        mixed_scene.settle()
        quoted = craft.ip(family, src=here, dst=there) / UDP(sport=OWN_PORT, dport=port)
        errors = list(about(family, there, here, quoted / b"quote me"))
        assert lost(mixed_scene, wires, target, NS1, errors) == []


@requirement("BYS-2")
@each_pair
def test_sender_receives_port_unreachable_from_closed_port(
    mixed_scene: Scene, family: Family, source: str, target: str
) -> None:
    """A bystander or outsider that sends to a closed UDP port receives port-unreachable."""
    port = free_port(mixed_scene.netns(target), "udp")
    at = mixed_scene.world.address(target, family)
    with Client(mixed_scene.netns(source), Protocol.UDP, at, port=port) as call:
        call.send(b"is anybody in?")
        mixed_scene.settle()
        assert call.error() == "port-unreachable"


@requirement("BYS-2")
@each_pair
def test_large_transfer_between_bystanders_and_outsiders_arrives_intact(
    mixed_scene: Scene, family: Family, source: str, target: str
) -> None:
    """While containers run, a large transfer and a fragmented datagram arrive intact both ways."""
    caller, called = mixed_scene.netns(source), mixed_scene.netns(target)
    at = mixed_scene.world.address(target, family)
    transfer = Transfer(caller, called, at)
    assert transfer.upload(SIZE) == transfer.download(SIZE) == expected(SIZE)
    assert round_trip(caller, called, at, DATAGRAM) == (DATAGRAM, DATAGRAM)


def about(family: Family, sender: Address, receiver: Address, quoted: Packet) -> Iterator[Packet]:
    """Craft one ICMP error of each kind that quotes a packet."""
    for kind in KINDS:
        error = craft.error(family, kind, mtu=MTU if kind == "packet-too-big" else None)
        yield craft.ip(family, src=sender, dst=receiver) / error / Raw(bytes(quoted))


def lost(
    scene: Scene, wires: TapPool, source: str, target: str, packets: Collection[Packet]
) -> list[str]:
    """Return the packets of one family that do not arrive, or arrive changed."""
    sent = {carried(bytes(packet)): packet.summary() for packet in packets}
    assert len(sent) == len(packets), "two packets are equal and cannot be told apart"
    with wires.capture(scene.netns(target)) as wire:
        for packet in packets:
            craft.send_packet(scene.netns(source), packet)
        scene.settle()
    arrived = {carried(frame.data[ETHERNET:]) for frame in wire.frames()}
    return [what for carries, what in sent.items() if carries not in arrived]


def carried(packet: bytes) -> bytes:
    """Return the part of an IP packet that no router changes: protocol number and payload."""
    if packet[0] >> 4 == 4:
        return packet[9:10] + packet[20:]
    return packet[6:7] + packet[40:]
