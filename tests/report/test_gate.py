"""The gate is strict in both directions: failures are listed, and listed items fail."""

from __future__ import annotations

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
from harness.report.schema import (
    Failure,
    Report,
    Selection,
    Shard,
    Verdict,
)
from tests.report import made
from tests.report.entries import GREEN, RED, WRONG, compared, listed, matching, pattern
from tests.report.made import OUTSIDE, PEERS


def test_green_run_meets_an_empty_file() -> None:
    """There is no failure and no entry."""
    assert compared(GREEN).ok


def test_new_failure_fails_the_run() -> None:
    """It is named with its requirements."""
    result = compared(RED)
    assert not result.ok
    assert result.new == (f"{PEERS} (broken: BR-4)",)


@pytest.mark.parametrize(
    "entry", [listed(DeviationKind.TEST, PEERS), listed(DeviationKind.REQUIREMENT, "BR-4")]
)
def test_listed_failure_passes(entry: Deviation) -> None:
    """It is listed by test or by requirement."""
    result = compared(RED, entry)
    assert result.ok
    assert result.known == (f"{PEERS} (broken: BR-4)",)


@pytest.mark.parametrize(
    "entry", [listed(DeviationKind.TEST, PEERS), listed(DeviationKind.REQUIREMENT, "BR-4")]
)
def test_fixed_failure_fails_the_run(entry: Deviation) -> None:
    """The entry has to go, so that the failure cannot come back unnoticed."""
    result = compared(GREEN, entry)
    assert not result.ok
    assert result.fixed == (str(entry),)


def test_chance_failure_may_pass_and_stays_listed() -> None:
    """One run does not prove that a flaky defect is gone."""
    entry = replace(listed(DeviationKind.TEST, PEERS), chance=True)
    for report in (RED, GREEN):
        assert compared(report, entry).ok
        assert expectations.updated(report, [entry], gone=lambda _: False) == (entry,)
    assert not compared(made.report(made.result(PEERS, Verdict.ERROR)), entry).ok
    assert not compared(made.report(made.result(PEERS, Verdict.SKIPPED)), entry).ok


@pytest.mark.parametrize(
    ("entry", "gone"),
    [
        (
            listed(DeviationKind.TEST, "suites/test_it.py::test_renamed"),
            ["suites/test_it.py::test_renamed"],
        ),
        (listed(DeviationKind.REQUIREMENT, "BR-999"), []),
    ],
)
def test_missing_item_fails_the_run(entry: Deviation, gone: list[str]) -> None:
    """The file has no entries that a run cannot check."""
    result = compared(GREEN, entry, gone=gone)
    assert not result.ok
    assert len(result.gone) == 1


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (listed(DeviationKind.TEST, "f.py::test_renamed"), "there is no such test"),
        (listed(DeviationKind.TEST, PEERS), "the test does not run: skipped"),
        (listed(DeviationKind.TEST, OUTSIDE), "the test does not run: unsupported"),
        (listed(DeviationKind.REQUIREMENT, "BR-999"), "there is no such requirement"),
        (listed(DeviationKind.REQUIREMENT, "DNS-1"), "it is unsupported, not broken"),
        (listed(DeviationKind.CELL, "the cast: a → z icmp/4"), "there is no such cell"),
    ],
)
def test_missing_item_is_reported_as_gone(entry: Deviation, reason: str) -> None:
    """It is not reported as fixed."""
    skipped = made.result(PEERS, Verdict.SKIPPED, ["BR-9"])
    unsupported = made.result(OUTSIDE, Verdict.UNSUPPORTED, ["DNS-1"])
    report = made.report(skipped, unsupported, cells=[made.cell("a", "b")])
    result = compared(report, entry, gone=["f.py::test_renamed"])
    assert result.gone == (f"{entry}: {reason}",)
    assert not result.fixed


def test_deselected_test_makes_no_difference() -> None:
    """A part of the suites can be compared with the whole file."""
    assert compared(GREEN, listed(DeviationKind.TEST, "suites/other.py::test_it")).ok


def test_unsupported_requirement_fails_the_run() -> None:
    """It has to be listed as a failure has."""
    report = made.report(made.result(verdict=Verdict.UNSUPPORTED, requirements=["DNS-1"]))
    result = compared(report)
    assert not result.ok
    assert result.unsupported == ("DNS-1",)
    assert compared(report, listed(DeviationKind.REQUIREMENT, "DNS-1", Verdict.UNSUPPORTED)).ok


def test_broken_entry_does_not_cover_unsupported() -> None:
    """The entry is stale, and the lack of support is new."""
    report = made.report(made.result(verdict=Verdict.UNSUPPORTED, requirements=["BR-4"]))
    result = compared(report, listed(DeviationKind.REQUIREMENT, "BR-4"))
    assert result.unsupported == ("BR-4",)
    assert len(result.gone) == 1


def test_supported_requirement_must_leave_the_list() -> None:
    """Its entry says unsupported."""
    result = compared(GREEN, listed(DeviationKind.REQUIREMENT, "BR-4", Verdict.UNSUPPORTED))
    assert len(result.fixed) == 1


