"""Quiescence: decides when a missing reply is final, because no packet is in flight any more.

The world is closed and lives in one kernel. Each packet is delivered or dropped within
microseconds, either synchronously or from a per-CPU backlog queue. No packet is in flight any more
when both of these are true:

1. A control packet has gone through the backlog of *every* CPU and come back. A broadcast has gone
   through the queue of each parent of macvlan links (`Control`).
2. No packet counter of a watched interface has changed between two such rounds. A packet that
   moves on by a hop is queued again behind the control packet, but changes a counter.

Every ARP or NDP request has been delivered by then. For proxied addresses the kernel delays its
replies to such requests. It lists the delayed requests, so the harness waits for these replies
(`Proxies`).
"""

from __future__ import annotations

import glob
import os
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple, Self

from harness.probe.sockets import has_own_stack
from linux import rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.readiness import unresolved_neighbours
from linux.rtnetlink import Address
from linux.rtnetlink_dump import Link, Links

CONTROL_BOUND: Final = 5.0
"""Time in seconds that a control packet has to come back over `lo`. It needs microseconds."""
QUIET_BOUND: Final = 10.0
"""Time in seconds after which packets that are still in flight are an error."""

_PAGE: Final = 1 << 16
_ALL_PROTOCOLS: Final = socket.htons(3)
"""ETH_P_ALL (linux/if_ether.h)."""

Counters = tuple[NetNS, str, str]
"""Counters of an interface: its netns, its name, and its numbers as in proc_net(5)."""


class NeverQuiet(Exception):
    """Packets stay in flight in the world; the message names the busy interfaces."""


class ControlLost(Exception):
    """A control packet did not come back in time: the machine is too busy for a verdict."""


class Quiet:
    """Detector of packets that are still in flight in the watched namespaces.

    `control` is a namespace whose `lo` no test changes. `links` are links of watched namespaces
    that the caller already knows (`await_ready`, `World.links`). If packets are still in flight
    after `bound` seconds, this is an error.
    """

    def __init__(
        self,
        control: NetNS,
        watched: Sequence[NetNS],
        *,
        links: Links | None = None,
        bound: float = QUIET_BOUND,
    ) -> None:
        known = links or {}
        paths = macvlan_paths({**_links([item for item in watched if item not in known]), **known})
        self._queues = [Control(path, bound=CONTROL_BOUND) for path in paths]
        self._counters = [(space, _open_counters(space)) for space in watched]
        self._proxies = Proxies(control, watched)
        self.delayed = False
        """True if the last pass found a delayed neighbour reply (tens of milliseconds or more)."""
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
        """Make one pass; return whether all counters are as in the previous pass.

        Raises `ControlLost`, and `NeverQuiet` if packets are still in flight after the bound.
        """
        if self._last is not None:  # the first pass has no counters to compare with
            # After this flush, a counted neighbour request is in the state "waiting for a reply".
            # After the next flush, a reply that ended such a wait has been counted.
            self._flush()
            self.delayed = self._proxies.hold()
        self._flush()
        now = self._counted()
        still = now == self._last and not self.delayed
        if still and self._queues:
            now, still = self._past_queues(now)
        if self._last is not None and not still and time.monotonic() > self._deadline:
            moved = set(now) - set(self._last)
            busy = [f"{name} in {space!r}" for space, name, _ in moved]
            raise NeverQuiet(
                f"the world is still busy after {self._bound} s, at "
                f"{', '.join(sorted(busy)[:4]) or 'neighbours with a proxied address'}: "
                "some process keeps sending; find it with `netmodes lab`"
            )
        self._last, self._moved = now, not still
        return still

    def wait(self) -> None:
        """Wait until no packet is in flight; raise the errors of `reached`."""
        while not self.reached():
            pass

    def wait_for_user_space(self, seconds: float, at: NetNS) -> None:
        """Wait until all counters have been constant for `seconds`.

        This is for a path that leads through a user-space process, which cannot be inspected. The
        method compares the counters whenever a packet passes `at`, and at the end of the time.
        Raises the errors of `reached`.
        """
        with (
            at.socket(socket.AF_PACKET, socket.SOCK_RAW, _ALL_PROTOCOLS) as listener,
            select.epoll() as poll,
        ):
            poll.register(
                listener, select.EPOLLIN | select.EPOLLET
            )  # an event per packet, read or not
            until = time.monotonic() + seconds
            while not (self.reached() and time.monotonic() >= until):
                if self._moved:
                    until = time.monotonic() + seconds
                poll.poll(max(until - time.monotonic(), 0.0))

    def _past_queues(self, before: list[Counters]) -> tuple[list[Counters], bool]:
        """Send a broadcast through the queues of all macvlan parents.

        Returns the counters, and whether they counted only these broadcasts.
        """
        moved: Counter[Port] = Counter()
        for queue in self._queues:
            _in_time(queue)
            moved.update(queue.passed)
        self._flush()
        now = self._counted()
        return now, _packets(now) == _packets(before) + moved

    def _counted(self) -> list[Counters]:
        """Return the counters of each interface except `lo`, ordered by namespace."""
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
        """Close all sockets and files."""
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
    """Call a function that waits for a control packet; raise `ControlLost` if it times out."""
    try:
        call()
    except TimeoutError as error:
        raise ControlLost(
            f"a control packet took more than {CONTROL_BOUND} s; "
            "this machine is too busy for a verdict; run with fewer workers"
        ) from error


