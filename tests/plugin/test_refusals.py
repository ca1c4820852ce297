"""Tests that a run fails at its start on a machine that cannot run live tests."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support.programs import ALL_BUT_SETFCAP, PIDFD_OPEN, confined, run

PURE = "def test_pure(): pass"
LIVE = "def test_live(world): pass"
PYTEST = [sys.executable, "-m", "pytest", "--sandbox=always"]
DOCTOR = [sys.executable, "-m", "harness.cli.main", "doctor"]
NO_NETNS = {"net": 0}
# These tests run inside a sandbox; with /run masked, the inner run cannot detect it.


def test_missing_sandbox_fails_the_run_at_its_start(project: pytest.Pytester) -> None:
    """If no sandbox is possible, the run ends before test collection.

    One line names the problem, its reason and its remedy.
    """
    project.makepyfile(PURE)
    done = run(confined(PYTEST, limits=NO_NETNS))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stdout == ""
    assert done.stderr.count("this machine cannot run live tests") == 1
    assert "network namespace: unshare(0x40000000): No space left on device" in done.stderr
    assert "Raise the limit user.max_net_namespaces (sysctl, as root)" in done.stderr


def test_missing_facility_in_the_sandbox_fails_the_run(project: pytest.Pytester) -> None:
    """A run ends if the sandbox lacks a facility that every run needs.

    The sandbox itself can be entered.
    """
    project.makepyfile(PURE)
    done = run(confined(PYTEST, denied=[PIDFD_OPEN]))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stdout == ""
    assert done.stderr.count("this machine cannot run live tests: setns by pidfd") == 1


def test_tests_without_a_world_run_without_sandbox(project: pytest.Pytester) -> None:
    """With `--sandbox=never`, tests without a world run even on a machine without a sandbox."""
    project.makepyfile(PURE)
    done = run(confined([*PYTEST, "--sandbox=never"], limits=NO_NETNS, masked=["/run"]))
    assert done.returncode == pytest.ExitCode.OK
    assert "sandbox none" in done.stdout


def test_live_tests_fail_without_sandbox(project: pytest.Pytester) -> None:
    """Without a sandbox, a test that requests the world fails with the reason.

    The machine stays unchanged.
    """
    project.makepyfile(LIVE)
    done = run(confined([*PYTEST, "--sandbox=never"], masked=["/run"]))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 error" in done.stdout
    assert "a world needs the sandbox" in done.stdout


def test_ordinary_user_can_run_live_tests(project: pytest.Pytester) -> None:
    """A run by an ordinary user has a user namespace and private temporary directories."""
    project.makepyfile("def test_it(tmp_path): (tmp_path / 'file').touch()")
    done = run(confined(PYTEST, without=ALL_BUT_SETFCAP))
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_doctor_passes_on_a_healthy_machine() -> None:
    """On a healthy machine `netmodes doctor` finds everything required, and exits with 0."""
    done = run([*DOCTOR, "--json"])
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert {"user namespace", "bridge", "veth", "nft masquerade", "overlay mount"} <= set(findings)
    assert all(finding["ok"] for finding in findings.values() if finding["required"])


def test_last_finding_of_doctor_is_the_step_that_the_kernel_refuses() -> None:
    """The last finding of `netmodes doctor` is the refused step, with a remedy."""
    done = run(confined([*DOCTOR, "--json"], limits=NO_NETNS))
    *before, last = json.loads(done.stdout)
    assert done.returncode == 1
    assert all(finding["ok"] for finding in before)
    assert [finding["name"] for finding in before][-2:] == ["pid namespace", "mount namespace"]
    assert (last["name"], last["ok"]) == ("network namespace", False)
    assert "user.max_net_namespaces" in last["remedy"]


def test_doctor_finds_filtered_system_calls() -> None:
    """`netmodes doctor` finds system calls that a seccomp filter denies, on any kernel."""
    done = run(confined([*DOCTOR, "--json"], denied=[PIDFD_OPEN]))
    missing = [f for f in json.loads(done.stdout) if f["required"] and not f["ok"]]
    assert done.returncode == 1
    assert [finding["name"] for finding in missing] == ["setns by pidfd"]
    assert "docker run --privileged" in missing[0]["remedy"]


def test_doctor_prints_a_table() -> None:
    """`netmodes doctor` prints a row for each finding: name, need, reason and remedy."""
    done = run(DOCTOR)
    (line,) = (line for line in done.stdout.splitlines() if " bridge " in line)
    assert line.split() == ["ok", "bridge", "required"]
