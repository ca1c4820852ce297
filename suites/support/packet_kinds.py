"""Packets of every protocol and flow state, because some firewalls check only a few of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Final

from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, IPv6
from scapy.packet import Packet, Raw

from harness.model.plan import GATEWAY, HOST, INTERNET, Cell, Family, Protocol
from harness.model.topology import START_TTL
from harness.testbench.listener import Listener, Transport
from harness.testbench.packets.capture import Capture
from harness.testbench.packets.packet_ring import Frame
from harness.testbench.scene import Scene
from harness.world.service_protocols import TCP_PORTS, UDP_PORTS
from suites.support.three_containers import ThreeContainers

PORT: Final = 31090
WORD: Final = b"over there!"
PROTOCOLS: Final = (4, 41, 47, 50, 51, 94, 253)
"""Protocols: IP in IP, IPv6 in IP, GRE, ESP, AH, IPIP, an experimental one."""
TRACKED: Final = (33, 132, 136)
"""Protocols whose payload conntrack checks and finds invalid: DCCP, SCTP, UDP-Lite."""


def everything(trio: ThreeContainers, source: str, target: str) -> Iterator[Packet]:
    """Craft first packets and stray packets from source to target, each with `WORD` as payload."""
    head = trio.ip(source, target, ttl=START_TTL)
    yield from beginnings(trio.family, head)
    yield from strays(trio.family, head, trio.ip(target, source))


def beginnings(family: Family, head: Packet) -> Iterator[Packet]:
    """Craft the first packets of new flows, all with the same IP header."""
    yield head / TCP(sport=53, dport=PORT, flags="S") / WORD
    for port in (53, 67, PORT):
        yield head / UDP(sport=port, dport=PORT) / WORD
    for port in SERVICES:
        yield head / TCP(sport=PORT, dport=port, flags="S") / WORD
        yield head / UDP(sport=PORT, dport=port) / WORD
    if family == 4:
        yield head / ICMP(type=13) / WORD
    for number in PROTOCOLS:
        yield of_protocol(head, number)


def strays(family: Family, head: Packet, back: Packet) -> Iterator[Packet]:
    """Craft packets that belong to no known flow, such as resets, replies and ICMP errors.

    The errors quote a packet that has the IP header `back`.
    """
    for flags in ("A", "SA", "PA", "R", "F", ""):
        yield head / TCP(sport=53, dport=PORT, flags=flags) / WORD
    quoted = back / UDP(sport=PORT, dport=53) / WORD
    if family == 4:
        yield head / ICMP(type=0) / WORD
        yield head / ICMP(type=3, code=3) / quoted
    else:
        yield head / ICMPv6EchoReply() / WORD
        yield head / ICMPv6DestUnreach() / quoted
    for number in TRACKED:
        yield of_protocol(head, number)


def of_protocol(head: Packet, number: int) -> Packet:
    """Craft a packet with an IP protocol number and, in place of a transport header, `WORD`."""
    packet = head.copy()
    setattr(packet, "nh" if isinstance(packet, IPv6) else "proto", number)
    return packet / Raw(WORD * 8)


def carrying(
    wire: Capture, trio: ThreeContainers, source: str, target: str | None = None, *, at: str
) -> list[Frame]:
    """Return the captured frames from source to target that have `WORD` in the payload."""
    seen = wire.matching(trio.ip(source, target), at=trio.at(at))
    return [item for item in seen if WORD in item.data]


SERVICES: Final = (
    *(1, 22, 25, 53, 80, 111, 123, 137, 443, 445, 853, 2375, 3306, 4789),
    *(5432, 6379, 8080, 9200, 27017, 65535),
)
"""The first and the last port, and ports that firewalls, proxies and resolvers handle."""
_ANY: Final = range(1024, 20000)
"""Ports to draw from, which are not in the ephemeral range."""


def every_port_answers(
    scene: Scene, caller: str, target: str, transport: Transport, family: Family
) -> None:
    """Assert that a client reaches a listener on each tested port of the target.

    Ports of the world's own services are left out. Another port is drawn at random in each run, so
    that a runtime cannot pass by allowing a fixed list.
    """
    view = scene.netns(HOST if target == GATEWAY else target)
    address = scene.address(Cell(caller, target, Protocol.ICMP, family))
    assert address
    served: set[int] = set()
    if target == INTERNET:
        served |= set((TCP_PORTS if transport == "tcp" else UDP_PORTS).values())
    elif target == GATEWAY:
        served |= set(scene.runtime.dialect.gateway_ports)
    for port in sorted({*SERVICES, secrets.choice(_ANY)} - served):
        with Listener(view, transport, address=address, port=port) as listener:
            exchange = listener.reached_from(scene.netns(caller), answered=True)
            assert exchange, f"{target} is called on port {port}"