def _packets(counted: list[Counters]) -> Counter[Port]:
    """Return the number of packets that each interface has sent and received.

    The counters have the format of `dev` in proc_net(5).
    """
    found: Counter[Port] = Counter()
    for space, name, numbers in counted:
        fields = numbers.split()
        found[space, name] = int(fields[1]) + int(fields[9])
    return found


def _links(spaces: Sequence[NetNS]) -> Links:
    found = {}
    for space in spaces:
        with Netlink(space) as netlink:
            found[space] = [link for link in rtnetlink_dump.links(netlink) if link.up]
    return found


def _open_counters(space: NetNS) -> int:
    """Open the file with the counters of a netns.

    The file shows this netns also when it is read from another one.
    """
    with space.entered():
        return os.open("/proc/thread-self/net/dev", os.O_RDONLY | os.O_CLOEXEC)


def _whole(descriptor: int) -> str:
    """Return the whole contents of an open file of proc(5)."""
    read = b""
    while more := os.pread(descriptor, _PAGE, len(read)):
        read += more
    return read.decode("ascii")


PATIENCE: Final = 0.3
"""Minimum time of a packet in a user-space stack, which has no counters, in seconds."""

_SLOWER: Final = 3
"""Minimum wait as a multiple of the agent's slowest reply in the same matrix."""


def agent_patience(spaces: Iterable[NetNS]) -> float:
    """Return how long to wait for replies of user-space network stacks, in seconds.

    The result is 0 if none of the namespaces has such a stack.
    """
    agents = [space.agent for space in spaces if has_own_stack(space)]
    return max(PATIENCE, *(_SLOWER * agent.slowest for agent in agents)) if agents else 0.0


def await_silence(
    seconds: float, unanswered: Callable[[], bool], pump: Callable[[float], bool]
) -> None:
    """Wait until no reply has arrived for `seconds`, for network stacks that cannot be inspected.

    `unanswered` returns whether a reply is still missing. `pump` receives for up to the given
    seconds and returns whether anything has arrived. Raises `NeverQuiet` if replies keep arriving.
    """
    bound = time.monotonic() + QUIET_BOUND + seconds
    deadline = time.monotonic() + seconds
    while unanswered() and (left := deadline - time.monotonic()) > 0:
        if pump(left):
            deadline = time.monotonic() + seconds
        if deadline > bound:
            raise NeverQuiet(
                f"replies still arrive {QUIET_BOUND:g} s after the kernel is idle: "
                "this machine is too busy for a verdict; run with fewer workers"
            )


class Proxies:
    """Detector of neighbour replies that the kernel delays: those of proxy ARP and proxy NDP.

    `control` is any namespace. `spaces` are the namespaces that may wait for such a reply or send
    it. The kernel keeps one queue for all namespaces of the machine. A queued request therefore
    counts only if one of `spaces` waits for an address for which one of them is the proxy. Such a
    wait ends after at most three seconds.
    """

    def __init__(self, control: NetNS, spaces: Sequence[NetNS]) -> None:
        self._spaces = spaces
        self._netlink = Netlink(control)
        self._answered: set[Address] | None = None
        self._answers_any = False

    def hold(self) -> bool:
        """Return whether the kernel is delaying a reply to a neighbour request now."""
        versions = rtnetlink_dump.proxied_requests(self._netlink)
        return bool(versions) and any(self._waits(space, versions) for space in self._spaces)

    def _waits(self, space: NetNS, versions: set[int]) -> bool:
        with Netlink(space) as netlink:
            unresolved = {item.address for item in unresolved_neighbours(netlink)}
        return any(item.version in versions and self._answers_for(item) for item in unresolved)

    def _answers_for(self, address: Address) -> bool:
        if self._answered is None:
            self._answered = set()
            for space in self._spaces:
                with Netlink(space) as netlink:
                    self._answered |= rtnetlink_dump.proxied_addresses(netlink)
                with space.entered():
                    self._answered |= _anycast()
                    self._answers_any |= _proxies_arp()
        return address in self._answered or (address.version == 4 and self._answers_any)

    def close(self) -> None:
        """Close the netlink socket."""
        self._netlink.close()


