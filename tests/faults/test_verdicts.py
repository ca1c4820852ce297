"""Tests of the verdict on a fault, which depends on the outcomes of tests."""

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
    """Return the outcome of one phase of a test, by default passed."""
    return PhaseOutcome(test, when, requirements, **more)


def verdict_on(
    *outcomes: PhaseOutcome, unsound: tuple[str, ...] = (), acted: int = 1, **fault: Any
) -> Result:
    """Return the verdict on a fault whose trial had these outcomes."""
    known = {"AB-1", "AB-2", "AB-3"}
    return judge(
        harmless(**fault),
        outcomes,
        tested=known,
        claimed=known - {"AB-3"},
        unsound=unsound,
        acted=acted,
    ).fate


def test_failing_test_of_the_requirement_catches_the_fault() -> None:
    """A fault is caught only by a failing test of the requirement that it violates."""
    assert verdict_on(outcome(**FAILED)) is Result.CAUGHT
    assert verdict_on(outcome()) is Result.SURVIVED
    assert verdict_on(outcome(requirements=("AB-2",), **FAILED)) is Result.SURVIVED


def test_each_violated_requirement_needs_a_failing_test() -> None:
    """A fault that violates two requirements needs a failing test of each."""
    both = ("AB-1", "AB-2")
    one, other = outcome(**FAILED), outcome(requirements=("AB-2",), **FAILED)
    assert verdict_on(one, violates=both) is Result.SURVIVED
    assert verdict_on(one, other, violates=both) is Result.CAUGHT


def test_failing_setup_counts_only_if_the_fault_declares_errors() -> None:
    """A failed set-up catches a fault only if the fault is declared with `errors`.

    The test itself has not run.
    """
    set_up = outcome(when="setup", **FAILED)
    assert verdict_on(set_up) is Result.SURVIVED
    assert verdict_on(set_up, errors=True) is Result.CAUGHT


@pytest.mark.parametrize("error", ["RuntimeBroken", "HostDied", "PytestTimeout"])
def test_crash_does_not_catch_a_fault(error: str) -> None:
    """A test that ends with a crash or a timeout does not catch a fault."""
    assert verdict_on(outcome(error=error)) is Result.SURVIVED


def test_leak_counts_for_its_own_requirement() -> None:
    """A leak counts for the requirement that the leak guard names.

    The requirements of the leaking test do not matter.
    """
    left = outcome(when="teardown", requirements=("AB-2",), breaks=("AB-1",), error="Violation")
    assert verdict_on(left) is Result.CAUGHT


def test_test_that_fails_without_a_fault_does_not_count() -> None:
    """A test that fails even without a fault does not count, as it fails with every fault."""
    assert verdict_on(outcome(**FAILED), unsound=("test_it",)) is Result.SURVIVED


def test_failing_fault_is_broken() -> None:
    """A fault that itself fails is broken, even if a test has failed."""
    wrong = outcome(error="FaultFailed", said="fault harmless failed")
    assert verdict_on(outcome(**FAILED), wrong) is Result.BROKEN


def test_fault_of_a_dead_trial_is_broken() -> None:
    """If the process of a trial dies, the fault is broken.

    The verdict says how the process ended.
    """
    known = {"AB-1"}
    told = [
        judge(harmless(), outcomes, tested=known, claimed=known, acted=0, died="it was killed")
        for outcomes in ([], [outcome(**FAILED)])
    ]
    assert [(item.fate, item.said) for item in told] == [(Result.BROKEN, "it was killed")] * 2


def test_untested_and_unsupported_are_different_verdicts() -> None:
    """A fault whose requirement has no test is untested.

    If no test of the requirement is supported, the fault is unsupported.
    """
    assert verdict_on(outcome(), violates=("AB-9",)) is Result.UNTESTED
    assert verdict_on(outcome(), violates=("AB-3",)) is Result.UNSUPPORTED


def test_narrow_fault_may_break_only_named_requirements() -> None:
    """A narrow fault may break only the requirements that it names.

    A leak counts for the requirement that the leak guard names.
    """
    caught, other = outcome(**FAILED), outcome("test_other", requirements=("AB-2",), **FAILED)
    leak = outcome("test_other", when="teardown", requirements=(), breaks=("AB-3",), error="V")
    assert verdict_on(caught, other) is Result.CAUGHT
    assert verdict_on(caught, other, narrow=True) is Result.STRAY
    assert verdict_on(caught, leak, narrow=True) is Result.STRAY
    assert verdict_on(caught, other, leak, narrow=True, also=("AB-2", "AB-3")) is Result.CAUGHT


def test_verdict_on_surviving_fault_has_its_activity() -> None:
    """The verdict on a surviving fault says whether the fault has done anything.

    A fault that never acted shows no hole in the suites.
    """
    known = {"AB-1"}
    told = [
        judge(harmless(), [outcome()], tested=known, claimed=known, acted=acted).said
        for acted in (0, 1)
    ]
    assert told == ["AB-1: the fault never acted", "AB-1: no test of it failed"]
