"""What `report.json` says: the shape of a report, version 1 (pure).

`docs/report.md` is the reader's page about it. A field may be added within a version;
one that is renamed, removed or changes its meaning makes the next one. Every text is
plain: `harness.report.sanitize` took out what a terminal or a page might act upon.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.model.plan import Cell, Family, Observation, Promise, Protocol

VERSION: Final = 1


class Verdict(StrEnum):
    """What became of a requirement, or of one test of it. Later ones outweigh earlier ones.

    `UNTESTED` is said of requirements only, `SKIPPED` (for a reason that is no missing
    feature) of tests only.
    """

    UNTESTED = "untested"
    SKIPPED = "skipped"
    UNSUPPORTED = "unsupported"
    KEPT = "kept"
    ERROR = "error"
    BROKEN = "broken"

    @property
    def weight(self) -> int:
        """How much it outweighs others."""
        return _WEIGHT[self]


_WEIGHT = {verdict: weight for weight, verdict in enumerate(Verdict)}


class Profile(StrEnum):
    """What a requirement belongs to, counted apart.

    Core are the MUST rows that need no more than the modes bridge, host, none and
    container. Whoever does not support all of them does not conform.
    """

    CORE = "core"
    EXTENDED = "extended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """The runtime under test. Without a version it was never started."""

    name: str
    version: str | None = None
    features: tuple[str, ...] = ()
    dialect: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Part `number` of `of`; `by` is the digest of the durations file, empty without one."""

    number: int
    of: int
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which tests the run was about.

    `collected` counts those that were found, `deselected` those that `-k`, `-m` and the
    like took away. `catalogue` and `tests` are digests of what there was to choose from.
    With `pyargs` arguments name modules. `expectations` is a digest of the file of `--expect`,
    `none` without one; a report from before there was this field says nothing.
    """

    arguments: tuple[str, ...] = ()
    pyargs: bool = False
    collected: int = 0
    deselected: int = 0
    narrowed: bool = False
    catalogue: str = ""
    tests: str = ""
    expectations: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportLink:
    """Where something can be read up; without a `url` it was never published."""

    name: str
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementResult:
    """One row of the catalogue and what became of it."""

    id: str
    level: str
    profile: Profile
    section: str = ""
    statement: str = ""
    sources: tuple[ReportLink, ...] = ()
    history: tuple[ReportLink, ...] = ()
    features: tuple[str, ...] = ()
    dialect: tuple[str, ...] = ()
    verdict: Verdict = Verdict.UNTESTED
    tests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Output that was captured while a test ran."""

    title: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One thing that went wrong with a test.

    `when` is `setup`, `call`, `teardown` or `crash`. `message` is its first words,
    `text` all of it. `said` are the runtime's own words, where its refusals are all that it is.
    `evidence` is a folder, relative to the report's, `files` what is in it.
    """

    when: str
    message: str = ""
    text: str = ""
    said: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    evidence: str | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One test. `breaks` are requirements that it broke besides those it is about.

    `seconds` is what it took altogether, set-up and tear-down included.
    """

    __test__ = False  # for pytest: this is none

    id: str
    verdict: Verdict
    seconds: float = 0.0
    requirements: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    reason: str = ""
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """One cell. Without `observed` it was never probed; `test` is the one that probed it."""

    source: str
    target: str
    protocol: Protocol
    family: Family
    kept: bool
    promised: Promise | None = None
    observed: Observation | None = None
    test: str = ""

    @property
    def cell(self) -> Cell:
        """What was asked."""
        return Cell(self.source, self.target, self.protocol, self.family)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedNetwork:
    """A network as it came about."""

    name: str
    interface: str | None = None
    gateways: tuple[str, ...] = ()
    internal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedContainer:
    """A container as it came about. `joined` is the container whose namespace it is in."""

    name: str
    mode: str
    networks: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    joined: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Who was there while a matrix was measured. `world` are the addresses of the rest."""

    routers: int = 0
    world: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    networks: tuple[StagedNetwork, ...] = ()
    containers: tuple[StagedContainer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCounts:
    """How many cells, and how many of them not as promised."""

    cells: int
    wrong: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixResult:
    """Everybody to everybody, under a title."""

    title: str
    counts: CellCounts
    cells: tuple[CellResult, ...] = ()
    stage: Stage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many of each verdict, and of all."""

    total: int = 0
    kept: int = 0
    broken: int = 0
    error: int = 0
    unsupported: int = 0
    skipped: int = 0
    untested: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What is counted: tests, requirements by profile, cells of all matrices."""

    tests: Counts
    core: Counts
    extended: Counts
    requirements: Counts
    cells: CellCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Excused:
    """The `count` tests that failed by what the runtime said, and the entry that knows of it."""

    saying: str
    verdict: Verdict
    reason: str
    link: str = ""
    at_most: int
    count: int
    tests: tuple[str, ...]

    @property
    def too_many(self) -> bool:
        """Whether they are more than the entry may excuse."""
        return self.count > self.at_most


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """How the run compares with an expectation file; each list names what it is about.

    The tests of `excused` are among the `known`.
    """

    file: str
    entries: int
    ok: bool
    new: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    excused: tuple[Excused, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it. `partial` says why it is not the whole of what was asked for, if so.

    `started` is ISO 8601 in UTC, `exit` the exit status of the run.
    """

    version: int = VERSION
    generator: str = ""
    implementation: Implementation
    partial: tuple[str, ...] = ()
    started: str = ""
    seconds: float = 0.0
    exit: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, str] = field(default_factory=dict)
    selection: Selection = field(default_factory=Selection)
    shard: Shard | None = None
    totals: Totals
    requirements: tuple[RequirementResult, ...] = ()
    tests: tuple[TestResult, ...] = ()
    matrices: tuple[MatrixResult, ...] = ()
    gate: GateResult | None = None

    @property
    def complete(self) -> bool:
        """Whether it is the whole of what was asked for."""
        return not self.partial

    @property
    def conforms(self) -> bool | None:
        """Whether every core requirement is kept and no other is broken.

        `None` where nothing went wrong and core requirements are left untested.
        """
        core, rest = self.totals.core, self.totals.extended
        if core.broken or core.error or core.unsupported or rest.broken or rest.error:
            return False
        return None if core.untested or self.partial else True


