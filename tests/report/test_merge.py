"""Tests of merging shards, and of the differences between two reports."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.model.plan import Outcome
from harness.report.compare import changes
from harness.report.merge import Unmergeable, merge
from harness.report.schema import (
    Implementation,
    Report,
    RequirementResult,
    Selection,
    Shard,
    Verdict,
)
from tests.report import made
from tests.report.made import ELSEWHERE, OUTSIDE, PEERS

VERDICTS = st.sampled_from([Verdict.KEPT, Verdict.BROKEN, Verdict.ERROR, Verdict.UNSUPPORTED])


@settings(deadline=None)
@given(st.lists(st.tuples(VERDICTS, st.integers(0, 2), st.sampled_from(made.ROWS)), max_size=8))
def test_merged_report_equals_that_of_an_undivided_run(
    drawn: list[tuple[Verdict, int, RequirementResult]],
) -> None:
    """The merged report equals that of an undivided run, however the tests are divided."""
    tests = [
        (part, made.result(f"f.py::test_{number}", verdict, [row.id]))
        for number, (verdict, part, row) in enumerate(drawn)
    ]
    parts = made.shards(*([test for own, test in tests if own == number] for number in range(3)))
    whole = made.report(*(test for _, test in tests))
    merged = merge(parts)
    assert merged.tests == whole.tests
    assert merged.requirements == whole.requirements
    assert merged.totals == whole.totals
    assert merged.complete
    assert merged.shard is None


def test_order_of_shards_does_not_change_the_merged_report() -> None:
    """The merged report does not depend on the order of the shards' folders."""
    first, second = made.shards([made.result(PEERS)], [made.result(OUTSIDE)])
    assert merge([second, first]) == merge([first, second])


def test_missing_shard_makes_the_merged_report_partial() -> None:
    """A missing shard makes the merged report partial, and the report names the shard."""
    first, _, third = made.shards([made.result(PEERS)], [], [made.result(OUTSIDE)])
    assert merge([third, first]).partial == ("shard 2 of 3 is missing",)


def test_partial_shard_makes_the_merged_report_partial() -> None:
    """If a shard is partial, the merged report is partial too, without the missing tests."""
    first, second = made.shards([made.result(PEERS)], [made.result(OUTSIDE)])
    cut = replace(second, partial=("interrupted",), exit=2)
    merged = merge([first, cut])
    assert merged.partial == ("shard 2: interrupted",)
    assert merged.exit == 2


def test_empty_shard_does_not_change_the_status() -> None:
    """A shard without tests does not change the merged exit status.

    If all shards are empty, the status is pytest's status for no tests.
    """
    parts = made.shards([made.result(PEERS)], [], [made.result(OUTSIDE)])

    def whole(*statuses: int) -> int:
        return merge(
            [replace(part, exit=status) for part, status in zip(parts, statuses, strict=True)]
        ).exit

    assert whole(0, 5, 0) == 0
    assert whole(0, 5, 1) == 1
    assert whole(5, 5, 5) == 5


@pytest.mark.parametrize("turn", [1, -1])
def test_cell_wrong_in_one_shard_is_wrong(turn: int) -> None:
    """A cell that is wrong in one shard is wrong in the merged report.

    The cells of one matrix may come from several machines, in any order.
    """
    first, second = made.shards([made.result(PEERS)], [made.result(OUTSIDE)])
    right, wrong = made.cell("a", "b"), made.cell("a", "b", seen=Outcome.DROPPED)
    other = made.cell("b", "a")
    merged = merge(
        [
            replace(part, matrices=(made.cast(cells),))
            for part, cells in zip((first, second), ([wrong], [right, other])[::turn], strict=True)
        ]
    )
    (joint,) = merged.matrices
    assert set(joint.cells) == {wrong, other}
    assert (joint.counts.cells, joint.counts.wrong) == (2, 1)
    assert joint.stage == made.STAGE
    assert merged.totals.cells == joint.counts


def test_merged_report_names_the_kernels_of_all_shards() -> None:
    """The merged report names the kernel of each shard, as the kernels may differ."""
    first, second = made.shards([made.result(PEERS)], [made.result(OUTSIDE)])
    other = replace(second, environment={**second.environment, "kernel": "6.18.0"})
    assert merge([first, other]).environment["kernel"] == "6.12.0, 6.18.0"


