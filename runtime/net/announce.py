"""Telling the neighbours of a fresh container whose MAC its addresses have now.

They may remember the MAC of a container that is gone, and would send there for half
a minute (RFC 5227 section 3, RFC 4861 section 7.2.6). The kernel tells it over IPv4 when
a link is given a MAC, if only the one it has, and `arp_notify` is set; over IPv6 the
advertisement is made here. A packet socket could say both, but to close one takes the
kernel ten milliseconds and more (packet_release in net/packet/af_packet.c).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv6Address
from typing import Final

from linux import rtnl
from linux.netlink import Netlink
from runtime.net import sysctl
from runtime.records import Address

_ALL_NODES: Final = "ff02::1"
_ADVERTISEMENT: Final = struct.Struct("!BBHI16sBB6s")
_HOP_LIMIT: Final = 255
"""What an advertisement must have: so it has passed no router (RFC 4861 section 7.1.2)."""
_TYPE, _OVERRIDE, _TARGET_LINK_LAYER = 136, 0x20000000, 2


def announce(inside: Netlink, index: int, name: str, mac: str, own: Sequence[Address]) -> None:
    """Tell everybody on the link of an interface that these addresses are its `own`.

    To be called in its network namespace, once the link carries packets.
    """
    for address in own:
        if isinstance(address, IPv6Address):
            _advertise(address, index, mac)
        else:
            _announce_ipv4(inside, index, name, mac)


def _announce_ipv4(inside: Netlink, index: int, name: str, mac: str) -> None:
    """A request for one's own address, which every neighbour takes note of."""
    notify = f"net.ipv4.conf.{name}.arp_notify"
    before = sysctl.read(notify)
    sysctl.write(notify, "1")
    inside.send([rtnl.set_link(index, mac=mac)])
    sysctl.write(notify, before)


def _advertise(address: IPv6Address, index: int, mac: str) -> None:
    """An unsolicited advertisement that overrides; the kernel adds the checksum."""
    target = address.packed, _TARGET_LINK_LAYER, 1, bytes.fromhex(mac.replace(":", ""))
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as opened:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOP_LIMIT)
        opened.bind((str(address), 0))
        said = _ADVERTISEMENT.pack(_TYPE, 0, 0, _OVERRIDE, *target)
        opened.sendto(said, (_ALL_NODES, 0, 0, index))
