"""Sharding: assign test files to shards, and join the reports of the shards (pure)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Final

from harness.report.judge import concluded, matrix
from harness.report.schema import (
    CellResult,
    Implementation,
    MatrixResult,
    Report,
    Shard,
    TestResult,
)

_NO_TESTS: Final = 5
"""pytest's exit status of a run without tests."""


class Unmergeable(ValueError):
    """The reports are not shards of one run; the message names the difference."""


_FOUND: Final[Mapping[str, Callable[[Report], object]]] = {
    "the tests that were found": lambda report: report.selection.tests,
    "how many tests were deselected": lambda report: report.selection.deselected,
}
"""Fields that are unknown in a run that ended before its tests were collected."""
_MUST_AGREE: Final[Mapping[str, Callable[[Report], object]]] = {
    "the runtime": lambda report: report.implementation.name,
    "netmodes": lambda report: report.generator,
    "the arguments": lambda report: report.selection.arguments,
    "the catalogue of requirements": lambda report: report.selection.catalogue,
    "the number of shards": lambda report: report.shard.of if report.shard else None,
    "the durations file": lambda report: report.shard.by if report.shard else None,
    "the seeds": lambda report: dict(report.seeds),
    "the fault": lambda report: report.environment.get("fault"),
    "the probe": lambda report: report.environment.get("probe"),
    "the user": lambda report: report.environment.get("user"),
    "the machine": lambda report: report.environment.get("machine"),
}
_HELD: Final[Mapping[str, Callable[[Report], object]]] = {
    "the expectation file": lambda report: report.selection.expectations
}
"""Fields that a report of an earlier version lacks. With an expectation file, the property suites
draw the same examples in every run."""


def merge(reports: Sequence[Report]) -> Report:
    """Return the report of the whole run from the `reports` of its shards.

    The merged report is partial if a shard is partial or missing. Raises `Unmergeable` if the
    shards are not of one run. The shards may have run on different kernels: the report names all of
    them.
    """
    if not reports:
        raise Unmergeable("there are no reports to merge")
    _check(reports, _MUST_AGREE)
    _check([report for report in reports if report.selection.collected or report.complete], _FOUND)
    _check([report for report in reports if report.selection.expectations], _HELD)
    first = reports[0]
    numbers = [report.shard.number if report.shard else None for report in reports]
    if None in numbers:
        raise Unmergeable("one report is not of a shard: run its tests with --shard K/N")
    if twice := {number for number in numbers if numbers.count(number) > 1}:
        raise Unmergeable(
            f"shard {', '.join(map(str, sorted(filter(None, twice))))} was given twice"
        )
    parts = sorted(reports, key=lambda report: report.shard.number if report.shard else 0)
    collected = sum(report.selection.collected for report in parts)
    return concluded(
        replace(
            first,
            implementation=_implementation(parts),
            partial=tuple(_partial(parts)),
            started=min(report.started for report in parts),
            seconds=max(report.seconds for report in parts),
            exit=_exit(parts),
            environment=_environment(parts),
            selection=replace(
                first.selection,
                collected=collected,
                narrowed=any(report.selection.narrowed for report in parts),
            ),
            shard=None,
            tests=_tests(parts),
            matrices=_matrices(parts),
            gate=None,
        )
    )


def _check(reports: Sequence[Report], agree: Mapping[str, Callable[[Report], object]]) -> None:
    for what, value in agree.items():
        for other in reports[1:]:
            if value(reports[0]) != value(other):
                raise Unmergeable(
                    f"the shards differ in {what}: {value(reports[0])!r} and {value(other)!r}"
                )


def _exit(parts: Sequence[Report]) -> int:
    """Return the worst exit status of the shards; "no tests" only if no shard had tests."""
    statuses = [report.exit for report in parts if report.exit != _NO_TESTS]
    return max(statuses, default=_NO_TESTS)


