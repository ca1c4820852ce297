"""Decide which netns received each test packet, and from this the observation of each cell.

The module does no I/O: the prober records the events of its sockets here. Each request has two
ends. The witness has received the request and names the sender that it saw. The source has received
the reply. A request stays open until both ends have reported, or until an error decides it.

Payloads contain a nonce (`run`) that is drawn for each matrix. A reply that belongs to an earlier
matrix, or that another program sent, is therefore never accepted.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from harness.model.plan import Cell, Observation, Outcome
from harness.model.topology import Address
from harness.probe.sockets import unpacked
from linux.netns import NetNS

MAGIC: Final = b"nmod"
RUN_LENGTH: Final = 8
GREETING: Final = 0xFFFFFFFF
"""Index of the reply that a TCP witness sends before it has received a request."""

_REQUEST: Final = struct.Struct("!4sc8sI")
_REPLY: Final = struct.Struct("!4sc8sIIBB16s")
REPLY_LENGTH: Final = _REPLY.size


class WitnessReply(NamedTuple):
    """The reply of a witness: its number, and the sender and TTL that it saw."""

    number: int
    witness: int
    ttl: int | None
    seen: Address


def pack_request(run: bytes, index: int) -> bytes:
    """Return the payload of the request that has this index."""
    return _REQUEST.pack(MAGIC, b"Q", run, index)


def read_request(payload: bytes, run: bytes) -> int | None:
    """Return the index of the request in a payload, or `None` if the payload is not of this run."""
    if len(payload) < _REQUEST.size:
        return None
    magic, kind, its_run, index = _REQUEST.unpack_from(payload)
    return int(index) if (magic, kind, its_run) == (MAGIC, b"Q", run) else None


def pack_reply(run: bytes, index: int, witness: int, ttl: int | None, seen: Address) -> bytes:
    """Return the payload of a witness's reply; an unknown TTL is sent as 0."""
    packed = seen.packed
    return _REPLY.pack(MAGIC, b"A", run, index, witness, ttl or 0, len(packed), packed)


def read_reply(payload: bytes, run: bytes) -> WitnessReply | None:
    """Parse a witness's reply; return `None` if the payload is not of this run."""
    if len(payload) != _REPLY.size:
        return None
    magic, kind, its_run, index, witness, ttl, length, packed = _REPLY.unpack(payload)
    if (magic, kind, its_run) != (MAGIC, b"A", run) or length not in (4, 16):
        return None
    return WitnessReply(index, witness, ttl or None, unpacked(packed[:length]))


NO_ROUTE: Final = frozenset(
    {
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.ENETDOWN,
        errno.EINVAL,
    }
)
"""Errors of the source's own kernel without a usable route. EINVAL: from 127.0.0.1 out."""
FORBIDDEN: Final = frozenset({errno.EPERM, errno.EACCES})
"""Errors of the source's own kernel when a local rule forbids sending."""


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """A probe to send: source netns, destination address, and the netns that should reply."""

    cell: Cell
    source: NetNS
    address: Address
    target: NetNS


class RequestSeen(NamedTuple):
    """A request as a witness saw it: the netns of the witness, and the sender's address and TTL."""

    witness: NetNS
    seen: Address
    ttl: int | None


class ReplySeen(NamedTuple):
    """A reply as the source saw it: round-trip time in seconds, and the sender and its TTL."""

    rtt: float
    source: Address
    ttl: int | None


Namer = Callable[[Address, NetNS], str]
"""Function that names the owner of an address, as a witness in that netns sees it."""


class ProbeResults:
    """Results of a group of requests, by the index of the request."""

    def __init__(self, requests: Sequence[ProbeRequest]) -> None:
        self.requests = requests
        self.open = set(range(len(requests)))
        """Indexes of the requests without a result yet."""
        self._received: dict[int, RequestSeen] = {}
        self._replies: dict[int, ReplySeen] = {}
        self._decided: dict[int, Observation] = {}

    def received(self, index: int, seen: RequestSeen) -> None:
        """Record that a witness has received the request; a second witness is a wrong peer."""
        before = self._received.setdefault(index, seen)
        if before.witness != seen.witness:
            detail = f"net:[{before.witness.id[1]}] and net:[{seen.witness.id[1]}] both received it"
            self._decided[index] = Observation(Outcome.WRONG_PEER, detail=detail)
            self.open.discard(index)
        if index in self._replies:
            self.open.discard(index)

    def replied(self, index: int, reply: ReplySeen) -> None:
        """Record the reply that the source has received."""
        self._replies[index] = reply
        if index in self._received:
            self.open.discard(index)

    def impostor(self, index: int, detail: str) -> None:
        """Record a reply from a socket that is not a witness."""
        self._decide(index, Observation(Outcome.WRONG_PEER, detail=detail))

    def failed(self, index: int, number: int, code: str = "", *, late: bool = False) -> None:
        """Record an error of a request.

        `number` is an errno. `code` is the name of the ICMP error, if an ICMP error was the cause.
        `late` is true if the error arrived after the kernel had accepted the packet for sending.
        """
        word = errno.errorcode.get(number, str(number))
        if code:
            seen = Observation(Outcome.REJECTED, code=code)
        elif number == errno.ECONNREFUSED:
            seen = Observation(Outcome.REJECTED, code="rst")
        elif number in FORBIDDEN:
            seen = Observation(Outcome.REJECTED, code="local-policy", detail=word)
        elif late and number == errno.EHOSTUNREACH:
            # The outcome equals silence in a quiet world: no neighbour replies for the next hop.
            seen = Observation(
                Outcome.DROPPED, detail="the next hop did not resolve to a MAC address"
            )
        elif number in NO_ROUTE:
            seen = Observation(Outcome.NO_ROUTE, detail=word)
        else:
            seen = Observation(Outcome.DROPPED, detail=word)
        self._decide(index, seen)

    def _decide(self, index: int, seen: Observation) -> None:
        if index in self.open:
            self._decided[index] = seen
            self.open.discard(index)

    def unanswered_ends(self) -> set[NetNS]:
        """Return source and target of all open requests: packets may still be in flight there."""
        return {
            end for i in self.open for end in (self.requests[i].source, self.requests[i].target)
        }

    def observations(self, namer: Namer) -> Iterator[tuple[Cell, Observation]]:
        """Yield the observation of each cell; a request without any reply counts as dropped."""
        for index, request in enumerate(self.requests):
            yield request.cell, self._decided.get(index) or self._observation(index, namer)

    def _observation(self, index: int, namer: Namer) -> Observation:
        request, detail = self.requests[index], ""
        received, reply = self._received.get(index), self._replies.get(index)
        arrival = f"net:[{received.witness.id[1]}]" if received else ""
        if reply is None:
            outcome = Outcome.DROPPED
            detail = "the request reached no witness"
            if received:
                detail = f"the request arrived at {arrival}, no reply came back"
        else:
            if received is None:
                detail = f"{reply.source} replied, but no witness received the request"
            elif received.witness != request.target:
                detail = f"{arrival} replied instead"
            elif reply.source != request.address:
                detail = f"the reply came from {reply.source}, not from {request.address}"
            outcome = Outcome.WRONG_PEER if detail else Outcome.REPLY
        return Observation(
            outcome,
            ttl=reply.ttl if reply else None,
            seen_ttl=received.ttl if received else None,
            seen_from=namer(received.seen, received.witness) if received else None,
            rtt=reply.rtt if reply else None,
            detail=detail,
        )