@pytest.mark.parametrize("kind", [DeviationKind.TEST, DeviationKind.REQUIREMENT])
def test_broken_entry_does_not_cover_an_error(kind: DeviationKind) -> None:
    """The known failure was not observed."""
    report = made.report(made.result(PEERS, Verdict.ERROR))
    entry = listed(kind, PEERS if kind is DeviationKind.TEST else "BR-4")
    assert len(compared(report, entry).new) == 1
    assert compared(report, replace(entry, verdict=Verdict.ERROR)).ok


def test_every_broken_requirement_must_be_listed() -> None:
    """A listed requirement does not excuse another one of the same test."""
    report = made.report(made.result(PEERS, Verdict.BROKEN, ["BR-4", "BR-9"]))
    four, nine = (
        listed(DeviationKind.REQUIREMENT, "BR-4"),
        listed(DeviationKind.REQUIREMENT, "BR-9"),
    )
    assert compared(report, four).new == (f"{PEERS} (broken: BR-4, BR-9)",)
    assert compared(report, four, nine).ok


def test_leak_is_not_excused_by_the_tests_requirement() -> None:
    """The leak breaks its own requirement."""
    leak = made.result(
        PEERS, Verdict.BROKEN, breaks=("LIFE-1",), failures=(Failure(when="teardown"),)
    )
    report = made.report(leak)
    assert compared(report, listed(DeviationKind.REQUIREMENT, "LIFE-1")).ok
    assert len(compared(report, listed(DeviationKind.REQUIREMENT, "BR-4")).new) == 1


def test_test_without_requirement_is_listed_by_name() -> None:
    """No other entry covers it."""
    report = made.report(made.result(PEERS, Verdict.BROKEN, []))
    assert len(compared(report).new) == 1
    assert compared(report, listed(DeviationKind.TEST, PEERS)).ok


def cells(*, reverse: Outcome = Outcome.REPLY) -> Report:
    """Return a test that found one wrong cell, or two."""
    seen = [made.cell("a", "b", seen=Outcome.DROPPED), made.cell("b", "a", seen=reverse)]
    return made.report(made.result(PEERS, Verdict.BROKEN), cells=seen)


def test_listed_cell_excuses_its_test() -> None:
    """No other cell of that test may be wrong."""
    assert compared(cells(), listed(DeviationKind.CELL, WRONG)).ok
    assert len(compared(cells(reverse=Outcome.DROPPED), listed(DeviationKind.CELL, WRONG)).new) == 1


def test_listed_cell_does_not_excuse_a_leak() -> None:
    """The leak is independent of the cell."""
    failures = (Failure(when="call"), Failure(when="teardown"))
    leak = made.result(PEERS, Verdict.BROKEN, breaks=("LIFE-1",), failures=failures)
    report = made.report(leak, cells=[made.cell("a", "b", seen=Outcome.DROPPED)])
    assert len(compared(report, listed(DeviationKind.CELL, WRONG)).new) == 1


def test_fixed_or_missing_cell_fails_the_run() -> None:
    """Entries for cells must be true as well."""
    right = made.report(made.result(PEERS), cells=[made.cell("a", "b")])
    assert len(compared(right, listed(DeviationKind.CELL, WRONG)).fixed) == 1
    assert len(compared(right, listed(DeviationKind.CELL, "the cast: a → z icmp/4")).gone) == 1


@pytest.mark.parametrize(
    "report",
    [
        replace(GREEN, selection=Selection(narrowed=True)),
        replace(GREEN, shard=Shard(number=1, of=2)),
    ],
)
def test_part_of_the_tests_does_not_fix_a_requirement(report: Report) -> None:
    """Its other tests may fail; a listed cell may belong to another part."""
    cell = listed(DeviationKind.CELL, "the cast: a → z icmp/4")
    assert compared(report, listed(DeviationKind.REQUIREMENT, "BR-4"), cell).ok


def test_partial_run_is_never_as_expected() -> None:
    """Tests that did not run may fail."""
    assert not compared(replace(GREEN, partial=("interrupted",))).ok


def test_entries_of_other_runtimes_and_versions_are_ignored() -> None:
    """One file may serve several runtimes."""
    others = [
        listed(DeviationKind.TEST, PEERS, runtime="other"),
        listed(DeviationKind.TEST, PEERS, versions=">=2"),
    ]
    assert compared(GREEN, *others).ok
    assert len(compared(RED, *others).new) == 1
    assert compared(RED, *others).entries == 0


def test_overlapping_entries_are_refused() -> None:
    """Two entries about the same version could contradict each other."""
    with pytest.raises(BadExpectations, match="listed twice"):
        compared(
            RED, listed(DeviationKind.TEST, PEERS), listed(DeviationKind.TEST, PEERS, versions="<2")
        )


