"""Expectation files, which list known deviations, and the gate, which compares reports with them.

```toml
[[deviation]]
runtime = "docker"
versions = ">=26,<28"
test = "suites/bystanders/test_reachability.py::test_outsiders_reach_each_other"
verdict = "broken"
reason = "other hosts' IPv6 traffic is dropped by the FORWARD policy"
link = "https://github.com/moby/moby/issues/48365"
```

The gate is strict in both directions. Every failure must be listed. Every listed failure must still
occur, unless its entry says `chance`. `docs/gate.md` describes expectation files and the gate for
users. Only `read` and `uncovered_version` read files; all other functions are pure.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import tomli_w
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from harness.model import dialect
from harness.report.judge import own_verdict, worst, worst_votes
from harness.report.sanitize import address, line
from harness.report.schema import (
    Excused,
    GateResult,
    Report,
    RequirementResult,
    TestResult,
    Verdict,
)

UNEXPLAINED = "not looked into yet"
"""The reason that `--write-expect` writes for a new entry."""
ANYTHING = "…"
"""The placeholder in an error pattern, which stands for any text within a line."""
FAILING = frozenset({Verdict.BROKEN, Verdict.ERROR})
_SHORTEST = 20
"""Minimal length of a piece of an error pattern, not counting blanks."""
_SHOWN = 3
"""Number of items that a line of the summary names."""

Gone = Callable[[str], bool]
"""A function that returns whether the test with a node id no longer exists."""


class BadExpectations(ValueError):
    """An expectation file is malformed; the message names the entry and the mistake."""


class DeviationKind(StrEnum):
    """Kind of item that a deviation is about: a requirement, a test, a cell or an error pattern."""

    REQUIREMENT = "requirement"
    TEST = "test"
    CELL = "cell"
    SAYING = "saying"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A known deviation in some versions of a runtime.

    - `id`: a requirement id, a node id, a cell as `title: source → target icmp/4`, or an error
      pattern (key `saying` in the file).
    - `versions`: a PEP 440 specifier set, empty for all versions.
    - `chance`: the test fails in some runs and passes in others.
    - `at_most`: the number of tests that an error pattern may excuse in a run.
    """

    runtime: str
    kind: DeviationKind
    id: str
    verdict: Verdict = Verdict.BROKEN
    versions: str = ""
    reason: str = UNEXPLAINED
    link: str = ""
    chance: bool = False
    at_most: int = 0

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Sort key of the entry in the file."""
        return self.runtime, self.kind, self.id, self.versions, self.verdict

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    def concerns(self, runtime: str, version: str | None) -> bool:
        """Return whether the deviation is about this runtime in this version.

        Raises `BadExpectations` if the answer depends on the version and the version is unknown.
        """
        if self.runtime != runtime:
            return False
        if not self.versions:
            return True
        known = as_version(version)
        if known is None:
            raise BadExpectations(
                f"{self}: the entry is for versions {self.versions}, but the run does not know "
                f"the version of {runtime} ({version!r}); run a test that starts the runtime, or "
                "remove `versions`"
            )
        return SpecifierSet(self.versions).contains(known, prereleases=True)

    def says(self, text: str) -> bool:
        """Return whether the error pattern matches a line of `text`."""
        pieces = map(re.escape, self.id.split(ANYTHING))
        return self.kind is DeviationKind.SAYING and bool(re.search(".*".join(pieces), text))


_KEYS = {*map(str, DeviationKind), *(item.name for item in fields(Deviation))} - {"kind", "id"}


def as_version(text: str | None) -> Version | None:
    """Return a runtime's version in comparable form, or `None` if there is none.

    A version that is not PEP 440 (`1.2~rc1-3`) counts by its leading numbers.
    """
    try:
        return Version(text or "")
    except InvalidVersion:
        found = re.search(r"[0-9]+(\.[0-9]+)*", text or "")
        return Version(found[0]) if found else None


def loads(text: str) -> tuple[Deviation, ...]:
    """Return the deviations in the text of an expectation file. Raises `BadExpectations`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadExpectations(f"the file is not TOML: {error}") from error
    if unknown := document.keys() - {"deviation"}:
        raise BadExpectations(f"unknown tables {sorted(unknown)}; the only table is [[deviation]]")
    entries = document.get("deviation", [])
    if not isinstance(entries, list):
        raise BadExpectations("write each entry under [[deviation]], in double brackets")
    found = tuple(_deviation(number, entry) for number, entry in enumerate(entries, 1))
    _check_once(found)
    return found


