"""The line that runs a test again as it was run: by what the run was asked, or its report says."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pytest

from harness import options
from harness.report.schema import Report

_OPTIONS: Final = ("fault", "probe", "profile", "hypothesis_profile", "hypothesis_seed", "expect")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a test's outcome depends on besides the test.

    `options` are by their name, and what goes without saying may be among them. `pyargs`:
    the suites were run where they are installed.
    """

    runtime: str
    options: Mapping[str, str | None]
    pyargs: bool = False


def asked(config: pytest.Config, runtime: str) -> Asked:
    """By the command line of this run, which is of a runtime."""
    return Asked(
        runtime=runtime,
        options={name: config.getoption(name, default=None) for name in _OPTIONS},
        pyargs=config.getoption("pyargs"),
    )


def of(report: Report) -> Asked:
    """By what a report says of its run."""
    seeds = {name.replace(" ", "_"): value for name, value in report.seeds.items()}
    held = {"expect": report.gate.file} if report.gate else {}
    return Asked(
        runtime=report.implementation.name,
        options={**report.environment, **seeds, **held},
        pyargs=report.selection.pyargs,
    )


def command(test: str, said: Asked) -> str:
    """The line; `test` is a node id in the words of reports."""
    words = ["pytest", test]
    if said.pyargs:
        file, colons, name = test.partition("::")
        module = file.removesuffix(".py").replace("/", ".")
        words = ["pytest", "--pyargs", f"{module}{colons}{name}"]
    words += _said("runtime", said.runtime)
    for option in _OPTIONS:
        value = said.options.get(option)
        if value and value != options.DEFAULTS.get(option):
            words += _said(option.replace("_", "-"), value)
    return shlex.join(words)


def _said(option: str, value: str) -> list[str]:
    """A path in one word with its option: else pytest takes it for a place of tests."""
    return [f"--{option}={value}"] if os.sep in value else [f"--{option}", value]
