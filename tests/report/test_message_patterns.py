"""Tests of message patterns, which excuse any test that fails with a certain runtime output."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.model.plan import Outcome
from harness.report import expectations
from harness.report.expectations import BadExpectations, Deviation, DeviationKind
from harness.report.schema import CellResult, Excused, Failure, Report, TestResult, Verdict
from tests.report import made
from tests.report.entries import (
    GREEN,
    MESSAGE,
    RED,
    TENTATIVE,
    WRONG,
    compared,
    failed,
    listed,
    matching,
    pattern,
    updated,
)
from tests.report.made import OUTSIDE, PEERS


def test_failure_that_matches_a_pattern_is_excused() -> None:
    """A test whose failure matches a message pattern is excused.

    `--write-expect` does not list the test.
    """
    report = made.report(matching(), made.result(OUTSIDE, requirements=["BR-9"]))
    result = compared(report, pattern(link="https://example.com/1"))
    assert result.ok
    assert result.known == (f"{PEERS} (broken: BR-4)",)
    assert result.entries == 1
    assert result.excused == (
        Excused(
            saying=TENTATIVE,
            verdict=Verdict.BROKEN,
            reason="bound too early",
            link="https://example.com/1",
            at_most=3,
            count=1,
            tests=(PEERS,),
        ),
    )


def error(*results: TestResult) -> Report:
    """Return a report with an error whose message matches a pattern, and with other tests."""
    return made.report(matching(verdict=Verdict.ERROR), *results)


def broken(*failures: Failure, cells: Sequence[CellResult] = ()) -> Report:
    """Return a report with one broken test that has these failures."""
    return made.report(matching(failures=failures), cells=cells)


AGAIN = MESSAGE.replace("63", "64")
LEAK = Failure(when="teardown", message="LIFE-1: left behind")
QUOTED = Failure(when="call", message=MESSAGE, text=f"assert {MESSAGE!r} in said")
NO_ADDRESS = "Error: no address left"
NO_NETWORK = failed("teardown", "Error: no such network")
OF_ERRORS = pattern(verdict=Verdict.ERROR)
ABOUT_CELL = listed(DeviationKind.CELL, WRONG)
LOST = made.cell("a", "b", seen=Outcome.DROPPED)
OUTSIDE_TOO = matching(OUTSIDE, Verdict.ERROR)
NEITHER = made.result(OUTSIDE, Verdict.UNSUPPORTED)
CASES: dict[str, tuple[Report, list[Deviation], int]] = {
    "pattern without a failure": (GREEN, [pattern()], 0),
    "error": (error(OUTSIDE_TOO), [pattern()], 2),
    "error, listed": (error(OUTSIDE_TOO), [pattern(), OF_ERRORS], 0),
    "failure without words": (broken(), [pattern()], 1),
    "failure without output": (broken(failed("call")), [pattern()], 1),
    "other words": (broken(failed("call", NO_ADDRESS)), [pattern()], 1),
    "quotation": (broken(QUOTED), [pattern()], 1),
    "leak too": (broken(failed("call", MESSAGE), LEAK), [pattern()], 1),
    "second failure": (broken(failed("call", MESSAGE), NO_NETWORK), [pattern()], 1),
    "second output": (broken(failed("call", MESSAGE, NO_ADDRESS)), [pattern()], 1),
    "second matching output": (broken(failed("call", MESSAGE, AGAIN)), [pattern()], 0),
    "second matching failure": (
        broken(failed("call", MESSAGE), failed("teardown", f"Error:\n{AGAIN}")),
        [pattern()],
        0,
    ),
    "wrong cell before": (broken(failed("call", MESSAGE), cells=[LOST]), [pattern()], 1),
    "unobserved cell": (error(), [ABOUT_CELL, OF_ERRORS], 0),
    "other test unsupported": (made.report(matching(), NEITHER), [pattern()], 0),
}


@pytest.mark.parametrize(("run", "entries", "new"), CASES.values(), ids=list(CASES))
def test_pattern_excuses_tests_if_all_failures_match(
    run: Report, entries: list[Deviation], new: int
) -> None:
    """A pattern excuses a test only if all its failures match the pattern and its verdict.

    The gate never reports a pattern as fixed or gone.
    """
    result = compared(run, *entries)
    assert len(result.new) == new
    assert result.ok == (not new)


def test_unobserved_cell_is_gone_unless_a_test_is_excused() -> None:
    """A listed cell that was not observed is gone, unless a test is excused.

    A matrix that could not start says nothing about its cells. A run without failures does.
    """
    assert not compared(GREEN, ABOUT_CELL, OF_ERRORS).ok


@pytest.mark.parametrize(
    ("verdict", "others"),
    [
        (Verdict.BROKEN, []),
        (Verdict.BROKEN, [made.result(OUTSIDE)]),
        (Verdict.BROKEN, [NEITHER]),
        (Verdict.BROKEN, [made.result(OUTSIDE, Verdict.BROKEN)]),
        (Verdict.ERROR, [made.result(OUTSIDE, Verdict.ERROR)]),
        (Verdict.UNSUPPORTED, []),
        (Verdict.UNSUPPORTED, [NEITHER]),
    ],
)
def test_excused_test_does_not_judge_its_requirement(
    verdict: Verdict, others: list[TestResult]
) -> None:
    """An excused test has no effect on the verdict of its requirement.

    The requirement's other tests decide.
    """
    entries = [pattern(), OF_ERRORS, listed(DeviationKind.REQUIREMENT, "BR-4", verdict)]
    for own in (Verdict.BROKEN, Verdict.ERROR):
        assert compared(made.report(matching(verdict=own), *others), *entries).ok


def test_pattern_excuses_a_listed_test() -> None:
    """A pattern also excuses a test that is listed with another failure."""
    entries = [listed(DeviationKind.TEST, PEERS), pattern(), pattern(verdict=Verdict.ERROR)]
    (excused,) = compared(made.report(matching(verdict=Verdict.ERROR)), *entries).excused
    assert excused.tests == (PEERS,)
    for report in (RED, made.report(matching())):
        assert compared(report, *entries).ok
        assert compared(report, *entries).excused == ()
    assert len(compared(made.report(made.result(PEERS, Verdict.ERROR)), *entries).new) == 1


def test_pattern_that_exceeds_its_limit_fails_the_run() -> None:
    """A message pattern that excuses more tests than its `at most` limit fails the run."""
    tests = [matching(f"f.py::test_{number}") for number in range(4)]
    assert compared(made.report(*tests[:3]), pattern()).ok
    report = made.report(*tests)
    result = compared(report, pattern())
    assert not result.ok
    assert (len(result.known), result.new) == (4, ())
    verdict, *_, excused = expectations.summary_lines(result, report)
    assert verdict.startswith("gate FAILED: acme 1.2, compared with ")
    assert excused == (
        "  excused            4: f.py::test_0, f.py::test_1, f.py::test_2 and 1 more "
        f'(broken, MORE THAN 3 by the error pattern "{TENTATIVE}": bound too early)'
    )


def test_gate_prints_a_line_per_message_pattern() -> None:
    """The gate prints a line per message pattern, with the excused tests and the reason."""
    report = made.report(matching(), matching(OUTSIDE, Verdict.ERROR))
    other = pattern(id="a message that no test of this run has")
    result = compared(report, pattern(), other, pattern(verdict=Verdict.ERROR, at_most=9))
    assert expectations.summary_lines(result, report)[5:] == [
        f'  excused            1: {PEERS} (broken, at most 3 by the error pattern "{TENTATIVE}": '
        "bound too early)",
        f'  excused            1: {OUTSIDE} (error, at most 9 by the error pattern "{TENTATIVE}": '
        "bound too early)",
    ]


def test_duplicate_message_pattern_is_refused() -> None:
    """A message pattern that is listed twice with the same verdict is refused."""
    with pytest.raises(
        BadExpectations, match=r"^saying failed to bind .* is listed twice for acme"
    ):
        compared(RED, pattern(), pattern(at_most=5))
    assert (
        compared(RED, pattern(), pattern(versions=">=2"), listed(DeviationKind.TEST, PEERS)).entries
        == 2
    )


def test_writing_expectations_keeps_message_patterns() -> None:
    """`--write-expect` keeps all message patterns, and does not list excused tests.

    A pattern that exceeds its limit is kept too.
    """
    entries = {pattern(at_most=1), pattern(verdict=Verdict.ERROR), pattern(versions=">=2")}
    report = made.report(matching(), matching(OUTSIDE), matching("f.py::test", Verdict.ERROR))
    assert set(updated(report, *entries)) == entries
    assert set(updated(GREEN, *entries)) == entries
    new, *_ = updated(report, pattern(verdict=Verdict.ERROR))
    assert (new.kind, new.id) == (DeviationKind.TEST, PEERS)
