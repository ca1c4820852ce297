"""The pytest plugin: options, sandbox, gating, summary. Hooks only."""

from __future__ import annotations

import platform
import sys
from collections.abc import Generator

import pytest

from harness import sandbox

_ONLY_TELLS = (
    "collectonly",
    "help",
    "version",
    "markers",
    "showfixtures",
    "show_fixtures_per_test",
    "cacheshow",
)
"""Options with which pytest tells something and runs no test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of a conformance run."""
    group = parser.getgroup("netmodes", "container network modes")
    group.addoption(
        "--sandbox",
        choices=("auto", "always", "never"),
        default="auto",
        help="private namespaces around the whole run: auto makes them unless the run is in "
        "some already, always makes new ones, never runs the tests that need none "
        "(default: auto)",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Move the whole run into a sandbox, before any worker is started."""
    if _wants_sandbox(config):
        try:
            sandbox.enter()
        except sandbox.SandboxError as error:
            raise pytest.UsageError(f"no sandbox to run in: {error}") from error
    return (yield)


def _wants_sandbox(config: pytest.Config) -> bool:
    choice = config.getoption("sandbox")
    if choice == "never" or sys.platform != "linux" or hasattr(config, "workerinput"):
        return False
    if any(config.getoption(name, default=False) for name in _ONLY_TELLS):
        return False
    return choice == "always" or not sandbox.inside()


def pytest_report_header(config: pytest.Config) -> str:  # noqa: ARG001 - pytest's signature
    """Say where the run happens."""
    where = "private namespaces" if sandbox.inside() else "none"
    return f"netmodes: sandbox {where}, kernel {platform.release()}"
