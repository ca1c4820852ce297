"""What passes between bystanders and outsiders while containers run: every kind of packet."""

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
from harness.model.plan import ATTACKER, FAMILIES, HOST, INTERNET, NS1, NS2, Family, Protocol
from harness.model.topology import START_TTL, Address
from harness.plugin.marks import requirement
from harness.testbench import transfer
from harness.testbench.client import Client, there_and_back
from harness.testbench.listener import free_port
from harness.testbench.packets import craft
from harness.testbench.packets.craft import GROUPS, mac_of, member
from harness.testbench.packets.tap_pool import TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.features import crowd
from suites.support.packet_kinds import beginnings

PAIRS: Final = ((NS1, NS2), (NS1, INTERNET), (ATTACKER, NS1), (HOST, NS2))
"""Between two ports of a bridge, out, in, and from the host itself."""
KINDS: Final = ("net-unreachable", "port-unreachable", "packet-too-big", "ttl-exceeded")
MTU: Final = 1500
"""What an error of size tells: as much as every link carries, so that nobody learns anything."""
OWN_PORT: Final = 31049
SIZE: Final = 1_000_000
"""Bytes over one connection."""
ETHERNET: Final = 14
"""Length of an Ethernet header in bytes."""
DATAGRAM: Final = hashlib.shake_128(b"between others").digest(8000)

pytestmark = pytest.mark.parametrize("family", FAMILIES)
each_pair = pytest.mark.parametrize(("source", "target"), PAIRS)


@pytest.fixture(scope="module")
def crowded(world: World, runtime: Adapter) -> Iterator[Scene]:
    """Containers in every mode, that publish nothing: look, do not change."""
    with Scene(world, runtime) as made:
        crowd(made)
        yield made


@requirement("BYS-2")
@each_pair
def test_every_protocol_passes(
    crowded: Scene, wires: TapPool, family: Family, source: str, target: str
) -> None:
    """Whatever begins a flow, by any port, and by protocols that have none."""
    here, there = (crowded.world.address(name, family) for name in (source, target))
    head = craft.ip(family, src=here, dst=there, ttl=START_TTL)
    sent = list(beginnings(family, head))
    assert lost(crowded, wires, source, target, sent) == []


@requirement("BYS-2")
@pytest.mark.parametrize(("source", "target"), [(NS1, NS2), (ATTACKER, HOST), (HOST, ATTACKER)])
def test_what_is_said_to_all_passes(
    crowded: Scene, wires: TapPool, family: Family, source: str, target: str
) -> None:
    """Broadcasts and multicasts, between two ports of a bridge and on the LAN."""
    caller, here = crowded.place(source), crowded.world.address(source, family)
    heads = [craft.ip(family, src=here, dst=group, ttl=START_TTL) for group in GROUPS[family]]
    word = UDP(sport=OWN_PORT, dport=OWN_PORT) / b"to all"
    with wires.capture(crowded.place(target)) as wire, contextlib.ExitStack() as stack:
        for group, head in zip(GROUPS[family], heads, strict=True):
            stack.enter_context(member(crowded.place(target), group))
            mac = caller.links()["eth0"].mac
            craft.send_frame(caller, Ether(src=mac, dst=mac_of(group)) / head / word)
        crowded.settle()
    for head in heads:
        wire.expect_one(head / word)


@requirement("BYS-2")
@pytest.mark.parametrize("target", [INTERNET, ATTACKER])
def test_errors_come_back(crowded: Scene, wires: TapPool, family: Family, target: str) -> None:
    """Every kind that somebody outside tells about a bystander's datagram gets to that one."""
    here, there = (crowded.world.address(name, family) for name in (NS1, target))
    port = free_port(crowded.place(target), "udp")
    caller = crowded.place(NS1)
    with Client(caller, Protocol.UDP, there, port=port, own_port=OWN_PORT) as call:
        call.say(b"quote me")
        crowded.settle()
        quoted = craft.ip(family, src=here, dst=there) / UDP(sport=OWN_PORT, dport=port)
        errors = list(about(family, there, here, quoted / b"quote me"))
        assert lost(crowded, wires, target, NS1, errors) == []


@requirement("BYS-2")
@each_pair
def test_a_closed_port_is_told(crowded: Scene, family: Family, source: str, target: str) -> None:
    """By port-unreachable to the very socket that called."""
    port = free_port(crowded.place(target), "udp")
    at = crowded.world.address(target, family)
    with Client(crowded.place(source), Protocol.UDP, at, port=port) as call:
        call.say(b"is anybody in?")
        crowded.settle()
        assert call.told() == "port-unreachable"


@requirement("BYS-2")
@each_pair
def test_a_lot_of_data_passes(crowded: Scene, family: Family, source: str, target: str) -> None:
    """Over one connection, as it was sent; and a datagram in fragments, there and back."""
    caller, called = crowded.place(source), crowded.place(target)
    at = crowded.world.address(target, family)
    assert transfer.upload(caller, called, at, SIZE) == transfer.sent(SIZE)
    assert transfer.download(caller, called, at, SIZE) == transfer.sent(SIZE)
    assert there_and_back(caller, called, at, DATAGRAM) == (DATAGRAM, DATAGRAM)


def about(family: Family, teller: Address, told: Address, quoted: Packet) -> Iterator[Packet]:
    """An error of each kind about a packet, from one to another."""
    for kind in KINDS:
        error = craft.error(family, kind, mtu=MTU if kind == "packet-too-big" else None)
        yield craft.ip(family, src=teller, dst=told) / error / Raw(bytes(quoted))


def lost(
    scene: Scene, wires: TapPool, source: str, target: str, packets: Collection[Packet]
) -> list[str]:
    """Those of some packets of one family that do not arrive as they were sent."""
    sent = {carried(bytes(packet)): packet.summary() for packet in packets}
    assert len(sent) == len(packets), "two that are alike could not be told apart"
    with wires.capture(scene.place(target)) as wire:
        for packet in packets:
            craft.send_packet(scene.place(source), packet)
        scene.settle()
    arrived = {carried(frame.data[ETHERNET:]) for frame in wire.frames()}
    return [what for carries, what in sent.items() if carries not in arrived]


def carried(packet: bytes) -> bytes:
    """What an IP packet has that no router changes: its protocol's number, and the payload."""
    if packet[0] >> 4 == 4:
        return packet[9:10] + packet[20:]
    return packet[6:7] + packet[40:]
