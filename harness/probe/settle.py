"""When silence is final, and when a matrix may start.

The world is closed and lives in one kernel: what is sent is delivered or dropped
within microseconds, synchronously or from a per-CPU backlog queue. So nothing
is under way any more when

1. a control packet has gone through the backlog of *every* CPU and come back, so
   whatever was queued before it has been handled, and another one through the queue of
   each parent of macvlan links (`macvlan`), and
2. the packet counters of every watched interface stood still across such a pass:
   what moves on by a hop, and would be queued again behind the control, is counted.

A first hop that is still being resolved is no exception: the request for it has been
delivered to everyone by then. The kernel answers late where it answers for others, and
then it tells: such requests are waited for (`neighbours`).

What *can* make an early packet get lost is waited for before the matrix starts
(`await_ready`): links that do not carry yet, addresses still being checked for
duplicates or for which nothing is taken in yet, ports of a bridge that do not forward.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Self

from harness.probe import macvlan
from harness.probe.neighbours import Proxies, forget_unresolved
from linux import netstate, rtnl
from linux.netlink import Netlink, NetlinkError
from linux.netns import NetNS

CONTROL_BOUND: Final = 5.0
"""Seconds a control packet may take over `lo`. It takes microseconds."""
READY_BOUND: Final = 5.0
"""Seconds that duplicate address detection and bridge ports may take (RFC 4862: 1 to 2)."""
QUIET_BOUND: Final = 10.0
"""Seconds after which a world that is still busy is an error."""

_PAGE: Final = 1 << 16
_ALL_PROTOCOLS: Final = socket.htons(3)
"""ETH_P_ALL (linux/if_ether.h)."""
_GROUPS: Final = 0x1 | 0x10 | 0x100 | 0x400
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE."""

Counters = tuple[NetNS, str, str]
"""What has passed an interface: its namespace, its name, and numbers as proc_net(5) has them."""


class NeverQuiet(Exception):
    """The world does not come to rest; the message names what keeps it busy."""


class ControlLost(Exception):
    """A control packet did not come back: the machine is too busy to tell anything."""


class NeverReady(Exception):
    """An address or a bridge port did not become usable in time; the message names it."""


class Quiet:
    """Tells whether anything is still under way in the watched namespaces.

    `control` is a namespace whose `lo` nobody tampers with. `links` are those of watched
    namespaces, as far as the caller has them (`await_ready`, `World.links`). A world that is
    still busy after `bound` seconds is an error.
    """

    def __init__(
        self,
        control: NetNS,
        watched: Sequence[NetNS],
        *,
        links: macvlan.Links | None = None,
        bound: float = QUIET_BOUND,
    ) -> None:
        known = links or {}
        ways = macvlan.ways({**_links([item for item in watched if item not in known]), **known})
        self._queues = [macvlan.Control(way, bound=CONTROL_BOUND) for way in ways]
        self._counters = [(space, _open_counters(space)) for space in watched]
        self._proxies = Proxies(control, watched)
        self.held = False
        """Whether the last pass found an answer held back, for tens of milliseconds or more."""
        self._control = control.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._control.settimeout(CONTROL_BOUND)
        self._control.bind(("127.0.0.1", 0))
        self._control.connect(self._control.getsockname())
        self._processors = sorted(os.sched_getaffinity(0))
        self._last: list[Counters] | None = None
        self._moved = True
        self._bound = bound
        self._deadline = time.monotonic() + bound

    def reached(self) -> bool:
        """Make one pass; whether nothing has moved since the pass before.

        Raises `NeverQuiet` when the world has been busy all the time, and `ControlLost`.
        """
        if self._last is not None:  # the first pass has nothing to hold what it counts against
            # A request that has been counted waits for its answer after this flush, and an answer
            # that is waited for no more has been counted after the next.
            self._flush()
            self.held = self._proxies.hold()
        self._flush()
        now = self._counted()
        still = now == self._last and not self.held
        if still and self._queues:
            now, still = self._past_queues(now)
        if self._last is not None and not still and time.monotonic() > self._deadline:
            moved = set(now) - set(self._last)
            busy = [f"{name} in {space!r}" for space, name, _ in moved]
            raise NeverQuiet(
                f"the world is still busy after {self._bound} s, at "
                f"{', '.join(sorted(busy)[:4]) or 'neighbours that somebody answers for'}: "
                "something in it sends without end; look with `netmodes lab`"
            )
        self._last, self._moved = now, not still
        return still

    def last(self) -> None:
        """Return once nothing has moved. Raises as `reached`."""
        while not self.reached():
            pass

    def outlast(self, seconds: float, at: NetNS) -> None:
        """Return once nothing has moved for so long: a part of the way is no kernel's.

        Who works there is not looked into, and so waited for: until a packet passes `at`, or the
        time is over. The counters decide. Raises as `reached`.
        """
        with (
            at.socket(socket.AF_PACKET, socket.SOCK_RAW, _ALL_PROTOCOLS) as ear,
            select.epoll() as poll,
        ):
            poll.register(ear, select.EPOLLIN | select.EPOLLET)  # told of each anew, read or not
            until = time.monotonic() + seconds
            while not (self.reached() and time.monotonic() >= until):
                if self._moved:
                    until = time.monotonic() + seconds
                poll.poll(max(until - time.monotonic(), 0.0))

    def _past_queues(self, before: list[Counters]) -> tuple[list[Counters], bool]:
        """What has passed when the queues are empty, and whether it is only what emptied them."""
        moved: Counter[macvlan.Port] = Counter()
        for queue in self._queues:
            _in_time(queue)
            moved.update(queue.passed)
        self._flush()
        now = self._counted()
        return now, _packets(now) == _packets(before) + moved

    def _counted(self) -> list[Counters]:
        """What has passed each interface but `lo`, namespace by namespace."""
        found: list[Counters] = []
        for space, descriptor in self._counters:
            for line in _whole(descriptor).splitlines()[2:]:
                name, _, numbers = line.strip().partition(":")
                if name != "lo":
                    found.append((space, name, numbers))
        return found

    def _flush(self) -> None:
        try:
            for processor in self._processors:
                os.sched_setaffinity(0, {processor})
                self._control.send(b"control")
                _in_time(lambda: self._control.recv(16))
        finally:
            os.sched_setaffinity(0, self._processors)

    def close(self) -> None:
        """Close the control socket and whatever else is open."""
        self._control.close()
        self._proxies.close()
        for queue in self._queues:
            queue.close()
        for _, descriptor in self._counters:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _in_time(call: Callable[[], object]) -> None:
    """Send or receive a control."""
    try:
        call()
    except TimeoutError as error:
        raise ControlLost(
            f"a control packet took more than {CONTROL_BOUND} s; "
            "this machine is too busy for a verdict, run again with fewer workers"
        ) from error


