"""Comparison of reports: `netmodes diff`, and the table of `netmodes compare` (pure)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.report.sanitize import line, markdown
from harness.report.schema import Report, Verdict

_MISSING = "not there"


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """An item whose verdict differs in the second report."""

    kind: str
    id: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.kind:12} {self.id}: {self.before}, now {self.after}"


def changes(old: Report, new: Report) -> list[VerdictChange]:
    """Return every difference in runtime, version, dialect, requirements, tests and cells."""
    first, second = old.implementation, new.implementation
    return [
        *_changes("runtime", {"name": first.name}, {"name": second.name}),
        *_changes("runtime", {"version": str(first.version)}, {"version": str(second.version)}),
        *_changes("runtime", _dialect(old), _dialect(new)),
        *_changes("requirement", _requirements(old), _requirements(new)),
        *_changes("test", _tests(old), _tests(new)),
        *_changes("cell", _cells(old), _cells(new)),
    ]


def _changes(kind: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterable[VerdictChange]:
    for id_ in dict.fromkeys([*old, *new]):
        before, after = old.get(id_, _MISSING), new.get(id_, _MISSING)
        if before != after:
            yield VerdictChange(kind, id_, before, after)


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


VERSION: Final = 1
"""Version of the JSON; a field may be added within a version."""
WORDS: Final = {
    Verdict.KEPT: "pass",
    Verdict.BROKEN: "fail",
    Verdict.UNSUPPORTED: "unsupported",
    Verdict.ERROR: "error",
    Verdict.UNTESTED: "untested",
    Verdict.SKIPPED: "untested",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A runtime under the name given by the user; without a report it did not run.

    `note` gives the reason, or the reason why the report is partial.
    """

    name: str
    report: Report | None
    note: str = ""
    verdicts: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        rows = self.report.requirements if self.report else ()
        object.__setattr__(self, "verdicts", {row.id: WORDS[row.verdict] for row in rows})

    @property
    def title(self) -> str:
        """Name, and version if known."""
        version = self.report.implementation.version if self.report else None
        return f"{self.name} {version or ''}".rstrip()

    def count(self, word: str) -> int:
        """Return the number of requirements with that verdict."""
        return sum(1 for verdict in self.verdicts.values() if verdict == word)


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """A requirement and its verdict for each runtime; `-` if the report does not have it."""

    id: str
    level: str
    statement: str
    verdicts: tuple[str, ...]


def tested_rows(columns: Sequence[Column]) -> list[ComparisonRow]:
    """Return the rows that at least one run has tested."""
    nothing = {"-", WORDS[Verdict.UNTESTED]}
    return [row for row in rows(columns) if not nothing.issuperset(row.verdicts)]


def rows(columns: Sequence[Column]) -> list[ComparisonRow]:
    """Return every requirement of the reports, in the catalogue's order."""
    found = {
        row.id: row for column in columns if column.report for row in column.report.requirements
    }
    return [
        ComparisonRow(
            id_,
            row.level,
            row.statement,
            tuple(column.verdicts.get(id_, "-") for column in columns),
        )
        for id_, row in found.items()
    ]


def counts(column: Column) -> str:
    """Return one line of figures about a runtime."""
    if column.report is None:
        return f"{column.title}: did not run: {column.note}"
    found = ", ".join(f"{column.count(word)} {word}" for word in dict.fromkeys(WORDS.values()))
    return f"{column.title}: {found}, in {column.report.seconds:.0f} s"


def as_markdown(columns: Sequence[Column]) -> str:
    """Return the table, after a line about each runtime."""
    return "\n".join(_lines(columns)) + "\n"


def _lines(columns: Sequence[Column]) -> Iterator[str]:
    words = list(dict.fromkeys(WORDS.values()))
    yield f"| runtime | {' | '.join(words)} | seconds |"
    yield f"|---|{'---:|' * (len(words) + 1)}"
    for column in columns:
        if column.report is not None:
            figures = " | ".join(str(column.count(word)) for word in words)
            yield f"| {markdown(column.title)} | {figures} | {column.report.seconds:.0f} |"
    for column in columns:
        if column.note:
            yield f"\n{markdown(column.title)}: {markdown(column.note)}"
    shown = [column for column in columns if column.report is not None]
    yield f"\n| | level | {' | '.join(markdown(column.name) for column in shown)} |"
    yield f"|---|---|{'---|' * len(shown)}"
    for row in tested_rows(shown):
        cells = (f"**{word}**" if word in ("fail", "error") else word for word in row.verdicts)
        yield f"| {markdown(row.id)} | {markdown(row.level)} | {' | '.join(cells)} |"


def as_json(columns: Sequence[Column]) -> str:
    """Return the table as JSON."""
    whole: dict[str, Any] = {
        "version": VERSION,
        "runtimes": [_runtime(column) for column in columns],
        "requirements": [
            {
                "id": row.id,
                "level": row.level,
                "statement": line(row.statement),
                "verdicts": dict(
                    zip((column.name for column in columns), row.verdicts, strict=True)
                ),
            }
            for row in rows(columns)
        ],
    }
    return json.dumps(whole, indent=2) + "\n"


def _runtime(column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "note": column.note}
    if column.report is not None:
        found |= {
            "version": column.report.implementation.version,
            "seconds": column.report.seconds,
            "counts": {word: column.count(word) for word in dict.fromkeys(WORDS.values())},
        }
    return found
