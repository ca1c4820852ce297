"""A defect that whichever test happens to meet it shows, known by what the runtime says."""

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


def test_a_test_that_fails_by_a_saying_is_known() -> None:
    """Whichever it is, and of no use to the list of those that are always there."""
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


def test_a_saying_is_never_fixed_and_never_gone() -> None:
    """It is a matter of chance whether any test meets it."""
    result = held(GREEN, saying())
    assert result.ok
    assert result.excused == ()


def test_the_verdict_of_a_saying_holds() -> None:
    """Where a shared start is refused the tests are errors; that is an entry of its own."""
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
def test_whatever_else_is_wrong_is_not_excused(failures: tuple[Failure, ...]) -> None:
    """Other words, somebody's quotation of these, or these and something besides."""
    assert len(held(made.report(met(failures=failures)), saying()).new) == 1


def test_a_second_refusal_with_the_same_words_is() -> None:
    """Every failure of the test says so."""
    again = HEARD.replace("63", "64")
    failures = (failed("call", HEARD, again), failed("teardown", f"Error:\n{again}"))
    assert held(made.report(met(failures=failures)), saying()).ok


def test_a_wrong_cell_is_not_excused_by_a_saying() -> None:
    """What was seen before the refusal was seen."""
    report = made.report(met(), cells=[made.cell("a", "b", seen=Outcome.DROPPED)])
    assert len(held(report, saying()).new) == 1


def test_cells_that_were_not_come_to_are_not_gone() -> None:
    """A matrix that could not be started is the tests' failure, and says nothing of its cells."""
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
def test_a_requirement_is_judged_by_the_other_tests(
    verdict: Verdict, others: list[TestResult]
) -> None:
    """Whatever is listed of it: the test that was excused says nothing of that."""
    entries = [
        saying(),
        saying(verdict=Verdict.ERROR),
        listed(DeviationKind.REQUIREMENT, "BR-4", verdict),
    ]
    for own in (Verdict.BROKEN, Verdict.ERROR):
        assert held(made.report(met(verdict=own), *others), *entries).ok


def test_a_requirement_of_which_a_part_is_supported_is_not_unsupported_by_a_saying() -> None:
    """The test that shows it has not come to that."""
    other = made.result(OUTSIDE, Verdict.UNSUPPORTED)
    assert held(made.report(met(), other), saying()).ok


def test_a_test_that_is_listed_itself_is_excused_by_a_saying_as_well() -> None:
    """Where it does not fail as it is listed; where it does, the saying is not needed."""
    entries = [listed(DeviationKind.TEST, PEERS), saying(), saying(verdict=Verdict.ERROR)]
    (excused,) = held(made.report(met(verdict=Verdict.ERROR)), *entries).excused
    assert excused.tests == (PEERS,)
    for report in (RED, made.report(met())):
        assert held(report, *entries).ok
        assert held(report, *entries).excused == ()
    assert len(held(made.report(made.result(PEERS, Verdict.ERROR)), *entries).new) == 1


def test_a_saying_excuses_so_many_tests_and_no_more() -> None:
    """That all of a run falls to it is not as expected, and nobody overlooks it."""
    tests = [met(f"f.py::test_{number}") for number in range(4)]
    assert held(made.report(*tests[:3]), saying()).ok
    report = made.report(*tests)
    result = held(report, saying())
    assert not result.ok
    assert (len(result.known), result.new) == (4, ())
    assert gate.in_words(result, report)[0].startswith("gate: acme 1.2 is NOT AS EXPECTED by ")
    assert gate.in_words(result, report)[5:] == [
        "  excused            4: f.py::test_0, f.py::test_1, f.py::test_2 and 1 more "
        f'(broken, MORE THAN 3 by the saying "{TENTATIVE}": bound too early)'
    ]


def test_each_saying_has_a_line_of_its_own() -> None:
    """With what it has excused, if anything, and why."""
    report = made.report(met(), met(OUTSIDE, Verdict.ERROR))
    other = saying(id="said by nobody who is here today")
    result = held(report, saying(), other, saying(verdict=Verdict.ERROR, at_most=9))
    assert gate.in_words(result, report)[5:] == [
        f'  excused            1: {PEERS} (broken, at most 3 by the saying "{TENTATIVE}": '
        "bound too early)",
        f'  excused            1: {OUTSIDE} (error, at most 9 by the saying "{TENTATIVE}": '
        "bound too early)",
    ]


def test_a_saying_listed_twice_is_refused() -> None:
    """Once with each verdict it may be there."""
    with pytest.raises(
        BadExpectations, match=r"^saying failed to bind .* is listed twice for acme"
    ):
        held(RED, saying(), saying(at_most=5))
    assert (
        held(RED, saying(), saying(versions=">=2"), listed(DeviationKind.TEST, PEERS)).entries == 2
    )


def test_writing_leaves_sayings_as_they_are() -> None:
    """Also those that excused more than they may; who was excused is not listed."""
    entries = {saying(at_most=1), saying(verdict=Verdict.ERROR), saying(versions=">=2")}
    report = made.report(met(), met(OUTSIDE), met("f.py::test", Verdict.ERROR))
    assert set(gate.rewritten(report, [*entries], gone=lambda _: False)) == entries
    assert set(gate.rewritten(GREEN, [*entries], gone=lambda _: False)) == entries
    new, *_ = gate.rewritten(report, [saying(verdict=Verdict.ERROR)], gone=lambda _: False)
    assert (new.kind, new.id) == (DeviationKind.TEST, PEERS)
