"""After a run, also one that is killed half-way, the machine is as it was."""

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
    """A mount namespace of the test's own: in that of all workers others mount things.

    What a run mounts in a copy of it would show, were the copy not made private.
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
    """Links, addresses, routes, rules and sysctls; mounts; what names network namespaces."""
    with NetNS.own() as own:
        network = fixed("machine", own).snapshot()
    named = " ".join(sorted(os.listdir("/run/netns"))) if Path("/run/netns").exists() else ""
    mounts = set(Path("/proc/thread-self/mountinfo").read_text().splitlines())
    return network, mounts, named


def assert_unchanged(before: Machine) -> None:
    """All is as it was, but for settings that a part of the kernel has brought along.

    It is loaded by who needs it first, and has its sysctls in every namespace from then on.
    """
    network, mounts, names = before
    network_after, mounts_after, names_after = machine()
    loaded = re.compile(r"sysctl .*: new")
    changes = network.changes(network_after)
    assert [line for line in changes if not loaded.fullmatch(line)] == []
    # The copy of a mount of another worker's goes with the directory that it was on.
    assert (mounts_after - mounts, names_after) == (set(), names)


def family(pid: int) -> set[tuple[int, str]]:
    """A process and all its descendants: pid and start time, which tell it from a later one."""
    found: set[tuple[int, str]] = set()
    for ancestor in (waiting := [pid]):
        with contextlib.suppress(OSError):  # it has just ended
            start = Path(f"/proc/{ancestor}/stat").read_text().rpartition(")")[2].split()[19]
            found.add((ancestor, start))
            for children in Path(f"/proc/{ancestor}/task").glob("*/children"):
                waiting += map(int, children.read_text().split())
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_leaves_the_machine_as_it_was(
    project: pytest.Pytester, view: None, workers: int
) -> None:
    """With worlds up and containers running, SIGKILL leaves no process, link, rule or mount."""
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


def test_a_finished_run_leaves_the_machine_as_it_was(project: pytest.Pytester, view: None) -> None:
    """The same holds after a run that came to its end."""
    project.makepyfile(LIVE.replace("signal.pause()", "pass"))
    before = machine()
    result = project.runpytest_subprocess("--sandbox=always", "--runtime=mydocker", "-n", "1")
    result.assert_outcomes(passed=1)
    assert_unchanged(before)


def sent() -> int:
    """Packets that ever went out by a link of this thread's network namespace."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    return sum(int(line.partition(":")[2].split()[9]) for line in lines)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_nothing_is_sent_from_where_a_run_was_started(
    project: pytest.Pytester, workers: str
) -> None:
    """Not a packet, not even to the loopback, while worlds, containers and matrices come and go."""
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
        assert sent() > after_the_run  # one that is sent would be seen
    result.assert_outcomes(passed=1)
    assert after_the_run == 0
