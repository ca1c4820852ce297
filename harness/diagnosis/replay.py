"""One wrong cell asked once more, with every tap and trace on, and what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, Self

from harness.diagnosis import causes, packet_path, story
from harness.diagnosis.kernel_trace import Drops, Tracing
from harness.diagnosis.packet_path import PacketHeader, Role, Sighting
from harness.diagnosis.story import LastSighting, ProbeTrace
from harness.model.plan import BY_NAME, HOST, INTERNET, Cell, Observation, Outcome, Promise
from harness.testbench.packets.capture import Capture, CaptureLost, Tap
from harness.testbench.packets.packet_ring import Frame
from harness.testbench.scene import Scene, witness
from linux import rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS

MOST_PLACES: Final = 24
"""Namespaces that are listened to: the world's own, the two ends, and others up to this many."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What came of one replay: the story, and what it is told from."""

    cell: Cell
    lines: tuple[str, ...]
    promise: Promise | None = None
    observed: Observation | None = None
    frames: tuple[Frame, ...] = ()
    comments: Mapping[Frame, str] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    """The places on the path, in the order in which the packets came by."""


class Replay:
    """Taps and tracers in a scene's namespaces, for as many cells as there are.

    Use it as a context manager. Raises `OSError` where the kernel refuses, and what
    `Scene` raises when it is not there any more.
    """

    def __init__(self, scene: Scene, cells: Iterable[Cell]) -> None:
        self._scene = scene
        with contextlib.ExitStack() as stack:
            self.spaces: dict[str, NetNS] = {}
            for name in self._wanted(cells):
                with contextlib.suppress(OSError, ProcessLookupError):
                    self.spaces[name] = stack.enter_context(scene.place(name).open())
            self._names: dict[tuple[int, int], str] = {}
            for name, space in self.spaces.items():
                self._names.setdefault(space.id, name)
            self.taps = stack.enter_context(tapped(self.spaces))
            self._drops = stack.enter_context(Drops())
            self._behind = self._who_is_behind()
            self._resources = stack.pop_all()

    def _wanted(self, cells: Iterable[Cell]) -> list[str]:
        """The world's own first, then the ends of what is asked, then everybody else."""
        ends = [name for cell in cells for name in (cell.source, witness(cell))]
        containers = [item.name for item in self._scene.plan.containers]
        names = dict.fromkeys([*self._scene.world.namespaces, *ends, *containers])
        return list(names)[: max(MOST_PLACES, len(self._scene.world.namespaces) + len(ends))]

    def _who_is_behind(self) -> dict[str, str]:
        """Whose the other end of a link of the host's is."""
        ports = self._links("host")
        found = {}
        for name in self.spaces:
            for link in self._links(name).values() if self._place_of(name) == name else ():
                for port in ports.values():
                    pair = link.kind == port.kind == "veth" and name != "host"
                    if pair and (link.peer, port.peer) == (port.ifindex, link.ifindex):
                        found[f"host/{port.name}"] = name
        return found

    def _links(self, name: str) -> Mapping[str, rtnetlink_dump.Link]:
        with Netlink(self.spaces[name]) as netlink:
            return {link.name: link for link in rtnetlink_dump.links(netlink)}

    def interfaces(self) -> list[str]:
        """Every interface that is listened to, as `place/link`."""
        return [f"{name}/{link}" for name in self._names.values() for link in self._links(name)]

    def _place_of(self, name: str) -> str:
        """The name under which a place's namespace goes here: a joiner's is its home's."""
        return self._names.get(self.spaces[name].id, name) if name in self.spaces else name

    def of(self, cell: Cell, promise: Promise | None) -> Diagnosis:
        """Ask one cell once more and tell what became of it."""
        names = cell.target == BY_NAME
        tracing = Tracing(self.spaces)
        try:
            tracing.begin()
            self._drops.reasons()
            wire = Capture(self.taps)
            # A packet that goes round in circles is more than a tap can keep.
            with contextlib.suppress(CaptureLost), wire:
                observed = self._scene.observed([cell])[cell]
            rulings = tracing.rulings(names=names and observed.outcome is Outcome.NO_NAME)
        finally:
            tracing.close()
        frames = wire.kept
        seen = packet_path.sightings(frames, names=names and observed.outcome is Outcome.NO_NAME)
        # The probe of names asks a control there, which is no part of the story.
        seen = tuple(item for item in seen if item.where != f"{INTERNET}/lo" or not names)
        account = ProbeTrace(
            cell=cell,
            promise=promise,
            observed=observed,
            source=self._place_of(cell.source),
            witness=self._place_of(witness(cell)),
            sightings=seen,
            rulings=tuple(rulings),
            reasons=tuple(map(str, self._drops.reasons())),
            behind=self._behind,
            inodes={space.id[1]: self._names[space.id] for space in self.spaces.values()},
        )
        finding = story.end(account)
        if finding is not None:
            account = self._with_causes(account, finding)
        once = {name: self.spaces[name] for name in self._names.values()}
        double = causes.doubles(once, seen)
        account = replace(account, causes=(*account.causes, *double))
        lines = tuple(story.story(account))
        path = dict.fromkeys([account.source, *(item.place for item in seen), account.witness])
        comments = {frames[at]: said for at, said in _comments(seen, lines).items()}
        return Diagnosis(cell, lines, promise, observed, frames, comments, tuple(path))

    def _with_causes(self, account: ProbeTrace, finding: LastSighting) -> ProbeTrace:
        packet = finding.packet or self._unseen(account, finding)
        space = self.spaces.get(finding.place)
        if packet is None or space is None:
            told: list[str] = []
        else:
            told = causes.causes(
                finding.place,
                space,
                packet=packet,
                last=finding.last,
                trail=account.sightings,
                far=self._ports().get(finding.place, ""),
            )
        told += self._silent(account, told)
        if account.observed.detail and finding.last is None and not told:
            told.append(account.observed.detail)
        return replace(account, causes=tuple(dict.fromkeys(told)))

    def _ports(self) -> dict[str, str]:
        """The host's end of each cable, by who is at the other."""
        return {who: where for where, who in self._behind.items()}

    def _silent(self, account: ProbeTrace, told: list[str]) -> list[str]:
        """Of a neighbour that was asked for in vain: who it is, and why it does not answer."""
        ports, links = self._ports(), self._links(HOST)
        found = []
        for hop in packet_path.unanswered(account.sightings):
            if not any(f"{causes.UNANSWERED} {hop}," in line for line in told):
                continue
            for name in self._names.values():
                port = links.get(ports.get(name, "").removeprefix(f"{HOST}/"))
                found += causes.silent(name, self.spaces[name], hop, account.sightings, port=port)
        return found

    def _unseen(self, account: ProbeTrace, finding: LastSighting) -> PacketHeader | None:
        """The packet that no interface has seen, as it must have been."""
        if finding.role is Role.REPLY:
            requests = account.trail(Role.REQUEST)
            if not requests:
                return None
            last = requests[-1].seen
            return PacketHeader(Role.REPLY, last.protocol, last.destination, last.source)
        to = None if account.cell.target == BY_NAME else self._scene.address(account.cell)
        return PacketHeader(Role.REQUEST, account.cell.protocol, to, to) if to else None

    def close(self) -> None:
        """Close everything."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _comments(seen: Iterable[Sighting], lines: Iterable[str]) -> dict[int, str]:
    """What to write beside frames: the first and the last of each kind, and why it was the last."""
    by_role: dict[Role, list[Sighting]] = {}
    for item in seen:
        by_role.setdefault(item.seen.role, []).append(item)
    found: dict[int, str] = {}
    for role, trail in by_role.items():
        if role in (Role.ASKED, Role.TOLD):
            continue
        found[trail[0].number] = f"the {role} is first seen, at {trail[0].where}"
        found[trail[-1].number] = f"the {role} is last seen, at {trail[-1].where}"
    last = max(found, default=None)
    if last is not None:
        found[last] = "\n".join([found[last], *lines])
    return found


_SLOTS: Final = 256
"""One probe and what it causes: a few dozen frames at most."""
_THREADS: Final = 16


@contextlib.contextmanager
def tapped(spaces: Mapping[str, NetNS]) -> Iterator[list[Tap]]:
    """One tap for each namespace, by the name of its place; two names of one get one tap."""
    names: dict[tuple[int, int], str] = {}
    for name, space in spaces.items():
        names.setdefault(space.id, name)

    def open_one(name: str) -> Tap:
        return Tap(spaces[name], "", place=name, slots=_SLOTS)

    with ThreadPoolExecutor(min(_THREADS, max(1, len(names)))) as pool:
        opening = [pool.submit(open_one, name) for name in names.values()]
        taps = [done.result() for done in opening if done.exception() is None]
        try:
            for done in opening:
                done.result()
            yield taps
        finally:
            list(pool.map(_close, taps))


def _close(tap: Tap) -> None:
    tap.close()
