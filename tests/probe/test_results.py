"""Tests of the ledger of questions and observations."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from harness.model.plan import Cell, Observation, Outcome, Protocol
from harness.probe.results import ProbeRequest, ProbeResults, ReplySeen, RequestSeen
from linux.netns import NetNS

CELL = Cell("a", "b", Protocol.ICMP, 4)
ASKED, OTHER, ASKER = (ip_address(f"192.0.2.{number}") for number in (2, 3, 1))
ANSWER = ReplySeen(0.001, ASKED, 63)


@pytest.fixture
def spaces() -> Iterator[list[NetNS]]:
    """Source, target and somebody else."""
    with ExitStack() as stack:
        yield [stack.enter_context(NetNS.new()) for _ in range(3)]


@pytest.fixture
def ledger(spaces: list[NetNS]) -> ProbeResults:
    """One open question."""
    return ProbeResults([ProbeRequest(CELL, spaces[0], ASKED, spaces[1])])


def told(ledger: ProbeResults) -> Observation:
    """Return the observation of the question; the name of an address is `<address>`."""
    ((cell, seen),) = ledger.observations(lambda address, _: f"<{address}>")
    assert cell is CELL
    return seen


@pytest.mark.parametrize("heard_first", [True, False])
def test_a_question_is_open_until_both_ends_have_spoken(
    ledger: ProbeResults, spaces: list[NetNS], *, heard_first: bool
) -> None:
    """In whichever order: who was asked has seen it, and who asked has the answer."""
    facts: list[Callable[[], None]] = [
        lambda: ledger.heard(0, RequestSeen(spaces[1], ASKER, 62)),
        lambda: ledger.answered(0, ANSWER),
    ]
    for fact in facts if heard_first else reversed(facts):
        assert ledger.open == {0}
        fact()
    assert ledger.open == set()
    expected = Observation(Outcome.REPLY, ttl=63, seen_ttl=62, seen_from="<192.0.2.1>")
    assert (told(ledger), told(ledger).rtt) == (expected, 0.001)


def test_both_ends_of_silence_have_packets_on_their_way(
    ledger: ProbeResults, spaces: list[NetNS]
) -> None:
    """The question may wait at one, its answer at the other; of nobody where it is decided."""
    assert ledger.in_vain() == set(spaces[:2])
    ledger.refused(0, errno.ECONNREFUSED)
    assert ledger.in_vain() == set()


def test_silence_is_dropped(ledger: ProbeResults) -> None:
    """A question about which nothing is known has been dropped."""
    assert told(ledger) == Observation(Outcome.DROPPED)


def test_an_answer_from_elsewhere_is_a_wrong_peer(
    ledger: ProbeResults, spaces: list[NetNS]
) -> None:
    """The right witness saw it, but what came back claims to be somebody else."""
    ledger.heard(0, RequestSeen(spaces[1], ASKER, 64))
    ledger.answered(0, ANSWER._replace(source=OTHER))
    assert told(ledger).outcome is Outcome.WRONG_PEER
    assert told(ledger).detail == "the answer came from 192.0.2.3, not from 192.0.2.2"


def test_a_request_that_two_have_seen_is_a_wrong_peer(
    ledger: ProbeResults, spaces: list[NetNS]
) -> None:
    """A packet goes to one: seen by the target and by somebody else it has strayed."""
    ledger.heard(0, RequestSeen(spaces[1], ASKER, 64))
    ledger.heard(0, RequestSeen(spaces[2], ASKER, 64))
    ledger.answered(0, ANSWER)
    assert ledger.open == set()
    assert told(ledger).outcome is Outcome.WRONG_PEER
    assert all(f"net:[{space.id[1]}]" in told(ledger).detail for space in spaces[1:])


def test_what_was_decided_stays_decided(ledger: ProbeResults, spaces: list[NetNS]) -> None:
    """An error after a complete answer changes nothing, nor does an answer after an error."""
    ledger.heard(0, RequestSeen(spaces[1], ASKER, 64))
    ledger.answered(0, ANSWER)
    ledger.refused(0, errno.ECONNREFUSED)
    ledger.impostor(0, "late")
    assert told(ledger).outcome is Outcome.REPLY
    again = ProbeResults(ledger.questions)
    again.refused(0, errno.ECONNREFUSED)
    again.heard(0, RequestSeen(spaces[1], ASKER, 64))
    again.answered(0, ANSWER)
    assert told(again).outcome is Outcome.REJECTED


@pytest.mark.parametrize(
    ("number", "code", "late", "expected"),
    [
        (errno.ENETUNREACH, "", False, Observation(Outcome.NO_ROUTE)),
        (errno.EHOSTUNREACH, "", False, Observation(Outcome.NO_ROUTE)),
        (errno.EADDRNOTAVAIL, "", False, Observation(Outcome.NO_ROUTE)),
        (errno.EINVAL, "", False, Observation(Outcome.NO_ROUTE)),
        (errno.EHOSTUNREACH, "", True, Observation(Outcome.DROPPED)),
        (errno.EPERM, "", False, Observation(Outcome.REJECTED, code="local-policy")),
        (errno.EACCES, "", False, Observation(Outcome.REJECTED, code="local-policy")),
        (errno.ECONNREFUSED, "", True, Observation(Outcome.REJECTED, code="rst")),
        (errno.ECONNREFUSED, "port-unreachable", True, None),
        (errno.EHOSTUNREACH, "admin-prohibited", True, None),
        (0, "ttl-exceeded", True, None),
        (errno.EIO, "", True, Observation(Outcome.DROPPED)),
    ],
)  # fmt: skip
def test_an_error_has_one_meaning(
    ledger: ProbeResults, number: int, code: str, expected: Observation | None, *, late: bool
) -> None:
    """By errno, and first of all by the ICMP error that was the cause where there is one."""
    ledger.refused(0, number, code, late=late)
    assert ledger.open == set()
    assert told(ledger) == (expected or Observation(Outcome.REJECTED, code=code))