def _implementation(parts: Sequence[Report]) -> Implementation:
    """Return the runtime's description of itself, from a shard that started the runtime."""
    started = [report.implementation for report in parts if report.implementation.version]
    for other in started[1:]:
        if other != started[0]:
            raise Unmergeable(
                f"the shards differ in the runtime's version ({started[0].version!r} and "
                f"{other.version!r}), features or dialect"
            )
    return started[0] if started else parts[0].implementation


def _partial(parts: Sequence[Report]) -> list[str]:
    reasons = [
        f"shard {report.shard.number}: {reason}"
        for report in parts
        if report.shard
        for reason in report.partial
    ]
    there = {report.shard.number for report in parts if report.shard}
    of = parts[0].shard.of if parts[0].shard else 0
    reasons += [
        f"shard {number} of {of} is missing" for number in range(1, of + 1) if number not in there
    ]
    return reasons


def _environment(parts: Sequence[Report]) -> dict[str, str]:
    """Return the environment of the shards; values that differ are listed with commas."""
    names = dict.fromkeys(name for report in parts for name in report.environment)
    return {
        name: ", ".join(
            dict.fromkeys(
                report.environment[name] for report in parts if name in report.environment
            )
        )
        for name in names
    }


def _tests(parts: Sequence[Report]) -> tuple[TestResult, ...]:
    found: dict[str, TestResult] = {}
    for report in parts:
        for test in report.tests:
            if test.id in found:
                raise Unmergeable(f"two shards ran {test.id}: they are not parts of one run")
            found[test.id] = test
    return tuple(found[id_] for id_ in sorted(found))


def _matrices(parts: Sequence[Report]) -> tuple[MatrixResult, ...]:
    """Return the merged matrices, every cell once; a cell that is wrong in any shard is wrong."""
    stages = {item.title: item.stage for report in reversed(parts) for item in report.matrices}
    cells: dict[str, dict[object, CellResult]] = {}
    for report in parts:
        for item in report.matrices:
            known = cells.setdefault(item.title, {})
            for cell in item.cells:
                before = known.get(cell.cell)
                if before is None or before.kept:
                    known[cell.cell] = cell
    return tuple(
        matrix(title, tuple(known.values()), stages[title]) for title, known in cells.items()
    )


class BadShard(ValueError):
    """The value of `--shard` is malformed; the message shows an example."""


def parse(text: str) -> Shard:
    """Return the shard that a text such as `2/5` names. Raises `BadShard`."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", text, re.ASCII)
    if not found or int(found[1]) > int(found[2]):
        raise BadShard(f"--shard {text!r}: give K/N with K from 1 to N, for example 2/5")
    return Shard(number=int(found[1]), of=int(found[2]))


def file_of(node_id: str) -> str:
    """Return the file of a test, given by its node id."""
    return node_id.partition("::")[0]


def assign(node_ids: Iterable[str], of: int, seconds: Mapping[str, float]) -> dict[str, int]:
    """Return the number of the shard, counted from 1, of every test by node id.

    All tests of a file are in one shard. `seconds` has the durations of an earlier run. With them,
    the files are assigned in descending order of duration, each to the shard with the least work so
    far. A test without a duration counts as the median. Without any durations, a hash of the file's
    name decides. The result does not depend on the machine or on the order of `node_ids`.
    """
    tests = list(node_ids)
    files: dict[str, float] = {}
    usual = median(seconds.values()) if seconds else 0.0
    for test in sorted(tests):
        files[file_of(test)] = files.get(file_of(test), 0.0) + seconds.get(test, usual)
    parts = _by_time(files, of) if seconds else {name: _hashed(name, of) for name in files}
    return {test: parts[file_of(test)] for test in tests}


def _by_time(files: Mapping[str, float], of: int) -> dict[str, int]:
    load = [0.0] * of
    parts: dict[str, int] = {}
    for name in sorted(files, key=lambda item: (-files[item], item)):
        least = load.index(min(load))
        load[least] += files[name]
        parts[name] = least + 1
    return parts


def _hashed(name: str, of: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode(errors="replace")).digest()[:8]) % of + 1
