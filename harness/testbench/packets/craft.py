"""Templates that match packets, and packets to send, made by the same functions.

The functions cover IPv4 and IPv6. A template does not compare unset fields; scapy fills them in
before sending. ICMP errors have the names of `harness.probe.icmp`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet

from harness.model.plan import Family, Protocol
from harness.model.topology import Address
from harness.probe import icmp
from harness.probe.remote import by_kernel
from harness.probe.sockets import ADDRESS_FAMILIES
from harness.testbench.netns_view import NetnsView
from linux.rtnetlink import mac_text

_ERRORS6: Final = {
    1: ICMPv6DestUnreach,
    2: ICMPv6PacketTooBig,
    3: ICMPv6TimeExceeded,
    4: ICMPv6ParamProblem,
}

End = Address | IPv4Network | IPv6Network | None
"""An address; a template also accepts a network (any of its addresses) or None (any address)."""


def ip(family: Family, *, src: End = None, dst: End = None, ttl: int | None = None) -> Packet:
    """Return an IPv4 or IPv6 header; for IPv6 `ttl` is the hop limit."""
    fields: dict[str, Any] = {
        name: end if isinstance(end, IPv4Network | IPv6Network) else str(end)
        for name, end in (("src", src), ("dst", dst))
        if end is not None
    }
    if ttl is not None:
        fields["ttl" if family == 4 else "hlim"] = ttl
    return IP(**fields) if family == 4 else IPv6(**fields)


def fragment(family: Family, *, src: End = None, dst: End = None) -> Packet:
    """Return a template that matches every fragment of a datagram except the last."""
    head = ip(family, src=src, dst=dst)
    if family == 6:
        return head / IPv6ExtHdrFragment(m=1)
    head.flags = "MF"
    return head


def request(family: Family, protocol: Protocol, *, sport: int, dport: int) -> Packet:
    """Return the first packet of an exchange: an echo request, a datagram or a SYN.

    For an echo request `sport` is the identifier.
    """
    if protocol is Protocol.UDP:
        return UDP(sport=sport, dport=dport)
    if protocol is Protocol.TCP:
        return TCP(sport=sport, dport=dport, flags="S")
    return ICMP(type=8, id=sport) if family == 4 else ICMPv6EchoRequest(id=sport)


def error(family: Family, name: str, *, mtu: int | None = None) -> Packet:
    """Return the header of an ICMP error such as `ttl-exceeded`; append the quoted packet to it."""
    kind, code = icmp.numbers(family, name)
    fields: dict[str, Any] = {"code": code}
    if mtu is not None:
        fields["nexthopmtu" if family == 4 else "mtu"] = mtu
    return ICMP(type=kind, **fields) if family == 4 else _ERRORS6[kind](**fields)


def send_packet(view: NetnsView, packet: Packet) -> None:
    """Send an IP packet by the routes of a namespace; raise `OSError` if none leads to its target.

    Raises `UserspaceStack` for an IPv6 packet if the namespace has a user-space network stack:
    such a stack accepts no raw IPv6 packet.
    """
    family: Family = 4 if isinstance(packet, IP) else 6
    if family == 6:
        with view.open() as space:
            by_kernel(space)
    with view.socket(ADDRESS_FAMILIES[family], socket.SOCK_RAW, socket.IPPROTO_RAW) as opened:
        opened.sendto(bytes(packet), (str(packet.dst), 0))


def send_frame(view: NetnsView, *frames: Packet, link: str = "eth0") -> None:
    """Send frames unchanged through one link of a namespace."""
    with view.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
        opened.bind((link, 0))
        for frame in frames:
            opened.send(bytes(frame))


EVERYBODY_MAC: Final = "ff:ff:ff:ff:ff:ff"
ALL_NODES: Final = IPv6Address("ff02::1")
GROUPS: Final[dict[int, tuple[Address, ...]]] = {
    4: tuple(map(IPv4Address, ("255.255.255.255", "224.0.0.1", "224.0.0.251", "239.255.7.7"))),
    6: tuple(map(IPv6Address, ("ff02::1", "ff02::fb", "ff05::7:7", "ff0e::7:7"))),
}
"""Broadcast, and groups of the link, the site and the world (RFC 2365, RFC 4291)."""

_IP_ADD_MEMBERSHIP: Final = 35


def mac_of(group: Address) -> str:
    """Return the MAC of a multicast group (RFC 1112, RFC 2464), or the broadcast MAC."""
    if group.version == 6:
        return mac_text(b"\x33\x33" + group.packed[-4:])
    if group.is_multicast:
        low = int(group) & 0x7FFFFF
        return mac_text(b"\x01\x00\x5e" + low.to_bytes(3, "big"))
    return EVERYBODY_MAC


def solicited_node(address: Address) -> IPv6Address:
    """Return the solicited-node multicast address of an IPv6 address (RFC 4291 2.7.1)."""
    return IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(address) & 0xFFFFFF)


@contextlib.contextmanager
def member(view: NetnsView, group: Address, link: str = "eth0") -> Iterator[None]:
    """Join a multicast group on one link while the body runs; for broadcasts do nothing."""
    if not group.is_multicast:
        yield
        return
    index = view.links()[link].ifindex
    with view.socket(ADDRESS_FAMILIES[group.version], socket.SOCK_DGRAM) as opened:
        if group.version == 4:
            request = struct.pack("=4s4si", group.packed, bytes(4), index)
            opened.setsockopt(socket.IPPROTO_IP, _IP_ADD_MEMBERSHIP, request)
        else:
            request = struct.pack("=16si", group.packed, index)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        yield
