"""Tests of decisions about received packets, and of the payloads of probes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.plan import Cell, Observation, Outcome, Protocol
from harness.model.topology import Address
from harness.probe import reception
from harness.probe.reception import ProbeRequest, ProbeResults, ReplySeen, RequestSeen
from linux.netns import NetNS

RUNS = st.binary(min_size=reception.RUN_LENGTH, max_size=reception.RUN_LENGTH)
INDEXES = st.integers(0, 2**32 - 1)
CELL = Cell("a", "b", Protocol.ICMP, 4)
TARGET, OTHER, SOURCE = (ip_address(f"192.0.2.{number}") for number in (2, 3, 1))
REPLY = ReplySeen(0.001, TARGET, 63)


@given(
    run=RUNS,
    index=INDEXES,
    trailing=st.binary(max_size=9),
    ttl=st.none() | st.integers(1, 255),
    seen=st.ip_addresses(),
)
def test_probe_payload_survives_building_and_parsing(
    run: bytes, index: int, trailing: bytes, ttl: int | None, seen: Address
) -> None:
    """The payloads of requests and replies are parsed to the fields that they were built from.

    A request may be padded. A reply has an index, the witness, a TTL and an address.
    """
    request = reception.pack_request(run, index)
    assert reception.read_request(request + trailing, run) == index
    reply = reception.pack_reply(run, index, 7, ttl, seen)
    assert len(reply) == reception.REPLY_LENGTH
    assert reception.read_reply(reply, run) == reception.WitnessReply(index, 7, ttl, seen)


@given(run=RUNS, other=RUNS, index=INDEXES, seen=st.ip_addresses(), cut=st.integers(0, 60))
def test_foreign_or_damaged_probe_payload_is_ignored(
    run: bytes, other: bytes, index: int, seen: Address, cut: int
) -> None:
    """A payload is ignored if it is from another run, of another kind, truncated or too long."""
    request = reception.pack_request(run, index)
    reply = reception.pack_reply(run, index, 0, 64, seen)
    assert (reception.read_request(request, other) is None) == (run != other)
    assert (reception.read_reply(reply, other) is None) == (run != other)
    for payload in (reply, request[: min(cut, len(request) - 1)]):
        assert reception.read_request(payload, run) is None
    for payload in (request, reply[: min(cut, len(reply) - 1)], reply + bytes(cut + 1)):
        assert reception.read_reply(payload, run) is None


@given(run=RUNS, data=st.binary(max_size=60), tail=st.binary(min_size=43, max_size=43))
def test_payload_parser_survives_arbitrary_bytes(run: bytes, data: bytes, tail: bytes) -> None:
    """Any bytes, even after a valid beginning, parse to a value or `None` without an error."""
    magic = reception.MAGIC
    for payload in (data, magic + b"Q" + run + data, (magic + b"A" + run + tail)[:39]):
        reception.read_request(payload, run)
        reception.read_reply(payload, run)


@pytest.fixture
def spaces() -> Iterator[list[NetNS]]:
    """Create a source, a target and a third netns."""
    with ExitStack() as stack:
        yield [stack.enter_context(NetNS.new()) for _ in range(3)]


@pytest.fixture
def results(spaces: list[NetNS]) -> ProbeResults:
    """Return the results of one request that has no outcome yet."""
    return ProbeResults([ProbeRequest(CELL, spaces[0], TARGET, spaces[1])])


def observation(results: ProbeResults) -> Observation:
    """Return the observation of the request, in which addresses are named `<address>`."""
    ((cell, seen),) = results.observations(lambda address, _: f"<{address}>")
    assert cell is CELL
    return seen


@pytest.mark.parametrize("received_first", [True, False])
def test_request_is_open_until_witness_and_source_have_reported(
    results: ProbeResults, spaces: list[NetNS], *, received_first: bool
) -> None:
    """A request is open until the witness and the source have both reported, in any order.

    An error after that changes nothing.
    """
    events: list[Callable[[], None]] = [
        lambda: results.received(0, RequestSeen(spaces[1], SOURCE, 62)),
        lambda: results.replied(0, REPLY),
    ]
    for event in events if received_first else reversed(events):
        assert results.open == {0}
        assert results.unanswered_ends() == set(spaces[:2])
        event()
    assert results.open == results.unanswered_ends() == set()
    results.failed(0, errno.ECONNREFUSED)
    results.impostor(0, "late")
    expected = Observation(Outcome.REPLY, ttl=63, seen_ttl=62, seen_from="<192.0.2.1>")
    assert (observation(results), observation(results).rtt) == (expected, 0.001)


def test_reply_after_an_error_changes_nothing(results: ProbeResults, spaces: list[NetNS]) -> None:
    """A reply after an error changes nothing, because the error is final."""
    results.failed(0, errno.ECONNREFUSED)
    results.received(0, RequestSeen(spaces[1], SOURCE, 64))
    results.replied(0, REPLY)
    assert observation(results).outcome is Outcome.REJECTED


def test_reply_from_another_address_is_a_wrong_peer(
    results: ProbeResults, spaces: list[NetNS]
) -> None:
    """A reply from another address makes the outcome a wrong peer.

    This holds even if the right witness received the request.
    """
    results.received(0, RequestSeen(spaces[1], SOURCE, 64))
    results.replied(0, REPLY._replace(source=OTHER))
    seen = observation(results)
    assert seen.outcome is Outcome.WRONG_PEER
    assert seen.detail == "the reply came from 192.0.2.3, not from 192.0.2.2"


def test_request_seen_by_two_witnesses_is_a_wrong_peer(
    results: ProbeResults, spaces: list[NetNS]
) -> None:
    """A request that a second witness also received has the outcome wrong peer."""
    for space in spaces[1:]:
        results.received(0, RequestSeen(space, SOURCE, 64))
    results.replied(0, REPLY)
    assert results.open == set()
    seen = observation(results)
    assert seen.outcome is Outcome.WRONG_PEER
    assert all(f"net:[{space.id[1]}]" in seen.detail for space in spaces[1:])


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
)
def test_socket_error_determines_the_outcome(
    results: ProbeResults, number: int, code: str, expected: Observation | None, *, late: bool
) -> None:
    """The outcome of a socket error depends on the ICMP error, or else on the errno."""
    results.failed(0, number, code, late=late)
    assert results.open == set()
    assert observation(results) == (expected or Observation(Outcome.REJECTED, code=code))
