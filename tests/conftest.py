"""Settings of the harness's own tests, and the programs that some of them need."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

# No deadline: a busy machine is no finding, and pytest's timeout bounds slow tests.
settings.register_profile("tests", settings(), deadline=None)
settings.load_profile("tests")
settings.register_profile(
    "mutation",
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
)
"""For `tox -e mutation`: the same for every mutant, and none is worth shrinking."""

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
"""Chromium: Debian's and Fedora's names."""
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
_LACKING = {
    "report/test_page.py": [
        *(() if CHROMIUM else ["chromium (Debian: apt install chromium)"]),
        *(() if importlib.util.find_spec("playwright") else ["the Python package playwright"]),
    ],
    "plugin/test_over_ssh.py": [
        *(() if SSHD and shutil.which("ssh") else ["sshd (Debian: apt install openssh-server)"])
    ],
}

collect_ignore = [name for name, lacking in _LACKING.items() if lacking]


def pytest_report_header() -> str | None:
    """Name the test files that are not collected, and the missing programs."""
    told = [
        f"tests/{name} is not collected for want of {' and '.join(lacking)}"
        for name, lacking in _LACKING.items()
        if lacking
    ]
    return "\n".join(told) or None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failure.

    No test of the harness is skipped: each knows the features of the runtime that it uses. An
    ordinary user may have an empty parameter set, if none of the runtimes of a kind can be tested.
    """
    report = yield
    if report.skipped and "got empty parameter set" not in str(report.longrepr):
        report.outcome = "failed"
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the runtimes that were not tested; workers cannot print it."""
    adapters = Path(__file__).parent / "adapters"
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    if not any(adapters.is_relative_to(path) or path.is_relative_to(adapters) for path in asked):
        return
    from tests.adapters.vendors import ABSENT, FOR_ROOT, OBSTACLE

    if FOR_ROOT:
        names = ", ".join(FOR_ROOT)
        terminalreporter.write_line(f"not tried, for they want the machine's root: {names}")
    if OBSTACLE:
        terminalreporter.write_line(f"nothing rootless was tried: {OBSTACLE}")
    for name, programs in ABSENT.items():
        terminalreporter.write_line(f"{name} was not tried: there is no {', '.join(programs)}")
