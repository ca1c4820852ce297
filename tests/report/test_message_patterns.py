"""Message patterns: defects that any test may meet, known by the runtime's output."""

from __future__ import annotations

import pytest

from harness.model.plan import Outcome
from harness.report import expectations
from harness.report.expectations import BadExpectations, DeviationKind
from harness.report.schema import Excused, Failure, TestResult, Verdict
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
)
from tests.report.made import OUTSIDE, PEERS


def test_matching_failure_is_known() -> None:
    """Any test may meet the defect; --write-expect does not list it."""
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


def test_message_pattern_is_never_fixed_or_gone() -> None:
    """Whether a test meets the defect is chance."""
    result = compared(GREEN, pattern())
    assert result.ok
    assert result.excused == ()


def test_message_pattern_applies_to_its_verdict() -> None:
    """An error in a shared fixture needs its own entry."""
    error = made.report(matching(verdict=Verdict.ERROR), matching(OUTSIDE, Verdict.ERROR))
    assert len(compared(error, pattern()).new) == 2
    both = compared(error, pattern(), pattern(verdict=Verdict.ERROR))
    assert both.ok
    assert [(item.verdict, item.tests) for item in both.excused] == [
        (Verdict.ERROR, (PEERS, OUTSIDE))
    ]


@pytest.mark.parametrize(
    "failures",
    [
        (),
        (failed("call"),),
        (failed("call", "Error: no address left"),),
        (Failure(when="call", message=MESSAGE, text=f"assert {MESSAGE!r} in said"),),
        (failed("call", MESSAGE), Failure(when="teardown", message="LIFE-1: left behind")),
        (failed("call", MESSAGE), failed("teardown", "Error: no such network")),
        (failed("call", MESSAGE, "Error: no address left"),),
    ],
)
def test_other_failures_are_not_excused(failures: tuple[Failure, ...]) -> None:
    """Other words, a quotation, or a further failure count as new."""
    assert len(compared(made.report(matching(failures=failures)), pattern()).new) == 1


def test_second_matching_failure_is_excused() -> None:
    """Every failure of the test matches."""
    again = MESSAGE.replace("63", "64")
    failures = (failed("call", MESSAGE, again), failed("teardown", f"Error:\n{again}"))
    assert compared(made.report(matching(failures=failures)), pattern()).ok


def test_wrong_cell_is_not_excused() -> None:
    """It was observed before the refusal."""
    report = made.report(matching(), cells=[made.cell("a", "b", seen=Outcome.DROPPED)])
    assert len(compared(report, pattern()).new) == 1


def test_unobserved_cells_are_not_gone() -> None:
    """A matrix that could not start says nothing about its cells."""
    report = made.report(matching(verdict=Verdict.ERROR))
    cell, entry = listed(DeviationKind.CELL, WRONG), pattern(verdict=Verdict.ERROR)
    assert compared(report, cell, entry).ok
    assert not compared(GREEN, cell, entry).ok


@pytest.mark.parametrize(
    ("verdict", "others"),
    [
        (Verdict.BROKEN, []),
        (Verdict.BROKEN, [made.result(OUTSIDE)]),
        (Verdict.BROKEN, [made.result(OUTSIDE, Verdict.UNSUPPORTED)]),
        (Verdict.BROKEN, [made.result(OUTSIDE, Verdict.BROKEN)]),
        (Verdict.ERROR, [made.result(OUTSIDE, Verdict.ERROR)]),
        (Verdict.UNSUPPORTED, []),
        (Verdict.UNSUPPORTED, [made.result(OUTSIDE, Verdict.UNSUPPORTED)]),
    ],
)
def test_excused_test_does_not_judge_its_requirement(
    verdict: Verdict, others: list[TestResult]
) -> None:
    """The other tests decide."""
    entries = [
        pattern(),
        pattern(verdict=Verdict.ERROR),
        listed(DeviationKind.REQUIREMENT, "BR-4", verdict),
    ]
    for own in (Verdict.BROKEN, Verdict.ERROR):
        assert compared(made.report(matching(verdict=own), *others), *entries).ok


def test_partly_supported_requirement_is_not_unsupported() -> None:
    """The test that shows the support was excused."""
    other = made.result(OUTSIDE, Verdict.UNSUPPORTED)
    assert compared(made.report(matching(), other), pattern()).ok


def test_listed_test_is_excused_too() -> None:
    """The pattern applies if the test does not fail as listed."""
    entries = [
        listed(DeviationKind.TEST, PEERS),
        pattern(),
        pattern(verdict=Verdict.ERROR),
    ]
    (excused,) = compared(made.report(matching(verdict=Verdict.ERROR)), *entries).excused
    assert excused.tests == (PEERS,)
    for report in (RED, made.report(matching())):
        assert compared(report, *entries).ok
        assert compared(report, *entries).excused == ()
    assert len(compared(made.report(made.result(PEERS, Verdict.ERROR)), *entries).new) == 1


def test_at_most_limits_the_excused_tests() -> None:
    """More of them fail the run."""
    tests = [matching(f"f.py::test_{number}") for number in range(4)]
    assert compared(made.report(*tests[:3]), pattern()).ok
    report = made.report(*tests)
    result = compared(report, pattern())
    assert not result.ok
    assert (len(result.known), result.new) == (4, ())
    verdict, *_, excused = expectations.summary_lines(result, report)
    assert verdict.startswith("gate: acme 1.2 is NOT AS EXPECTED by ")
    assert excused == (
        "  excused            4: f.py::test_0, f.py::test_1, f.py::test_2 and 1 more "
        f'(broken, MORE THAN 3 by the saying "{TENTATIVE}": bound too early)'
    )


def test_each_message_pattern_has_its_line() -> None:
    """The line has the excused tests and the reason."""
    report = made.report(matching(), matching(OUTSIDE, Verdict.ERROR))
    other = pattern(id="said by nobody who is here today")
    result = compared(report, pattern(), other, pattern(verdict=Verdict.ERROR, at_most=9))
    assert expectations.summary_lines(result, report)[5:] == [
        f'  excused            1: {PEERS} (broken, at most 3 by the saying "{TENTATIVE}": '
        "bound too early)",
        f'  excused            1: {OUTSIDE} (error, at most 9 by the saying "{TENTATIVE}": '
        "bound too early)",
    ]


def test_duplicate_message_pattern_is_refused() -> None:
    """It may be listed once with each verdict."""
    with pytest.raises(
        BadExpectations, match=r"^saying failed to bind .* is listed twice for acme"
    ):
        compared(RED, pattern(), pattern(at_most=5))
    assert (
        compared(
            RED,
            pattern(),
            pattern(versions=">=2"),
            listed(DeviationKind.TEST, PEERS),
        ).entries
        == 2
    )


def test_writing_keeps_message_patterns() -> None:
    """Also exceeded ones stay; excused tests are not listed."""
    entries = {
        pattern(at_most=1),
        pattern(verdict=Verdict.ERROR),
        pattern(versions=">=2"),
    }
    report = made.report(matching(), matching(OUTSIDE), matching("f.py::test", Verdict.ERROR))
    assert set(expectations.updated(report, [*entries], gone=lambda _: False)) == entries
    assert set(expectations.updated(GREEN, [*entries], gone=lambda _: False)) == entries
    new, *_ = expectations.updated(report, [pattern(verdict=Verdict.ERROR)], gone=lambda _: False)
    assert (new.kind, new.id) == (DeviationKind.TEST, PEERS)
