"""Recognition of a probe's packets among captured frames.

The module parses the headers itself. Only a few fields of five protocols matter, and the import of
scapy takes longer than a whole diagnosis may last.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from harness.diagnosis.packet_path import PacketHeader, Role, Sighting
from harness.model.plan import Family
from harness.model.topology import Address
from harness.probe import icmp
from harness.probe.reception import MAGIC
from harness.testbench.packets.packet_ring import Frame

PORTS: Final = 61000
"""First port of the listeners: a TCP segment of such a port belongs to the probe."""
_TCP, _UDP = 6, 17
_ICMP: Final[dict[int, Family]] = {1: 4, 58: 6}
_NAMES: Final = {_TCP: "tcp", _UDP: "udp", 1: "icmp", 58: "icmp"}
_ARP, _IPV4, _IPV6, _VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
_ARP_OF_IPV4: Final = b"\x00\x01\x08\x00"
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT = 135, 136
_DNS: Final = 53


def sightings(frames: Iterable[Frame], *, names: bool = False) -> tuple[Sighting, ...]:
    """Return the frames that belong to the probe, in order.

    With `names`, the DNS packets are the probe. An ICMP error or RST before the first request
    concerns an earlier probe and is left out.
    """
    found: list[Sighting] = []
    begun = False
    for number, frame in enumerate(frames):
        seen = of_frame(frame.data, ethernet=frame.ethernet, names=names)
        begun = begun or (seen is not None and seen.role is Role.REQUEST)
        if seen is not None and (begun or seen.role is not Role.ERROR):
            namespace, _, link = frame.where.partition("/")
            found.append(Sighting(number, namespace, link, frame.outgoing, seen))
    return tuple(found)


def of_frame(data: bytes, *, ethernet: bool = True, names: bool = False) -> PacketHeader | None:
    """Return the header of a frame's packet, `None` if the frame does not belong to the probe."""
    try:
        if not ethernet:
            return of_packet(data, names=names)
        kind, start = int.from_bytes(data[12:14], "big"), 14
        while kind == _VLAN:
            kind, start = int.from_bytes(data[start + 2 : start + 4], "big"), start + 4
        if kind == _ARP:
            return _arp(data[start:])
        if kind in (_IPV4, _IPV6):
            return of_packet(data[start:], names=names)
    except (struct.error, IndexError, ValueError):
        pass  # truncated, so not a frame of a probe
    return None


def _arp(data: bytes) -> PacketHeader | None:
    kind, protocol, _, _, operation = struct.unpack_from("!HHBBH", data)
    if (kind, protocol) != (1, _IPV4):
        return None
    sender, target = IPv4Address(data[14:18]), IPv4Address(data[24:28])
    if operation == 1:
        return PacketHeader(Role.SOLICITATION, "arp", sender, target)
    return PacketHeader(Role.ADVERTISEMENT, "arp", target, sender)


def of_packet(data: bytes, *, names: bool = False) -> PacketHeader | None:
    """Return the header of a packet, `None` if the packet does not belong to the probe.

    `data` begins with the IP header or is an ARP packet.
    """
    if data[:4] == _ARP_OF_IPV4:
        return _arp(data)
    source: Address
    destination: Address
    if data[0] >> 4 == 4:
        start, protocol, ttl = (data[0] & 0xF) * 4, data[9], data[8]
        source, destination = IPv4Address(data[12:16]), IPv4Address(data[16:20])
    else:
        start, protocol, ttl = 40, data[6], data[7]
        source, destination = IPv6Address(data[8:24]), IPv6Address(data[24:40])
    body = data[start:]
    if protocol in _ICMP:
        return _icmp(_ICMP[protocol], body, source, destination, ttl)
    if protocol not in (_TCP, _UDP):
        return None
    from_, to = struct.unpack_from("!HH", body)
    role, code = _tcp(body, from_, to) if protocol == _TCP else (_udp(body, from_, to, names), "")
    if role is None:
        return None
    return PacketHeader(role, _NAMES[protocol], source, destination, from_, to, ttl, code)


def _udp(body: bytes, source: int, destination: int, names: bool) -> Role | None:  # noqa: FBT001
    payload = body[8:]
    if payload.startswith(MAGIC):
        return Role.REQUEST if payload[4:5] == b"Q" else Role.REPLY
    if names and _DNS in (source, destination):
        return Role.REQUEST if destination == _DNS else Role.REPLY
    return None


def _tcp(body: bytes, source: int, destination: int) -> tuple[Role | None, str]:
    flags = body[13]
    answer = source >= PORTS > destination
    if not answer and destination < PORTS:
        return None, ""
    if flags & _RST:
        return (Role.ERROR, "rst") if flags & _ACK and answer else (None, "")
    if flags & _SYN:
        return (Role.REPLY if flags & _ACK else Role.REQUEST), ""
    return (Role.REPLY, "") if MAGIC in body else (None, "")


def _icmp(
    family: Family, body: bytes, source: Address, destination: Address, ttl: int
) -> PacketHeader | None:
    kind, code = body[0], body[1]
    if family == 6 and kind in (_NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT):
        # A trace has only twenty bytes: use the solicited-node group instead of the address.
        target = ip_address(body[8:24]) if len(body) >= 24 else destination
        if kind == _NEIGHBOUR_SOLICITATION:
            return PacketHeader(Role.SOLICITATION, "nd", source, target)
        return PacketHeader(Role.ADVERTISEMENT, "nd", destination, target)
    if kind in icmp.ERRORS[family]:
        if of_packet(body[8:]) is None:
            return None
        name = icmp.name(family, kind, code)
        return PacketHeader(Role.ERROR, "icmp", source, destination, ttl=ttl, code=name)
    roles = {icmp.ECHO_REQUEST[family]: Role.REQUEST, icmp.ECHO_REPLY[family]: Role.REPLY}
    if kind not in roles or not body[8:].startswith(MAGIC):
        return None
    return PacketHeader(roles[kind], "icmp", source, destination, ttl=ttl)