def test_gate_prints_six_lines() -> None:
    """They are verdict, new, unsupported, fixed, gone, excused."""
    tests = [made.result(f"f.py::test_{number}", Verdict.BROKEN) for number in range(5)]
    report = made.report(*tests, made.result(OUTSIDE, Verdict.UNSUPPORTED, ["DNS-1"]))
    fixed, lost = (
        listed(DeviationKind.REQUIREMENT, "HOST-1"),
        listed(DeviationKind.REQUIREMENT, "BR-999"),
    )
    kept = made.report(*report.tests, made.result(PEERS, requirements=["HOST-1"]))
    assert expectations.summary_lines(compared(kept, fixed, lost), kept) == [
        "gate: acme 1.2 is NOT AS EXPECTED by acme.toml, 2 known deviations",
        "  new failures       5: f.py::test_0 (broken: BR-4), f.py::test_1 (broken: BR-4), "
        "f.py::test_2 (broken: BR-4) and 2 more (look into them, or list them)",
        "  not supported      1: DNS-1 (declare the feature, or list them)",
        "  fixed              1: requirement HOST-1 (remove these entries)",
        "  gone               1: requirement BR-999: there is no such requirement "
        "(remove these entries)",
        "  excused         none",
    ]


def test_gate_prints_as_expected() -> None:
    """An unknown version is named as such."""
    unknown = made.report(made.result(PEERS), version=None)
    assert expectations.summary_lines(compared(unknown), unknown) == [
        "gate: acme (version unknown) is as expected by acme.toml, 0 known deviations",
        "  new failures    none",
        "  not supported   none",
        "  fixed           none",
        "  gone            none",
        "  excused         none",
    ]


def test_gate_prints_that_the_run_is_partial() -> None:
    """Three items of a kind are all named."""
    tests = [made.result(f"f.py::test_{number}", Verdict.BROKEN, []) for number in range(3)]
    report = made.report(*tests, partial=("interrupted",))
    verdict, new, *_ = expectations.summary_lines(compared(report), report)
    assert verdict == (
        "gate: acme 1.2 is NOT AS EXPECTED, the run is partial by acme.toml, 0 known deviations"
    )
    assert new == (
        "  new failures       3: f.py::test_0 (broken), f.py::test_1 (broken), "
        "f.py::test_2 (broken) (look into them, or list them)"
    )


# --- writing -------------------------------------------------------------------------

VERDICTS = st.sampled_from([Verdict.KEPT, Verdict.BROKEN, Verdict.ERROR, Verdict.UNSUPPORTED])
Drawn = tuple[Verdict, list[str], bool]
TESTS = st.lists(
    st.tuples(
        VERDICTS,
        st.lists(st.sampled_from([row.id for row in made.ROWS]), max_size=2, unique=True),
        st.booleans(),
    ),
    max_size=5,
)


def of(tests: list[Drawn]) -> Report:
    """Return a report of such tests; the last kind failed by runtime output, if at all."""
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
    st.sets(
        st.builds(
            pattern, verdict=st.sampled_from(sorted(expectations.FAILING)), at_most=st.just(5)
        )
    ),
)
def test_written_file_makes_the_gate_pass(
    before: list[Drawn], now: list[Drawn], sayings: set[Deviation]
) -> None:
    """The earlier file does not matter, and writing again changes nothing."""
    there = {f"f.py::test_{n}" for n in range(len(now))}

    def gone(id_: str) -> bool:
        return id_ not in there

    earlier = expectations.updated(of(before), [*sayings], gone=gone)
    written = expectations.updated(of(now), earlier, gone=gone)
    assert {item for item in written if item.kind is DeviationKind.SAYING} == sayings
    assert expectations.compare(of(now), written, file="x", gone=gone).ok
    assert set(expectations.updated(of(now), written, gone=gone)) == set(written)


def test_writing_keeps_reasons_and_ranges() -> None:
    """Entries of other runtimes stay; fixed ones go, new ones come."""
    other = listed(DeviationKind.TEST, PEERS, runtime="other")
    known = listed(DeviationKind.TEST, PEERS, versions="<2", reason="kernel bug")
    fixed = listed(DeviationKind.TEST, OUTSIDE)
    written = expectations.updated(RED, [other, known, fixed], gone=lambda _: False)
    assert set(written) == {other, known}
    (new,) = expectations.updated(RED, [], gone=lambda _: False)
    assert (new.id, new.reason) == (PEERS, UNEXPLAINED)


def test_writing_lists_unsupported_requirements() -> None:
    """The verdict of a broken entry changes."""
    report = made.report(made.result(verdict=Verdict.UNSUPPORTED, requirements=["DNS-1"]))
    (new,) = expectations.updated(report, [], gone=lambda _: False)
    assert new == listed(
        DeviationKind.REQUIREMENT, "DNS-1", Verdict.UNSUPPORTED, reason=UNEXPLAINED
    )
    before = listed(DeviationKind.REQUIREMENT, "DNS-1", versions="<2", reason="no resolver")
    (after,) = expectations.updated(report, [before], gone=lambda _: False)
    assert after == replace(before, verdict=Verdict.UNSUPPORTED)


def test_writing_updates_the_verdict_of_an_entry() -> None:
    """The reason stays."""
    report = made.report(made.result(PEERS, Verdict.ERROR))
    before = listed(DeviationKind.TEST, PEERS, versions="<2", reason="kernel bug")
    (after,) = expectations.updated(report, [before], gone=lambda _: False)
    assert after == replace(before, verdict=Verdict.ERROR)