def _anycast() -> set[Address]:
    """Return the IPv6 anycast addresses of the caller's network namespace."""
    with open("/proc/thread-self/net/anycast6", encoding="ascii") as file:
        return {ip_address(bytes.fromhex(line.split()[2])) for line in file}


def _proxies_arp() -> bool:
    """Return whether proxy ARP is on for any link of the caller's network namespace.

    A proxy replies for all addresses to which it has a route.
    """
    switches = glob.iglob("/proc/sys/net/ipv4/conf/*/proxy_arp*")
    return any(Path(switch).read_text("ascii").strip() != "0" for switch in switches)


_KINDS: Final = frozenset({"macvlan", "macvtap"})
_ETHERTYPE: Final = 0x88B5
"""Local experimental ethertype (IEEE 802): no kernel handles it."""
_HEADER: Final = b"\xff" * 6 + bytes.fromhex("020000000001") + struct.pack("!H", _ETHERTYPE)

Port = tuple[NetNS, str]
"""An interface: its namespace and name."""


class ParentPath(NamedTuple):
    """Path of a broadcast through a veth pair; one end is the parent of macvlan links.

    The path leads from the other end of the veth pair to one of the macvlan links. `passed` are the
    interfaces that a broadcast on the path passes.
    """

    source: Port
    sink: Port
    passed: frozenset[Port]


class Control:
    """Sender of a broadcast through the queue of one macvlan parent.

    A lost broadcast raises `TimeoutError`.
    """

    def __init__(self, path: ParentPath, *, bound: float) -> None:
        self.passed = path.passed
        """The interfaces whose counters each call moves by one packet."""
        self._source, self._sink = _opened(path.source), _opened(path.sink)
        self._sink.settimeout(bound)

    def __call__(self) -> None:
        """Send the broadcast and wait until it has arrived at the macvlan link."""
        frame = _HEADER + os.urandom(46)
        self._source.send(frame)
        while self._sink.recv(len(frame)) != frame:
            pass

    def close(self) -> None:
        """Close both sockets."""
        self._source.close()
        self._sink.close()


def macvlan_paths(links: Links) -> Iterator[ParentPath]:
    """Yield a path through the queue of each parent of macvlan links.

    The parent is one end of a veth whose other end is in a namespace of `links`.
    """
    children: dict[tuple[NetNS, int], list[Port]] = {}
    for space, found in links.items():
        for link in found:
            if link.kind in _KINDS and link.running and link.peer is not None:
                owner = _namespace(space, link.peer_nsid, links)
                if owner is not None:
                    children.setdefault((owner, link.peer), []).append((space, link.name))
    for (owner, index), ports in children.items():
        parent = _link(links, owner, index)
        if parent is None or parent.kind != "veth" or parent.peer is None:
            continue
        beyond = _namespace(owner, parent.peer_nsid, links)
        far = beyond and _link(links, beyond, parent.peer)
        if beyond and far:
            source = beyond, far.name
            yield ParentPath(source, ports[0], frozenset({source, (owner, parent.name), *ports}))


def _link(links: Links, space: NetNS, index: int) -> Link | None:
    return next((link for link in links[space] if link.ifindex == index), None)


def _namespace(space: NetNS, nsid: int | None, links: Links) -> NetNS | None:
    """Return the netns that has the id `nsid` in `space`, or `space` itself if `nsid` is `None`."""
    if nsid is None:
        return space
    with Netlink(space) as netlink:
        return next((other for other in links if rtnetlink_dump.nsid(netlink, other) == nsid), None)


def _opened(port: Port) -> socket.socket:
    space, name = port
    opened = space.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.bind((name, _ETHERTYPE))
    return opened
