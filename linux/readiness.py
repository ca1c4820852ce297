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

import os
import time
from collections.abc import Iterable
from typing import Final

from linux import rtnetlink_dump
from linux.netlink import Netlink
from linux.rtnetlink import Address

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
        while address.version == 6 and not rtnetlink_dump.way(netlink, address).local:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{address} takes no packets after {bound} s: is it there?")
            os.sched_yield()
