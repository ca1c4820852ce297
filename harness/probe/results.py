"""Ledger of the questions of a matrix and of the observations that follow from it.

Pure bookkeeping: the prober notes the events of its sockets, the ledger turns them
into observations. A question stays open until both ends have reported (the source
has a reply, the witness names the sender it saw) or an error has decided it.

Payloads have a nonce (`run`) that is drawn anew for every matrix: a reply of an earlier matrix, or
one that another program made up, is never taken for a reply.
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
"""Index of the answer that a TCP witness sends before it has received a question."""

_QUESTION: Final = struct.Struct("!4sc8sI")
_ANSWER: Final = struct.Struct("!4sc8sIIBB16s")
ANSWER_LENGTH: Final = _ANSWER.size


class WitnessReply(NamedTuple):
    """The reply of a witness: its number, the TTL and the peer address that it saw."""

    number: int
    witness: int
    ttl: int | None
    seen: Address


def question(run: bytes, index: int) -> bytes:
    """Return the payload of probe number `index`."""
    return _QUESTION.pack(MAGIC, b"Q", run, index)


def read_question(payload: bytes, run: bytes) -> int | None:
    """Return the index in a payload, `None` if the payload is not of this run."""
    if len(payload) < _QUESTION.size:
        return None
    magic, kind, its_run, index = _QUESTION.unpack_from(payload)
    return int(index) if (magic, kind, its_run) == (MAGIC, b"Q", run) else None


def answer(run: bytes, index: int, witness: int, ttl: int | None, seen: Address) -> bytes:
    """Return the answer that a witness sends. An unknown TTL is sent as 0."""
    packed = seen.packed
    return _ANSWER.pack(MAGIC, b"A", run, index, witness, ttl or 0, len(packed), packed)


def read_answer(payload: bytes, run: bytes) -> WitnessReply | None:
    """Parse an answer; return `None` if it is not of this run."""
    if len(payload) != _ANSWER.size:
        return None
    magic, kind, its_run, index, witness, ttl, length, packed = _ANSWER.unpack(payload)
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
    """A probe: its source netns, its address, and the netns that should reply."""

    cell: Cell
    source: NetNS
    address: Address
    target: NetNS


class RequestSeen(NamedTuple):
    """A request as a witness saw it: its netns, the address and the TTL of the sender."""

    witness: NetNS
    seen: Address
    ttl: int | None


class ReplySeen(NamedTuple):
    """A reply as the source saw it: round trip in seconds, its address and its TTL."""

    rtt: float
    source: Address
    ttl: int | None


Namer = Callable[[Address, NetNS], str]
"""Function that names the owner of an address, as a witness in that netns sees it."""


class ProbeResults:
    """Results of a slice of questions, by index."""

    def __init__(self, questions: Sequence[ProbeRequest]) -> None:
        self.questions = questions
        self.open = set(range(len(questions)))
        """Indexes of the questions without a result yet."""
        self._heard: dict[int, RequestSeen] = {}
        self._answers: dict[int, ReplySeen] = {}
        self._failed: dict[int, Observation] = {}

    def heard(self, index: int, heard: RequestSeen) -> None:
        """Note that a witness has seen the request. A second witness is an impostor."""
        before = self._heard.setdefault(index, heard)
        if before.witness != heard.witness:
            detail = f"net:[{before.witness.id[1]}] and net:[{heard.witness.id[1]}] both saw it"
            self._failed[index] = Observation(Outcome.WRONG_PEER, detail=detail)
            self.open.discard(index)
        self._close_if_complete(index)

    def answered(self, index: int, answer: ReplySeen) -> None:
        """Note the reply that the source has received."""
        self._answers[index] = answer
        self._close_if_complete(index)

    def _close_if_complete(self, index: int) -> None:
        if index in self._heard and index in self._answers:
            self.open.discard(index)

    def impostor(self, index: int, detail: str) -> None:
        """Note a reply from something that is not one of the witnesses."""
        self._fail(index, Observation(Outcome.WRONG_PEER, detail=detail))

    def refused(self, index: int, number: int, code: str = "", *, late: bool = False) -> None:
        """Note an error: an errno and, if an ICMP error caused it, the name of the ICMP error.

        `late`: it came after the kernel had accepted the packet for sending.
        """
        word = errno.errorcode.get(number, str(number))
        if code:
            seen = Observation(Outcome.REJECTED, code=code)
        elif number == errno.ECONNREFUSED:
            seen = Observation(Outcome.REJECTED, code="rst")
        elif number in FORBIDDEN:
            seen = Observation(Outcome.REJECTED, code="local-policy", detail=word)
        elif late and number == errno.EHOSTUNREACH:
            # Not news in a quiet world: no neighbour replies for the next hop.
            seen = Observation(Outcome.DROPPED, detail="no neighbour answered for the next hop")
        elif number in NO_ROUTE:
            seen = Observation(Outcome.NO_ROUTE, detail=word)
        else:
            seen = Observation(Outcome.DROPPED, detail=word)
        self._fail(index, seen)

    def _fail(self, index: int, seen: Observation) -> None:
        if index in self.open:
            self._failed[index] = seen
            self.open.discard(index)

    def in_vain(self) -> set[NetNS]:
        """Return both ends of all open questions: packets may still be in flight there."""
        silent = (self.questions[index] for index in self.open)
        return {end for question in silent for end in (question.source, question.target)}

    def observations(self, namer: Namer) -> Iterator[tuple[Cell, Observation]]:
        """Yield the observation of each cell; silence counts as dropped."""
        for index, question in enumerate(self.questions):
            yield question.cell, self._failed.get(index) or self._tell(index, namer)

    def _tell(self, index: int, namer: Namer) -> Observation:
        question = self.questions[index]
        heard, answer = self._heard.get(index), self._answers.get(index)
        seen_from = namer(heard.seen, heard.witness) if heard else None
        seen_ttl = heard.ttl if heard else None
        if answer is None:
            detail = "the request reached no witness"
            if heard:
                detail = f"the request arrived at net:[{heard.witness.id[1]}], no answer came back"
            return Observation(
                Outcome.DROPPED, seen_ttl=seen_ttl, seen_from=seen_from, detail=detail
            )
        detail = ""
        if heard is None:
            detail = f"{answer.source} answered, but no witness saw the request"
        elif heard.witness != question.target:
            detail = f"net:[{heard.witness.id[1]}] answered instead"
        elif answer.source != question.address:
            detail = f"the answer came from {answer.source}, not from {question.address}"
        return Observation(
            Outcome.WRONG_PEER if detail else Outcome.REPLY,
            ttl=answer.ttl,
            seen_ttl=seen_ttl,
            seen_from=seen_from,
            rtt=answer.rtt,
            detail=detail,
        )
