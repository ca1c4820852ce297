"""When a fault counts as caught, and when not."""

from __future__ import annotations

from typing import Any

import pytest

from harness.faults.verdicts import PhaseOutcome, Result, judge
from tests.faults.making import harmless

FAILED: dict[str, Any] = {"error": "AssertionError", "said": "assert 1 == 2"}


def outcome(
    test: str = "test_it",
    when: str = "call",
    requirements: tuple[str, ...] = ("AB-1",),
    **more: Any,
) -> PhaseOutcome:
    """Return the outcome of a test phase, by default a pass."""
    return PhaseOutcome(test, when, requirements, **more)


def fate(
    *outcomes: PhaseOutcome, unsound: tuple[str, ...] = (), acted: int = 1, **fault: Any
) -> Result:
    """Return the verdict on a fault after these outcomes."""
    known = {"AB-1", "AB-2", "AB-3"}
    return judge(
        harmless(**fault),
        outcomes,
        tested=known,
        claimed=known - {"AB-3"},
        unsound=unsound,
        acted=acted,
    ).fate


def test_a_test_of_the_requirement_that_fails_has_caught_it() -> None:
    """One of another requirement has not."""
    assert fate(outcome(**FAILED)) is Result.CAUGHT
    assert fate(outcome()) is Result.SURVIVED
    assert fate(outcome(requirements=("AB-2",), **FAILED)) is Result.SURVIVED


def test_each_requirement_that_it_violates_must_be_seen_to_fail() -> None:
    """One of two is not enough."""
    both = ("AB-1", "AB-2")
    one, other = outcome(**FAILED), outcome(requirements=("AB-2",), **FAILED)
    assert fate(one, violates=both) is Result.SURVIVED
    assert fate(one, other, violates=both) is Result.CAUGHT


def test_a_set_up_that_fails_shows_nothing_unless_the_fault_says_so() -> None:
    """The test itself has not been run then."""
    set_up = outcome(when="setup", **FAILED)
    assert fate(set_up) is Result.SURVIVED
    assert fate(set_up, errors=True) is Result.CAUGHT


@pytest.mark.parametrize("error", ["RuntimeBroken", "HostDied", "PytestTimeout"])
def test_a_crash_shows_nothing(error: str) -> None:
    """Nor does a test that ran out of time."""
    assert fate(outcome(error=error)) is Result.SURVIVED


def test_what_is_left_behind_counts_whatever_the_test_is_about() -> None:
    """A guard tells which requirements that breaks."""
    left = outcome(when="teardown", requirements=("AB-2",), breaks=("AB-1",), error="Violation")
    assert fate(left) is Result.CAUGHT


def test_a_test_that_fails_without_any_fault_shows_nothing() -> None:
    """It would fail with every one."""
    assert fate(outcome(**FAILED), unsound=("test_it",)) is Result.SURVIVED


def test_a_fault_that_goes_wrong_itself_is_broken() -> None:
    """Even where a test has failed by then."""
    wrong = outcome(error="FaultFailed", said="fault harmless failed")
    assert fate(outcome(**FAILED), wrong) is Result.BROKEN


def test_a_trial_that_dies_is_no_hole() -> None:
    """Whatever its tests have shown by then, and it says how it ended."""
    known = {"AB-1"}
    told = [
        judge(harmless(), outcomes, tested=known, claimed=known, acted=0, died="it was killed")
        for outcomes in ([], [outcome(**FAILED)])
    ]
    assert [(item.fate, item.said) for item in told] == [(Result.BROKEN, "it was killed")] * 2


def test_a_requirement_without_a_test_is_told_apart() -> None:
    """There is none, or none that the runtime claims to pass."""
    assert fate(outcome(), violates=("AB-9",)) is Result.UNTESTED
    assert fate(outcome(), violates=("AB-3",)) is Result.UNSUPPORTED


def test_a_narrow_fault_breaks_nothing_else() -> None:
    """But for what it names; a leak counts by what it breaks."""
    caught, other = outcome(**FAILED), outcome("test_other", requirements=("AB-2",), **FAILED)
    leak = outcome("test_other", when="teardown", requirements=(), breaks=("AB-3",), error="V")
    assert fate(caught, other) is Result.CAUGHT
    assert fate(caught, other, narrow=True) is Result.STRAY
    assert fate(caught, leak, narrow=True) is Result.STRAY
    assert fate(caught, other, leak, narrow=True, also=("AB-2", "AB-3")) is Result.CAUGHT


def test_whether_it_acted_at_all_is_told() -> None:
    """Its author looks for the hole in the right place then."""
    known = {"AB-1"}
    told = [
        judge(harmless(), [outcome()], tested=known, claimed=known, acted=acted).said
        for acted in (0, 1)
    ]
    assert told == ["AB-1: it never acted", "AB-1: no test of it failed"]