def _deviation(number: int, entry: Mapping[str, Any]) -> Deviation:
    where = f"deviation {number}"
    if unknown := entry.keys() - _KEYS:
        raise BadExpectations(
            f"{where}: unknown keys {sorted(unknown)}; the keys are {sorted(_KEYS)}"
        )
    about = [kind for kind in DeviationKind if entry.get(kind)]
    if len(about) != 1:
        raise BadExpectations(f"{where}: give exactly one of requirement, test, cell and saying")
    (kind,) = about
    where = f"deviation {number} ({kind} {entry[kind]})"
    for key in ("runtime", "reason"):
        if not str(entry.get(key, "")).strip():
            raise BadExpectations(f"{where}: {key} is missing")
    try:
        found = msgspec.convert({**entry, "kind": kind, "id": entry[kind]}, Deviation)
        SpecifierSet(found.versions)
    except msgspec.ValidationError as error:
        raise BadExpectations(f"{where}: {error}") from error
    except InvalidSpecifier as error:
        raise BadExpectations(
            f"{where}: versions: {error}; write for example '>=26,<28'"
        ) from error
    for wrong, why in _mistakes(found, limited="at_most" in entry):
        if wrong:
            raise BadExpectations(f"{where}: {why}")
    return found


def _mistakes(item: Deviation, *, limited: bool) -> Iterator[tuple[bool, str]]:
    """Yield, for each rule about the fields of an entry, whether it is violated, and a message."""
    saying = item.kind is DeviationKind.SAYING
    verdicts = (*sorted(FAILING), Verdict.UNSUPPORTED)
    yield (
        item.verdict not in verdicts,
        f"verdict '{item.verdict}' is not one of {', '.join(verdicts)}",
    )
    unsupported = item.verdict is Verdict.UNSUPPORTED
    about_requirement = item.kind is DeviationKind.REQUIREMENT
    yield (
        unsupported and not about_requirement,
        "only a requirement can have the verdict unsupported",
    )
    by_chance = item.chance and item.kind is not DeviationKind.TEST
    yield by_chance, "only a test can have chance"
    yield saying and "\n" in item.id, "an error pattern is one line"
    unspecific = all(len("".join(part.split())) < _SHORTEST for part in item.id.split(ANYTHING))
    yield (
        saying and unspecific,
        f"the error pattern is too general; quote at least {_SHORTEST} characters, not counting "
        f"blanks and {ANYTHING}, of a message that only one defect prints",
    )
    yield (
        saying and item.at_most < 1,
        "at_most must be the number of tests that the pattern may excuse in a run, from 1",
    )
    yield limited and not saying, "only an error pattern (saying) can have at_most"
    web = not item.link or address(item.link)
    yield not web, f"link is not a web address: {item.link!r}"


def _check_once(found: Iterable[Deviation]) -> None:
    """Refuse duplicate entries; an error pattern may occur once with each verdict.

    Two entries with overlapping versions are left to the gate, which knows the version of the run.
    """
    numbers: dict[object, int] = {}
    for number, item in enumerate(found, 1):
        verdict = item.verdict if item.kind is DeviationKind.SAYING else None
        about = item.runtime, item.kind, item.id, SpecifierSet(item.versions), verdict
        first = numbers.setdefault(about, number)
        if first != number:
            raise BadExpectations(
                f"deviation {number} ({item}): it repeats deviation {first}; remove one"
            )


