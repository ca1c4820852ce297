"""Waiting until a link really carries packets, and an address really takes them.

A veth end that was brought up before its peer gets its queue from a worker of
the kernel (link watch) some time after the peer is up, up to a second on a busy
machine, and drops everything until then. Asking for that one link makes the
kernel catch up at once, since Linux 6.8; a dump of all links does not.

An IPv6 address that was added gets its route of the table `local` from another worker
(addrconf_dad_work in net/ipv6/addrconf.c), even where nobody looks for duplicates. Until
then, tens of milliseconds on a busy machine, one can bind to it and send from it, and what
comes in for it is thrown away (Ip6InAddrErrors). Nothing makes the kernel catch up.
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
"""Seconds that duplicate address detection and bridge ports may take (RFC 4862: 1 to 2)."""

_GROUPS: Final = 0x1 | 0x10 | 0x100 | 0x400
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE."""


class NeverReady(Exception):
    """An address or a bridge port did not become usable in time; the message names it."""


def await_ready(
    spaces: Sequence[NetNS], *, afresh: bool = False, bound: float = READY_BOUND
) -> Links:
    """Wait until links carry, addresses can be used and found, and ports of a bridge forward.

    Looks at addresses of links that have a carrier and a global IPv6 address: the
    others take no part in IPv6. Sleeps on the kernel's notifications. Returns the links
    that are up. With `afresh` neighbours that are being looked for are forgotten, and asked
    for once more when needed. Raises `NeverReady` after `bound` seconds.
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
                    with contextlib.suppress(OSError):  # so much has changed that some is left out
                        monitor.recv(1 << 16)
    return found


def _unready(space: NetNS, found: dict[NetNS, list[rtnetlink_dump.Link]], *, afresh: bool) -> str:
    with Netlink(space) as netlink:
        if afresh:
            forget_unresolved(netlink)
        addresses = rtnetlink_dump.addresses(netlink)
        taken = rtnetlink_dump.local_addresses(netlink)
        by_index = {link.ifindex: link for link in rtnetlink_dump.links(netlink) if link.up}
        found[space] = list(by_index.values())
        late = [link.name for link in by_index.values() if link.carrier and not link.running]
        for name in late:
            with contextlib.suppress(NetlinkError):  # it has gone meanwhile
                rtnetlink_dump.link(netlink, name)  # makes the kernel catch up, see linux.readiness
    if late:
        return f"link {late[0]} has a carrier and does not carry yet"
    for link in by_index.values():
        port = link.carrier and link.master in by_index and link.port_state is not None
        if port and link.port_state != rtnetlink.BR_STATE_FORWARDING:
            return f"bridge port {link.name} does not forward yet (state {link.port_state})"
    routed = {
        item.ifindex
        for item in addresses
        if item.address.version == 6 and not item.address.is_link_local
    }
    for item in addresses:
        address, of = item.address, by_index.get(item.ifindex)
        if of is None or not of.carrier or of.ifindex not in routed or item.failed:
            continue
        if item.tentative:
            return f"address {address} of {of.name} is still tentative"
        # By now it is also in the group at which its neighbours ask for it: who asks before
        # asks again after a second.
        if address.version == 6 and address.ip not in taken:
            return f"address {address} of {of.name} takes no packets yet"
    return ""


def forget_unresolved(netlink: Netlink) -> None:
    """Forget every neighbour that its namespace looks for; what waits for it is lost."""
    forgotten = [
        rtnetlink.del_neighbour(entry.ifindex, entry.address)
        for entry in unresolved_neighbours(netlink)
    ]
    netlink.send(forgotten, missing_ok=True)


def unresolved_neighbours(netlink: Netlink) -> list[rtnetlink_dump.Neighbour]:
    return list(rtnetlink_dump.neighbours(netlink, state=rtnetlink.NUD_INCOMPLETE))


BOUND: Final = 5.0
"""Seconds after which what is waited for will not come. It takes microseconds."""


def await_carrier(netlink: Netlink, names: Iterable[str], *, bound: float = BOUND) -> None:
    """Wait until every link in `names` has its carrier; `TimeoutError` names the one without."""
    deadline = time.monotonic() + bound
    for name in names:
        while not rtnetlink_dump.link(netlink, name).running:
            if time.monotonic() > deadline:
                raise TimeoutError(f"link {name} has no carrier after {bound} s: is its peer up?")
            os.sched_yield()


def await_local(netlink: Netlink, addresses: Iterable[Address], *, bound: float = BOUND) -> None:
    """Wait until packets for each of these are taken in; `TimeoutError` names the one without.

    Those of IPv4 are so at once, and not asked about.
    """
    deadline = time.monotonic() + bound
    for address in addresses:
        while address.version == 6 and not rtnetlink_dump.route_to(netlink, address).local:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{address} takes no packets after {bound} s: is it there?")
            os.sched_yield()
