"""Tests that a run leaves the machine unchanged, even if the run is killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.testbench.netns_view import fixed
from harness.world.state.snapshot import Snapshot
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.syscalls import CLONE_NEWNS, MS_REC, MS_SHARED, mount, setns, unshare
from tests.support.programs import WITHIN, Watched

LIVE = """
import os, signal
from harness.model.plan import Bridge, Host, Nothing

def test_half_way(scene, capfd):
    scene.containers(a=Bridge(), b=Host(), c=Nothing())
    scene.observed()
    with capfd.disabled():
        os.write(2, b"half-way\\\\n")
    signal.pause()
"""


@pytest.fixture
def view(project: pytest.Pytester) -> Iterator[None]:
    """Enter a separate mount namespace for the test, because workers mount in the common one.

    Its mounts are shared, so that a mount that a run does not keep private would appear in it.
    """
    before = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
    unshare(CLONE_NEWNS)
    mount("", "/", flags=MS_REC | MS_SHARED)
    try:
        yield
    finally:
        setns(before, CLONE_NEWNS)
        os.close(before)
        os.chdir(project.path)


Machine = tuple[Snapshot, set[str], str]


def machine() -> Machine:
    """Return links, addresses, routes, rules, sysctls, mounts and named netns of the machine."""
    with NetNS.own() as own:
        network = fixed("machine", own).snapshot()
    named = " ".join(sorted(os.listdir("/run/netns"))) if Path("/run/netns").exists() else ""
    mounts = set(Path("/proc/thread-self/mountinfo").read_text().splitlines())
    return network, mounts, named


def assert_unchanged(before: Machine) -> None:
    """Assert that nothing changed, except the sysctls of a newly loaded kernel module.

    The first use of a module loads it, and its sysctls appear in every namespace.
    """
    network, mounts, names = before
    network_after, mounts_after, names_after = machine()
    loaded = re.compile(r"sysctl .*: new")
    changes = network.changes(network_after)
    assert [line for line in changes if not loaded.fullmatch(line)] == []
    # The copy of another worker's mount is removed with its mount point.
    assert (mounts_after - mounts, names_after) == (set(), names)


def family(pid: int) -> set[tuple[int, str]]:
    """Return a process and its descendants, each by pid and start time, as pids are reused."""
    found: set[tuple[int, str]] = set()
    for ancestor in (waiting := [pid]):
        with contextlib.suppress(OSError):  # the process has just ended
            start = Path(f"/proc/{ancestor}/stat").read_text().rpartition(")")[2].split()[19]
            found.add((ancestor, start))
            for children in Path(f"/proc/{ancestor}/task").glob("*/children"):
                waiting += map(int, children.read_text().split())
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_run_leaves_machine_unchanged(
    project: pytest.Pytester, view: None, workers: int
) -> None:
    """A run that is killed by SIGKILL in a live test leaves the machine unchanged.

    No process, link, rule or mount is left.
    """
    project.makepyfile(test_a=LIVE, test_b=LIVE)
    before = machine()
    argv = [sys.executable, "-m", "pytest", "--sandbox=always", "--runtime=mydocker"]
    with Watched([*argv, "-n", str(workers)]) as run:
        for _ in range(workers):
            run.expect("half-way")
        members = family(run.process.pid)
        assert len(members) > 3 + 5 * workers  # waiter, init, controller; worker, host, containers
        run.process.send_signal(signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
    deadline = time.monotonic() + WITHIN
    while left := [member for member in members if family(member[0]) & {member}]:
        assert time.monotonic() < deadline, left
        os.sched_yield()
    assert_unchanged(before)


def test_finished_run_leaves_machine_unchanged(project: pytest.Pytester, view: None) -> None:
    """A finished run leaves no process, link, rule or mount on the machine."""
    project.makepyfile(LIVE.replace("signal.pause()", "pass"))
    before = machine()
    result = project.runpytest_subprocess("--sandbox=always", "--runtime=mydocker", "-n", "1")
    result.assert_outcomes(passed=1)
    assert_unchanged(before)


def sent() -> int:
    """Return the number of packets that a link in this thread's netns has sent."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    return sum(int(line.partition(":")[2].split()[9]) for line in lines)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_run_sends_no_packet_in_its_start_namespace(project: pytest.Pytester, workers: str) -> None:
    """A run sends no packet in the netns where it was started, not even over loopback.

    It starts and ends worlds and containers meanwhile.
    """
    project.makepyfile(test_a=LIVE.replace("signal.pause()", "pass"))
    with NetNS.new() as outside, outside.entered():
        with Netlink() as netlink:
            netlink.send([rtnetlink.set_link(rtnetlink_dump.link(netlink, "lo").ifindex, up=True)])
        result = project.runpytest_subprocess(
            "--sandbox=always", "--runtime=mydocker", "-n", workers
        )
        after_the_run = sent()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.sendto(b"", ("127.0.0.1", 9))
        assert sent() > after_the_run  # the counter works
    result.assert_outcomes(passed=1)
    assert after_the_run == 0
