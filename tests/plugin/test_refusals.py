"""Where live tests cannot run, the run says so at once, and is never green for it."""

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
# These tests are inside a sandbox themselves: with /run masked, a run does not know it.


def test_a_machine_that_cannot_is_an_error_at_the_start(project: pytest.Pytester) -> None:
    """The run ends before anything is collected, with one line: what, why, and what to do."""
    project.makepyfile(PURE)
    done = run(confined(PYTEST, limits=NO_NETNS))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stdout == ""
    assert done.stderr.count("this machine cannot run live tests") == 1
    assert "network namespace: unshare(0x40000000): No space left on device" in done.stderr
    assert "Raise the limit user.max_net_namespaces (sysctl, as root)" in done.stderr


def test_a_missing_essential_is_an_error_at_the_start(project: pytest.Pytester) -> None:
    """What is missing inside the sandbox ends the run as well, though the sandbox was entered."""
    project.makepyfile(PURE)
    done = run(confined(PYTEST, denied=[PIDFD_OPEN]))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stdout == ""
    assert done.stderr.count("this machine cannot run live tests: setns by pidfd") == 1


def test_without_a_sandbox_pure_tests_run(project: pytest.Pytester) -> None:
    """`--sandbox=never` runs what needs none, also where none can be had."""
    project.makepyfile(PURE)
    done = run(confined([*PYTEST, "--sandbox=never"], limits=NO_NETNS, masked=["/run"]))
    assert done.returncode == pytest.ExitCode.OK
    assert "sandbox none" in done.stdout


def test_without_a_sandbox_live_tests_are_errors(project: pytest.Pytester) -> None:
    """A test that asks for the world fails with the reason; nothing touches the machine."""
    project.makepyfile(LIVE)
    done = run(confined([*PYTEST, "--sandbox=never"], masked=["/run"]))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 error" in done.stdout
    assert "a world needs the sandbox" in done.stdout


def test_an_ordinary_user_runs_like_root(project: pytest.Pytester) -> None:
    """Without privileges the run has a user namespace, and temporary directories of its own."""
    project.makepyfile("def test_it(tmp_path): (tmp_path / 'file').touch()")
    done = run(confined(PYTEST, without=ALL_BUT_SETFCAP))
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_doctor_finds_a_healthy_machine_healthy() -> None:
    """Where these tests run nothing required is missing, and the exit code says so."""
    done = run([*DOCTOR, "--json"])
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert {"user namespace", "bridge", "veth", "nft masquerade", "overlay mount"} <= set(findings)
    assert all(finding["ok"] for finding in findings.values() if finding["required"])


def test_the_doctor_stops_where_the_machine_does() -> None:
    """The table ends with the step that is refused, and with what to do about it."""
    done = run(confined([*DOCTOR, "--json"], limits=NO_NETNS))
    *before, last = json.loads(done.stdout)
    assert done.returncode == 1
    assert all(finding["ok"] for finding in before)
    assert [finding["name"] for finding in before][-2:] == ["pid namespace", "mount namespace"]
    assert (last["name"], last["ok"]) == ("network namespace", False)
    assert "user.max_net_namespaces" in last["remedy"]


def test_the_doctor_tries_instead_of_reading() -> None:
    """A system call that a container's filter denies is found, whatever the kernel could do."""
    done = run(confined([*DOCTOR, "--json"], denied=[PIDFD_OPEN]))
    missing = [f for f in json.loads(done.stdout) if f["required"] and not f["ok"]]
    assert done.returncode == 1
    assert [finding["name"] for finding in missing] == ["setns by pidfd"]
    assert "docker run --privileged" in missing[0]["remedy"]


def test_the_doctor_is_readable() -> None:
    """Each finding is a line of a table: what, whether it is needed, and what to do."""
    done = run(DOCTOR)
    (line,) = (line for line in done.stdout.splitlines() if " bridge " in line)
    assert line.split() == ["ok", "bridge", "required"]
