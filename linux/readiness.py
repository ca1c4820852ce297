"""Wait until links carry packets and addresses can receive them.

A veth end may be brought up before its peer. Then a kernel worker (link watch) activates its queue
after the peer is up, on a busy machine up to a second later. Until then the veth end drops all
packets. Since Linux 6.8 a query for that one link makes the kernel activate the queue at once; a
dump of all links does not.

An added IPv6 address gets its route in the table `local` from another worker (addrconf_dad_work in
net/ipv6/addrconf.c), even without duplicate address detection. That takes tens of milliseconds on a
busy machine. Until then bind(2) and sending work, but packets to the address are dropped
(Ip6InAddrErrors). No query makes the kernel add the route earlier.

pyroute2 is not used because `mydocker run` waits here, in less time than the import of pyroute2
takes.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Final

from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, NetlinkError
from linux.netns import NetNS
from linux.rtnetlink import Address
from linux.rtnetlink_dump import Links

READY_BOUND: Final = 5.0
"""Bound on duplicate address detection and bridge ports, in seconds (RFC 4862: 1 to 2)."""

_GROUPS: Final = 0x1 | 0x10 | 0x100 | 0x400
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE."""


class NeverReady(Exception):
    """An address or a bridge port did not become usable in time; the message names it."""


def await_ready(
    spaces: Sequence[NetNS], *, afresh: bool = False, bound: float = READY_BOUND
) -> Links:
    """Wait until links carry packets, addresses are usable, and bridge ports forward.

    The function checks the IPv6 addresses of links that have a carrier and a global IPv6 address;
    other links do not use IPv6. It sleeps until the kernel sends a notification, and returns the
    links that are up. With `afresh` unresolved neighbour entries are removed, so that their
    resolution starts again. Raises `NeverReady` after `bound` seconds.
    """
    deadline = time.monotonic() + bound
    found: dict[NetNS, list[rtnetlink_dump.Link]] = {}
    for space in spaces:
        reason = _unready(space, found, afresh=afresh)
        if not reason:
            continue
        with space.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as monitor:
            monitor.bind((0, _GROUPS))
            while reason := _unready(space, found, afresh=afresh):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise NeverReady(f"{reason} after {bound} s, in {space!r}")
                if select.select([monitor], [], [], left)[0]:
                    with contextlib.suppress(OSError):  # ENOBUFS: some notifications were lost
                        monitor.recv(1 << 16)
    return found


def _unready(space: NetNS, found: dict[NetNS, list[rtnetlink_dump.Link]], *, afresh: bool) -> str:
    with Netlink(space) as netlink:
        if afresh:
            forget_unresolved(netlink)
        addresses = rtnetlink_dump.addresses(netlink)
        local = rtnetlink_dump.local_addresses(netlink)
        by_index = {link.ifindex: link for link in rtnetlink_dump.links(netlink) if link.up}
        found[space] = list(by_index.values())
        late = [link.name for link in by_index.values() if link.carrier and not link.running]
        for name in late:
            with contextlib.suppress(NetlinkError):  # removed meanwhile
                rtnetlink_dump.link(netlink, name)  # makes the kernel activate the queue
    if late:
        return f"link {late[0]} has a carrier but does not forward frames yet"
    for link in by_index.values():
        port = link.carrier and link.master in by_index and link.port_state is not None
        if port and link.port_state != rtnetlink.BR_STATE_FORWARDING:
            return f"bridge port {link.name} does not forward yet (state {link.port_state})"
    global_links = {
        item.ifindex
        for item in addresses
        if item.address.version == 6 and not item.address.is_link_local
    }
    for item in addresses:
        address, of = item.address, by_index.get(item.ifindex)
        if of is None or not of.carrier or of.ifindex not in global_links or item.failed:
            continue
        if item.tentative:
            return f"address {address} of {of.name} is still tentative"
        # Then the link has also joined the solicited-node group of the address. A solicitation that
        # is sent before that is lost, and repeated only a second later.
        if address.version == 6 and address.ip not in local:
            return f"address {address} of {of.name} accepts no packets yet"
    return ""


def forget_unresolved(netlink: Netlink) -> None:
    """Remove the unresolved neighbour entries of a namespace, and the packets queued for them."""
    forgotten = [
        rtnetlink.del_neighbour(entry.ifindex, entry.address)
        for entry in unresolved_neighbours(netlink)
    ]
    netlink.send(forgotten, missing_ok=True)


def unresolved_neighbours(netlink: Netlink) -> list[rtnetlink_dump.Neighbour]:
    """Return the neighbour entries whose resolution is in progress (NUD_INCOMPLETE)."""
    return list(rtnetlink_dump.neighbours(netlink, state=rtnetlink.NUD_INCOMPLETE))


BOUND: Final = 5.0
"""Time after which a wait fails, in seconds. Success takes microseconds."""


def await_carrier(netlink: Netlink, names: Iterable[str], *, bound: float = BOUND) -> None:
    """Wait until every link in `names` has a carrier; `TimeoutError` names a link without one."""
    deadline = time.monotonic() + bound
    for name in names:
        while not rtnetlink_dump.link(netlink, name).running:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"link {name} has no carrier after {bound} s; check that its peer is up"
                )
            os.sched_yield()


def await_local(netlink: Netlink, addresses: Iterable[Address], *, bound: float = BOUND) -> None:
    """Wait until each address can receive packets; `TimeoutError` names one that cannot.

    IPv4 addresses can receive packets at once and are not checked.
    """
    deadline = time.monotonic() + bound
    for address in addresses:
        while address.version == 6 and not rtnetlink_dump.route_to(netlink, address).local:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{address} accepts no packets after {bound} s; check that it is assigned"
                )
            os.sched_yield()