def read(path: Path) -> tuple[tuple[Deviation, ...], str]:
    """Return the deviations in an expectation file, and its text.

    Raises `BadExpectations`, whose message begins with the path of the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return loads(text), text
    except FileNotFoundError as error:
        raise BadExpectations(f"{path}: no such file; --write-expect creates one") from error
    except OSError as error:
        raise BadExpectations(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, BadExpectations) as error:
        raise BadExpectations(f"{path}: {error}") from error


def dumps(deviations: Iterable[Deviation]) -> str:
    """Return the text of an expectation file. Entries are sorted: equal ones give equal text."""
    entries = []
    for item in sorted(deviations, key=lambda item: item.key):
        entry = {
            "runtime": item.runtime,
            "versions": item.versions,
            str(item.kind): item.id,
            "verdict": str(item.verdict),
            "chance": item.chance,
            "at_most": item.at_most,
            "reason": item.reason,
            "link": item.link,
        }
        entries.append({key: value for key, value in entry.items() if value})
    head = "# Known deviations, see docs/gate.md. `--write-expect` sorts this file.\n"
    return head + "".join("\n[[deviation]]\n" + tomli_w.dumps(entry) for entry in entries)


def uncovered_version(runtime: str, version: str | None, folder: Path) -> str:
    """Return a warning if the suites' expectation file has no entries for this version, else `""`.

    `folder` has the suites' own expectation files. Return `""` also if the runtime has no such
    file, if the file names no versions, or if the runtime is described in a user's TOML file.
    """
    name, _, _ = dialect.split_runtime_name(runtime)
    own, file = as_version(version), folder / f"{name}.toml"
    if own is None or not file.is_file():
        return ""
    listed, _ = read(file)
    known = sorted({item.versions for item in listed if item.versions and item.runtime == name})
    if not known or any(SpecifierSet(item).contains(own, prereleases=True) for item in known):
        return ""
    return (
        f"{name} {version} has no list of known deviations: the list is for versions "
        f"{' and '.join(known)}. A failure may be a documented choice of this version that its "
        f"dialect lacks: see `netmodes vendors {runtime}` and docs/adapters.md"
    )


# --- the gate ---------------------------------------------------------------------


class _Comparison:
    """Comparison of a report with the deviations that concern its runtime and version."""

    def __init__(self, report: Report, deviations: Sequence[Deviation], gone: Gone) -> None:
        self.report, self.gone = report, gone
        self.tests = {test.id: test for test in report.tests}
        self.requirements = {item.id: item for item in report.requirements}
        self.cells = {
            f"{matrix.title}: {cell.cell}": cell
            for matrix in report.matrices
            for cell in matrix.cells
        }
        self.wrong: dict[str, list[str]] = {}
        for id_, cell in self.cells.items():
            if not cell.kept:
                self.wrong.setdefault(cell.test, []).append(id_)
        runtime = report.implementation
        self.listed: dict[tuple[DeviationKind, str], Deviation] = {}
        self.sayings: dict[tuple[str, Verdict], Deviation] = {}
        for item in deviations:
            if item.concerns(runtime.name, runtime.version):
                self._list(item)
        self.excused = {test.id: by for test in self.failing() if (by := self._saying_of(test))}
        rest = [test for test in report.tests if test.id not in self.excused]
        votes = worst_votes(rest)
        self.without = {id_: worst(own.values()) for id_, own in votes.items()}
        """The most severe verdict of each requirement's tests, without the excused tests."""

    def _list(self, item: Deviation) -> None:
        """Register a deviation; raise `BadExpectations` if it is listed twice.

        An error pattern may be listed once with each verdict.
        """
        if item.kind is DeviationKind.SAYING:
            known = self.sayings.setdefault((item.id, item.verdict), item)
        else:
            known = self.listed.setdefault((item.kind, item.id), item)
        if known is not item:
            raise BadExpectations(f"{item} is listed twice for {_about(self.report)}")

    @property
    def entries(self) -> tuple[Deviation, ...]:
        """All deviations that concern this run."""
        return (*self.listed.values(), *self.sayings.values())

    @property
    def whole(self) -> bool:
        """Whether every existing test has run to its end.

        Only in such a run does a cell's absence from the report mean that the cell no longer
        exists. A test that an error pattern excuses may have ended before it observed its cells.
        """
        report = self.report
        asked_for_all = report.complete and not report.selection.narrowed and not report.shard
        return asked_for_all and not self.excused

    def failing(self) -> Iterator[TestResult]:
        return (test for test in self.report.tests if test.verdict in FAILING)

    def explained(self, test: TestResult) -> bool:
        """Return whether the listed deviations explain the failure of a test."""
        if test.id in self.excused:
            return True
        own = self.listed.get((DeviationKind.TEST, test.id))
        if own:
            return own.verdict is test.verdict
        broken = _broken_by(test)
        if broken and all(self._listed_as_failing(id_) for id_ in broken):
            return True
        wrong = self.wrong.get(test.id, ())
        return (
            bool(wrong)
            and not test.breaks
            and test.verdict is Verdict.BROKEN
            and all((DeviationKind.CELL, id_) in self.listed for id_ in wrong)
        )

    def _listed_as_failing(self, id_: str) -> bool:
        found = self.listed.get((DeviationKind.REQUIREMENT, id_))
        return found is not None and found.verdict is self.without.get(id_)

    def _saying_of(self, test: TestResult) -> Deviation | None:
        """Return the error pattern that explains all failures of a test.

        Return `None` for a test that has an entry of its own.
        """
        own = self.listed.get((DeviationKind.TEST, test.id))
        if (own and own.verdict is test.verdict) or test.id in self.wrong:
            return None
        for item in self.sayings.values():
            if item.verdict is test.verdict and _matches_every_failure(test, item):
                return item
        return None

    def unsupported(self) -> Iterator[RequirementResult]:
        """Return requirements whose verdict is unsupported, unless the file lists that verdict."""
        for item in self.report.requirements:
            listed = self.listed.get((DeviationKind.REQUIREMENT, item.id))
            known = listed is not None and listed.verdict is Verdict.UNSUPPORTED
            if item.verdict is Verdict.UNSUPPORTED and not known:
                yield item

    def stale(self, item: Deviation) -> tuple[bool, str]:
        """Return whether a deviation is fixed, or the reason why its item cannot be compared."""
        match item.kind:
            case DeviationKind.TEST:
                return self._stale_test(item)
            case DeviationKind.CELL:
                cell = self.cells.get(item.id)
                if cell is None:
                    return False, "there is no such cell" if self.whole else ""
                return cell.kept, ""
            case DeviationKind.REQUIREMENT:
                return self._stale_requirement(item)
            case DeviationKind.SAYING:
                return False, ""

    def _stale_test(self, item: Deviation) -> tuple[bool, str]:
        test = self.tests.get(item.id)
        if test is None:
            return False, "there is no such test" if self.gone(item.id) else ""
        if test.verdict in (Verdict.UNSUPPORTED, Verdict.SKIPPED):
            return False, f"the test does not run: {test.verdict}"
        return test.verdict is Verdict.KEPT and not item.chance, ""

    def _stale_requirement(self, item: Deviation) -> tuple[bool, str]:
        found = self.requirements.get(item.id)
        if found is None:
            return False, "there is no such requirement"
        if not self.excused.keys().isdisjoint(found.tests):
            return False, ""
        if item.verdict is Verdict.UNSUPPORTED:
            return found.verdict in {Verdict.KEPT, *FAILING}, ""
        if found.verdict is Verdict.UNSUPPORTED:
            return False, f"it is unsupported, not {item.verdict}"
        return found.verdict is Verdict.KEPT and self.whole, ""


