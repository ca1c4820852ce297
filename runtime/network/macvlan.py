"""Driver macvlan: a container's link on an interface of the host.

The container is a machine on the parent's network, with its own MAC and address there. The host
takes no part in its traffic, and the two cannot reach each other over the parent (kernel: macvlan
in bridge mode).
"""

from __future__ import annotations

import errno
import time
from typing import Final

from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, NetlinkError, u32
from linux.netns import NetNS
from runtime.errors import NotFoundError
from runtime.network.bridge import find_link
from runtime.records import EndpointRecord, NetworkConfig

_MODE_BRIDGE: Final = 4
_BOUND, _AGAIN = 2.0, 0.005
"""Bound on the kernel's release of a MAC, in seconds: the kernel does not notify of it."""


def parent(asked: str, name: str) -> rtnetlink_dump.Link:
    """Return the parent interface; `NotFoundError` if the host has no interface of that name."""
    with Netlink() as host:
        found = find_link(host, name)
    if found is None:
        raise NotFoundError(asked, f"no such interface on this host: {name}", remedy="ip link")
    return found


def add(
    host: Netlink, netns: NetNS, inside: Netlink, network: NetworkConfig, endpoint: EndpointRecord
) -> None:
    """Create the container's link, inside its netns and still down."""
    index = parent(f"connect to network {network.name!r}", network.parent).ifindex
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

    The kernel refuses while another link on the same parent has its MAC. That may be the link of
    the same container before its restart, whose netns the kernel destroys asynchronously. The
    function waits until that link is gone.
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
