"""Links from a failure to its evidence files, and the command that runs the failed test again."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from harness.report.sanitize import folder, markdown
from harness.report.schema import Failure, Report
from harness.testbench.profiles import RUN_DEFAULTS

EVIDENCE, INDEX = "evidence", "index.md"
"""The folder of all evidence in the report's folder, and its index."""
AGAIN: Final = "again.txt"
EVIDENCE_FILES: Final = ("story.txt", "capture.pcapng", "commands.txt", "plan.toml", AGAIN)
"""The files of one failure in the order of display, without the states of namespaces."""
STATES: Final = "state/*.json"
_STATE: Final = re.compile(r"state/[A-Za-z0-9_.-]+\.json")


def evidence_files(directory: Path) -> tuple[str, ...]:
    """Return the names of the evidence files in the folder of a failure."""
    states = sorted(file.relative_to(directory).as_posix() for file in directory.glob(STATES))
    names = [name for name in EVIDENCE_FILES if (directory / name).is_file()]
    return (*names, *filter(_STATE.fullmatch, states))


def links(failure: Failure) -> tuple[tuple[str, str], ...]:
    """Return the name of each evidence file of a failure, and its path in the report's folder.

    A report from another machine may list files of any name; only evidence files are returned.
    """
    found = folder(failure.evidence)
    if found is None:
        return ()
    own = (name for name in failure.files if name in EVIDENCE_FILES or _STATE.fullmatch(name))
    return tuple((name, posixpath.join(found, name)) for name in own)


def index_path(report: Report) -> str | None:
    """Return the path of the index of the evidence, or `None` if no failure has evidence."""
    folders = (folder(failure.evidence) for test in report.tests for failure in test.failures)
    found = next(filter(None, folders), None)
    return found and posixpath.join(posixpath.dirname(found), INDEX)


def index(report: Report, directory: str) -> str:
    """Return the index of the evidence in Markdown; `""` if no failure has evidence.

    The links fit a file in `directory`, which is relative to the report's folder.
    """
    lines = list(_lines(report, directory))
    if not lines:
        return ""
    head = f"# Failures and their evidence: {markdown(report.implementation.name)}\n\n"
    return head + "".join(f"{line}\n" for line in lines)


def _lines(report: Report, directory: str) -> Iterator[str]:
    for test in report.tests:
        for failure in test.failures:
            if (found := folder(failure.evidence)) is None:
                continue
            where = posixpath.relpath(found, directory)
            words = failure.message.strip().splitlines()
            about = ", ".join(markdown(id_) for id_ in (*test.breaks, *test.requirements))
            yield f"- [{markdown(test.id)}](<{quote(where)}/>)" + (f" ({about})" if about else "")
            if words:
                yield f"  {markdown(words[0])}"
            files = (
                f"[{markdown(name)}](<{quote(posixpath.relpath(way, directory))}>)"
                for name, way in links(failure)
            )
            if shown := ", ".join(files):
                yield f"  {shown}"


_OPTIONS: Final = ("fault", "probe", "profile", "hypothesis_profile", "hypothesis_seed", "expect")


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunOptions:
    """The options of a run that influence the outcome of a test.

    `options` has values by option name, and may include defaults. `pyargs` is true if the command
    line named the installed suites by module.
    """

    runtime: str
    options: Mapping[str, str | None]
    pyargs: bool = False


def run_conditions(config: pytest.Config, runtime: str) -> RerunOptions:
    """Return the options of this run that influence its tests, read from its command line."""
    return RerunOptions(
        runtime=runtime,
        options={name: config.getoption(name, default=None) for name in _OPTIONS},
        pyargs=config.getoption("pyargs"),
    )


def report_conditions(report: Report) -> RerunOptions:
    """Return the options, as recorded in a report, that influenced the tests of its run."""
    seeds = {name.replace(" ", "_"): value for name, value in report.seeds.items()}
    held = {"expect": report.gate.file} if report.gate else {}
    return RerunOptions(
        runtime=report.implementation.name,
        options={**report.environment, **seeds, **held},
        pyargs=report.selection.pyargs,
    )


def command(test: str, conditions: RerunOptions) -> str:
    """Return the command line that runs a test again; `test` is a node id of a report."""
    words = ["pytest", test]
    if conditions.pyargs:
        file, colons, name = test.partition("::")
        module = file.removesuffix(".py").replace("/", ".")
        words = ["pytest", "--pyargs", f"{module}{colons}{name}"]
    words += _option("runtime", conditions.runtime)
    for option in _OPTIONS:
        value = conditions.options.get(option)
        if value and value != RUN_DEFAULTS.get(option):
            words += _option(option.replace("_", "-"), value)
    return shlex.join(words)


def _option(option: str, value: str) -> list[str]:
    """Return an option with its value as words: `--option value`, or `--option=value` for a path.

    Pytest would take a path that is a separate word for the path of tests.
    """
    return [f"--{option}={value}"] if os.sep in value else [f"--{option}", value]
