"""The schema of `report.json`, version 1 (pure).

`docs/report.md` describes the file for users. A field may be added without a new version. Renaming
or removing a field, or changing its meaning, needs a new version.

Every text is plain: `harness.report.sanitize` has escaped everything that a terminal or a web page
might act upon.
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
    """Verdict about a requirement or about a test; the members are in ascending order of severity.

    Only a requirement can be `UNTESTED` or `UNJUDGED`: a test of it failed, and nothing contradicts
    the requirement itself. Only a test can be `SKIPPED`. A test that lacks a feature is
    `UNSUPPORTED` instead.
    """

    UNTESTED = "untested"
    SKIPPED = "skipped"
    UNSUPPORTED = "unsupported"
    KEPT = "kept"
    UNJUDGED = "unjudged"
    ERROR = "error"
    BROKEN = "broken"

    @property
    def weight(self) -> int:
        """Severity of the verdict as a number; a higher number is more severe."""
        return _WEIGHT[self]


_WEIGHT = {verdict: weight for weight, verdict in enumerate(Verdict)}


class Profile(StrEnum):
    """Group of a requirement, core or extended; each group has its own counts.

    Core requirements are those of level MUST that need no feature but the modes bridge, host, none
    and container. A runtime that does not support all core requirements does not conform.
    """

    CORE = "core"
    EXTENDED = "extended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """The runtime under test. It has no version if the run never started it."""

    name: str
    version: str | None = None
    features: tuple[str, ...] = ()
    dialect: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Shard `number` of `of` shards; `by` is a digest of the durations file, empty without one."""

    number: int
    of: int
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The selection of tests for a run.

    - `arguments`: the paths, modules and node ids on the command line.
    - `pyargs`: the arguments name modules.
    - `collected` counts all tests, `deselected` those excluded by `-k`, `-m` and the like.
    - `narrowed`: the run is limited to a part of the suites.
    - `catalogue` and `tests` are digests of all requirements and of all tests to select from.
    - `expectations` is a digest of the file of `--expect`, or `none` without a file. Older reports
      lack it.
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
    """A reference to a document; `url` is `None` for a document that is not on the web."""

    name: str
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementResult:
    """A requirement of the catalogue and its verdict.

    `needs` has the requirements without which it cannot be kept. If it is unjudged, `because` has
    those of them that are broken and explain its failures.
    """

    id: str
    level: str
    profile: Profile
    section: str = ""
    statement: str = ""
    sources: tuple[ReportLink, ...] = ()
    history: tuple[ReportLink, ...] = ()
    features: tuple[str, ...] = ()
    dialect: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    verdict: Verdict = Verdict.UNTESTED
    because: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of a test's captured output."""

    title: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failure of a test.

    `when` is `setup`, `call`, `teardown` or `crash`. `message` is the first part of `text`. `said`
    is the runtime's output if the runtime refused a request and nothing else failed. `evidence` is
    the path of the evidence folder, relative to the report's folder, and `files` lists its
    contents. If the failed assertion compares matrices, `contradicts` has the requirements of wrong
    cells, and `holds` the requirements whose cells are all as promised.
    """

    when: str
    message: str = ""
    text: str = ""
    said: tuple[str, ...] = ()
    contradicts: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    evidence: str | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """The result of a test.

    `breaks` has the requirements that the test broke besides its own. `seconds` includes set-up and
    tear-down.
    """

    __test__ = False  # keeps pytest from collecting the class

    id: str
    verdict: Verdict
    seconds: float = 0.0
    requirements: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    reason: str = ""
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """The result of a cell. Without `observed` the cell was never probed.

    `test` is the test that probed the cell.
    """

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
        """The cell of the matrix."""
        return Cell(self.source, self.target, self.protocol, self.family)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedNetwork:
    """A network with its actual addresses."""

    name: str
    interface: str | None = None
    gateways: tuple[str, ...] = ()
    internal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedContainer:
    """A container with its actual addresses.

    `joined` is the container whose namespace it joined, if any.
    """

    name: str
    mode: str
    networks: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    joined: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The plan behind a matrix, with actual addresses.

    `world` has the addresses of everything that is not a container or one of its networks.
    """

    routers: int = 0
    world: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    networks: tuple[StagedNetwork, ...] = ()
    containers: tuple[StagedContainer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCounts:
    """The number of all cells, and the number of cells that are not as promised."""

    cells: int = 0
    wrong: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixResult:
    """A matrix with its title, its counts and the plan behind it."""

    title: str
    counts: CellCounts
    cells: tuple[CellResult, ...] = ()
    stage: Stage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The number of items with each verdict, and their total number."""

    total: int = 0
    kept: int = 0
    unjudged: int = 0
    broken: int = 0
    error: int = 0
    unsupported: int = 0
    skipped: int = 0
    untested: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts of tests by verdict, of requirements by profile and verdict, and of cells."""

    tests: Counts = Counts()
    core: Counts = Counts()
    extended: Counts = Counts()
    requirements: Counts = Counts()
    cells: CellCounts = CellCounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Excused:
    """The `count` tests that failed with a known runtime message, and the entry about it."""

    saying: str
    verdict: Verdict
    reason: str
    link: str = ""
    at_most: int
    count: int
    tests: tuple[str, ...]

    @property
    def too_many(self) -> bool:
        """Whether more tests failed with the message than the entry allows."""
        return self.count > self.at_most


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """The result of the gate: lists of items by the outcome of the comparison.

    The tests of `excused` are in `known` as well.
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
    """The whole report.

    `partial` has the reasons why the report is incomplete. `started` is an ISO 8601 time in UTC.
    `exit` is the exit status of the run.
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
        """Whether the run tested everything that it was asked to test."""
        return not self.partial

    @property
    def conforms(self) -> bool | None:
        """Whether every core requirement is kept and no other requirement is broken.

        `None` if nothing is broken, and core requirements are untested or the report is partial.
        """
        core, rest = self.totals.core, self.totals.extended
        if core.broken or core.error or core.unsupported or rest.broken or rest.error:
            return False
        return None if core.untested or self.partial else True


NAME = "report.json"
_EMPTY: Any = (None, "", [], {})
_LISTS = frozenset({"requirements", "tests", "matrices", "cells"})


class BadReport(ValueError):
    """A file is not a report, or its version of the schema is unknown; the message says which."""


def dumps(report: Report) -> str:
    """Return the report as JSON: empty fields are left out, and each record is one line."""
    return _pretty(_lean(msgspec.to_builtins(report, order="deterministic"))) + "\n"


def plain(report: Report) -> dict[str, Any]:
    """Return the report as builtin types, such as dicts and lists."""
    return json.loads(dumps(report))  # type: ignore[no-any-return]


def loads(text: str | bytes) -> Report:
    """Return the report in `text`. Raises `BadReport`."""
    try:
        head = msgspec.json.decode(text, type=dict[str, Any])
        found = head.get("version")
        if found != VERSION:
            raise BadReport(
                f"the report has version {found!r}; this program reads version {VERSION}"
            )
        return msgspec.convert(head, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadReport(f"not a report: {error}") from error


def load(path: Path) -> Report:
    """Return the report in a file, or in a folder that has a `report.json`.

    Raises `BadReport`, and `OSError` if there is none.
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
    """Return indented JSON in which each record of a list is one line."""
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
