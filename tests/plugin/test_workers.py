"""Tests of the number of workers, their machines and the order of their tests."""

from __future__ import annotations

import os

import pytest

from harness.plugin.workers import gateways

MANY = """
import pytest

@pytest.mark.parametrize("n", range(40))
def test_quick(n): pass

@pytest.mark.long
def test_slow(): pass
"""
OURS = ["--runtime", "mydocker", "-n", "auto"]


@pytest.mark.parametrize("runtime", [["--runtime", "mydocker"], []], ids=["mydocker", "another"])
def test_run_has_two_workers_per_processor(project: pytest.Pytester, runtime: list[str]) -> None:
    """A run has two workers per processor, because a test waits for the kernel half of its time."""
    project.makepyfile(MANY)
    result = project.runpytest_subprocess(*runtime, "-n", "auto")
    processors = len(os.sched_getaffinity(0))
    result.stdout.fnmatch_lines([f"{2 * processors} workers *"])


@pytest.mark.parametrize("why", ["environment variable", "another project"])
def test_xdist_chooses_the_number_of_workers_in_unrelated_runs(
    project: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
    why: str,
) -> None:
    """In an unrelated run, or if xdist's environment variable is set, xdist chooses the number."""
    project.makepyfile(MANY)
    words = [*OURS]
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "1")
    expected = 1
    if why == "another project":
        words = ["-n", "auto", "-o", "netmodes=false", "-o", "addopts=-p harness.plugin"]
        monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS")
        expected = _xdists_own(pytestconfig)
    result = project.runpytest_subprocess(*words)
    result.stdout.fnmatch_lines([f"{expected} worker*"])


def _xdists_own(config: pytest.Config) -> int:
    """Return xdist's own choice: one worker per processor, or per core if psutil is installed."""
    return int(config.pluginmanager.getplugin("xdist").pytest_xdist_auto_num_workers(config))


@pytest.mark.parametrize("workers", [["-n", "1"], ["-p", "no:xdist"]], ids=" ".join)
def test_workers_start_long_tests_first(project: pytest.Pytester, workers: list[str]) -> None:
    """Workers start long tests first; without workers, tests run in the order of the file."""
    project.makepyfile(MANY)
    result = project.runpytest_subprocess("-v", *workers)
    order = [line for line in result.outlines if "test_quick[0]" in line or "test_slow" in line]
    assert ("test_slow" in order[0]) == (workers == ["-n", "1"])


@pytest.mark.parametrize("workers", [["-n", "1"], ["-p", "no:xdist"]], ids=" ".join)
def test_garbage_collector_skips_collected_tests(
    project: pytest.Pytester, workers: list[str]
) -> None:
    """The garbage collector does not scan the collected tests, which exist until the run ends."""
    project.makepyfile("import gc\ndef test_frozen():\n    assert gc.get_freeze_count() > 10_000")
    project.runpytest_subprocess(*workers).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("specs", "proxies", "where"),
    [
        ((), (), (False, False)),
        (("popen",), (), (True, False)),
        (("2*popen//python=python3",), (), (True, False)),
        (("ssh=one",), (), (False, True)),
        (("3*ssh=one//python=netmodes python", "socket=two:8888"), (), (False, True)),
        (("ssh=one", "popen"), (), (True, True)),
        (("4*popen//via=far",), ("id=far//ssh=one",), (False, True)),
        (("popen//via=near",), ("id=near//popen",), (True, False)),
    ],
)
def test_worker_location_is_derived_from_xdist_specs(
    specs: tuple[str, ...], proxies: tuple[str, ...], where: tuple[bool, bool]
) -> None:
    """The worker specifications of xdist show whether workers are local, remote or both."""
    assert gateways(specs, proxies) == where


@pytest.mark.parametrize("more", [["--tx", "popen"], ["--sandbox=always"]], ids=" ".join)
def test_local_and_remote_workers_are_refused_together(
    project: pytest.Pytester, more: list[str]
) -> None:
    """A run with both local and remote workers is refused.

    Local workers need the sandbox, which has no network, and remote workers need a network.
    """
    project.makepyfile("def test_it(): pass")
    result = project.runpytest_subprocess("--dist=load", "--tx", "ssh=worker.example", *more)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*need a network, and the sandbox has none*"])
