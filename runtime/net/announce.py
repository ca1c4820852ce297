"""Telling the neighbours of a fresh container whose MAC its addresses have now.

They may remember the MAC of a container that is gone, and would send there for half
a minute (RFC 5227 section 3, RFC 4861 section 7.2.6).
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

_EVERYBODY: Final = b"\xff" * 6
_ETHERTYPE_ARP: Final = 0x0806
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET, _IPV4, _REQUEST = 1, 0x0800, 1

_ALL_NODES: Final = "ff02::1"
_ADVERTISEMENT: Final = struct.Struct("!BBHI16sBB6s")
_TYPE, _OVERRIDE, _TARGET_LINK_LAYER = 136, 0x20000000, 2
_NDP_HOP_LIMIT: Final = 255


def announce(interface: str, mac: str, address: IPv4Address | IPv6Address) -> None:
    """Tell everybody on the link of `interface`, which is in the caller's namespace."""
    if isinstance(address, IPv4Address):
        _arp(interface, bytes.fromhex(mac.replace(":", "")), address.packed)
    else:
        _neighbour(interface, bytes.fromhex(mac.replace(":", "")), address)


def _arp(interface: str, mac: bytes, address: bytes) -> None:
    """A request for one's own address, which every neighbour takes note of."""
    head = _EVERYBODY + mac + struct.pack("!H", _ETHERTYPE_ARP)
    body = _ARP.pack(_ETHERNET, _IPV4, 6, 4, _REQUEST, mac, address, bytes(6), address)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
        opened.bind((interface, 0))
        opened.send(head + body)


def _neighbour(interface: str, mac: bytes, address: IPv6Address) -> None:
    """An unsolicited advertisement that overrides; the kernel fills its checksum in."""
    index = socket.if_nametoindex(interface)
    said = _ADVERTISEMENT.pack(_TYPE, 0, 0, _OVERRIDE, address.packed, _TARGET_LINK_LAYER, 1, mac)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as opened:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _NDP_HOP_LIMIT)
        opened.bind((str(address), 0))
        opened.sendto(said, (_ALL_NODES, 0, 0, index))
