"""Tests of the progress bar, which only a long run on a terminal shows."""

from __future__ import annotations

import re
import sys
from itertools import takewhile

import pytest

from tests.report.projects import WORKERS
from tests.support.programs import Watched

LONG = """
import pytest
from hypothesis import settings
from harness.plugin.progress import progress_of

EFFORT = settings(max_examples=3, stateful_step_count=5)

@pytest.mark.parametrize("number", range(4))
def test_long(request, number):
    with progress_of(request.config, f"any {number}", EFFORT, steps=True) as steps:
        for _ in range(4):
            steps.example()
            for _ in range(5):
                steps.state()

def test_quick(): pass
"""


MORE = """
from hypothesis import settings
from harness.plugin.progress import progress_of

def test_long(request):
    with progress_of(request.config, "any", settings(max_examples=3)) as steps:
        for _ in range(5):
            steps.example()
"""


def shown(project: pytest.Pytester, *options: str, terminal: bool = True, tests: str = LONG) -> str:
    """Return the output of a run of the project."""
    project.makepyfile(tests)
    argv = [sys.executable, "-m", "pytest", "--no-report", *options]
    with Watched(argv, terminal=terminal, at=str(project.path)) as run:
        assert run.end() == 0, run.output
        return run.output


def screen(written: str) -> list[str]:
    """Return the final screen of a terminal that has received this output."""
    rows, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", written):
        count = int("".join(takewhile(str.isdigit, part[2:])) or "1")
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif part == "\x1b[2K":
            rows[row] = ""
        elif part.startswith("\x1b"):
            row -= count if part[-1] == "A" else 0
            column += count if part[-1] == "C" else 0
        else:
            rows[row] = rows[row][:column].ljust(column) + part + rows[row][column + len(part) :]
            column += len(part)
    return rows


@WORKERS
def test_long_run_shows_progress_and_time_left(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """The progress bar of a long run shows the test, the example and the step.

    It also shows the time left, and is erased at the end.
    """
    written = shown(project, "--profile=gate", *workers)
    assert re.search(r"any \d: example 1 of 3, step \d of 5 .*\d:\d\d:\d\d", written)
    seen = "\n".join(screen(written))
    assert "example" not in seen
    assert re.search(r"^(test_\w+\.py )?\.{5} +\[100%\]$", seen, re.MULTILINE)
    assert "5 passed" in seen


def test_shrinking_shows_no_total(project: pytest.Pytester) -> None:
    """While Hypothesis shrinks a failure, the bar shows no total number of examples.

    The number is unknown.
    """
    written = shown(project, "--profile=explore", tests=MORE)
    assert "any: example 3 of 3 " in written
    assert "any: example 5 " in written


@WORKERS
@pytest.mark.parametrize(
    ("profile", "terminal"), [("gate", False), ("smoke", True)], ids=["log", "quick run"]
)
def test_log_and_quick_run_have_no_progress_bar(
    project: pytest.Pytester, workers: list[str], profile: str, *, terminal: bool
) -> None:
    """Output to a file has no progress bar, and neither has a run of a few seconds."""
    written = shown(project, f"--profile={profile}", *workers, terminal=terminal)
    assert "example" not in written
    assert "\x1b[A" not in written
    assert "5 passed" in written
