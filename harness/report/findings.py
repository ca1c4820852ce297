"""Findings: violations of requirements that the suites have shown in runtimes.

The files `suites/findings/*.toml` store the findings, one file for each group of runtimes:

```toml
[runtime]
title = "podman 5.4.2"
about = "How to see a finding by hand."

[[finding]]
id = "podman-internal-network-lets-datagrams-in"
runtime = ["podman", "podman-runc"]
...
```

All texts are Markdown. A relative link in `about` starts in `docs/`. A relative link in a finding
starts in `docs/findings/`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources.abc import Traversable
from typing import Any, Final

import msgspec

from harness.model.requirements import Catalogue
from harness.report.sanitize import address

_SLUG: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TEST: Final = re.compile(r"suites/[\w/]+\.py::test_\w+(\[.+\])?")


class BadFindings(ValueError):
    """A file of findings is malformed; the message names the file, the finding and the error."""


class Kind(StrEnum):
    """Kind of a finding: the authority that promises the opposite of the observed behaviour.

    - `DEFECT`: the runtime itself, a standard or the kernel promises it.
    - `DIFFERENCE`: only a requirement of the suites promises it.
    - `DOCUMENTED_RISK`: the runtime's documentation or its maintainers describe the observed
      behaviour.
    """

    DEFECT = "defect"
    DIFFERENCE = "difference"
    DOCUMENTED_RISK = "documented risk"


class Finding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A violation of requirements in a version of a runtime.

    `runtime` has the names for `--runtime`. These fields may be empty: `conditions` if the default
    configuration shows the violation, `upstream` if no bug report is known, `tests` if no test
    covers the violation.
    """

    id: str
    runtime: tuple[str, ...]
    version: str
    requirements: tuple[str, ...]
    kind: Kind
    title: str
    expected: str
    actual: str
    conditions: str
    shell: str
    upstream: tuple[str, ...]
    cause: str
    tests: tuple[str, ...]


class RuntimeGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of runtimes: its heading, and a text about all findings of the group."""

    title: str
    about: str


@dataclass(frozen=True, slots=True)
class FindingsFile:
    """The runtimes and the findings in one file of findings."""

    runtime: RuntimeGroup
    finding: tuple[Finding, ...]


class _RawFile(msgspec.Struct, forbid_unknown_fields=True):
    """A file whose findings are not read yet: an error in a finding names its number and id."""

    runtime: RuntimeGroup
    finding: tuple[dict[str, Any], ...]


def load(folder: Traversable, catalogue: Catalogue) -> tuple[FindingsFile, ...]:
    """Return the content of each TOML file in a folder, by file name. Raises `BadFindings`."""
    found: list[FindingsFile] = []
    files: dict[str, str] = {}
    paths = [path for path in folder.iterdir() if path.name.endswith(".toml")]
    for path in sorted(paths, key=lambda path: path.name):
        try:
            content = parse(path.read_text(encoding="utf-8"), catalogue)
            for finding in content.finding:
                if first := files.get(finding.id):
                    raise BadFindings(f"{finding.id}: {first} has this id already")
                files[finding.id] = path.name
        except (BadFindings, UnicodeDecodeError) as error:
            raise BadFindings(f"{path.name}: {error}") from error
        found.append(content)
    return tuple(found)


def parse(text: str, catalogue: Catalogue) -> FindingsFile:
    """Return the content of one file of findings from its text. Raises `BadFindings`."""
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadFindings(f"it is not TOML: {error}") from error
    try:
        raw = msgspec.convert(document, _RawFile)
    except msgspec.ValidationError as error:
        raise BadFindings(str(error)) from error
    found: dict[str, Finding] = {}
    for number, entry in enumerate(raw.finding, 1):
        try:
            finding = msgspec.convert(entry, Finding)
        except msgspec.ValidationError as error:
            name = entry.get("id") or "without an id"
            raise BadFindings(f"finding {number} ({name}): {error}") from error
        for mistake in _mistakes(finding, catalogue):
            raise BadFindings(f"finding {number} ({finding.id}): {mistake}")
        if finding.id in found:
            raise BadFindings(f"{finding.id}: two findings have this id")
        found[finding.id] = finding
    return FindingsFile(raw.runtime, tuple(found.values()))


def _mistakes(finding: Finding, catalogue: Catalogue) -> Iterator[str]:
    if not _SLUG.fullmatch(finding.id):
        yield "the id is not lower-case words with hyphens between them"
    for field in ("runtime", "version", "title", "expected", "actual", "shell"):
        if not getattr(finding, field):
            yield f"{field} is empty"
    if finding.title.endswith("."):
        yield "the title is a heading: leave its full stop out"
    for id_ in finding.requirements:
        if id_ not in catalogue:
            yield f"there is no requirement {id_}"
    for test in finding.tests:
        if not _TEST.fullmatch(test):
            yield f"{test!r} is not the node id of a test of the suites"
    for link in finding.upstream:
        if not address(link):
            yield f"{link!r} is not a web address"
