"""Leak guard: detects resources that a test leaves behind, and changes to unrelated state.

A guard records the state of the namespaces `host`, `ns1` and `ns2` before and after a test. A new
resource in the host was left behind (LIFE-1). Any other difference in the host, and every
difference in ns1 and ns2, is a changed bystander (BYS-1). Containers that run when a test begins
belong to the state before it.

The kernel destroys namespaces in the background. A difference therefore counts only if it still
exists after `BOUND` seconds, or after `ENDING` seconds if the dialect declares that it ends by
itself. Learned neighbours and conntrack flows come and go with traffic. They count only if they
belong to the address of a removed container.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Self

from harness.model.dialect import Dialect
from harness.model.plan import HOST, NS1, NS2
from harness.model.topology import PRIVATE, Address
from harness.world.build import World
from harness.world.state.describe import learned, names
from harness.world.state.netlink_dump import Dumps, Raw
from harness.world.state.processes import DESCRIPTOR, HostState, Surroundings
from harness.world.state.snapshot import NEW, StateChange, changes, differences, gathered
from linux import rtnetlink, rtnetlink_dump
from linux.conntrack import Conntrack, Flow, FlowWatch
from linux.netlink import Netlink, number
from linux.netns import NetNS
from linux.readiness import await_ready

BOUND: Final = 2.0
"""Time in seconds that the kernel and a runtime have to clean up after a container."""
ENDING: Final = 10.0
"""Time in seconds that resources which are declared to end by themselves have to end."""
LEFT_BEHIND, BYSTANDER = "LIFE-1", "BYS-1"

_WATCHED: Final = (HOST, NS1, NS2)
_NOTICES: Final = 0x1 | 0x4 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR."""
_HEADER: Final = 16
_WAS_AND_IS: Final = re.compile(r"expressions was (.*), is ((?:(?!, is ).)*)")
_MOVED: Final = re.compile(r"position was \d+, is \d+")
_LOOK_AGAIN: Final = 0.005
"""Seconds between two checks: the kernel does not notify of every change."""
_MOST: Final = 8


class Violation(Exception):
    """A test left a resource behind or changed one; `broken` has the requirements' ids."""

    def __init__(self, found: Mapping[str, Sequence[str]], *, bound: float = BOUND) -> None:
        self.broken = tuple(found)
        super().__init__("\n".join(_described(found, bound)))


def _described(found: Mapping[str, Sequence[str]], bound: float) -> Iterator[str]:
    heads = {
        LEFT_BEHIND: f"left behind, and still there after {bound:g} s:",
        BYSTANDER: f"changed, and not restored after {bound:g} s:",
    }
    for requirement, lines in found.items():
        yield f"{requirement}: {heads[requirement]}"
        yield from (f"  {line}" for line in lines[:_MOST])
        if len(lines) > _MOST:
            yield f"  … and {len(lines) - _MOST} more"
    yield "To look around, run `netmodes lab`. If the runtime documents that it leaves these,"
    yield "declare them as `residue` in its dialect."


@dataclass(frozen=True, slots=True)
class State:
    """State of everything that a guard watches, at one moment."""

    raws: Mapping[str, Raw]
    outside: HostState


