"""Tests that the lab leaves the machine as it was."""

from __future__ import annotations

import json

import pytest

from tests.support.programs import ALL_BUT_SETFCAP, confined, python, run

LEAVING = """
import json, os, signal, sys, time
from pathlib import Path
from harness.sandbox import sandbox
from tests.lab.labs import LAB, at_terminal

def state():
    found = {f"process {name}" for name in os.listdir("/proc") if name.isdigit()}
    found |= {f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    found |= {f"link {line[:6]}" for line in Path("/proc/net/dev").read_text().splitlines()}
    for place in ("/run", "/dev/shm", "/var/lib", "/etc", "/sys/fs/cgroup"):
        found |= {f"{place}/{name}" for name in os.listdir(place)}
    return found | {os.uname().nodename}

def changed(before):
    now = state()
    # Other workers share /dev/shm; a copied mount of theirs ends with its mount point.
    gone = {item for item in before - now if not item.startswith(("mount ", "/dev/shm/"))}
    return sorted(now - before | gone)

def wait(until):
    deadline = time.monotonic() + 10
    while not until() and time.monotonic() < deadline:
        os.sched_yield()

def leave():
    before = state()
    with at_terminal(LAB) as lab:
        lab.expect("lab:host ")
        lab.type("mydocker run -d base sleep 1000\\n")
        lab.type("sleep 1000 & setsid sleep 1000 & echo on $((1))\\n")
        lab.expect("on 1\\r\\n")
        there = len(state() - before)
        how = sys.argv[1]
        if how.startswith("SIG"):
            os.kill(lab.process.pid, getattr(signal, how))
        else:
            lab.type(how)
        lab.end()
    wait(lambda: not any(item.startswith("process") for item in state() - before))
    if how == "SIGKILL":
        sandbox.run(lambda: 0)  # the next run removes an empty cgroup
    wait(lambda: not changed(before))
    print(json.dumps([changed(before), there]))
    return 0

raise SystemExit(sandbox.run(leave))
"""
"""A program that starts the lab in an outer sandbox, where all resources can be counted."""


@pytest.mark.parametrize("how", ["exit\n", "\x04", "SIGHUP", "SIGTERM", "SIGKILL"])
def test_lab_leaves_nothing_behind(how: str) -> None:
    """After an exit or a signal, no process, mount, link, file or cgroup of the lab is left."""
    done = run(python(LEAVING, how))
    changed, there = json.loads(done.stdout)
    assert changed == []
    assert there > 10, "the lab was not there when it was left"


def test_killed_lab_of_an_ordinary_user_leaves_nothing_behind() -> None:
    """If an ordinary user's lab is killed, nothing of it is left."""
    done = run(confined(python(LEAVING, "SIGKILL"), without=ALL_BUT_SETFCAP))
    assert json.loads(done.stdout)[0] == []
