"""Verdicts of requirements, derived from the verdicts of tests, and counts of verdicts (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.report.schema import (
    CellCounts,
    CellResult,
    Counts,
    MatrixResult,
    Profile,
    Report,
    RequirementResult,
    Stage,
    TestResult,
    Totals,
    Verdict,
)

BASE_MODES = frozenset({"bridge", "host", "none", "container"})
"""The features that a core requirement may need."""


def profile(level: str, features: Iterable[str]) -> Profile:
    """Return the profile of a requirement with this level and these features: core or extended."""
    core = level == "MUST" and BASE_MODES.issuperset(features)
    return Profile.CORE if core else Profile.EXTENDED


def judged(
    requirements: Sequence[RequirementResult], tests: Sequence[TestResult]
) -> tuple[RequirementResult, ...]:
    """Return the requirements with their tests; each has the most severe verdict of its tests."""
    found: dict[str, list[tuple[str, Verdict]]] = {}
    for test in tests:
        verdict = own_verdict(test)
        for id_ in test.requirements:
            if verdict is not Verdict.SKIPPED:
                found.setdefault(id_, []).append((test.id, verdict))
        for id_ in test.breaks:
            found.setdefault(id_, []).append((test.id, Verdict.BROKEN))
    return tuple(
        replace(
            requirement,
            tests=tuple(dict.fromkeys(id_ for id_, _ in found.get(requirement.id, ()))),
            verdict=max(
                (verdict for _, verdict in found.get(requirement.id, ())),
                key=lambda verdict: verdict.weight,
                default=Verdict.UNTESTED,
            ),
        )
        for requirement in requirements
    )


def own_verdict(test: TestResult) -> Verdict:
    """Return the verdict of a test about its own requirements.

    If a test leaked but its set-up and its body passed, its own requirements are kept.
    """
    whens = {failure.when for failure in test.failures}
    if test.verdict is not Verdict.BROKEN or not test.breaks or whens & {"call", "crash"}:
        return test.verdict
    return Verdict.ERROR if "setup" in whens else Verdict.KEPT


def counts(verdicts: Iterable[Verdict]) -> Counts:
    """Return the number of occurrences of each verdict."""
    tally = Counter(verdicts)
    return Counts(total=tally.total(), **{str(verdict): tally[verdict] for verdict in Verdict})


def matrix(title: str, cells: Sequence[CellResult], stage: Stage | None) -> MatrixResult:
    """Return the matrix with this title and these cells, and with the counts of its cells."""
    counted = CellCounts(cells=len(cells), wrong=sum(not cell.kept for cell in cells))
    return MatrixResult(title=title, counts=counted, cells=tuple(cells), stage=stage)


def concluded(report: Report) -> Report:
    """Return `report` with the verdicts of requirements and all counts computed from its tests."""
    requirements = judged(report.requirements, report.tests)
    core, extended = (
        counts(item.verdict for item in requirements if item.profile is name)
        for name in (Profile.CORE, Profile.EXTENDED)
    )
    totals = Totals(
        tests=counts(test.verdict for test in report.tests),
        core=core,
        extended=extended,
        requirements=counts(item.verdict for item in requirements),
        cells=CellCounts(
            cells=sum(matrix.counts.cells for matrix in report.matrices),
            wrong=sum(matrix.counts.wrong for matrix in report.matrices),
        ),
    )
    return replace(report, requirements=requirements, totals=totals)