class LeakGuard:
    """Leak guard of one world. Use it as a context manager, or `close` it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._br0 = [item.network for item in world.topology.br0]
        self._own: set[Address] = set()
        """Addresses that the host itself has had, such as the gateways of networks."""
        self._met: set[Address] = set()
        """Addresses and MACs of the host's past neighbours: all containers that sent a packet."""
        self._had: set[Address] = set()
        self._had_of = (0, 0)
        self._known: set[bytes] = set()
        self._base: State | None = None
        self._before_shared: State | None = None
        self._shared = 0
        self._residue: tuple[str, ...] = ()
        self._fleeting: tuple[str, ...] = ()
        self._tables: tuple[str, ...] = ()
        self._traces_count = True
        with contextlib.ExitStack() as stack:
            self._dumps = {
                name: stack.enter_context(Dumps(world.namespaces[name])) for name in _WATCHED
            }
            self._notices = stack.enter_context(
                world.namespaces[HOST].socket(
                    socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE
                )
            )
            self._notices.bind((0, _NOTICES))
            self._notices.setblocking(False)
            self._poll = select.poll()
            self._poll.register(self._notices, select.POLLIN)
            self._begun = stack.enter_context(FlowWatch(world.namespaces[HOST]))
            self._surroundings = Surroundings(world.host.pid, world.host.cgroup)
            world.watched.update(self._dumps)
            stack.callback(world.watched.clear)
            self._resources = stack.pop_all()

    def allow(self, dialect: Dialect) -> None:
        """Ignore from now on the resources that the dialect documents as left by the runtime."""
        self._residue, self._fleeting = dialect.residue, dialect.fleeting
        self._tables = tuple(f"nft rule {table} " for table in dialect.tables)
        self._traces_count = dialect.traces == "forgotten"

    # --- looking ---------------------------------------------------------------

    def take(self) -> State:
        """Return the current state of everything that the guard watches."""
        raws = {name: dumps.take() for name, dumps in self._dumps.items()}
        return State(raws, self._surroundings.take())

    def begin(self) -> None:
        """Record the current state as the base of later comparisons, if there is no base yet."""
        if self._base is None:
            self._drain()
            self._base = self._at_rest()

    def _at_rest(self) -> State:
        """Return the state once no address of the host is tentative: routes depend on addresses.

        The state leaves out processes that are ending: they belong to a runtime command that has
        returned.
        """
        await_ready([self._world.namespaces[HOST]])
        found = self.take()
        return State(found.raws, self._surroundings.staying(found.outside))

    def forget(self) -> None:
        """Discard the base because a change is about to stay after the test.

        The next `begin` records a new base.
        """
        self._base = None

    @contextmanager
    def holding(self, *, bound: float = BOUND) -> Iterator[Callable[[], list[str]]]:
        """Compare the states before and after the body; raise `Violation` as `check` does.

        The context manager yields a function that returns the current differences without waiting.
        A difference counts only if it still exists after `bound` seconds, or after `ENDING` seconds
        if the dialect declares that it ends by itself. If the body raises an exception, nothing is
        compared.
        """
        base = self._at_rest()
        self._drain()

        def different() -> list[str]:
            found = self._found(base, self.take(), links_gone=False)
            return [line for lines in found.values() for line in lines]

        yield different
        self._checked(base, bound)

    def check(self) -> None:
        """Raise `Violation` if the current state differs from the base that `begin` recorded."""
        base, self._base = self._base, None
        if base is not None:
            self._base = self._checked(base)

    def stand_down(self) -> None:
        """Discard all recorded states after an interrupt: no test is then blamed for leftovers."""
        self._base = self._before_shared = None

    def share(self) -> None:
        """Record the state before a shared fixture is set up; `unshare` compares with it."""
        if not self._shared:
            self._before_shared = self._at_rest() if self._base is None else self._base
        self._shared += 1
        self.forget()

    def unshare(self) -> None:
        """Note the end of a shared fixture; after the last one, raise `Violation` as `check` does.

        An earlier check would fail wrongly, because some resources of a fixture end only with
        another fixture, whose scene they belong to.
        """
        self.forget()
        self._shared -= 1
        if not self._shared and self._before_shared is not None:
            self._base = self._checked(self._before_shared)

    def outlive(self) -> None:
        """Discard the state before the shared fixtures: a new resource is about to outlive them."""
        self._before_shared = None

    def _checked(self, base: State, bound: float = BOUND) -> State:
        now, found = self._settled(base, bound)
        if LEFT_BEHIND in found:
            self._known |= {flow.handle for flow in self._flows()}
        if found:
            self._before_shared = None  # else `unshare` would report the same again
            raise Violation(found, bound=max(bound, ENDING) if self._ends(found) else bound)
        return now

    def _settled(self, base: State, bound: float) -> tuple[State, dict[str, list[str]]]:
        """Wait until nothing differs from `base`, at most until the deadline.

        Returns the last state and the differences.
        """
        last, deadline = (time.monotonic() + most for most in (max(bound, ENDING), bound))
        now = self.take()
        links_gone = self._drain()
        while found := self._found(base, now, links_gone=links_gone):
            if self._ends(found):  # and may cause further differences when it ends
                deadline = max(deadline, min(time.monotonic() + bound, last))
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._poll.poll(min(left, _LOOK_AGAIN) * 1000)
            links_gone |= self._drain()
            now = self.take()
        return now, found

    def _ends(self, found: Mapping[str, Sequence[str]]) -> bool:
        """Return whether all differences are processes and cgroups that are declared to end."""
        kinds = ("process ", "cgroup ")
        ending = [f"{HOST}: {item}: {NEW}" for item in self._fleeting if item.startswith(kinds)]
        lines = (line for lines in found.values() for line in lines)
        return all(any(fnmatchcase(line, pattern) for pattern in ending) for line in lines)

    def _drain(self) -> bool:
        """Read pending rtnetlink messages; return whether a link has disappeared from the host.

        The addresses in the messages are recorded.
        """
        gone = False
        while True:
            try:
                message = self._notices.recv(1 << 16)
            except BlockingIOError:
                return gone
            except OSError:  # too many changes: the kernel dropped some messages
                gone = True
                continue
            kind = number(message[4:6])
            gone |= kind == rtnetlink.RTM_DELLINK
            if kind == rtnetlink.RTM_NEWADDR:
                self._own.add(rtnetlink_dump.read_address(message[_HEADER:]).address.ip)
            elif kind == rtnetlink.RTM_NEWNEIGH:
                self._met |= {item.address for item in learned((message[_HEADER:],), {})}

    # --- differences -------------------------------------------------------------

    def _found(self, base: State, now: State, *, links_gone: bool) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in _WATCHED:
            for change in self._in_order(differences(base.raws[name], now.raws[name])):
                self._note(found, name, change)
        if base.outside != now.outside:
            was, is_now = (
                gathered(self._surroundings.things(seen)) for seen in (base.outside, now.outside)
            )
            for change in changes(was, is_now):
                self._note(found, HOST, change)
        if self._traces_count:
            for trace in self._traces(base, now, links_gone=links_gone):
                found.setdefault(LEFT_BEHIND, []).append(trace)
        return found

    def _in_order(self, changes: Sequence[StateChange]) -> Iterator[StateChange]:
        """Yield the changes, without rules of the runtime's chains that only changed positions."""
        chains: dict[str, list[StateChange]] = {}
        for change in changes:
            table = next((item for item in self._tables if change.thing.startswith(item)), None)
            chains.setdefault(change.thing.partition(" (")[0] if table else "", []).append(change)
        yield from chains.pop("", ())
        for moved in chains.values():
            if all(_MOVED.fullmatch(change.how) for change in moved):
                continue
            seen = [_WAS_AND_IS.fullmatch(change.how) for change in moved]
            was, now = (sorted(item[side] for item in seen if item) for side in (1, 2))
            if not all(seen) or was != now:
                yield from moved

    def _note(self, found: dict[str, list[str]], name: str, change: StateChange) -> None:
        if change.how == "gone" and change.thing.startswith(DESCRIPTOR):
            return  # every process that looks into a namespace closes it again
        excused = self._fleeting if change.how == "gone" else self._residue
        if any(fnmatchcase(change.thing, pattern) for pattern in excused):
            return
        left = name == HOST and change.how == NEW
        requirement = LEFT_BEHIND if left else BYSTANDER
        found.setdefault(requirement, []).append(f"{name}: {change}")

    def _traces(self, base: State, now: State, *, links_gone: bool) -> Iterator[str]:
        """Yield a line for each neighbour and conntrack flow of a removed container's address."""
        neighbours = {
            (name, item)
            for name in _WATCHED
            if base.raws[name].neighbours != now.raws[name].neighbours
            for item in learned(now.raws[name].neighbours, names(now.raws[name]))
            - learned(base.raws[name].neighbours, names(base.raws[name]))
            if self._of_container(item.address)
        }
        begun = self._counted(self._begun.marked(*self._marks())) if links_gone else []
        if not (neighbours or begun):
            return
        alive = self._alive(now.outside.processes)
        for name, neighbour in sorted(neighbours, key=str):
            if neighbour.address not in alive:
                yield f"{name}: neighbour {neighbour.address} of {neighbour.link}: {NEW}"
        # The kernel reports an expired flow only when it next scans the table. Reading the table
        # takes milliseconds, and most flows belong to running containers.
        if any(self._dead(flow, alive) for flow in begun):
            for flow in self._flows():
                if dead := self._dead(flow, alive):
                    first = flow.original
                    yield (
                        f"{HOST}: flow from {first.source} port {first.source_port} to "
                        f"{first.destination} port {first.destination_port} (protocol "
                        f"{first.protocol}): no interface has {dead[0]} any more"
                    )

    def _dead(self, flow: Flow, alive: set[Address]) -> list[Address]:
        """Return the addresses of a flow that belonged to removed containers."""
        return [item for item in flow.addresses if self._of_container(item) and item not in alive]

    def _flows(self) -> list[Flow]:
        """Return the conntrack flows of containers' addresses, except those reported before."""
        with Conntrack(self._world.namespaces[HOST]) as conntrack:
            return self._counted(conntrack.marked(*self._marks()))

    def _marks(self) -> list[bytes]:
        return [item.packed for item in self._of_containers()]

    def _counted(self, found: Iterable[Flow]) -> list[Flow]:
        """Return the flows of containers' addresses, except multicast and reported flows."""
        had = self._of_containers()
        new = (flow for flow in found if flow.handle not in self._known)
        theirs = (flow for flow in new if not had.isdisjoint(flow.addresses))
        return [flow for flow in theirs if not flow.original.destination.is_multicast]

    def _of_containers(self) -> set[Address]:
        """Return every address that a container has had.

        The result is cached: both sets on which it depends only grow.
        """
        sizes = len(self._met), len(self._own)
        if sizes != self._had_of:
            self._had = {item for item in self._met if self._of_container(item)}
            self._had_of = sizes
        return self._had

    def _of_container(self, address: Address) -> bool:
        """Return whether a container has had the address.

        Such an address is private, was a neighbour of the host, and is neither the host's own nor
        in br0's subnet.
        """
        return (
            address in self._met
            and address not in self._own
            and not any(address in network for network in self._br0)
            and any(address in network for network in PRIVATE)
        )

    def _alive(self, processes: Iterable[int]) -> set[Address]:
        """Return every address in use in the world, or in the netns of one of these processes."""
        found: set[Address] = set()
        with contextlib.ExitStack() as stack:
            spaces: set[NetNS] = set(self._world.namespaces.values())
            for pid in processes:
                with contextlib.suppress(OSError):  # it ends
                    spaces.add(stack.enter_context(self._world.host.netns_of(pid)))
            for space in spaces:
                with Netlink(space) as netlink:
                    found |= {item.address.ip for item in rtnetlink_dump.addresses(netlink)}
        return found

    def close(self) -> None:
        """Stop watching, and close all sockets and files."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def guarded(world: World, dialect: Dialect) -> Iterator[Callable[[], list[str]]]:
    """Run `LeakGuard.holding` with a new guard, for a world that only the caller uses."""
    with LeakGuard(world) as guard:
        guard.allow(dialect)
        with guard.holding() as different:
            yield different
