"""The evidence that a report leads to: by what names, and the list of all of it."""

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
"""The folder of all of it, in the report's, and the list in there."""
AGAIN: Final = "again.txt"
EVIDENCE_FILES: Final = ("story.txt", "capture.pcapng", "commands.txt", "plan.toml", AGAIN)
"""What is written for one failure, besides a state for each place; as they are shown."""
STATES: Final = "state/*.json"
_STATE: Final = re.compile(r"state/[A-Za-z0-9_.-]+\.json")


def present(directory: Path) -> tuple[str, ...]:
    """The names of the evidence that is in one failure's folder."""
    states = sorted(file.relative_to(directory).as_posix() for file in directory.glob(STATES))
    names = [name for name in EVIDENCE_FILES if (directory / name).is_file()]
    return (*names, *filter(_STATE.fullmatch, states))


def links(failure: Failure) -> tuple[tuple[str, str], ...]:
    """Each file of a failure's evidence: its name, and the way to it from the report's folder.

    Whoever wrote a report may have named any: these are such as evidence is made of.
    """
    found = folder(failure.evidence)
    if found is None:
        return ()
    own = (name for name in failure.files if name in EVIDENCE_FILES or _STATE.fullmatch(name))
    return tuple((name, posixpath.join(found, name)) for name in own)


def listed(report: Report) -> str | None:
    """The way to the list of a report's evidence, `None` where there is none."""
    folders = (folder(failure.evidence) for test in report.tests for failure in test.failures)
    found = next(filter(None, folders), None)
    return found and posixpath.join(posixpath.dirname(found), INDEX)


def index(report: Report, directory: str) -> str:
    """Markdown, for a file in `directory` of the report's; `""` where nothing left any."""
    lines = list(_lines(report, directory))
    if not lines:
        return ""
    head = f"# What failed, and what is known of it: {markdown(report.implementation.name)}\n\n"
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
            if told := ", ".join(files):
                yield f"  {told}"


_OPTIONS: Final = ("fault", "probe", "profile", "hypothesis_profile", "hypothesis_seed", "expect")


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunOptions:
    """What a test's outcome depends on besides the test.

    `options` are by their name, and what goes without saying may be among them. `pyargs`:
    the suites were run where they are installed.
    """

    runtime: str
    options: Mapping[str, str | None]
    pyargs: bool = False


def asked(config: pytest.Config, runtime: str) -> RerunOptions:
    """By the command line of this run, which is of a runtime."""
    return RerunOptions(
        runtime=runtime,
        options={name: config.getoption(name, default=None) for name in _OPTIONS},
        pyargs=config.getoption("pyargs"),
    )


def of(report: Report) -> RerunOptions:
    """By what a report says of its run."""
    seeds = {name.replace(" ", "_"): value for name, value in report.seeds.items()}
    held = {"expect": report.gate.file} if report.gate else {}
    return RerunOptions(
        runtime=report.implementation.name,
        options={**report.environment, **seeds, **held},
        pyargs=report.selection.pyargs,
    )


def command(test: str, said: RerunOptions) -> str:
    """The line; `test` is a node id in the words of reports."""
    words = ["pytest", test]
    if said.pyargs:
        file, colons, name = test.partition("::")
        module = file.removesuffix(".py").replace("/", ".")
        words = ["pytest", "--pyargs", f"{module}{colons}{name}"]
    words += _said("runtime", said.runtime)
    for option in _OPTIONS:
        value = said.options.get(option)
        if value and value != RUN_DEFAULTS.get(option):
            words += _said(option.replace("_", "-"), value)
    return shlex.join(words)


def _said(option: str, value: str) -> list[str]:
    """A path in one word with its option: else pytest takes it for a place of tests."""
    return [f"--{option}={value}"] if os.sep in value else [f"--{option}", value]