def _packets(counted: list[Counters]) -> Counter[macvlan.Port]:
    """How many packets each interface has sent and received (proc_net(5), `dev`)."""
    found: Counter[macvlan.Port] = Counter()
    for space, name, numbers in counted:
        fields = numbers.split()
        found[space, name] = int(fields[1]) + int(fields[9])
    return found


def _links(spaces: Sequence[NetNS]) -> macvlan.Links:
    found = {}
    for space in spaces:
        with Netlink(space) as netlink:
            found[space] = [link for link in netstate.links(netlink) if link.up]
    return found


def _open_counters(space: NetNS) -> int:
    """The file that tells a namespace's counters: it stays with the namespace it was opened in."""
    with space.entered():
        return os.open("/proc/thread-self/net/dev", os.O_RDONLY | os.O_CLOEXEC)


def _whole(descriptor: int) -> str:
    """All of a file of proc(5), read anew from its beginning."""
    read = b""
    while more := os.pread(descriptor, _PAGE, len(read)):
        read += more
    return read.decode("ascii")


def await_ready(
    spaces: Sequence[NetNS], *, afresh: bool = False, bound: float = READY_BOUND
) -> macvlan.Links:
    """Wait until links carry, addresses can be used and found, and ports of a bridge forward.

    Looks at addresses of links that have a carrier and a global IPv6 address: the
    others take no part in IPv6. Sleeps on the kernel's notifications. Returns the links
    that are up. With `afresh` neighbours that are being looked for are forgotten, and asked
    for once more when needed. Raises `NeverReady` after `bound` seconds.
    """
    deadline = time.monotonic() + bound
    found: dict[NetNS, list[netstate.Link]] = {}
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


def _unready(space: NetNS, found: dict[NetNS, list[netstate.Link]], *, afresh: bool) -> str:
    with Netlink(space) as netlink:
        if afresh:
            forget_unresolved(netlink)
        addresses = netstate.addresses(netlink)
        taken = netstate.taken(netlink)
        by_index = {link.ifindex: link for link in netstate.links(netlink) if link.up}
        found[space] = list(by_index.values())
        late = [link.name for link in by_index.values() if link.carrier and not link.running]
        for name in late:
            with contextlib.suppress(NetlinkError):  # it has gone meanwhile
                netstate.link(netlink, name)  # makes the kernel catch up, see linux.carrier
    if late:
        return f"link {late[0]} has a carrier and does not carry yet"
    for link in by_index.values():
        port = link.carrier and link.master in by_index and link.port_state is not None
        if port and link.port_state != rtnl.BR_STATE_FORWARDING:
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
