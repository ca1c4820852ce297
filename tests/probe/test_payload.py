"""Tests of the probe payloads: round trips, and rejection of anything else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.model.topology import Address
from harness.probe import results as wire

RUNS = st.binary(min_size=wire.RUN_LENGTH, max_size=wire.RUN_LENGTH)
INDEXES = st.integers(0, 2**32 - 1)


@given(run=RUNS, index=INDEXES, trailing=st.binary(max_size=9))
def test_probe_question_round_trip(run: bytes, index: int, trailing: bytes) -> None:
    """Every index comes through, whatever padding follows."""
    assert wire.read_question(wire.question(run, index) + trailing, run) == index


@given(
    run=RUNS,
    index=INDEXES,
    witness=INDEXES,
    ttl=st.none() | st.integers(1, 255),
    seen=st.ip_addresses(),
)
def test_probe_answer_round_trip(
    run: bytes, index: int, witness: int, ttl: int | None, seen: Address
) -> None:
    """Index, witness, TTL and the address of either family come through."""
    said = wire.answer(run, index, witness, ttl, seen)
    assert len(said) == wire.ANSWER_LENGTH
    assert wire.read_answer(said, run) == wire.WitnessReply(index, witness, ttl, seen)


@given(run=RUNS, other=RUNS, index=INDEXES, seen=st.ip_addresses())
def test_payload_of_another_run_is_ignored(
    run: bytes, other: bytes, index: int, seen: Address
) -> None:
    """A question or an answer with another nonce is ignored."""
    asked, said = wire.question(other, index), wire.answer(other, index, 0, 64, seen)
    assert (wire.read_question(asked, run) is None) == (run != other)
    assert (wire.read_answer(said, run) is None) == (run != other)


@given(run=RUNS, index=INDEXES, seen=st.ip_addresses())
def test_echoed_question_is_no_answer(run: bytes, index: int, seen: Address) -> None:
    """A question that comes back is not an answer, and an answer is not a question."""
    assert wire.read_answer(wire.question(run, index), run) is None
    assert wire.read_question(wire.answer(run, index, 0, 64, seen), run) is None


@given(run=RUNS, index=INDEXES, seen=st.ip_addresses(), cut=st.integers(0, 60))
def test_truncated_or_extended_payload_is_ignored(
    run: bytes, index: int, seen: Address, cut: int
) -> None:
    """A truncated question is invalid, and an answer has exactly one valid length."""
    asked, said = wire.question(run, index), wire.answer(run, index, 0, 64, seen)
    assert wire.read_question(asked[: min(cut, len(asked) - 1)], run) is None
    assert wire.read_answer(said[: min(cut, len(said) - 1)], run) is None
    assert wire.read_answer(said + bytes(cut + 1), run) is None


@given(run=RUNS, data=st.binary(max_size=60), tail=st.binary(min_size=43, max_size=43))
def test_payload_parser_survives_arbitrary_bytes(run: bytes, data: bytes, tail: bytes) -> None:
    """Any bytes, even after a valid beginning, parse to a value or `None` without an error."""
    for payload in (data, wire.MAGIC + b"Q" + run + data, (wire.MAGIC + b"A" + run + tail)[:39]):
        wire.read_question(payload, run)
        wire.read_answer(payload, run)
