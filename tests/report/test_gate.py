"""Tests of the gate, which passes a run if exactly the listed items fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.model.plan import Outcome
from harness.report import expectations
from harness.report.expectations import (
    FAILING,
    UNEXPLAINED,
    BadExpectations,
    Deviation,
    DeviationKind,
)
from harness.report.schema import Failure, Report, Selection, Shard, Verdict
from tests.report import made
from tests.report.entries import (
    CELL,
    GREEN,
    RED,
    REQUIREMENT,
    TEST,
    WRONG,
    compared,
    listed,
    matching,
    pattern,
    updated,
)
from tests.report.made import OUTSIDE, PEERS

BROKEN, ERROR, UNSUPPORTED, SKIPPED = (
    Verdict.BROKEN,
    Verdict.ERROR,
    Verdict.UNSUPPORTED,
    Verdict.SKIPPED,
)
TEARDOWN = Failure(when="teardown")
LEAK = made.result(PEERS, BROKEN, breaks=("LIFE-1",), failures=(TEARDOWN,))
CALL_AND_LEAK = replace(LEAK, failures=(Failure(when="call"), TEARDOWN))
LOST = made.cell("a", "b", seen=Outcome.DROPPED)
BACK = made.cell("b", "a", seen=Outcome.DROPPED)
NO_DNS = made.report(made.result(verdict=UNSUPPORTED, requirements=["DNS-1"]))

ABOUT_TEST, ABOUT_CELL = listed(TEST, PEERS), listed(CELL, WRONG)
BR4, BR9 = listed(REQUIREMENT, "BR-4"), listed(REQUIREMENT, "BR-9")
LIFE1 = listed(REQUIREMENT, "LIFE-1")
ABSENT_CELL = listed(CELL, "the cast: a → z icmp/4")
OTHERS = [listed(TEST, PEERS, runtime="other"), listed(TEST, PEERS, versions=">=2")]


def report(verdict: Verdict, *requirements: str) -> Report:
    """Return a report of one test that is marked with these requirements, by default BR-4."""
    return made.report(made.result(PEERS, verdict, requirements or ("BR-4",)))


NEW, FIXED = {"new": 1}, {"fixed": 1}
CASES: dict[str, tuple[Report, list[Deviation], dict[str, int]]] = {
    "green run": (GREEN, [], {}),
    "new failure": (RED, [], NEW),
    "failure listed by test": (RED, [ABOUT_TEST], {}),
    "failure listed by requirement": (RED, [BR4], {}),
    "fixed test": (GREEN, [ABOUT_TEST], FIXED),
    "fixed requirement": (GREEN, [BR4], FIXED),
    "deselected test": (GREEN, [listed(TEST, "o.py::test")], {}),
    "unsupported": (NO_DNS, [], {"unsupported": 1}),
    "unsupported, listed": (NO_DNS, [listed(REQUIREMENT, "DNS-1", UNSUPPORTED)], {}),
    "listed as broken": (report(UNSUPPORTED), [BR4], {"unsupported": 1, "gone": 1}),
    "listed as unsupported": (GREEN, [replace(BR4, verdict=UNSUPPORTED)], FIXED),
    "error in a broken test": (report(ERROR), [ABOUT_TEST], NEW),
    "error in a test, listed": (report(ERROR), [replace(ABOUT_TEST, verdict=ERROR)], {}),
    "error in a broken requirement": (report(ERROR), [BR4], NEW),
    "error in a requirement, listed": (report(ERROR), [replace(BR4, verdict=ERROR)], {}),
    "one of two broken requirements": (report(BROKEN, "BR-4", "BR-9"), [BR4], NEW),
    "both broken requirements": (report(BROKEN, "BR-4", "BR-9"), [BR4, BR9], {}),
    "leak, listed": (made.report(LEAK), [LIFE1], {}),
    "leak in a broken test": (made.report(LEAK), [BR4], NEW | FIXED),
    "no requirement": (made.report(made.result(PEERS, BROKEN, [])), [], NEW),
    "no requirement, listed": (made.report(made.result(PEERS, BROKEN, [])), [ABOUT_TEST], {}),
    "wrong cell, listed": (made.report(*RED.tests, cells=[LOST]), [ABOUT_CELL], {}),
    "another wrong cell": (made.report(*RED.tests, cells=[LOST, BACK]), [ABOUT_CELL], NEW),
    "leak and wrong cell": (made.report(CALL_AND_LEAK, cells=[LOST]), [ABOUT_CELL], NEW),
    "fixed cell": (made.report(made.result(), cells=[made.cell()]), [ABOUT_CELL], FIXED),
    "part of the suites": (replace(GREEN, selection=Selection(narrowed=True)), [BR4], {}),
    "cell of another part": (replace(GREEN, shard=Shard(number=1, of=2)), [BR4, ABSENT_CELL], {}),
    "entries of others": (RED, OTHERS, NEW),
}


@pytest.mark.parametrize(("run", "entries", "problems"), CASES.values(), ids=list(CASES))
def test_gate_compares_a_run_with_entries(
    run: Report, entries: Sequence[Deviation], problems: dict[str, int]
) -> None:
    """A run passes the gate if every failure is listed and every entry is true."""
    result = compared(run, *entries)
    kinds = ("new", "unsupported", "fixed", "gone")
    assert {kind: len(found) for kind in kinds if (found := getattr(result, kind))} == problems
    assert result.ok == (not problems)


def test_gate_names_requirements_of_each_failure() -> None:
    """The gate names the requirements of each failure, including failures that are listed."""
    assert compared(RED).new == (f"{PEERS} (broken: BR-4)",)
    known = compared(RED, ABOUT_TEST, *OTHERS)
    assert known.known == (f"{PEERS} (broken: BR-4)",)
    assert known.entries == 1


def test_flaky_failure_may_pass_and_stays_listed() -> None:
    """A test that is listed as flaky may pass and stays listed.

    One passed run does not prove that the defect is fixed.
    """
    entry = replace(ABOUT_TEST, chance=True)
    for run in (RED, GREEN):
        assert compared(run, entry).ok
        assert updated(run, entry) == (entry,)
    assert not compared(report(ERROR), entry).ok
    assert not compared(report(SKIPPED), entry).ok


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (listed(TEST, "f.py::test_renamed"), "there is no such test"),
        (listed(TEST, PEERS), "the test does not run: skipped"),
        (listed(TEST, OUTSIDE), "the test does not run: unsupported"),
        (listed(REQUIREMENT, "BR-999"), "there is no such requirement"),
        (listed(REQUIREMENT, "DNS-1"), "it is unsupported, not broken"),
        (ABSENT_CELL, "there is no such cell"),
    ],
)
def test_missing_expected_item_is_reported_as_gone(entry: Deviation, reason: str) -> None:
    """A listed item that no longer exists is reported as gone, not as fixed.

    The gate fails.
    """
    skipped = made.result(PEERS, SKIPPED, ["BR-9"])
    unsupported = made.result(OUTSIDE, UNSUPPORTED, ["DNS-1"])
    run = made.report(skipped, unsupported, cells=[made.cell("a", "b")])
    result = compared(run, entry, gone=["f.py::test_renamed"])
    assert result.gone == (f"{entry}: {reason}",)
    assert not result.fixed
    assert not result.ok


def test_partial_run_is_never_as_expected() -> None:
    """A partial run does not pass the gate, because the tests that did not run may fail."""
    assert not compared(replace(GREEN, partial=("interrupted",))).ok


def test_overlapping_expectations_are_refused() -> None:
    """Two entries for the same item and version are refused.

    They could contradict each other.
    """
    with pytest.raises(BadExpectations, match="listed twice"):
        compared(RED, ABOUT_TEST, listed(TEST, PEERS, versions="<2"))


def test_gate_prints_a_line_per_category() -> None:
    """The gate prints six lines: verdict, new, unsupported, fixed, gone and excused."""
    tests = [made.result(f"f.py::test_{number}", BROKEN) for number in range(5)]
    run = made.report(*tests, made.result(OUTSIDE, UNSUPPORTED, ["DNS-1"]))
    fixed, lost = listed(REQUIREMENT, "HOST-1"), listed(REQUIREMENT, "BR-999")
    kept = made.report(*run.tests, made.result(PEERS, requirements=["HOST-1"]))
    assert expectations.summary_lines(compared(kept, fixed, lost), kept) == [
        "gate FAILED: acme 1.2, compared with acme.toml (2 known deviations)",
        "  new failures       5: f.py::test_0 (broken: BR-4), f.py::test_1 (broken: BR-4), "
        "f.py::test_2 (broken: BR-4) and 2 more (fix them, or list them)",
        "  not supported      1: DNS-1 (declare the feature, or list them)",
        "  fixed              1: requirement HOST-1 (remove these entries)",
        "  gone               1: requirement BR-999: there is no such requirement "
        "(remove these entries)",
        "  excused         none",
    ]


def test_gate_says_that_a_run_is_as_expected() -> None:
    """The gate says that a run is as expected, and whether the version is unknown."""
    unknown = made.report(made.result(PEERS), version=None)
    assert expectations.summary_lines(compared(unknown), unknown) == [
        "gate passed: acme (version unknown), compared with acme.toml (0 known deviations)",
        "  new failures    none",
        "  not supported   none",
        "  fixed           none",
        "  gone            none",
        "  excused         none",
    ]


def test_gate_says_that_a_run_is_partial() -> None:
    """The gate says that a run is partial, and names at most three items of a category."""
    tests = [made.result(f"f.py::test_{number}", BROKEN, []) for number in range(3)]
    run = made.report(*tests, partial=("interrupted",))
    verdict, new, *_ = expectations.summary_lines(compared(run), run)
    assert verdict == (
        "gate FAILED: acme 1.2, compared with acme.toml (0 known deviations); the run is partial"
    )
    assert new == (
        "  new failures       3: f.py::test_0 (broken), f.py::test_1 (broken), "
        "f.py::test_2 (broken) (fix them, or list them)"
    )


# --- writing -------------------------------------------------------------------------

VERDICTS = st.sampled_from([Verdict.KEPT, BROKEN, ERROR, UNSUPPORTED])
Drawn = tuple[Verdict, list[str], bool]
TESTS = st.lists(
    st.tuples(
        VERDICTS,
        st.lists(st.sampled_from([row.id for row in made.ROWS]), max_size=2, unique=True),
        st.booleans(),
    ),
    max_size=5,
)


def report_of(tests: list[Drawn]) -> Report:
    """Return a report of tests with these verdicts and requirements.

    A failing test whose third value is true fails by runtime output.
    """
    return made.report(
        *(
            (matching if by_saying and verdict in FAILING else made.result)(
                f"f.py::test_{n}", verdict, requirements=ids
            )
            for n, (verdict, ids, by_saying) in enumerate(tests)
        )
    )


@settings(deadline=None)
@given(
    TESTS,
    TESTS,
    st.sets(st.builds(pattern, verdict=st.sampled_from(sorted(FAILING)), at_most=st.just(5))),
)
def test_written_expectation_file_makes_the_run_pass(
    before: list[Drawn], now: list[Drawn], sayings: set[Deviation]
) -> None:
    """A run passes the gate with the expectation file that the run has written.

    Writing the file again changes nothing, whatever the earlier file contained.
    """
    there = {f"f.py::test_{n}" for n in range(len(now))}

    def gone(id_: str) -> bool:
        return id_ not in there

    earlier = expectations.updated(report_of(before), [*sayings], gone=gone)
    written = expectations.updated(report_of(now), earlier, gone=gone)
    assert {item for item in written if item.kind is DeviationKind.SAYING} == sayings
    assert expectations.compare(report_of(now), written, file="x", gone=gone).ok
    assert set(expectations.updated(report_of(now), written, gone=gone)) == set(written)


def test_writing_expectations_keeps_reasons_and_ranges() -> None:
    """`--write-expect` keeps the reasons, version ranges and entries of other runtimes.

    It removes fixed entries, adds new ones and updates verdicts.
    """
    other = listed(TEST, PEERS, runtime="other")
    known = listed(TEST, PEERS, versions="<2", reason="kernel bug")
    fixed = listed(TEST, OUTSIDE)
    written = updated(RED, other, known, fixed)
    assert set(written) == {other, known}
    (new,) = updated(RED)
    assert (new.id, new.reason) == (PEERS, UNEXPLAINED)
    (changed,) = updated(report(ERROR), known)
    assert changed == replace(known, verdict=ERROR)


def test_writing_expectations_lists_unsupported_requirements() -> None:
    """`--write-expect` lists unsupported requirements.

    It updates the verdict of a broken entry.
    """
    (new,) = updated(NO_DNS)
    assert new == listed(REQUIREMENT, "DNS-1", UNSUPPORTED, reason=UNEXPLAINED)
    before = listed(REQUIREMENT, "DNS-1", versions="<2", reason="no resolver")
    (after,) = updated(NO_DNS, before)
    assert after == replace(before, verdict=UNSUPPORTED)


def test_new_entry_names_all_broken_requirements() -> None:
    """The entry for a new failure names all broken requirements, separated by commas."""
    report = made.report(made.result(PEERS, Verdict.BROKEN, requirements=["BR-4", "BR-2"]))
    assert compared(report).new == (f"{PEERS} (broken: BR-4, BR-2)",)
