"""All options of a conformance run.

Every pytest run where netmodes is installed imports this module, so it imports next to nothing.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from harness.testbench import profiles

REPORT: Final = "report"
"""The default folder of the report, in the root directory."""

_PATHS: Final = ("--runtime", "--report", "--expect", "--write-expect", "--shard-by")
"""The options whose value may be a path."""


def add(parser: pytest.Parser) -> None:
    """Add the options, and the ini option `netmodes`."""
    group = parser.getgroup("netmodes", "container network modes")
    group.addoption(
        "--runtime",
        metavar="NAME",
        help="the container runtime under test: `netmodes vendors` has their names; or a TOML file "
        "that describes a command line (default: mydocker)",
    )
    group.addoption(
        "--sandbox",
        choices=("auto", "always", "never"),
        default="auto",
        help="private namespaces around the whole run: auto makes them unless the run is in "
        "some already, always makes new ones, never runs only what needs none (default: auto)",
    )
    group.addoption(
        "--fault",
        metavar="ID",
        help="sabotage the runtime under test with this fault; `netmodes faults --list` has them",
    )
    group.addoption(
        "--requirement",
        metavar="ID",
        action="append",
        default=[],
        help="run only the tests of this requirement; may be given several times",
    )
    group.addoption(
        "--probe",
        choices=("netns", "exec"),
        default=profiles.RUN_DEFAULTS["probe"],
        help="how a matrix is asked: from sockets opened in the containers' namespaces, or from "
        "inside through the runtime's exec, as with a network stack of its own in any case "
        "(default: netns)",
    )
    _add_profile(group)
    _add_reports(group)
    _add_evidence(group)
    parser.addini(
        "netmodes",
        "whether this project's tests are conformance tests: sandbox, requirements, summary",
        type="bool",
        default=False,
    )


def non_default(config: pytest.Config, name: str) -> str | None:
    """Return the value of `probe` or `profile`, or `None` if it is the default."""
    value: str = config.getoption(name)
    return None if value == profiles.RUN_DEFAULTS[name] else value


def _add_profile(group: pytest.OptionGroup) -> None:
    group.addoption(
        "--profile",
        choices=tuple(profiles.PROFILES),
        default=profiles.RUN_DEFAULTS["profile"],
        help="how long the property suites look: seconds, minutes and always the same, or long "
        f"(default: {profiles.DEFAULT})",
    )


def _add_reports(group: pytest.OptionGroup) -> None:
    group.addoption(
        "--report",
        metavar="DIR",
        help="where the report goes: index.html, report.json, junit.xml, summary.md, badge.json "
        f"(default: {REPORT}/ in the root directory, when a requirement was tested)",
    )
    group.addoption("--no-report", action="store_true", help="write no report")
    group.addoption(
        "--expect",
        metavar="FILE",
        help="the gate: fail unless exactly the deviations in this TOML file are found",
    )
    group.addoption(
        "--write-expect",
        metavar="FILE",
        help="write what this run has found to an expectation file, reasons in it are kept",
    )
    group.addoption(
        "--shard",
        metavar="K/N",
        help="run only part K of N of the test files; `netmodes merge` joins the reports",
    )
    group.addoption(
        "--shard-by",
        metavar="REPORT",
        help="balance the shards by the times in an earlier report.json, the same for all",
    )


def _add_evidence(group: pytest.OptionGroup) -> None:
    group.addoption(
        "--no-evidence",
        action="store_true",
        help="do not examine what failed: no story, no evidence folder",
    )
    group.addoption(
        "--keep",
        action="store_true",
        help="end at the first failure, leave the world up and say how to enter it, until Ctrl-C",
    )
    group.addoption(
        "--pause-on-fail",
        action="store_true",
        help="open a shell in the world at each failure, before anything is taken down",
    )


def joined_arguments(config: pytest.Config) -> tuple[str, ...]:
    """Return the command line with `--report DIR` and the like as `--report=DIR`."""
    words: list[str] = []
    for word in map(str, config.invocation_params.args):
        if words and words[-1] in _PATHS:
            words[-1] += f"={word}"
        else:
            words.append(word)
    return tuple(words)


def is_misled(config: pytest.Config) -> bool:
    """Return whether pytest took the value of an option for a place of tests.

    Pytest looks for its root directory and settings before it knows the options of plugins. It
    takes a word without a leading dash that is an existing path for a place of tests, and uses the
    settings found from there up (`determine_setup` in _pytest/config/findpaths.py).
    """
    own = config.invocation_params.dir
    if config.inipath is not None and own.is_relative_to(config.inipath.parent):
        return False
    for option, value in pairwise(map(str, config.invocation_params.args)):
        path = Path(own, value).resolve()
        if option in _PATHS and path.exists() and not path.is_relative_to(own.resolve()):
            return True
    return False
