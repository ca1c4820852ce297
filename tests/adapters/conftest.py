"""A runtime that is not installed has no tests here; the run says which, and why."""

from __future__ import annotations

import os

import pytest

from tests.adapters.vendors import ABSENT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the runtimes that were not tried."""
    if os.geteuid():
        terminalreporter.write_line("no runtime but mydocker was tried: the others want root")
    for name, programs in ABSENT.items():
        terminalreporter.write_line(f"{name} was not tried: there is no {', '.join(programs)}")
