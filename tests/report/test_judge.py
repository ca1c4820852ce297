"""Tests of the judge, which derives verdicts and counts of requirements from tests."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.report.judge import counts, judged, profile
from harness.report.schema import Failure, Profile, TestResult, Verdict
from tests.report import made


def verdict_of(id_: str, *tests: TestResult) -> Verdict:
    """Return the verdict of a requirement after these tests."""
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
def test_most_severe_verdict_counts(others: list[Verdict], worst: Verdict) -> None:
    """A requirement gets the most severe verdict of its tests, skipped tests aside."""
    tests = [made.result(f"f.py::test_{n}", verdict) for n, verdict in enumerate(others)]
    assert verdict_of("BR-4", *tests) is worst


def test_leak_breaks_life_1_and_not_the_tests_requirement() -> None:
    """A leak counts against LIFE-1, not against the requirements of the leaking test."""
    left = made.result(
        verdict=Verdict.BROKEN, breaks=("LIFE-1",), failures=(Failure(when="teardown"),)
    )
    assert verdict_of("LIFE-1", left) is Verdict.BROKEN
    assert verdict_of("BR-4", left) is Verdict.KEPT


def test_failure_with_a_leak_breaks_life_1_and_the_tests_requirement() -> None:
    """A failed test that also leaks breaks LIFE-1 and the test's own requirements."""
    failures = (Failure(when="call"), Failure(when="teardown"))
    both = made.result(verdict=Verdict.BROKEN, breaks=("LIFE-1",), failures=failures)
    assert verdict_of("LIFE-1", both) is Verdict.BROKEN
    assert verdict_of("BR-4", both) is Verdict.BROKEN


def test_wrong_cells_break_the_requirement_that_promised_them() -> None:
    """A failed comparison of matrices breaks the requirement of the wrong cells and no other."""
    failure = Failure(when="call", contradicts=("BR-9",), holds=("BR-4",))
    test = made.result(verdict=Verdict.BROKEN, requirements=("BR-4", "HOST-1"), failures=(failure,))
    assert verdict_of("BR-9", test) is Verdict.BROKEN
    assert verdict_of("BR-4", test) is Verdict.KEPT
    assert verdict_of("HOST-1", test) is Verdict.UNJUDGED


def test_leak_found_in_the_body_leaves_the_requirement_unjudged() -> None:
    """If a test ends because the guard finds a leak in its body, its requirement is unjudged."""
    failure = Failure(when="call", contradicts=("LIFE-1",))
    test = made.result(verdict=Verdict.BROKEN, breaks=("LIFE-1",), failures=(failure,))
    assert verdict_of("LIFE-1", test) is Verdict.BROKEN
    assert verdict_of("BR-4", test) is Verdict.UNJUDGED


def test_requirement_is_unjudged_because_of_a_broken_needed_one() -> None:
    """A requirement whose failures a broken needed requirement explains is unjudged."""
    rows = [replace(row, needs=("BR-4",)) if row.id == "BR-9" else row for row in made.ROWS]
    tests = [
        made.result("f.py::test_1", Verdict.BROKEN),
        made.result("f.py::test_2", Verdict.BROKEN, requirements=("BR-9",)),
    ]
    found = {item.id: item for item in judged(rows, tests)}
    assert found["BR-4"].verdict is Verdict.BROKEN
    assert (found["BR-9"].verdict, found["BR-9"].because) == (Verdict.UNJUDGED, ("BR-4",))


@pytest.mark.parametrize(
    ("level", "features", "expected"),
    [
        ("MUST", ["bridge", "none"], Profile.CORE),
        ("MUST", [], Profile.CORE),
        ("SHOULD", ["bridge"], Profile.EXTENDED),
        ("MUST", ["bridge", "dns"], Profile.EXTENDED),
    ],
)
def test_core_requirements_are_must_and_need_only_the_modes(
    level: str, features: list[str], expected: Profile
) -> None:
    """Core requirements have level MUST and need only the four modes.

    Other requirements are counted apart.
    """
    assert profile(level, features) is expected


@settings(deadline=None)
@given(st.lists(st.sampled_from(Verdict)))
def test_requirement_counts_add_up_to_the_total(verdicts: list[Verdict]) -> None:
    """The counts by verdict add up to the total, for any selection of verdicts."""
    found = counts(verdicts)
    assert found.total == len(verdicts) == sum(getattr(found, name) for name in Verdict)


def test_unsupported_core_does_not_conform() -> None:
    """A runtime with an unsupported core requirement does not conform.

    This holds even if no requirement is broken.
    """
    assert made.report(made.result(verdict=Verdict.UNSUPPORTED)).conforms is False


def test_untested_core_has_no_verdict() -> None:
    """A run that leaves a core requirement untested has no verdict, unless a test has failed."""
    assert made.report(made.result()).conforms is None


def test_runtime_that_keeps_the_core_conforms() -> None:
    """A runtime that keeps all core requirements conforms.

    Extended requirements may be unsupported or untested.
    """
    kept = made.result(requirements=["BR-4", "BR-9", "HOST-1"])
    dns = made.result("f.py::test_dns", Verdict.UNSUPPORTED, ["DNS-1"])
    assert made.report(kept, dns).conforms is True
    assert made.report(kept, dns, partial=("interrupted",)).conforms is None
