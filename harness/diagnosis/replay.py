"""Replay of a wrong cell, with captures and traces in every namespace on its path."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, Self

from harness.diagnosis import causes, packet_path, probe_frames, story
from harness.diagnosis.kernel_trace import Drops, Tracing
from harness.diagnosis.packet_path import LossPoint, PacketHeader, ProbeTrace, Role, Sighting
from harness.model.plan import BY_NAME, HOST, INTERNET, Cell, Observation, Outcome, Promise
from harness.testbench.packets.capture import Capture, CaptureLost, Tap
from harness.testbench.packets.packet_ring import Frame
from harness.testbench.scene import Scene, witness
from linux import rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS

MOST_NAMESPACES: Final = 24
"""Maximal number of captured namespaces: world, both ends, then others."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of a replay: the story and its sources."""

    cell: Cell
    lines: tuple[str, ...]
    promise: Promise | None = None
    observed: Observation | None = None
    frames: tuple[Frame, ...] = ()
    comments: Mapping[Frame, str] = field(default_factory=dict)
    namespaces: tuple[str, ...] = ()
    """The namespaces on the path, in the order of the packets."""


class Replay:
    """Captures and tracers in a scene's namespaces, for any number of cells.

    Use it as a context manager. Raises `OSError` if the kernel refuses, and what `Scene` raises
    once it is gone.
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
            self.taps = stack.enter_context(captures_of(self.spaces))
            self._drops = stack.enter_context(Drops())
            self._behind = self._peer_owners()
            self._resources = stack.pop_all()

    def _wanted(self, cells: Iterable[Cell]) -> list[str]:
        """Return the namespaces to capture: the world's, both ends, then all others."""
        ends = [name for cell in cells for name in (cell.source, witness(cell))]
        containers = [item.name for item in self._scene.plan.containers]
        names = dict.fromkeys([*self._scene.world.namespaces, *ends, *containers])
        return list(names)[: max(MOST_NAMESPACES, len(self._scene.world.namespaces) + len(ends))]

    def _peer_owners(self) -> dict[str, str]:
        """Return the owner of the other end of each link of the host."""
        ports = self._links("host")
        found = {}
        for name in self.spaces:
            for link in self._links(name).values() if self._owner_of(name) == name else ():
                for port in ports.values():
                    pair = link.kind == port.kind == "veth" and name != "host"
                    if pair and (link.peer, port.peer) == (port.ifindex, link.ifindex):
                        found[f"host/{port.name}"] = name
        return found

    def _links(self, name: str) -> Mapping[str, rtnetlink_dump.Link]:
        with Netlink(self.spaces[name]) as netlink:
            return {link.name: link for link in rtnetlink_dump.links(netlink)}

    def interfaces(self) -> list[str]:
        """Return the captured interfaces as `namespace/link`."""
        return [f"{name}/{link}" for name in self._names.values() for link in self._links(name)]

    def _owner_of(self, name: str) -> str:
        """Return the name under which a namespace is captured: that of its owner."""
        return self._names.get(self.spaces[name].id, name) if name in self.spaces else name

    def of(self, cell: Cell, promise: Promise | None) -> Diagnosis:
        """Replay one cell and return its diagnosis."""
        names = cell.target == BY_NAME
        tracing = Tracing(self.spaces)
        try:
            tracing.begin()
            self._drops.reasons()
            wire = Capture(self.taps)
            # A packet in a loop overruns the ring.
            with contextlib.suppress(CaptureLost), wire:
                observed = self._scene.observed([cell])[cell]
            verdicts = tracing.verdicts(names=names and observed.outcome is Outcome.NO_NAME)
        finally:
            tracing.close()
        frames = wire.kept
        seen = probe_frames.sightings(frames, names=names and observed.outcome is Outcome.NO_NAME)
        # The probe's control query to that resolver is no part of the story.
        seen = tuple(item for item in seen if item.where != f"{INTERNET}/lo" or not names)
        trace = ProbeTrace(
            cell=cell,
            promise=promise,
            observed=observed,
            source=self._owner_of(cell.source),
            witness=self._owner_of(witness(cell)),
            sightings=seen,
            verdicts=tuple(verdicts),
            reasons=tuple(map(str, self._drops.reasons())),
            behind=self._behind,
            inodes={space.id[1]: self._names[space.id] for space in self.spaces.values()},
        )
        loss = packet_path.loss_point(trace)
        if loss is not None:
            trace = self._with_causes(trace, loss)
        once = {name: self.spaces[name] for name in self._names.values()}
        double = causes.duplicates(once, seen)
        trace = replace(trace, causes=(*trace.causes, *double))
        lines = tuple(story.story(trace))
        path = dict.fromkeys([trace.source, *(item.namespace for item in seen), trace.witness])
        comments = {frames[at]: text for at, text in _comments(seen, lines).items()}
        return Diagnosis(cell, lines, promise, observed, frames, comments, tuple(path))

    def _with_causes(self, trace: ProbeTrace, loss: LossPoint) -> ProbeTrace:
        packet = loss.last.seen if loss.last else self._unseen(trace, loss)
        space = self.spaces.get(loss.namespace)
        if packet is None or space is None:
            reasons: list[str] = []
        else:
            reasons = causes.causes(
                loss.namespace,
                space,
                packet=packet,
                last=loss.last,
                trail=trace.sightings,
                far=self._ports().get(loss.namespace, ""),
            )
        reasons += self._unanswered(trace, reasons)
        if trace.observed.detail and loss.last is None and not reasons:
            reasons.append(trace.observed.detail)
        return replace(trace, causes=tuple(dict.fromkeys(reasons)))

    def _ports(self) -> dict[str, str]:
        """Return the host's end of each veth pair by its owner."""
        return {owner: port for port, owner in self._behind.items()}

    def _unanswered(self, trace: ProbeTrace, reasons: list[str]) -> list[str]:
        """Return the owner of an unanswered address, and why it does not answer."""
        ports, links = self._ports(), self._links(HOST)
        found = []
        for hop in packet_path.unanswered(trace.sightings):
            if not any(f"{causes.UNANSWERED} {hop}," in line for line in reasons):
                continue
            for name in self._names.values():
                port = links.get(ports.get(name, "").removeprefix(f"{HOST}/"))
                found += causes.silence_causes(
                    name, self.spaces[name], hop, trace.sightings, port=port
                )
        return found

    def _unseen(self, trace: ProbeTrace, loss: LossPoint) -> PacketHeader | None:
        """Return the packet that no interface has seen, as it must have been."""
        if loss.role is Role.REPLY:
            requests = trace.trail(Role.REQUEST)
            if not requests:
                return None
            last = requests[-1].seen
            return PacketHeader(Role.REPLY, last.protocol, last.destination, last.source)
        to = None if trace.cell.target == BY_NAME else self._scene.address(trace.cell)
        return PacketHeader(Role.REQUEST, trace.cell.protocol, to, to) if to else None

    def close(self) -> None:
        """Close all captures and tracers."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _comments(seen: Iterable[Sighting], lines: Iterable[str]) -> dict[int, str]:
    """Return comments for frames: the first and last of each kind, and why it was the last."""
    by_role: dict[Role, list[Sighting]] = {}
    for item in seen:
        by_role.setdefault(item.seen.role, []).append(item)
    found: dict[int, str] = {}
    for role, trail in by_role.items():
        if role in (Role.SOLICITATION, Role.ADVERTISEMENT):
            continue
        found[trail[0].number] = f"the {role} is first seen, at {trail[0].where}"
        found[trail[-1].number] = f"the {role} is last seen, at {trail[-1].where}"
    last = max(found, default=None)
    if last is not None:
        found[last] = "\n".join([found[last], *lines])
    return found


_SLOTS: Final = 256
"""Ring slots: a probe causes a few dozen frames at most."""
_THREADS: Final = 16


@contextlib.contextmanager
def captures_of(spaces: Mapping[str, NetNS]) -> Iterator[list[Tap]]:
    """Return a capture per namespace; two names of a namespace share one."""
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
