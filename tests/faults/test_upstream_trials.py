"""Tests of `netmodes coverage`, which replays bugs of a small project."""

from __future__ import annotations

import sys

import pytest

from tests.support.programs import run

NETMODES = [sys.executable, "-m", "harness.cli.main"]
TESTS = """
from harness.plugin.marks import requirement

@requirement("BR-1")
def test_loopback_is_up(scene):
    assert scene.container("web").net.links()["lo"].up
"""
FAULTS = '''
"""Replays of bugs."""
from harness.faults.fault import replay

@replay("moby#1", violates="BR-1", moment="container-started")
def lo_down(site):
    """Take the loopback down."""
    site.inside.set_link("lo", up=False)

@replay("moby#2", violates="BR-1", moment="container-started")
def harmless(site):
    """Do nothing."""
'''
BUG = """
[[bug]]
ref = "moby#{}"
fixed = "1.0"
behaviour = "It is down."
class = "published ports"
requirements = ["BR-1"]
replay = "{}"
missed = "{}"
"""
HEAD = '[project]\ntitle = "acme"\ndrawn = "All."\n'


@pytest.fixture
def replayed_project(project: pytest.Pytester) -> pytest.Pytester:
    """Make a project with a test and two replays."""
    project.makepyfile(test_it=TESTS, my_replays=FAULTS)
    (project.path / "bugs").mkdir()
    return project


def cover(project: pytest.Pytester, bugs: str, *options: str) -> tuple[int, str]:
    """Return the exit code and the output of `netmodes coverage` on these bugs."""
    (project.path / "bugs/acme.toml").write_text(HEAD + bugs)
    words = ["coverage", "-p", "my_replays", "--tests", ".", "--bugs", "bugs", "-n", "2"]
    done = run([*NETMODES, *words, *options])
    return done.returncode, done.stdout + done.stderr


def test_coverage_counts_replays_that_tests_catch(replayed_project: pytest.Pytester) -> None:
    """A bug is caught if a test fails on its replay, and missed if none does.

    The exit code is 0 if the records say so too. The page has both bugs.
    """
    bugs = BUG.format(1, "lo-down", "") + BUG.format(2, "harmless", "no test looks at it")
    code, told = cover(replayed_project, bugs, "--write", "docs")
    assert code == 0, told
    assert " acme            2       1       1           0            0           50% " in told
    page = (replayed_project.path / "docs/coverage.md").read_text()
    assert "| caught | `test_it.py::test_loopback_is_up` |" in page
    assert "| missed | no test looks at it |" in page


def test_coverage_reports_trials_that_contradict_a_record(
    replayed_project: pytest.Pytester,
) -> None:
    """A replay that survives against its record, or is caught against it, is reported.

    The exit code is 1.
    """
    bugs = BUG.format(1, "lo-down", "no test looks at it") + BUG.format(2, "harmless", "")
    code, told = cover(replayed_project, bugs)
    assert code == 1, told
    assert "moby#1: tests catch it now: remove its `missed`" in told
    assert "moby#2: no test caught harmless: say why in `missed`" in told


def test_malformed_bug_ends_coverage_with_its_name(replayed_project: pytest.Pytester) -> None:
    """A malformed record ends the command with exit code 2 and the name of the bug."""
    code, told = cover(replayed_project, BUG.format(1, "", ""))
    assert code == 2, told
    assert "acme.toml: bug 1 (moby#1): without a replay, `missed` says why" in told


def test_faults_command_leaves_replays_out(replayed_project: pytest.Pytester) -> None:
    """`netmodes triangle` does not count replays among the faults of a requirement."""
    done = run([*NETMODES, "triangle", "-p", "my_replays", "--tests", "."])
    assert "no-default-route" in done.stdout
    assert "lo-down" not in done.stdout


def test_invalid_number_of_replays_is_refused() -> None:
    """An invalid number of trials is refused with exit code 2."""
    done = run([*NETMODES, "coverage", "-n", "0"])
    assert done.returncode == 2
    assert "netmodes coverage: -n 0: invalid number of trials" in done.stderr