def _matches_every_failure(test: TestResult, item: Deviation) -> bool:
    return bool(test.failures) and all(
        failure.said and all(map(item.says, failure.said)) for failure in test.failures
    )


def _broken_by(test: TestResult) -> tuple[str, ...]:
    """Return the requirements that a failing test breaks: its own, and those broken by a leak."""
    own = test.requirements if own_verdict(test) in FAILING else ()
    return tuple(dict.fromkeys((*own, *test.breaks)))


def compare(
    report: Report, deviations: Sequence[Deviation], *, file: str, gone: Gone
) -> GateResult:
    """Compare the report with the listed deviations and return the result of the gate.

    Raises `BadExpectations` if the list contradicts itself, or if the result depends on the
    runtime's version and the version is unknown.
    """
    both = _Comparison(report, deviations, gone)
    new: list[str] = []
    known: list[str] = []
    for test in both.failing():
        (known if both.explained(test) else new).append(_failing_words(test))
    fixed, lost = [], []
    for item in both.entries:
        mended, reason = both.stale(item)
        if mended:
            fixed.append(line(str(item)))
        elif reason:
            lost.append(line(f"{item}: {reason}"))
    missing = tuple(item.id for item in both.unsupported())
    excused = tuple(_excused(both))
    too_many = any(item.too_many for item in excused)
    return GateResult(
        file=line(file),
        entries=len(both.entries),
        ok=report.complete and not (new or fixed or lost or missing or too_many),
        new=tuple(new),
        unsupported=missing,
        fixed=tuple(fixed),
        gone=tuple(lost),
        known=tuple(known),
        excused=excused,
    )


