"""What is known about each question of a matrix, and what it amounts to.

Pure bookkeeping: the prober notes what its sockets tell, the ledger turns it
into observations. A question stays open until both ends have spoken (the source
got an answer, the witness says whom it saw) or an error has decided it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from harness.model.plan import Cell, Observation, Outcome
from harness.model.topology import Address
from linux.netns import NetNS

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
"""What the source's own kernel says when it has no way to send. EINVAL: from 127.0.0.1 out."""
FORBIDDEN: Final = frozenset({errno.EPERM, errno.EACCES})
"""What it says when a rule of its own forbids sending."""


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """One probe: from where, to which address, and which namespace should answer."""

    cell: Cell
    source: NetNS
    address: Address
    target: NetNS


class RequestSeen(NamedTuple):
    """What a witness told: its namespace, the sender's address and TTL as it saw them."""

    witness: NetNS
    seen: Address
    ttl: int | None


class ReplySeen(NamedTuple):
    """What came back to the source: after how many seconds, from whom, with which TTL."""

    rtt: float
    source: Address
    ttl: int | None


Namer = Callable[[Address, NetNS], str]
"""Who is behind an address, as a witness in that namespace sees it."""


class ProbeResults:
    """One slice of questions, by index."""

    def __init__(self, questions: Sequence[ProbeRequest]) -> None:
        self.questions = questions
        self.open = set(range(len(questions)))
        """Indexes of the questions that nothing has decided yet."""
        self._heard: dict[int, RequestSeen] = {}
        self._answers: dict[int, ReplySeen] = {}
        self._failed: dict[int, Observation] = {}

    def heard(self, index: int, heard: RequestSeen) -> None:
        """A witness has seen the request. It goes to one: a second one is an impostor."""
        before = self._heard.setdefault(index, heard)
        if before.witness != heard.witness:
            detail = f"net:[{before.witness.id[1]}] and net:[{heard.witness.id[1]}] both saw it"
            self._failed[index] = Observation(Outcome.WRONG_PEER, detail=detail)
            self.open.discard(index)
        self._close_if_complete(index)

    def answered(self, index: int, answer: ReplySeen) -> None:
        """The source has an answer."""
        self._answers[index] = answer
        self._close_if_complete(index)

    def _close_if_complete(self, index: int) -> None:
        if index in self._heard and index in self._answers:
            self.open.discard(index)

    def impostor(self, index: int, detail: str) -> None:
        """Something answered that is none of our witnesses."""
        self._fail(index, Observation(Outcome.WRONG_PEER, detail=detail))

    def refused(self, index: int, number: int, code: str = "", *, late: bool = False) -> None:
        """An error has come: an errno and, where an ICMP error caused it, that one's name.

        `late` tells that it came after the packet had been accepted for sending.
        """
        word = errno.errorcode.get(number, str(number))
        if code:
            seen = Observation(Outcome.REJECTED, code=code)
        elif number == errno.ECONNREFUSED:
            seen = Observation(Outcome.REJECTED, code="rst")
        elif number in FORBIDDEN:
            seen = Observation(Outcome.REJECTED, code="local-policy", detail=word)
        elif late and number == errno.EHOSTUNREACH:
            # What a quiet world has told already: no neighbour answers for the next hop.
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
        """Where packets may still be on their way: the ends of all that nobody has answered."""
        silent = (self.questions[index] for index in self.open)
        return {end for question in silent for end in (question.source, question.target)}

    def observations(self, namer: Namer) -> Iterator[tuple[Cell, Observation]]:
        """What happened in each cell; silence counts as dropped."""
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
