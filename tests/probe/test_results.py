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
def test_question_is_open_until_request_and_reply_are_seen(
    ledger: ProbeResults, spaces: list[NetNS], *, heard_first: bool
) -> None:
    """The order of the two events does not matter."""
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


def test_open_question_may_have_packets_at_both_ends(
    ledger: ProbeResults, spaces: list[NetNS]
) -> None:
    """The request may be queued at one end and the reply at the other."""
    assert ledger.in_vain() == set(spaces[:2])
    ledger.refused(0, errno.ECONNREFUSED)
    assert ledger.in_vain() == set()


def test_question_without_events_is_dropped(ledger: ProbeResults) -> None:
    """A question about which nothing is known has been dropped."""
    assert told(ledger) == Observation(Outcome.DROPPED)


def test_reply_from_another_address_is_a_wrong_peer(
    ledger: ProbeResults, spaces: list[NetNS]
) -> None:
    """The right witness saw the request, but the reply has another source address."""
    ledger.heard(0, RequestSeen(spaces[1], ASKER, 64))
    ledger.answered(0, ANSWER._replace(source=OTHER))
    assert told(ledger).outcome is Outcome.WRONG_PEER
    assert told(ledger).detail == "the answer came from 192.0.2.3, not from 192.0.2.2"


def test_request_seen_by_two_witnesses_is_a_wrong_peer(
    ledger: ProbeResults, spaces: list[NetNS]
) -> None:
    """A request that another witness saw too has strayed."""
    ledger.heard(0, RequestSeen(spaces[1], ASKER, 64))
    ledger.heard(0, RequestSeen(spaces[2], ASKER, 64))
    ledger.answered(0, ANSWER)
    assert ledger.open == set()
    assert told(ledger).outcome is Outcome.WRONG_PEER
    assert all(f"net:[{space.id[1]}]" in told(ledger).detail for space in spaces[1:])


def test_decided_result_does_not_change(ledger: ProbeResults, spaces: list[NetNS]) -> None:
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
def test_socket_error_determines_the_outcome(
    ledger: ProbeResults, number: int, code: str, expected: Observation | None, *, late: bool
) -> None:
    """The ICMP error decides if there is one, otherwise the errno."""
    ledger.refused(0, number, code, late=late)
    assert ledger.open == set()
    assert told(ledger) == (expected or Observation(Outcome.REJECTED, code=code))
