"""Packets of every protocol and state: what a firewall that minds only some lets through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, IPv6
from scapy.packet import Packet, Raw

from harness.packets.capture import Capture
from harness.packets.frame import Frame
from harness.topology import START_TTL
from suites.services import SERVICES
from suites.trio import Trio

PORT: Final = 31090
WORD: Final = b"over there!"
PROTOCOLS: Final = (4, 33, 41, 47, 50, 51, 94, 132, 136, 253)
"""IP in IP, DCCP, IPv6 in IP, GRE, ESP, AH, IPIP, SCTP, UDP-Lite, one for experiments."""


def everything(trio: Trio, source: str, target: str) -> Iterator[Packet]:
    """From one to another: what begins a flow, what looks like part of one; each with `WORD`."""
    head = trio.ip(source, target, ttl=START_TTL)
    for flags in ("S", "A", "SA", "PA", "R", "F", ""):
        yield head / TCP(sport=53, dport=PORT, flags=flags) / WORD
    for port in (53, 67, PORT):
        yield head / UDP(sport=port, dport=PORT) / WORD
    for port in SERVICES:
        yield head / TCP(sport=PORT, dport=port, flags="S") / WORD
        yield head / UDP(sport=PORT, dport=port) / WORD
    quoted = trio.ip(target, source) / UDP(sport=PORT, dport=53) / WORD
    if trio.family == 4:
        yield head / ICMP(type=0) / WORD
        yield head / ICMP(type=3, code=3) / quoted
        yield head / ICMP(type=13) / WORD
    else:
        yield head / ICMPv6EchoReply() / WORD
        yield head / ICMPv6DestUnreach() / quoted
    for number in PROTOCOLS:
        other = head.copy()
        setattr(other, "nh" if isinstance(other, IPv6) else "proto", number)
        yield other / Raw(WORD * 8)


def telling(
    wire: Capture, trio: Trio, source: str, target: str | None = None, *, at: str
) -> list[Frame]:
    """The frames from one to another that have `WORD` in them, where somebody lives."""
    seen = wire.matching(trio.ip(source, target), at=trio.at(at))
    return [item for item in seen if WORD in item.data]
