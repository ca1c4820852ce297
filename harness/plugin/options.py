"""All command-line options of a conformance run.

Every pytest run imports this module if netmodes is installed, so the module imports almost nothing.
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
    """Add the command-line options, and the ini option `netmodes`."""
    group = parser.getgroup("netmodes", "container network modes")
    group.addoption(
        "--runtime",
        metavar="NAME",
        help="container runtime to test: a name that `netmodes vendors` lists, or a TOML file "
        "that describes a command line (default: mydocker)",
    )
    group.addoption(
        "--sandbox",
        choices=("auto", "always", "never"),
        default="auto",
        help="run in private namespaces: auto makes them unless the run is in a sandbox already, "
        "always makes new ones, never makes none, so that live tests fail (default: auto)",
    )
    group.addoption(
        "--fault",
        metavar="ID",
        help="sabotage the runtime under test with this fault; `netmodes faults --list` lists them",
    )
    group.addoption(
        "--requirement",
        metavar="ID",
        action="append",
        default=[],
        help="run only the tests of this requirement; may be repeated",
    )
    group.addoption(
        "--probe",
        choices=("netns", "exec"),
        default=profiles.RUN_DEFAULTS["probe"],
        help="where probes start: netns opens sockets in the containers' namespaces, exec runs "
        "a program in each container; a container with its own network stack always uses exec "
        "(default: netns)",
    )
    _add_profile(group)
    _add_reports(group)
    _add_evidence(group)
    parser.addini(
        "netmodes",
        "treat the tests of this project as conformance tests: sandbox, requirements, summary",
        type="bool",
        default=False,
    )


def non_default(config: pytest.Config, name: str) -> str | None:
    """Return the value of the option `probe` or `profile`, or `None` if it is the default value."""
    value: str = config.getoption(name)
    return None if value == profiles.RUN_DEFAULTS[name] else value


def _add_profile(group: pytest.OptionGroup) -> None:
    group.addoption(
        "--profile",
        choices=tuple(profiles.PROFILES),
        default=profiles.RUN_DEFAULTS["profile"],
        help="number of examples in the property suites: smoke takes seconds, gate takes minutes "
        "and always draws the same examples, explore takes long "
        f"(default: {profiles.DEFAULT})",
    )


def _add_reports(group: pytest.OptionGroup) -> None:
    group.addoption(
        "--report",
        metavar="DIR",
        help="folder for the report: index.html, report.json, junit.xml, summary.md, badge.json "
        f"(default: {REPORT}/ in the root directory, if the run tests a requirement)",
    )
    group.addoption("--no-report", action="store_true", help="write no report")
    group.addoption(
        "--expect",
        metavar="FILE",
        help="gate: fail unless the run has exactly the deviations in this expectation file",
    )
    group.addoption(
        "--write-expect",
        metavar="FILE",
        help="write the deviations of this run to an expectation file; reasons in it are kept",
    )
    group.addoption(
        "--shard",
        metavar="K/N",
        help="run only part K of N of the test files; `netmodes merge` merges the reports",
    )
    group.addoption(
        "--shard-by",
        metavar="REPORT",
        help="balance the shards by the test times in this report.json, the same for all shards",
    )


def _add_evidence(group: pytest.OptionGroup) -> None:
    group.addoption(
        "--no-evidence",
        action="store_true",
        help="do not diagnose failures, and write no evidence folder",
    )
    group.addoption(
        "--keep",
        action="store_true",
        help="stop at the first failure, and keep the world until Ctrl-C; print how to enter it",
    )
    group.addoption(
        "--pause-on-fail",
        action="store_true",
        help="open a shell in the world at each failure, before the teardown",
    )


def joined_arguments(config: pytest.Config) -> tuple[str, ...]:
    """Return the command line with options such as `--report DIR` written as `--report=DIR`."""
    words: list[str] = []
    for word in map(str, config.invocation_params.args):
        if words and words[-1] in _PATHS:
            words[-1] += f"={word}"
        else:
            words.append(word)
    return tuple(words)


def is_misled(config: pytest.Config) -> bool:
    """Return whether pytest took the value of an option, such as `--report DIR`, for a test path.

    Pytest looks for its root directory and its settings before it knows the options of plugins. It
    then takes any word without a leading dash for a path of tests if such a path exists. It
    searches for settings from there upwards (`determine_setup` in _pytest/config/findpaths.py).
    """
    own = config.invocation_params.dir
    if config.inipath is not None and own.is_relative_to(config.inipath.parent):
        return False
    for option, value in pairwise(map(str, config.invocation_params.args)):
        path = Path(own, value).resolve()
        if option in _PATHS and path.exists() and not path.is_relative_to(own.resolve()):
            return True
    return False
