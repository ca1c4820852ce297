"""Message patterns: defects that any test may meet, known by the runtime's output."""

from __future__ import annotations

import pytest

from harness.model.plan import Outcome
from harness.report import gate
from harness.report.expectations import BadExpectations, DeviationKind
from harness.report.schema import Excused, Failure, TestResult, Verdict
from tests.report import made
from tests.report.entries import (
    GREEN,
    HEARD,
    RED,
    TENTATIVE,
    WRONG,
    failed,
    held,
    listed,
    met,
    saying,
)
from tests.report.made import OUTSIDE, PEERS


def test_matching_failure_is_known() -> None:
    """Any test may meet the defect; --write-expect does not list it."""
    report = made.report(met(), made.result(OUTSIDE, requirements=["BR-9"]))
    result = held(report, saying(link="https://example.com/1"))
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
    result = held(GREEN, saying())
    assert result.ok
    assert result.excused == ()


def test_message_pattern_applies_to_its_verdict() -> None:
    """An error in a shared fixture needs its own entry."""
    error = made.report(met(verdict=Verdict.ERROR), met(OUTSIDE, Verdict.ERROR))
    assert len(held(error, saying()).new) == 2
    both = held(error, saying(), saying(verdict=Verdict.ERROR))
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
        (Failure(when="call", message=HEARD, text=f"assert {HEARD!r} in said"),),
        (failed("call", HEARD), Failure(when="teardown", message="LIFE-1: left behind")),
        (failed("call", HEARD), failed("teardown", "Error: no such network")),
        (failed("call", HEARD, "Error: no address left"),),
    ],
)
def test_other_failures_are_not_excused(failures: tuple[Failure, ...]) -> None:
    """Other words, a quotation, or a further failure count as new."""
    assert len(held(made.report(met(failures=failures)), saying()).new) == 1


def test_second_matching_failure_is_excused() -> None:
    """Every failure of the test matches."""
    again = HEARD.replace("63", "64")
    failures = (failed("call", HEARD, again), failed("teardown", f"Error:\n{again}"))
    assert held(made.report(met(failures=failures)), saying()).ok


def test_wrong_cell_is_not_excused() -> None:
    """It was observed before the refusal."""
    report = made.report(met(), cells=[made.cell("a", "b", seen=Outcome.DROPPED)])
    assert len(held(report, saying()).new) == 1


def test_unobserved_cells_are_not_gone() -> None:
    """A matrix that could not start says nothing about its cells."""
    report = made.report(met(verdict=Verdict.ERROR))
    cell, entry = listed(DeviationKind.CELL, WRONG), saying(verdict=Verdict.ERROR)
    assert held(report, cell, entry).ok
    assert not held(GREEN, cell, entry).ok


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
        saying(),
        saying(verdict=Verdict.ERROR),
        listed(DeviationKind.REQUIREMENT, "BR-4", verdict),
    ]
    for own in (Verdict.BROKEN, Verdict.ERROR):
        assert held(made.report(met(verdict=own), *others), *entries).ok


def test_partly_supported_requirement_is_not_unsupported() -> None:
    """The test that shows the support was excused."""
    other = made.result(OUTSIDE, Verdict.UNSUPPORTED)
    assert held(made.report(met(), other), saying()).ok


def test_listed_test_is_excused_too() -> None:
    """The pattern applies if the test does not fail as listed."""
    entries = [listed(DeviationKind.TEST, PEERS), saying(), saying(verdict=Verdict.ERROR)]
    (excused,) = held(made.report(met(verdict=Verdict.ERROR)), *entries).excused
    assert excused.tests == (PEERS,)
    for report in (RED, made.report(met())):
        assert held(report, *entries).ok
        assert held(report, *entries).excused == ()
    assert len(held(made.report(made.result(PEERS, Verdict.ERROR)), *entries).new) == 1


def test_at_most_limits_the_excused_tests() -> None:
    """More of them fail the run."""
    tests = [met(f"f.py::test_{number}") for number in range(4)]
    assert held(made.report(*tests[:3]), saying()).ok
    report = made.report(*tests)
    result = held(report, saying())
    assert not result.ok
    assert (len(result.known), result.new) == (4, ())
    assert gate.summary_lines(result, report)[0].startswith("gate: acme 1.2 is NOT AS EXPECTED by ")
    assert gate.summary_lines(result, report)[5:] == [
        "  excused            4: f.py::test_0, f.py::test_1, f.py::test_2 and 1 more "
        f'(broken, MORE THAN 3 by the saying "{TENTATIVE}": bound too early)'
    ]


def test_each_message_pattern_has_its_line() -> None:
    """The line has the excused tests and the reason."""
    report = made.report(met(), met(OUTSIDE, Verdict.ERROR))
    other = saying(id="said by nobody who is here today")
    result = held(report, saying(), other, saying(verdict=Verdict.ERROR, at_most=9))
    assert gate.summary_lines(result, report)[5:] == [
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
        held(RED, saying(), saying(at_most=5))
    assert (
        held(RED, saying(), saying(versions=">=2"), listed(DeviationKind.TEST, PEERS)).entries == 2
    )


def test_writing_keeps_message_patterns() -> None:
    """Also exceeded ones stay; excused tests are not listed."""
    entries = {saying(at_most=1), saying(verdict=Verdict.ERROR), saying(versions=">=2")}
    report = made.report(met(), met(OUTSIDE), met("f.py::test", Verdict.ERROR))
    assert set(gate.updated(report, [*entries], gone=lambda _: False)) == entries
    assert set(gate.updated(GREEN, [*entries], gone=lambda _: False)) == entries
    new, *_ = gate.updated(report, [saying(verdict=Verdict.ERROR)], gone=lambda _: False)
    assert (new.kind, new.id) == (DeviationKind.TEST, PEERS)
