"""Small projects whose runs leave reports."""

from __future__ import annotations

import pytest

from harness.report import schema
from harness.report.schema import Report

GREEN = """
from harness.plugin.marks import requirement

@requirement("BR-1")
def test_kept(): pass

@requirement("HOST-1")
def test_unsupported(): assert 0

def test_of_nothing(): pass
"""
RED = (
    GREEN
    + """
@requirement("BR-2", "BR-4")
def test_broken():
    print("said before")
    assert 1 + 1 == 3
"""
)
EXPECTED = """
[[deviation]]
runtime = "acme"
requirement = "HOST-1"
verdict = "unsupported"
reason = "no such mode"
"""
FAILING = """
[[deviation]]
runtime = "acme"
test = "test_it.py::test_broken"
reason = "arithmetic"
"""
REFUSED = """
import pytest
from harness.adapters.protocol import RuntimeRefused
from harness.plugin.marks import requirement

SAID = "Error: no start\\nfailed to bind a listener on [fd63::1]:53: not yet"

def start(): raise RuntimeRefused("run shop", SAID)

@pytest.fixture(scope="module")
def shop(): start()

@requirement("BR-1")
def test_shared(shop): pass

@requirement("BR-2")
def test_shared_too(shop): pass
"""
BY_SAYING = """
[[deviation]]
runtime = "acme"
saying = "failed to bind a listener on [fd…]:53: not yet"
verdict = "error"
at_most = 3
reason = "bound too early"
"""
WORKERS = pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=" ".join)


def run(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run the project's tests, in this process unless the options ask for worker processes."""
    if "-n" in options:
        return project.runpytest_subprocess(*options)
    # The outer run is in a sandbox; the inner run must not enter another one.
    return project.runpytest_inprocess("--sandbox=never", *options)


def last_report(project: pytest.Pytester, folder: str = "report") -> Report:
    """Return the report of the last run."""
    return schema.load(project.path / folder)
