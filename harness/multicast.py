"""Addresses that several hear: their MACs, and who belongs to them."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from harness.place import Place
from harness.topology import Address
from linux.rtnl import mac_text

EVERYBODY_MAC: Final = "ff:ff:ff:ff:ff:ff"
ALL_NODES: Final = IPv6Address("ff02::1")
GROUPS: Final[dict[int, tuple[Address, ...]]] = {
    4: tuple(map(IPv4Address, ("255.255.255.255", "224.0.0.1", "224.0.0.251", "239.255.7.7"))),
    6: tuple(map(IPv6Address, ("ff02::1", "ff02::fb", "ff05::7:7", "ff0e::7:7"))),
}
"""Broadcast, and groups of the link, the site and the world (RFC 2365, RFC 4291)."""

_IP_ADD_MEMBERSHIP: Final = 35


def mac_of(group: Address) -> str:
    """The MAC under which a group is sent to (RFC 1112, RFC 2464); everybody's for a broadcast."""
    if group.version == 6:
        return mac_text(b"\x33\x33" + group.packed[-4:])
    if group.is_multicast:
        low = int(group) & 0x7FFFFF
        return mac_text(b"\x01\x00\x5e" + low.to_bytes(3, "big"))
    return EVERYBODY_MAC


def solicited_node(address: Address) -> IPv6Address:
    """The group of everybody whose address ends like this one (RFC 4291 2.7.1)."""
    return IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(address) & 0xFFFFFF)


@contextlib.contextmanager
def member(place: Place, group: Address, link: str = "eth0") -> Iterator[None]:
    """Have a place belong to a group on one link; nothing for what is no group."""
    if not group.is_multicast:
        yield
        return
    index = place.links()[link].ifindex
    family = socket.AF_INET if isinstance(group, IPv4Address) else socket.AF_INET6
    with place.socket(family, socket.SOCK_DGRAM) as opened:
        if family == socket.AF_INET:
            request = struct.pack("=4s4si", group.packed, bytes(4), index)
            opened.setsockopt(socket.IPPROTO_IP, _IP_ADD_MEMBERSHIP, request)
        else:
            request = struct.pack("=16si", group.packed, index)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        yield
