"""From tests to requirements to counts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.report.judge import counts, judged, profile
from harness.report.schema import Failure, Profile, TestResult, Verdict
from tests.report import made


def verdict_of(id_: str, *tests: TestResult) -> Verdict:
    """What becomes of a requirement after these tests."""
    return next(item.verdict for item in judged(made.ROWS, tests) if item.id == id_)


@pytest.mark.parametrize(
    ("others", "worst"),
    [
        ([Verdict.KEPT, Verdict.BROKEN, Verdict.ERROR], Verdict.BROKEN),
        ([Verdict.KEPT, Verdict.ERROR, Verdict.UNSUPPORTED], Verdict.ERROR),
        ([Verdict.UNSUPPORTED, Verdict.KEPT], Verdict.KEPT),
        ([Verdict.UNSUPPORTED, Verdict.SKIPPED], Verdict.UNSUPPORTED),
        ([Verdict.SKIPPED], Verdict.UNTESTED),
        ([], Verdict.UNTESTED),
    ],
)
def test_the_weightiest_verdict_of_its_tests_is_a_requirements(
    others: list[Verdict], worst: Verdict
) -> None:
    """A skipped test says nothing about its requirement."""
    tests = [made.result(f"f.py::test_{n}", verdict) for n, verdict in enumerate(others)]
    assert verdict_of("BR-4", *tests) is worst


def test_what_a_test_leaves_behind_breaks_that_requirement_only() -> None:
    """A leak found after a test counts against LIFE-1, not against what the test is about."""
    left = made.result(
        verdict=Verdict.BROKEN, breaks=("LIFE-1",), failures=(Failure(when="teardown"),)
    )
    assert verdict_of("LIFE-1", left) is Verdict.BROKEN
    assert verdict_of("BR-4", left) is Verdict.KEPT


def test_a_test_that_fails_and_leaves_something_behind_breaks_both() -> None:
    """The leak does not excuse the failure."""
    failures = (Failure(when="call"), Failure(when="teardown"))
    both = made.result(verdict=Verdict.BROKEN, breaks=("LIFE-1",), failures=failures)
    assert verdict_of("LIFE-1", both) is Verdict.BROKEN
    assert verdict_of("BR-4", both) is Verdict.BROKEN


@pytest.mark.parametrize(
    ("level", "features", "expected"),
    [
        ("MUST", ["bridge", "none"], Profile.CORE),
        ("MUST", [], Profile.CORE),
        ("SHOULD", ["bridge"], Profile.EXTENDED),
        ("MUST", ["bridge", "dns"], Profile.EXTENDED),
    ],
)
def test_core_is_what_must_hold_with_the_four_modes(
    level: str, features: list[str], expected: Profile
) -> None:
    """A row that is no MUST, or that needs more, is counted apart."""
    assert profile(level, features) is expected


@settings(deadline=None)
@given(st.lists(st.sampled_from(Verdict)))
def test_every_verdict_is_counted_once(verdicts: list[Verdict]) -> None:
    """The counts add up to the total, whatever there is to count."""
    found = counts(verdicts)
    assert found.total == len(verdicts) == sum(getattr(found, name) for name in Verdict)


def test_whoever_does_not_support_the_core_does_not_conform() -> None:
    """An unsupported core requirement is no success, though nothing is broken."""
    assert made.report(made.result(verdict=Verdict.UNSUPPORTED)).conforms is False


def test_nothing_is_said_of_a_core_that_was_not_tested() -> None:
    """Without a failure, but with core rows untested, there is no verdict yet."""
    assert made.report(made.result()).conforms is None


def test_a_core_that_is_kept_conforms() -> None:
    """An extended requirement that is unsupported or untested does not stand in the way."""
    kept = made.result(requirements=["BR-4", "BR-9", "HOST-1"])
    dns = made.result("f.py::test_dns", Verdict.UNSUPPORTED, ["DNS-1"])
    assert made.report(kept, dns).conforms is True
    assert made.report(kept, dns, partial=("interrupted",)).conforms is None
