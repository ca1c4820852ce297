"""Replay of a wrong cell, with captures and traces in the namespaces on its path."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, Self

from harness.diagnosis import causes, packet_path, probe_frames, story
from harness.diagnosis.kernel_trace import DropReasons, Tracing
from harness.diagnosis.packet_path import LossPoint, PacketHeader, ProbeTrace, Role, Sighting
from harness.model.plan import BY_NAME, HOST, INTERNET, Cell, Observation, Outcome, Promise
from harness.testbench.packets.capture import Capture, CaptureLost, Tap
from harness.testbench.packets.packet_ring import Frame
from harness.testbench.scene import Scene, witness
from linux import rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS

MOST_NAMESPACES: Final = 24
"""Maximal number of captured namespaces, unless the world and the cells need more."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of a replay: the explanation, and the recorded data that it is based on."""

    cell: Cell
    lines: tuple[str, ...]
    promise: Promise | None = None
    observed: Observation | None = None
    frames: tuple[Frame, ...] = ()
    comments: Mapping[Frame, str] = field(default_factory=dict)
    namespaces: tuple[str, ...] = ()
    """The namespaces on the path, in the order of the packets."""


class Replay:
    """Context manager that replays cells, with captures and tracers in a scene's namespaces.

    A scene is the networks and containers of a test. Raises `OSError` if the kernel refuses, and
    the errors of a closed `Scene`.
    """

    def __init__(self, scene: Scene, cells: Iterable[Cell]) -> None:
        self._scene = scene
        self.spaces: dict[str, NetNS] = {}
        """The captured namespaces by their owner; a container that joins a namespace owns none."""
        self._owners: dict[str, str] = {}
        owners: dict[tuple[int, int], str] = {}
        with contextlib.ExitStack() as stack:
            for name in self._wanted(cells):
                with contextlib.suppress(OSError, ProcessLookupError):
                    space = stack.enter_context(scene.netns(name).open())
                    self._owners[name] = owners.setdefault(space.id, name)
                    self.spaces.setdefault(self._owners[name], space)
            self._taps = stack.enter_context(_taps(self.spaces))
            self._drops = stack.enter_context(DropReasons())
            self._behind = self._peer_owners()
            self._resources = stack.pop_all()

    def _wanted(self, cells: Iterable[Cell]) -> list[str]:
        """Return the namespaces to capture, at most `MOST_NAMESPACES` unless the cells need more.

        The world's namespaces come first, then those at both ends of the cells, then all others.
        """
        ends = [name for cell in cells for name in (cell.source, witness(cell))]
        containers = [item.name for item in self._scene.plan.containers]
        names = dict.fromkeys([*self._scene.world.namespaces, *ends, *containers])
        return list(names)[: max(MOST_NAMESPACES, len(self._scene.world.namespaces) + len(ends))]

    def _peer_owners(self) -> dict[str, str]:
        """Return, for each veth link of the host, the namespace that has the other end."""
        ports = [link for link in self._links(HOST).values() if link.kind == "veth"]
        return {
            f"{HOST}/{port.name}": name
            for name in self.spaces
            if name != HOST
            for link in self._links(name).values()
            for port in ports
            if link.kind == "veth" and (link.peer, port.peer) == (port.ifindex, link.ifindex)
        }

    def _links(self, name: str) -> Mapping[str, rtnetlink_dump.Link]:
        with Netlink(self.spaces[name]) as netlink:
            return {link.name: link for link in rtnetlink_dump.links(netlink)}

    def interfaces(self) -> list[str]:
        """Return the captured interfaces as `namespace/link`."""
        return [f"{name}/{link}" for name in self.spaces for link in self._links(name)]

    def of(self, cell: Cell, promise: Promise | None) -> Diagnosis:
        """Replay one cell and return its diagnosis."""
        names = cell.target == BY_NAME
        self._drops.read()
        wire = Capture(self._taps)
        with Tracing(self.spaces) as tracing:
            # A packet in a loop overruns the ring.
            with contextlib.suppress(CaptureLost), wire:
                observed = self._scene.observed([cell])[cell]
            dns = names and observed.outcome is Outcome.NO_NAME
            verdicts = tracing.verdicts(names=dns)
        frames = wire.kept
        seen = probe_frames.sightings(frames, names=dns)
        # The explanation omits the probe's control query to that resolver.
        seen = tuple(item for item in seen if item.where != f"{INTERNET}/lo" or not names)
        trace = ProbeTrace(
            cell=cell,
            promise=promise,
            observed=observed,
            source=self._owners.get(cell.source, cell.source),
            witness=self._owners.get(witness(cell), witness(cell)),
            sightings=seen,
            verdicts=tuple(verdicts),
            reasons=tuple(self._drops.read()),
            behind=self._behind,
            inodes={space.id[1]: name for name, space in self.spaces.items()},
        )
        loss = packet_path.loss_point(trace)
        if loss is not None:
            trace = self._with_causes(trace, loss)
        double = causes.duplicates(self.spaces, seen)
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
        """Return, for each namespace, the host's end of its veth pair."""
        return {owner: port for port, owner in self._behind.items()}

    def _unanswered(self, trace: ProbeTrace, reasons: list[str]) -> list[str]:
        """Return a line for each owner of an unanswered address: why it did not reply."""
        ports, links = self._ports(), self._links(HOST)
        found = []
        for hop in packet_path.unanswered(trace.sightings):
            if not any(f"{causes.UNANSWERED} {hop}," in line for line in reasons):
                continue
            for name, space in self.spaces.items():
                port = links.get(ports.get(name, "").removeprefix(f"{HOST}/"))
                found += causes.silence_causes(name, space, hop, trace.sightings, port=port)
        return found

    def _unseen(self, trace: ProbeTrace, loss: LossPoint) -> PacketHeader | None:
        """Return the header that the lost packet must have had, if no interface has seen it."""
        if loss.role is Role.REPLY:
            requests = trace.trail(Role.REQUEST)
            if not requests:
                return None
            last = requests[-1].seen
            return PacketHeader(Role.REPLY, last.protocol, last.destination, last.source)
        to = None if trace.cell.target == BY_NAME else self._scene.address(trace.cell)
        return PacketHeader(Role.REQUEST, trace.cell.protocol, to, to) if to else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()


def _comments(seen: Iterable[Sighting], lines: Iterable[str]) -> dict[int, str]:
    """Return comments for frames by index.

    The first and the last frame of the request, of the reply and of the reject have a comment. The
    comment at the last of these frames includes the explanation.
    """
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
def _taps(spaces: Mapping[str, NetNS]) -> Iterator[list[Tap]]:
    """Yield a packet tap in each namespace.

    Taps are opened and closed in parallel, because each opening and closing takes milliseconds.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        opening = [
            pool.submit(Tap, space, "", owner=name, slots=_SLOTS) for name, space in spaces.items()
        ]
        try:
            yield [done.result() for done in opening]
        finally:
            taps = [done.result() for done in opening if done.exception() is None]
            list(pool.map(Tap.close, taps))
