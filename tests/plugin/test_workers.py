"""Number of workers, and the order of tests."""

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
def test_two_workers_per_processor(project: pytest.Pytester, runtime: list[str]) -> None:
    """Half of the time a test waits for the kernel."""
    project.makepyfile(MANY)
    result = project.runpytest_subprocess(*runtime, "-n", "auto")
    processors = len(os.sched_getaffinity(0))
    result.stdout.fnmatch_lines([f"{2 * processors} workers *"])


@pytest.mark.parametrize("why", ["told so", "none of its concern"])
def test_xdist_decides_in_other_runs(
    project: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
    why: str,
) -> None:
    """The environment variable and unrelated runs are left to xdist."""
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
    """Return xdist's own number: one per processor, or per core with psutil."""
    return int(config.pluginmanager.getplugin("xdist").pytest_xdist_auto_num_workers(config))


@pytest.mark.parametrize("workers", [["-n", "1"], ["-p", "no:xdist"]], ids=" ".join)
def test_workers_start_long_tests_first(project: pytest.Pytester, workers: list[str]) -> None:
    """One process keeps the order of the file."""
    project.makepyfile(MANY)
    result = project.runpytest_subprocess("-v", *workers)
    order = [line for line in result.outlines if "test_quick[0]" in line or "test_slow" in line]
    assert ("test_slow" in order[0]) == (workers == ["-n", "1"])


@pytest.mark.parametrize("workers", [["-n", "1"], ["-p", "no:xdist"]], ids=" ".join)
def test_garbage_collector_skips_collected_tests(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """They stay until the end, and are not scanned again and again."""
    project.makepyfile("import gc\ndef test_frozen():\n    assert gc.get_freeze_count() > 10_000")
    project.runpytest_subprocess(*workers).assert_outcomes(passed=1)
