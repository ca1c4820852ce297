"""The path of a replayed probe: sightings of its packets, and the place of a loss (pure).

A sighting is a packet that was captured at an interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.model.plan import Cell, Observation, Outcome, Promise
from harness.model.topology import Address


class Role(StrEnum):
    """Role of a captured frame in the probe."""

    REQUEST = "request"
    REPLY = "reply"
    ERROR = "error"
    """A reject: an ICMP error about the probe, or a RST."""
    SOLICITATION = "neighbour solicitation"
    ADVERTISEMENT = "neighbour advertisement"


@dataclass(frozen=True, slots=True)
class PacketHeader:
    """Header fields of a packet.

    For neighbour discovery, `destination` is the address that is asked for. `code` names an ICMP
    error. Ports are 0 if the protocol has none.
    """

    role: Role
    protocol: str
    source: Address
    destination: Address
    source_port: int = 0
    destination_port: int = 0
    ttl: int | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A packet of the probe, captured at an interface; `number` is the index of its frame."""

    number: int
    namespace: str
    link: str
    outgoing: bool
    seen: PacketHeader

    @property
    def where(self) -> str:
        """Namespace and interface of the sighting, such as `host/docker0`."""
        return f"{self.namespace}/{self.link}"


@dataclass(frozen=True, slots=True)
class NftVerdict:
    """The nftables verdict that ended a packet, with the chain and the rule that issued it.

    `number` is the rule's place in the chain, counted from 1. Without a `number` the chain's policy
    decided. `rejects` is true if the rule sends a reject. `seen` is the header of the packet.
    """

    namespace: str
    table: str
    chain: str
    number: int | None
    handle: int
    comment: str
    rejects: bool
    seen: PacketHeader | None

    @property
    def rule(self) -> str:
        """The rule in words, such as `table inet x, chain forward, rule 3 (handle 7)`."""
        by = f"rule {self.number} (handle {self.handle})" if self.number else "its policy"
        if not self.number and self.handle:
            by = f"a rule (handle {self.handle})"
        comment = f', "{self.comment}"' if self.comment else ""
        return f"table {self.table}, chain {self.chain}, {by}{comment}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTrace:
    """Everything that was recorded about a replayed probe.

    - `source` and `witness`: the namespaces that send the request and that should receive it.
    - `behind`: for each link of the host, the namespace that has the other end.
    - `inodes`: for each inode of a network namespace, the owner of the namespace.
    - `reasons`: the kernel's drop reasons.
    - `causes`: reasons found in the state of the namespace that lost the packet.
    """

    cell: Cell
    promise: Promise | None
    observed: Observation
    source: str
    witness: str
    sightings: tuple[Sighting, ...] = ()
    verdicts: tuple[NftVerdict, ...] = ()
    reasons: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    behind: Mapping[str, str] = field(default_factory=dict)
    inodes: Mapping[int, str] = field(default_factory=dict)

    def trail(self, *roles: Role) -> list[Sighting]:
        """Return the sightings of packets in one of these roles, in order."""
        return [item for item in self.sightings if item.seen.role in roles]

    @property
    def arrived(self) -> bool:
        """Whether a listener received the request."""
        seen = self.observed
        if seen.outcome is Outcome.NO_NAME:
            return False
        return seen.seen_from is not None or bool(self.trail(Role.REPLY))


@dataclass(frozen=True, slots=True)
class LossPoint:
    """The namespace in which the request or the reply was lost, and its last sighting, if any."""

    role: Role
    namespace: str
    last: Sighting | None


def loss_point(trace: ProbeTrace) -> LossPoint | None:
    """Return the place where the request or the reply was lost, or `None` if both arrived."""
    if trace.observed.outcome in (Outcome.REPLY, Outcome.WRONG_PEER):
        return None
    if trace.arrived:
        replies = trace.trail(Role.REPLY)
        last = replies[-1] if replies else None
        return LossPoint(Role.REPLY, last.namespace if last else trace.witness, last)
    last = _furthest_request(trace)
    return LossPoint(Role.REQUEST, last.namespace if last else trace.source, last)


def _furthest_request(trace: ProbeTrace) -> Sighting | None:
    """Return the last sighting of the request.

    Copies that a bridge flooded to other ports do not count.
    """
    requests = trace.trail(Role.REQUEST)
    for item in reversed(requests):
        if not item.outgoing or trace.behind.get(item.where) in (None, trace.witness):
            return item
    return requests[-1] if requests else None


def unanswered(trail: Iterable[Sighting]) -> list[Address]:
    """Return the solicited addresses whose advertisement did not reach the soliciting namespace."""
    solicited: dict[tuple[str, Address], None] = {}
    advertised: set[tuple[str, Address]] = set()
    for item in trail:
        if (
            item.seen.role is Role.SOLICITATION
            and item.outgoing
            and not item.seen.source.is_unspecified
        ):
            solicited[item.namespace, item.seen.destination] = None
        elif item.seen.role is Role.ADVERTISEMENT and not item.outgoing:
            advertised.add((item.namespace, item.seen.destination))
    return list(
        dict.fromkeys(hop for namespace, hop in solicited if (namespace, hop) not in advertised)
    )
