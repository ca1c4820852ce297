"""ICMP messages for the prober: echo requests and replies, and the names of errors.

The functions do no I/O. A raw socket receives IPv4 packets with their IP header (raw(7)), but IPv6
packets without it (ipv6(7)).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from harness.model.plan import Family

ECHO_REQUEST: Final[dict[Family, int]] = {4: 8, 6: 128}
ECHO_REPLY: Final[dict[Family, int]] = {4: 0, 6: 129}
ERRORS: Final[dict[Family, tuple[int, ...]]] = {4: (3, 11, 12), 6: (1, 2, 3, 4)}
HEADER: Final = 8
HOST_UNREACHABLE: Final = "host-unreachable"
"""Name of the error when no host on the link replies to ARP or NDP for the address."""

_NAMES: Final[dict[Family, dict[tuple[int, int], str]]] = {
    4: {
        (3, 0): "net-unreachable",
        (3, 1): HOST_UNREACHABLE,
        (3, 2): "protocol-unreachable",
        (3, 3): "port-unreachable",
        (3, 4): "packet-too-big",
        (3, 9): "net-prohibited",
        (3, 10): "host-prohibited",
        (3, 13): "admin-prohibited",
        (11, 0): "ttl-exceeded",
    },
    6: {
        (1, 0): "net-unreachable",
        (1, 1): "admin-prohibited",
        (1, 3): HOST_UNREACHABLE,
        (1, 4): "port-unreachable",
        (1, 5): "policy-failed",
        (1, 6): "route-rejected",
        (2, 0): "packet-too-big",
        (3, 0): "ttl-exceeded",
    },
}
"""One name for both families where they mean the same (RFC 792, RFC 1812, RFC 4443)."""


class Message(NamedTuple):
    """A received ICMP message.

    `ttl` is `None` for IPv6, whose hop limit comes as ancillary data of the socket.
    """

    kind: int
    code: int
    identifier: int
    sequence: int
    payload: bytes
    ttl: int | None


def name(family: Family, kind: int, code: int) -> str:
    """Return the name of an ICMP error, or `icmp-<type>-<code>` for one without a name here."""
    return _NAMES[family].get((kind, code), f"icmp-{kind}-{code}")


def numbers(family: Family, called: str) -> tuple[int, int]:
    """Return type and code of the ICMP error with this name; raise `KeyError` if there is none."""
    return {name: pair for pair, name in _NAMES[family].items()}[called]


def checksum(data: bytes) -> int:
    """Return the Internet checksum of `data` (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) & 1:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(family: Family, identifier: int, sequence: int, payload: bytes) -> bytes:
    """Return the bytes of an echo request; for IPv6 the kernel fills in the checksum (ipv6(7))."""
    kind = ECHO_REQUEST[family]
    head = struct.pack("!BBHHH", kind, 0, 0, identifier, sequence)
    if family == 4:
        head = struct.pack("!BBHHH", kind, 0, checksum(head + payload), identifier, sequence)
    return head + payload


def parse(family: Family, packet: bytes) -> Message | None:
    """Parse a packet from a raw socket; return `None` if the packet is too short."""
    start, ttl = 0, None
    if family == 4:
        if len(packet) < 20:
            return None
        start, ttl = (packet[0] & 0xF) * 4, packet[8]
    if len(packet) < start + HEADER:
        return None
    kind, code, _, identifier, sequence = struct.unpack_from("!BBHHH", packet, start)
    return Message(kind, code, identifier, sequence, packet[start + HEADER :], ttl)


def quoted_echo(family: Family, payload: bytes) -> tuple[int, int] | None:
    """Return identifier and sequence number of the echo request that an ICMP error quotes."""
    start = max(20, (payload[0] & 0xF) * 4) if family == 4 and payload else 40
    if len(payload) < start + HEADER:
        return None
    protocol = payload[9] if family == 4 else payload[6]
    kind, _, _, identifier, sequence = struct.unpack_from("!BBHHH", payload, start)
    if protocol not in (1, 58) or kind != ECHO_REQUEST[family]:
        return None
    return identifier, sequence
