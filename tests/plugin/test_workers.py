"""How a run is shared between workers: how many there are, and what is begun first."""

from __future__ import annotations

import os

import pytest

MANY = """
import pytest

@pytest.mark.parametrize("n", range(40))
def test_quick(n): pass

@pytest.mark.long
def test_slow(): pass
"""
OURS = ["--runtime", "mydocker", "-n", "auto"]


@pytest.mark.parametrize("runtime", [["--runtime", "mydocker"], []], ids=["mydocker", "another"])
def test_there_are_two_for_each_processor(project: pytest.Pytester, runtime: list[str]) -> None:
    """Half of the time is the kernel's."""
    project.makepyfile(MANY)
    result = project.runpytest_subprocess(*runtime, "-n", "auto")
    processors = len(os.sched_getaffinity(0))
    result.stdout.fnmatch_lines([f"{2 * processors} workers *"])


@pytest.mark.parametrize("why", ["told so", "none of its concern"])
def test_otherwise_there_are_as_many_as_xdist_says(
    project: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
    why: str,
) -> None:
    """Where the environment says so, and in anybody's own runs."""
    project.makepyfile(MANY)
    words = [*OURS]
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "1")
    expected = 1
    if why == "none of its concern":
        words = ["-n", "auto", "-o", "netmodes=false", "-o", "addopts=-p harness.plugin"]
        monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS")
        expected = _xdists_own(pytestconfig)
    result = project.runpytest_subprocess(*words)
    result.stdout.fnmatch_lines([f"{expected} worker*"])


def _xdists_own(config: pytest.Config) -> int:
    """One for each processor, or for each core where psutil is there to tell of them."""
    return int(config.pluginmanager.getplugin("xdist").pytest_xdist_auto_num_workers(config))


@pytest.mark.parametrize("workers", [["-n", "1"], ["-p", "no:xdist"]], ids=" ".join)
def test_what_takes_long_is_begun_first_beside_others(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """In one process the order is the one in which the tests are written."""
    project.makepyfile(MANY)
    result = project.runpytest_subprocess("-v", *workers)
    order = [line for line in result.outlines if "test_quick[0]" in line or "test_slow" in line]
    assert ("test_slow" in order[0]) == (workers == ["-n", "1"])


@pytest.mark.parametrize("workers", [["-n", "1"], ["-p", "no:xdist"]], ids=" ".join)
def test_what_was_collected_is_no_garbage(project: pytest.Pytester, workers: list[str]) -> None:
    """It stays until the end, and is not looked through again and again."""
    project.makepyfile("import gc\ndef test_frozen():\n    assert gc.get_freeze_count() > 10_000")
    project.runpytest_subprocess(*workers).assert_outcomes(passed=1)
