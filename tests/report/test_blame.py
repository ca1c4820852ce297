"""Tests of the search for the requirements that explain the failed checks of a run."""

from __future__ import annotations

from harness.report.blame import Check, causes

NEEDS = {"BR-7": ["BR-5"], "BR-8": ["BR-7", "DNS-1"], "PUB-1": ["BR-7"], "PUB-4": ["PUB-1"]}


def check(test: str, *ids: str, held: tuple[str, ...] = (), failed: bool = False) -> Check:
    """Return the result of a test that checks these requirements."""
    return Check(test, frozenset(ids), frozenset(held), failed=failed)


def failed(test: str, *ids: str, held: tuple[str, ...] = ()) -> Check:
    """Return the result of a failed test that checks these requirements."""
    return check(test, *ids, held=held, failed=True)


def test_passed_checks_have_no_cause() -> None:
    """A run without failures breaks no requirement."""
    assert causes([check("a", "BR-5"), check("b", "BR-7")], NEEDS) == {}


def test_failed_check_of_one_requirement_has_that_cause() -> None:
    """A failed check of one requirement breaks it, although its other check passed."""
    checks = [failed("a", "BR-5"), check("b", "BR-5")]
    assert causes(checks, NEEDS) == {"BR-5": frozenset({"a"})}


def test_needed_requirement_explains_failures_of_the_others() -> None:
    """A broken requirement explains failures of all requirements that need it, also indirectly."""
    checks = [failed("a", "BR-7"), failed("b", "BR-8"), failed("c", "PUB-4"), check("d", "BR-5")]
    assert causes(checks, NEEDS) == {"BR-7": frozenset("abc")}


def test_needed_requirement_that_holds_explains_nothing() -> None:
    """A needed requirement without a failed check is no cause, however many need it."""
    checks = [failed("a", "BR-8"), failed("b", "PUB-4"), check("c", "BR-7")]
    assert set(causes(checks, NEEDS)) == {"BR-8", "PUB-4"}


def test_narrow_failure_does_not_explain_a_wide_one() -> None:
    """If few checks of a needed requirement fail, the one whose checks all fail is the cause."""
    kept = [check(f"kept{n}", "BR-5") for n in range(20)]
    checks = [*kept, failed("a", "BR-7"), failed("b", "BR-7"), failed("c", "BR-5")]
    assert list(causes(checks, NEEDS)) == ["BR-7", "BR-5"]


def test_held_requirement_is_no_cause_of_that_failure() -> None:
    """A requirement that a failed test showed to be kept does not explain the test's failure."""
    checks = [failed("a", "BR-5"), failed("b", "BR-7", held=("BR-5",))]
    assert causes(checks, NEEDS) == {"BR-7": frozenset("b"), "BR-5": frozenset("a")}


def test_two_independent_defects_are_two_causes() -> None:
    """Failures of requirements that do not need each other have a cause each."""
    checks = [failed("a", "BR-5"), failed("b", "DNS-1"), failed("c", "DNS-1")]
    assert causes(checks, NEEDS) == {"DNS-1": frozenset("bc"), "BR-5": frozenset("a")}


def test_shared_failure_counts_against_the_requirement_with_more_failures() -> None:
    """A failed test of two requirements breaks the one whose other tests fail as well."""
    checks = [failed("a", "NET-4", "DNS-1"), failed("b", "DNS-1"), check("c", "NET-4")]
    assert causes(checks, NEEDS) == {"DNS-1": frozenset("ab")}
