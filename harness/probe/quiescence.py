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
"""Seconds a control packet may take over `lo`. It takes microseconds."""
QUIET_BOUND: Final = 10.0
"""Seconds after which a world that is still busy is an error."""

_PAGE: Final = 1 << 16
_ALL_PROTOCOLS: Final = socket.htons(3)
"""ETH_P_ALL (linux/if_ether.h)."""

Counters = tuple[NetNS, str, str]
"""What has passed an interface: its namespace, its name, and numbers as proc_net(5) has them."""


class NeverQuiet(Exception):
    """The world does not come to rest; the message names what keeps it busy."""


class ControlLost(Exception):
    """A control packet did not come back: the machine is too busy to tell anything."""


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
        links: Links | None = None,
        bound: float = QUIET_BOUND,
    ) -> None:
        known = links or {}
        controls = ways({**_links([item for item in watched if item not in known]), **known})
        self._queues = [Control(way, bound=CONTROL_BOUND) for way in controls]
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
        moved: Counter[Port] = Counter()
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


def _packets(counted: list[Counters]) -> Counter[Port]:
    """How many packets each interface has sent and received (proc_net(5), `dev`)."""
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
    """The file that tells a namespace's counters: it stays with the namespace it was opened in."""
    with space.entered():
        return os.open("/proc/thread-self/net/dev", os.O_RDONLY | os.O_CLOEXEC)


def _whole(descriptor: int) -> str:
    """All of a file of proc(5), read anew from its beginning."""
    read = b""
    while more := os.pread(descriptor, _PAGE, len(read)):
        read += more
    return read.decode("ascii")


PATIENCE: Final = 0.3
"""Seconds that a packet may spend in a stack that cannot be looked into, at least."""

_SLOWER: Final = 3
"""How many times longer than the slowest thing that an agent did there in the same matrix."""


def agent_patience(spaces: Iterable[NetNS]) -> float:
    """How long it has to be silent in them until silence is final, in seconds."""
    agents = [space.agent for space in spaces if has_own_stack(space)]
    return max(PATIENCE, *(_SLOWER * agent.slowest for agent in agents)) if agents else 0.0


def await_silence(
    seconds: float, unanswered: Callable[[], bool], pump: Callable[[float], bool]
) -> None:
    """Wait for what cannot be looked into: it is silent when nothing has come for so long.

    `pump` takes in what comes within some seconds and tells whether anything did. Raises
    `NeverQuiet` where answers keep coming.
    """
    bound = time.monotonic() + QUIET_BOUND + seconds
    deadline = time.monotonic() + seconds
    while unanswered() and (left := deadline - time.monotonic()) > 0:
        if pump(left):
            deadline = time.monotonic() + seconds
        if deadline > bound:
            raise NeverQuiet(
                f"answers still come {QUIET_BOUND:g} s after the kernel has come to rest: "
                "this machine is too busy for a verdict; run with fewer workers"
            )


class Proxies:
    """Whether an answer to a neighbour that somebody waits for is being held back.

    `control` is any namespace; `spaces` are those that may wait or answer. The kernel keeps
    one queue for all namespaces of the machine: what strangers have in it counts only while
    one of `spaces` waits for an address for which one of them answers, three seconds at most.
    """

    def __init__(self, control: NetNS, spaces: Sequence[NetNS]) -> None:
        self._spaces = spaces
        self._netlink = Netlink(control)
        self._answered: set[Address] | None = None
        self._answers_any = False

    def hold(self) -> bool:
        """Whether something is held back now."""
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _anycast() -> set[Address]:
    """The anycast addresses of the namespace that the caller is in."""
    with open("/proc/thread-self/net/anycast6", encoding="ascii") as file:
        return {ip_address(bytes.fromhex(line.split()[2])) for line in file}


def _proxies_arp() -> bool:
    """Whether it answers ARP for what it has a route to, on any link."""
    switches = glob.iglob("/proc/sys/net/ipv4/conf/*/proxy_arp*")
    return any(Path(switch).read_text("ascii").strip() != "0" for switch in switches)


_KINDS: Final = frozenset({"macvlan", "macvtap"})
_ETHERTYPE: Final = 0x88B5
"""Local experimental (IEEE 802): no kernel does anything with it."""
_HEADER: Final = b"\xff" * 6 + bytes.fromhex("020000000001") + struct.pack("!H", _ETHERTYPE)

Port = tuple[NetNS, str]
"""An interface: its namespace and name."""


class ParentPath(NamedTuple):
    """From the far end of a parent's cable to one of its links, and whom a broadcast meets."""

    source: Port
    sink: Port
    passed: frozenset[Port]


class Control:
    """A broadcast through the queue of one parent. `TimeoutError` when it does not come out."""

    def __init__(self, way: ParentPath, *, bound: float) -> None:
        self.passed = way.passed
        """The interfaces at which each call counts for one packet."""
        self._mouth, self._ear = _opened(way.source), _opened(way.sink)
        self._ear.settimeout(bound)

    def __call__(self) -> None:
        """Send it and wait until it has come out."""
        frame = _HEADER + os.urandom(46)
        self._mouth.send(frame)
        while self._ear.recv(len(frame)) != frame:
            pass

    def close(self) -> None:
        """Close both sockets."""
        self._mouth.close()
        self._ear.close()


def ways(links: Links) -> Iterator[ParentPath]:
    """A way through each parent's queue, where the parent is a veth whose other end is here."""
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
    """Which of the namespaces another one means by a number; itself, without one."""
    if nsid is None:
        return space
    with Netlink(space) as netlink:
        return next((other for other in links if rtnetlink_dump.nsid(netlink, other) == nsid), None)


def _opened(port: Port) -> socket.socket:
    space, name = port
    opened = space.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.bind((name, _ETHERTYPE))
    return opened
