"""Held against what was: whether a test has left something behind, or changed a bystander.

A guard looks at the host, ns1 and ns2 when a test begins and when it has ended. What
is new in the host then was left behind (LIFE-1); what else is different there, and
whatever is different in ns1 and ns2, was somebody else's (BYS-1). Containers that run
when a test begins are part of what was.

Namespaces are torn down behind the scenes: a difference counts when it is still there
after `BOUND` seconds, after `ENDING` if it is declared to end by itself. Neighbours that
were learned and flows come and go with traffic; they count when they belong to an address
of a container that nobody has any more.
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
"""Seconds that the kernel and a runtime may take to clean up after a container."""
ENDING: Final = 10.0
"""Seconds that what ends by itself may take, as declared: how long hangs on the machine's load."""
LEFT_BEHIND, BYSTANDER = "LIFE-1", "BYS-1"

_WATCHED: Final = (HOST, NS1, NS2)
_NOTICES: Final = 0x1 | 0x4 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR."""
_HEADER: Final = 16
_WAS_AND_IS: Final = re.compile(r"expressions was (.*), is ((?:(?!, is ).)*)")
_MOVED: Final = re.compile(r"place was \d+, is \d+")
_LOOK_AGAIN: Final = 0.005
"""Seconds after which to look again where the kernel tells nobody of a change."""
_MOST: Final = 8


class Violation(Exception):
    """What a test has left, or changed; `broken` tells which requirements that breaks."""

    def __init__(self, found: Mapping[str, Sequence[str]], *, bound: float = BOUND) -> None:
        self.broken = tuple(found)
        super().__init__("\n".join(_told(found, bound)))


def _told(found: Mapping[str, Sequence[str]], bound: float) -> Iterator[str]:
    heads = {
        LEFT_BEHIND: f"left behind, and still there after {bound:g} s:",
        BYSTANDER: f"not what it was, and not back after {bound:g} s:",
    }
    for requirement, lines in found.items():
        yield f"{requirement}: {heads[requirement]}"
        yield from (f"  {line}" for line in lines[:_MOST])
        if len(lines) > _MOST:
            yield f"  … and {len(lines) - _MOST} more"
    yield "Look into the world of one test with `netmodes lab`; what a runtime is documented"
    yield "to leave is declared as `residue` in its dialect."


@dataclass(frozen=True, slots=True)
class State:
    """What is watched, at one moment."""

    raws: Mapping[str, Raw]
    outside: HostState


class LeakGuard:
    """Watches one world. Use it as a context manager, or `close` it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._br0 = [item.network for item in world.topology.br0]
        self._own: set[Address] = set()
        """What the host has had itself: a network's gateway."""
        self._met: set[Address] = set()
        """Who has been the host's neighbour, with a MAC: every container that sent anything."""
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
        """From here on the runtime under test may leave what it is documented to leave."""
        self._residue, self._fleeting = dialect.residue, dialect.fleeting
        self._tables = tuple(f"nft rule {table} " for table in dialect.tables)
        self._traces_count = dialect.traces == "forgotten"

    # --- looking ---------------------------------------------------------------

    def take(self) -> State:
        """What there is now."""
        raws = {name: dumps.take() for name, dumps in self._dumps.items()}
        return State(raws, self._surroundings.take())

    def begin(self) -> None:
        """From here on: everything that there is belongs there."""
        if self._base is None:
            self._drain()
            self._base = self._at_rest()

    def _at_rest(self) -> State:
        """What there is once no address of the host is tentative: routes come along with it.

        Without who ends just now: a part of a command of the runtime's that has returned.
        """
        await_ready([self._world.namespaces[HOST]])
        found = self.take()
        return State(found.raws, self._surroundings.staying(found.outside))

    def forget(self) -> None:
        """Something was made, or removed, that outlives tests: `begin` looks anew."""
        self._base = None

    @contextmanager
    def holding(self, *, bound: float = BOUND) -> Iterator[Callable[[], list[str]]]:
        """Hold the end of the body against its beginning; raises `Violation` as `check` does.

        What it gives tells what is different now, without waiting. A difference counts when
        it is still there after `bound` seconds, or `ENDING` where it is declared to end by
        itself. Not when the body raises.
        """
        base = self._at_rest()
        self._drain()

        def different() -> list[str]:
            found = self._found(base, self.take(), links_gone=False)
            return [line for lines in found.values() for line in lines]

        yield different
        self._checked(base, bound)

    def check(self) -> None:
        """Raise `Violation` when something is not as it was at `begin`."""
        base, self._base = self._base, None
        if base is not None:
            self._base = self._checked(base)

    def stand_down(self) -> None:
        """Somebody has interrupted the run: what is there now is nobody's fault."""
        self._base = self._before_shared = None

    def share(self) -> None:
        """Something is about to be made that tests share: `unshare` holds all such against now."""
        if not self._shared:
            self._before_shared = self._at_rest() if self._base is None else self._base
        self._shared += 1
        self.forget()

    def unshare(self) -> None:
        """Something that was shared is gone; once all is, raise `Violation` as `check` does.

        Not before: what one fixture has made may go with another, whose scene it is in.
        """
        self.forget()
        self._shared -= 1
        if not self._shared and self._before_shared is not None:
            self._base = self._checked(self._before_shared)

    def outlive(self) -> None:
        """Something is about to be made that outlives what is shared now."""
        self._before_shared = None

    def _checked(self, base: State, bound: float = BOUND) -> State:
        now, found = self._settled(base, bound)
        if LEFT_BEHIND in found:
            self._known |= {flow.handle for flow in self._flows()}
        if found:
            self._before_shared = None  # it would tell the same again
            raise Violation(found, bound=max(bound, ENDING) if self._ends(found) else bound)
        return now

    def _settled(self, base: State, bound: float) -> tuple[State, dict[str, list[str]]]:
        """The state once nothing is wrong with it, or when the time is up; what is wrong."""
        last, deadline = (time.monotonic() + most for most in (max(bound, ENDING), bound))
        now = self.take()
        links_gone = self._drain()
        while found := self._found(base, now, links_gone=links_gone):
            if self._ends(found):  # and may show something more by its end
                deadline = max(deadline, min(time.monotonic() + bound, last))
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._poll.poll(min(left, _LOOK_AGAIN) * 1000)
            links_gone |= self._drain()
            now = self.take()
        return now, found

    def _ends(self, found: Mapping[str, Sequence[str]]) -> bool:
        """Whether all that is left are processes, and cgroups, that are declared to end."""
        kinds = ("process ", "cgroup ")
        ending = [f"{HOST}: {item}: {NEW}" for item in self._fleeting if item.startswith(kinds)]
        lines = (line for lines in found.values() for line in lines)
        return all(any(fnmatchcase(line, pattern) for pattern in ending) for line in lines)

    def _drain(self) -> bool:
        """Whether links have gone from the host since the last time; takes note of addresses."""
        gone = False
        while True:
            try:
                message = self._notices.recv(1 << 16)
            except BlockingIOError:
                return gone
            except OSError:  # so much has changed that some was left out
                gone = True
                continue
            kind = number(message[4:6])
            gone |= kind == rtnetlink.RTM_DELLINK
            if kind == rtnetlink.RTM_NEWADDR:
                self._own.add(rtnetlink_dump.read_address(message[_HEADER:]).address.ip)
            elif kind == rtnetlink.RTM_NEWNEIGH:
                self._met |= {item.address for item in learned((message[_HEADER:],), {})}

    # --- what is wrong -----------------------------------------------------------

    def _found(self, base: State, now: State, *, links_gone: bool) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for place in _WATCHED:
            for change in self._in_order(differences(base.raws[place], now.raws[place])):
                self._note(found, place, change)
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
        """Changes without those of a chain of the runtime's own whose rules have changed places."""
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

    def _note(self, found: dict[str, list[str]], place: str, change: StateChange) -> None:
        if change.how == "gone" and change.thing.startswith(DESCRIPTOR):
            return  # to let go of a namespace is what becomes of everybody who looks into one
        excused = self._fleeting if change.how == "gone" else self._residue
        if any(fnmatchcase(change.thing, pattern) for pattern in excused):
            return
        left = place == HOST and change.how == NEW
        requirement = LEFT_BEHIND if left else BYSTANDER
        found.setdefault(requirement, []).append(f"{place}: {change}")

    def _traces(self, base: State, now: State, *, links_gone: bool) -> Iterator[str]:
        """Neighbours and flows of addresses that containers had."""
        neighbours = {
            (place, item)
            for place in _WATCHED
            if base.raws[place].neighbours != now.raws[place].neighbours
            for item in learned(now.raws[place].neighbours, names(now.raws[place]))
            - learned(base.raws[place].neighbours, names(base.raws[place]))
            if self._of_container(item.address)
        }
        heard = self._counted(self._begun.marked(*self._marks())) if links_gone else []
        if not (neighbours or heard):
            return
        alive = self._alive(now.outside.processes)
        for place, neighbour in sorted(neighbours, key=str):
            if neighbour.address not in alive:
                yield f"{place}: neighbour {neighbour.address} of {neighbour.link}: {NEW}"
        # Of one that has run out nobody tells until the kernel comes by; but to read the table
        # takes milliseconds, and most flows are of containers that run.
        if any(self._dead(flow, alive) for flow in heard):
            for flow in self._flows():
                if dead := self._dead(flow, alive):
                    first = flow.original
                    yield (
                        f"{HOST}: flow from {first.source} port {first.source_port} to "
                        f"{first.destination} port {first.destination_port} (protocol "
                        f"{first.protocol}): nobody has {dead[0]} any more"
                    )

    def _dead(self, flow: Flow, alive: set[Address]) -> list[Address]:
        """Those who take part in a flow and had been containers."""
        return [item for item in flow.addresses if self._of_container(item) and item not in alive]

    def _flows(self) -> list[Flow]:
        """Flows of addresses that a container had, but for those that were told already."""
        with Conntrack(self._world.namespaces[HOST]) as conntrack:
            return self._counted(conntrack.marked(*self._marks()))

    def _marks(self) -> list[bytes]:
        return [item.packed for item in self._of_containers()]

    def _counted(self, found: Iterable[Flow]) -> list[Flow]:
        """Those of containers' addresses, but for what was told and what goes to groups."""
        had = self._of_containers()
        new = (flow for flow in found if flow.handle not in self._known)
        theirs = (flow for flow in new if not had.isdisjoint(flow.addresses))
        return [flow for flow in theirs if not flow.original.destination.is_multicast]

    def _of_containers(self) -> set[Address]:
        """Every address that a container had; both sets that tell only grow."""
        sizes = len(self._met), len(self._own)
        if sizes != self._had_of:
            self._had = {item for item in self._met if self._of_container(item)}
            self._had_of = sizes
        return self._had

    def _of_container(self, address: Address) -> bool:
        """Whether a container had it: a neighbour by a private address that is not br0's."""
        return (
            address in self._met
            and address not in self._own
            and not any(address in network for network in self._br0)
            and any(address in network for network in PRIVATE)
        )

    def _alive(self, processes: Iterable[int]) -> set[Address]:
        """Every address that anybody in the host, by pid, or the world has now."""
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
        """Stop watching."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def guarded(world: World, dialect: Dialect) -> Iterator[Callable[[], list[str]]]:
    """`LeakGuard.holding` for a world of one's own."""
    with LeakGuard(world) as guard:
        guard.allow(dialect)
        with guard.holding() as different:
            yield different
