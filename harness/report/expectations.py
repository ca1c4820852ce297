"""The expectation file: known deviations of a runtime, reviewed in git (pure).

```toml
[[deviation]]
runtime = "docker"
versions = ">=26,<28"
test = "suites/bystanders/test_reachability.py::test_outsiders_reach_each_other"
verdict = "broken"
reason = "other hosts' IPv6 traffic is dropped by the FORWARD policy"
link = "https://github.com/moby/moby/issues/48365"
```

`docs/gate.md` describes it for users.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import tomli_w
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from harness.model import dialect
from harness.report.sanitize import address
from harness.report.schema import Verdict

UNEXPLAINED = "not looked into yet"
"""The reason that `--write-expect` writes for a new entry."""
ANYTHING = "…"
"""The placeholder in a message pattern: any text within a line."""
_SHORTEST = 20
"""Minimal length of a piece of a message pattern, blanks not counted."""
_ABOUT = frozenset({"requirement", "test", "cell", "saying"})
_TEXTS = frozenset({"runtime", "versions", "verdict", "reason", "link"}) | _ABOUT
_KEYS = _TEXTS | {"chance", "at_most"}
_VERDICTS = (Verdict.BROKEN, Verdict.ERROR, Verdict.UNSUPPORTED)


class BadExpectations(ValueError):
    """An expectation file is malformed; the message names the entry and the mistake."""


class DeviationKind(StrEnum):
    """Kind of item that a deviation concerns."""

    REQUIREMENT = "requirement"
    TEST = "test"
    CELL = "cell"
    SAYING = "saying"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A known deviation in some versions of a runtime.

    - `id`: a requirement id, a node id, a cell as `title: source → target icmp/4`, or a message
      pattern.
    - `versions`: a PEP 440 specifier set, empty for all versions.
    - `chance`: the test fails in some runs and passes in others.
    - `at_most`: the number of tests that a message pattern may excuse in a run.
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
        """Sort key in the file."""
        return self.runtime, self.kind, self.id, self.versions, self.verdict

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    def concerns(self, runtime: str, version: str | None) -> bool:
        """Return whether the deviation is about this runtime in this version.

        Raises `BadExpectations` if that depends on the version and the version is unknown.
        """
        if self.runtime != runtime:
            return False
        if not self.versions:
            return True
        known = as_version(version)
        if known is None:
            raise BadExpectations(
                f"{self}: it is about versions {self.versions}, and the version of {runtime} in "
                f"this run is {version!r}; run a test that starts the runtime, or leave "
                "`versions` out"
            )
        return SpecifierSet(self.versions).contains(known, prereleases=True)

    def says(self, text: str) -> bool:
        """Return whether the message pattern matches a line of `text`."""
        pieces = self.id.split(ANYTHING)
        return self.kind is DeviationKind.SAYING and any(
            _within(line, pieces) for line in text.split("\n")
        )


def _within(line: str, pieces: Iterable[str]) -> bool:
    """Return whether the line contains the pieces in this order."""
    rest = line
    for piece in pieces:
        if piece not in rest:
            return False
        rest = rest[rest.index(piece) + len(piece) :]
    return True


def as_version(text: str | None) -> Version | None:
    """Return a runtime's version for comparison, or `None` if there is none.

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
        raise BadExpectations(f"it is not TOML: {error}") from error
    if unknown := document.keys() - {"deviation"}:
        raise BadExpectations(f"unknown tables {sorted(unknown)}; there is only [[deviation]]")
    entries = document.get("deviation", [])
    if not isinstance(entries, list):
        raise BadExpectations("write each entry under [[deviation]], in double brackets")
    found = tuple(_deviation(number, entry) for number, entry in enumerate(entries, 1))
    _check_once(found)
    return found


