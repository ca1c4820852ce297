"""What is different between two reports (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.report.schema import Report, Verdict

_NOT_THERE = "not there"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that has another verdict in the second report."""

    kind: str
    id: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.kind:12} {self.id}: {self.before}, now {self.after}"


def changes(old: Report, new: Report) -> list[Change]:
    """Every difference: of runtime and version, requirements, tests, cells."""
    first, second = old.implementation, new.implementation
    return [
        *_changes("runtime", {"name": first.name}, {"name": second.name}),
        *_changes("runtime", {"version": str(first.version)}, {"version": str(second.version)}),
        *_changes("runtime", _dialect(old), _dialect(new)),
        *_changes("requirement", _requirements(old), _requirements(new)),
        *_changes("test", _tests(old), _tests(new)),
        *_changes("cell", _cells(old), _cells(new)),
    ]


def _changes(kind: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterable[Change]:
    for id_ in dict.fromkeys([*old, *new]):
        before, after = old.get(id_, _NOT_THERE), new.get(id_, _NOT_THERE)
        if before != after:
            yield Change(kind, id_, before, after)


def _dialect(report: Report) -> dict[str, str]:
    return {f"dialect {name}": value for name, value in report.implementation.dialect.items()}


def _requirements(report: Report) -> dict[str, str]:
    return {item.id: str(item.verdict) for item in report.requirements}


def _tests(report: Report) -> dict[str, str]:
    return {test.id: str(test.verdict) for test in report.tests}


def _cells(report: Report) -> dict[str, str]:
    return {
        f"{matrix.title}: {cell.cell}": str(Verdict.KEPT if cell.kept else Verdict.BROKEN)
        for matrix in report.matrices
        for cell in matrix.cells
    }