NAME = "report.json"
_EMPTY: Any = (None, "", [], {})
_LISTS = frozenset({"requirements", "tests", "matrices", "cells"})


class BadReport(ValueError):
    """A file is no report, or one of a version that is not understood; the message says which."""


def dumps(report: Report) -> str:
    """The report as JSON: what is empty is left out, each test, row and cell on a line."""
    return _pretty(_lean(msgspec.to_builtins(report, order="deterministic"))) + "\n"


def plain(report: Report) -> dict[str, Any]:
    """The report as what `json.loads` makes of the file."""
    return json.loads(dumps(report))  # type: ignore[no-any-return]


def loads(text: str | bytes) -> Report:
    """The report in `text`. Raises `BadReport`."""
    try:
        head = msgspec.json.decode(text, type=dict[str, Any])
        found = head.get("version")
        if found != VERSION:
            raise BadReport(f"it is of version {found!r}; this program reads version {VERSION}")
        return msgspec.convert(head, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadReport(f"it is no report: {error}") from error


def load(path: Path) -> Report:
    """The report in a file, or in the folder that a run has written.

    Raises `BadReport`, and `OSError` where there is none.
    """
    file = path / NAME if path.is_dir() else path
    try:
        return loads(file.read_bytes())
    except BadReport as error:
        raise BadReport(f"{file}: {error}") from error


def _lean(value: Any) -> Any:
    if isinstance(value, dict):
        pairs = ((key, _lean(item)) for key, item in value.items())
        return {key: item for key, item in pairs if item not in _EMPTY}
    if isinstance(value, list | tuple):
        return [_lean(item) for item in value]
    return value


def _pretty(value: Any, indent: str = "") -> str:
    """Indented as far as lists of records, each of which is one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    inner = indent + "  "
    entries = []
    for key, item in value.items():
        if key in _LISTS and isinstance(item, list) and item and isinstance(item[0], dict):
            deeper = inner + "  "
            lines = (
                _pretty(record, deeper) if key == "matrices" else json.dumps(record)
                for record in item
            )
            shown = "[\n" + ",\n".join(deeper + text for text in lines) + f"\n{inner}]"
        elif isinstance(item, dict) and (not indent):
            shown = _pretty(item, inner)
        else:
            shown = json.dumps(item)
        entries.append(f"{inner}{json.dumps(key)}: {shown}")
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