def _deviation(number: int, entry: Mapping[str, Any]) -> Deviation:
    where = f"deviation {number}"
    if unknown := entry.keys() - _KEYS:
        raise BadExpectations(f"{where}: unknown keys {sorted(unknown)}; known are {sorted(_KEYS)}")
    for key in _TEXTS & entry.keys():
        if not isinstance(entry[key], str):
            raise BadExpectations(f"{where}: {key} is no text: {entry[key]!r}")
    about = [kind for kind in DeviationKind if entry.get(kind)]
    if len(about) != 1:
        raise BadExpectations(f"{where}: name one requirement, test, cell or saying")
    (kind,) = about
    where = f"deviation {number} ({kind} {entry[kind]})"
    for key in ("runtime", "reason"):
        if not entry.get(key, "").strip():
            raise BadExpectations(f"{where}: it has no {key}")
    verdict = entry.get("verdict", Verdict.BROKEN)
    if verdict not in _VERDICTS:
        raise BadExpectations(f"{where}: verdict {verdict!r} is none of {', '.join(_VERDICTS)}")
    if verdict == Verdict.UNSUPPORTED and kind is not DeviationKind.REQUIREMENT:
        raise BadExpectations(f"{where}: only a requirement can be unsupported")
    _check_chance(where, kind, entry)
    if entry.get("link") and not address(entry["link"]):
        raise BadExpectations(f"{where}: link is no address of the web: {entry['link']!r}")
    try:
        SpecifierSet(entry.get("versions", ""))
    except InvalidSpecifier as error:
        raise BadExpectations(f"{where}: versions: {error}; write such as '>=26,<28'") from error
    return Deviation(
        runtime=entry["runtime"],
        kind=kind,
        id=entry[kind],
        verdict=Verdict(verdict),
        versions=entry.get("versions", ""),
        reason=entry["reason"],
        link=entry.get("link", ""),
        chance=entry.get("chance", False),
        at_most=entry.get("at_most", 0),
    )


def _check_once(found: Iterable[Deviation]) -> None:
    """Refuse duplicate entries; a message pattern may occur once with each verdict.

    The gate finds entries whose versions overlap: it knows the version of the run.
    """
    numbers: dict[object, int] = {}
    for number, item in enumerate(found, 1):
        verdict = item.verdict if item.kind is DeviationKind.SAYING else None
        about = item.runtime, item.kind, item.id, SpecifierSet(item.versions), verdict
        first = numbers.setdefault(about, number)
        if first != number:
            raise BadExpectations(
                f"deviation {number} ({item}): deviation {first} lists it already"
            )


def _check_chance(where: str, kind: DeviationKind, entry: Mapping[str, Any]) -> None:
    """Check `chance` and `at_most`."""
    chance = entry.get("chance", False)
    if not isinstance(chance, bool):
        raise BadExpectations(f"{where}: chance is neither true nor false: {chance!r}")
    if chance and kind is not DeviationKind.TEST:
        raise BadExpectations(f"{where}: only a test fails by chance")
    if kind is DeviationKind.SAYING:
        _check_saying(where, entry[kind])
        if type(at_most := entry.get("at_most")) is not int or at_most < 1:
            raise BadExpectations(
                f"{where}: at_most has to say how many tests of a run it may excuse, such as 3"
            )
    elif "at_most" in entry:
        raise BadExpectations(f"{where}: at_most is said of a saying, which many tests may meet")


def _check_saying(where: str, words: str) -> None:
    """Refuse a message pattern that almost any failure would match."""
    if "\n" in words:
        raise BadExpectations(f"{where}: a saying is within one line")
    if all(len("".join(piece.split())) < _SHORTEST for piece in words.split(ANYTHING)):
        raise BadExpectations(
            f"{where}: anything that fails might say so; quote {_SHORTEST} characters, without "
            f"blanks and {ANYTHING}, that one defect alone does"
        )


def dumps(deviations: Iterable[Deviation]) -> str:
    """Return the text of an expectation file, sorted: equal deviations give equal text."""
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
    head = "# What is known not to be as it should. See docs/gate.md; `--write-expect` sorts it.\n"
    return head + "".join("\n[[deviation]]\n" + tomli_w.dumps(entry) for entry in entries)


def uncovered_version(runtime: str, version: str | None, folder: Path) -> str:
    """Return a sentence if the suites' expectation file covers no such version; else `""`.

    `folder` has the suites' own expectation files. The result is empty if the runtime has none, if
    the file names no versions, and for a runtime that the user has described.
    """
    name, _, _ = dialect.split_runtime_name(runtime)
    own, file = as_version(version), folder / f"{name}.toml"
    if own is None or not file.is_file():
        return ""
    listed = loads(file.read_text(encoding="utf-8"))
    known = sorted({item.versions for item in listed if item.versions and item.runtime == name})
    if not known or any(SpecifierSet(item).contains(own, prereleases=True) for item in known):
        return ""
    return (
        f"{name} {version} has not been looked at: what fails has been explained of "
        f"{' and '.join(known)}, and here it may be a choice of this version's that nobody has "
        f"declared (`netmodes vendors {runtime}`, docs/adapters.md)"
    )
