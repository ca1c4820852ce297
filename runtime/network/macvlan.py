"""Driver macvlan: a link of the container's own on an interface of the host.

The container is a station of the network that the parent is on, with a MAC and an
address of its own there; the host takes no part in what it sends, and the two do not
reach each other over it (kernel: macvlan in bridge mode).
"""

from __future__ import annotations

import errno
import time
from typing import Final

from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, NetlinkError, u32
from linux.netns import NetNS
from runtime.errors import NotFoundError
from runtime.records import EndpointRecord, NetworkConfig

_MODE_BRIDGE: Final = 4
_BOUND, _AGAIN = 2.0, 0.005
"""Seconds for the kernel to let go of a MAC: it tells nobody when it has."""


def parent(asked: str, name: str) -> rtnetlink_dump.Link:
    """The parent interface; `NotFoundError` when the host has none of that name."""
    with Netlink() as host:
        try:
            return rtnetlink_dump.link(host, name)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
            raise NotFoundError(
                asked, f"there is no interface {name} on this host", remedy="ip link"
            ) from None


def add(
    host: Netlink, netns: NetNS, inside: Netlink, network: NetworkConfig, endpoint: EndpointRecord
) -> None:
    """Make the container's link, inside, still down."""
    index = parent(f"join network {network.name!r}", network.parent).ifindex
    link = rtnetlink.add_link(
        "macvlan",
        endpoint.interface,
        parent=index,
        mac=endpoint.mac,
        netns=netns.fd,
        data=u32(rtnetlink.IFLA_MACVLAN_MODE, _MODE_BRIDGE),
    )
    host.send([link])
    index = rtnetlink_dump.link(inside, endpoint.interface).ifindex
    inside.send([rtnetlink.set_link(index, mtu=network.mtu)])


def bring_up(inside: Netlink, index: int) -> None:
    """Bring the container's link up.

    The kernel refuses that while another on the same parent has its MAC: the one that was the
    container's before it was started again, for example, whose namespace is taken apart behind the
    scenes. That is waited for.
    """
    deadline = time.monotonic() + _BOUND
    while True:
        try:
            inside.send([rtnetlink.set_link(index, up=True)])
        except NetlinkError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN)
        else:
            return
