"""Tests of many containers, running together or one after the other.

The tests take a few seconds. `python -m bench.scale` makes the same checks with two hundred running
containers, fifty starts at the same moment and a thousand cycles.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linux import proc, rtnetlink, rtnetlink_dump
from linux.conntrack import Conntrack
from linux.netlink import Netlink, Request
from runtime.engine import Engine
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import children, descriptors, links, nothing_left, until

AT_ONCE = 24
"""Number of containers on one bridge at the same time."""
CYCLES = 30
"""Starts and removals, one after the other."""


def test_start_cost_is_independent_of_running_containers(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start costs the same beside many running containers as beside few.

    The counts of files read, checked and written, and of netlink requests, are compared.
    """
    done = Counter[str]()
    calls = ((proc, "read"), (proc, "write"), (os, "stat"), (Netlink, "send"), (Netlink, "ask"))
    for owner, name in calls:
        monkeypatch.setattr(owner, name, _counting(done, name, getattr(owner, name)))
    costs = []
    for _ in range(AT_ONCE):
        done.clear()
        engine.run("base", FOR_EVER)
        costs.append(dict(done))
    assert costs[0]["read"]
    # The second start is the first to find a running container, the third is the first to watch.
    assert all(cost == costs[3] for cost in costs[3:])


def test_links_of_many_containers_are_deleted_in_one_step(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel waits only one grace period to delete the links of many containers."""
    engine.network_inspect("bridge")
    sent: list[Request] = []
    original = Netlink.send

    def send(netlink: Netlink, requests: list[Request], *, missing_ok: bool = False) -> None:
        sent.extend(requests)
        original(netlink, requests, missing_ok=missing_ok)

    with nothing_left(root):
        found = [engine.run("base", FOR_EVER) for _ in range(4)]
        monkeypatch.setattr(Netlink, "send", send)
        engine.remove(*(item.id for item in found), force=True)
    assert [request.kind for request in sent].count(rtnetlink.RTM_DELLINK) == 1
    assert not {item.state.endpoints[0].veth for item in found} & links().keys()


def _counting(done: Counter[str], name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        done[name] += 1
        return original(*args, **kwargs)

    return counted


def test_start_and_remove_cycles_leak_no_resources(engine: Engine, root: Path) -> None:
    """Cycles of start and removal leave all counters of host, state and caller unchanged."""

    def cycle(network: str) -> None:
        engine.remove(engine.run("base", FOR_EVER, network=network).id, force=True)

    for network in ("bridge", "none", "host"):
        cycle(network)  # created once and kept
    before = _counters(root)
    with nothing_left(root):
        for number in range(CYCLES):
            cycle(("bridge", "none", "host")[number % 3])
    # The kernel may free its records of groups meanwhile.
    until(lambda: not _grown(before, _counters(root)), f"no counter is above {before}")


def _grown(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [name for name in before if after[name] > before[name]]


def _counters(root: Path) -> dict[str, int]:
    """Return the counters that grow by leaks and that `nothing_left` does not compare."""
    with Netlink() as host, Conntrack() as conntrack:
        return {
            "neighbours": len(list(rtnetlink_dump.neighbours(host))),
            "flows": conntrack.count(),
            "descriptors": len(descriptors()),
            "bytes of state": sum(path.stat().st_size for path in root.rglob("*")),
            "children": len(children(os.getpid())),
        }