def _second(**more: object) -> tuple[Report, Report]:
    first, second = made.shards([made.result(PEERS)], [made.result(OUTSIDE)])
    return first, replace(second, **more)  # type: ignore[arg-type] # any field


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"implementation": Implementation(name="other", version="1.2")}, "the runtime"),
        ({"implementation": Implementation(name="acme", version="1.3")}, "'1.2' and '1.3'"),
        ({"generator": "netmodes 9"}, "netmodes"),
        ({"selection": Selection(collected=1, tests="u", catalogue="c")}, "the tests"),
        ({"selection": Selection(collected=1, tests="t", catalogue="d")}, "the catalogue"),
        (
            {"selection": Selection(collected=1, tests="t", catalogue="c", deselected=3)},
            "deselected",
        ),
        (
            {"selection": Selection(collected=1, tests="t", catalogue="c", arguments=("x",))},
            "the arguments",
        ),
        ({"shard": Shard(number=2, of=3)}, "the number of shards"),
        ({"shard": Shard(number=2, of=2, by="x")}, "the durations file"),
        ({"shard": Shard(number=1, of=2)}, "shard 1 was given twice"),
        ({"shard": None}, "the number of shards"),
        ({"seeds": {"hypothesis seed": "1"}}, "the seeds"),
        ({"environment": {**made.BROKEN.environment, "fault": "x"}}, "the fault"),
        ({"environment": {**made.BROKEN.environment, "probe": "exec"}}, "the probe"),
        ({"environment": {"user": "root", "machine": "x86_64"}}, "the user"),
        ({"tests": (made.result(PEERS),)}, "not parts of one run"),
    ],
)
def test_shards_of_different_runs_are_refused(other: dict[str, object], complaint: str) -> None:
    """Shards of different runs are refused, and the error names the difference."""
    merge(_second())
    with pytest.raises(Unmergeable, match=complaint):
        merge(_second(**other))


def test_shards_with_different_expectations_are_refused() -> None:
    """Shards are refused if their expectations differ or if only some have expectations.

    A report of an earlier format version is accepted.
    """

    def held(*digests: str) -> list[Report]:
        parts = made.shards([made.result(PEERS)], [made.result(OUTSIDE)])
        return [
            replace(part, selection=replace(part.selection, expectations=digest))
            for part, digest in zip(parts, digests, strict=True)
        ]

    for same in (("a", "a"), ("none", "none"), ("", "a"), ("none", "")):
        assert merge(held(*same)).complete
    for different in (("a", "b"), ("none", "a")):
        with pytest.raises(Unmergeable, match="the expectation file"):
            merge(held(*different))


def test_merge_refuses_reports_of_whole_runs() -> None:
    """The merge refuses reports of whole runs, which can only be compared."""
    with pytest.raises(Unmergeable, match="--shard"):
        merge([made.BROKEN])
    with pytest.raises(Unmergeable, match="no reports to merge"):
        merge([])


def test_shard_that_failed_before_collection_is_merged() -> None:
    """A shard that failed before test collection makes the merged report partial."""
    first, second = _second(
        selection=Selection(catalogue="c"), tests=(), partial=("worker gw0 ended early",)
    )
    assert not merge([first, second]).complete


def test_diff_lists_changed_verdicts() -> None:
    """The difference of two reports lists changed requirements, tests, cells and the version.

    It also lists missing and new items.
    """
    old = made.report(made.result(PEERS), made.result(ELSEWHERE), cells=[made.cell("a", "b")])
    new = made.report(
        made.result(PEERS, Verdict.BROKEN),
        made.result(OUTSIDE),
        cells=[made.cell("a", "b", seen=Outcome.DROPPED)],
        version="1.3",
    )
    assert changes(old, old) == []
    assert [" ".join(change.split()) for change in changes(old, new)] == [
        "runtime version: 1.2, now 1.3",
        "requirement BR-4: kept, now broken",
        f"test {PEERS}: kept, now broken",
        f"test {ELSEWHERE}: kept, now absent",
        f"test {OUTSIDE}: absent, now kept",
        "cell the cast: a → b icmp/4: kept, now broken",
    ]
