"""Telling the neighbours of a fresh container whose MAC its addresses have now.

They may remember the MAC of a container that is gone, and would send there for half
a minute (RFC 5227 section 3, RFC 4861 section 7.2.6). The frames are made here, down
to the checksum: the kernel has no IPv6 route to a group before it has noticed that
the link is up, a while later.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Self

_EVERYBODY: Final = b"\xff" * 6
_ETHERTYPE_ARP: Final = 0x0806
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET, _IPV4, _REQUEST = 1, 0x0800, 1

_ALL_NODES: Final = IPv6Address("ff02::1")
_ALL_NODES_MAC: Final = b"\x33\x33" + _ALL_NODES.packed[-4:]
_ETHERTYPE_IPV6: Final = 0x86DD
_IPV6: Final = struct.Struct("!IHBB16s16s")
_ADVERTISEMENT: Final = struct.Struct("!BBHI16sBB6s")
_VERSION, _ICMPV6, _HOP_LIMIT = 6 << 28, 58, 255
_TYPE, _OVERRIDE, _TARGET_LINK_LAYER = 136, 0x20000000, 2


class Voice:
    """What announcements are made with in one network namespace; close it, or use `with`.

    Closing the last descriptor of a packet socket waits until no processor can be
    looking at it any more (packet_release in net/packet/af_packet.c): ten milliseconds
    and more. Who has something better to do lets another process have the last one.
    """

    def __init__(self) -> None:
        """Speak in the network namespace that the calling thread is in now."""
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)

    def fileno(self) -> int:
        """The descriptor, to be passed on."""
        return self._socket.fileno()

    def announce(self, interface: str, mac: str, address: IPv4Address | IPv6Address) -> None:
        """Tell everybody on the link of `interface`."""
        own = bytes.fromhex(mac.replace(":", ""))
        frame = _arp(own, address) if isinstance(address, IPv4Address) else _neighbour(own, address)
        self._socket.sendto(frame, (interface, 0))

    def close(self) -> None:
        """Give this descriptor back; a second call does nothing."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _arp(mac: bytes, address: IPv4Address) -> bytes:
    """A request for one's own address, which every neighbour takes note of."""
    head = _EVERYBODY + mac + _ETHERTYPE_ARP.to_bytes(2, "big")
    own = address.packed
    return head + _ARP.pack(_ETHERNET, _IPV4, 6, 4, _REQUEST, mac, own, bytes(6), own)


def _neighbour(mac: bytes, address: IPv6Address) -> bytes:
    """An unsolicited advertisement that overrides."""

    def said(checksum: int) -> bytes:
        target = address.packed, _TARGET_LINK_LAYER, 1, mac
        return _ADVERTISEMENT.pack(_TYPE, 0, checksum, _OVERRIDE, *target)

    size, ends = _ADVERTISEMENT.size, (address.packed, _ALL_NODES.packed)
    checksum = _checksum(b"".join(ends) + struct.pack("!II", size, _ICMPV6) + said(0))
    head = _ALL_NODES_MAC + mac + _ETHERTYPE_IPV6.to_bytes(2, "big")
    return head + _IPV6.pack(_VERSION, size, _ICMPV6, _HOP_LIMIT, *ends) + said(checksum)


def _checksum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