def _excused(both: _Comparison) -> Iterator[Excused]:
    for item in both.sayings.values():
        tests = tuple(test for test, by in both.excused.items() if by is item)
        if tests:
            yield Excused(
                saying=line(item.id),
                verdict=item.verdict,
                reason=line(item.reason),
                link=item.link,
                at_most=item.at_most,
                count=len(tests),
                tests=tests,
            )


def _failing_words(test: TestResult) -> str:
    ids = ", ".join(_broken_by(test))
    return f"{test.id} ({test.verdict}{': ' if ids else ''}{ids})"


def updated(
    report: Report, deviations: Sequence[Deviation], *, gone: Gone
) -> tuple[Deviation, ...]:
    """Return the deviations of this report, as `--write-expect` writes them.

    Reasons, links and version ranges of entries stay. Entries about fixed or missing items go.
    Entries for other runtimes or versions, or for items not observed in this run, stay as they are.
    Error patterns stay as well: their author decides how many tests of a run they may excuse.
    """
    both = _Comparison(report, deviations, gone)
    sayings = [item for item in deviations if item.kind is DeviationKind.SAYING]
    stale = {item for item in both.entries if any(both.stale(item))}
    others = [item for item in deviations if item.kind is not DeviationKind.SAYING]
    kept: dict[tuple[str, str, DeviationKind, str], Deviation] = {
        (item.runtime, item.versions, item.kind, item.id): item for item in others
    }
    for item in stale:
        del kept[item.runtime, item.versions, item.kind, item.id]
    runtime = report.implementation.name

    def put(kind: DeviationKind, id_: str, verdict: Verdict) -> None:
        known = both.listed.get((kind, id_)) or Deviation(runtime=runtime, kind=kind, id=id_)
        kept[runtime, known.versions, kind, id_] = replace(known, verdict=verdict)

    for test in both.failing():
        if not both.explained(test):
            put(DeviationKind.TEST, test.id, test.verdict)
    for row in both.unsupported():
        put(DeviationKind.REQUIREMENT, row.id, Verdict.UNSUPPORTED)
    return (*kept.values(), *sayings)


def summary_lines(result: GateResult, report: Report) -> list[str]:
    """Return the gate's result in six lines; error patterns after the first add a line each."""
    verdict = "passed" if result.ok else "FAILED"
    partial = "" if report.complete else "; the run is partial"
    return [
        f"gate {verdict}: {_about(report)}, compared with {result.file} "
        f"({result.entries} known deviations){partial}",
        _items_line("new failures", result.new, "fix them, or list them"),
        _items_line("not supported", result.unsupported, "declare the feature, or list them"),
        _items_line("fixed", result.fixed, "remove these entries"),
        _items_line("gone", result.gone, "remove these entries"),
        *([_excused_line(item) for item in result.excused] or [_empty_line("excused")]),
    ]


def _excused_line(item: Excused) -> str:
    bound = "MORE THAN" if item.too_many else "at most"
    limit = f"{item.verdict}, {bound} {item.at_most}"
    why = f'{limit} by the error pattern "{item.saying}": {item.reason}'
    return _items_line("excused", item.tests, why)


def _empty_line(title: str) -> str:
    return f"  {title:14}  none"


def _items_line(title: str, names: Sequence[str], advice: str) -> str:
    if not names:
        return _empty_line(title)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"  {title:14}{len(names):>6}: {', '.join(names[:_SHOWN])}{more} ({advice})"


def _about(report: Report) -> str:
    runtime = report.implementation
    return line(f"{runtime.name} {runtime.version or '(version unknown)'}")
