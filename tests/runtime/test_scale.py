"""Many containers: at the same time, and one after the other.

The sizes fit a few seconds; `python -m bench.scale` does the same with two hundred
containers at once, fifty starts at the same moment and a thousand cycles.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from linux import netstate
from linux.conntrack import Conntrack
from linux.netlink import Netlink
from runtime.engine import Engine
from runtime.starter import Starter
from tests.runtime.conftest import FOR_EVER
from tests.runtime.looks import children, links, nothing_left, until

AT_ONCE = 24
"""Containers on one bridge at the same time."""
CYCLES = 30
"""Starts and removals, one after the other."""


@pytest.fixture
def starter(root: Path) -> Iterator[Starter]:
    """A starter of its own; `root` first, so that it sees what is mounted there."""
    with Starter.begin() as begun:
        yield begun


@pytest.fixture
def started(engine: Engine, root: Path, starter: Starter) -> Engine:
    """An engine with a starter, in the root of `engine`, which tidies up."""
    return Engine(root, starter=starter)


def test_many_share_one_bridge(started: Engine, root: Path) -> None:
    """Each has an address, a port of the bridge and a pid 1 of its own; then nothing is left."""
    started.run("base", FOR_EVER, name="stays")
    with nothing_left(root):
        found = [started.run("base", FOR_EVER) for _ in range(AT_ONCE)]
        ends = [item.state.endpoints[0] for item in found]
        assert len({IPv4Interface(item.address).ip for item in ends}) == AT_ONCE
        assert len({item.state.pid for item in found}) == AT_ONCE
        bridge = links()["docker0"].ifindex
        assert [links()[item.veth].master for item in ends] == [bridge] * AT_ONCE
        assert len(started.containers(everything=False)) == AT_ONCE + 1
        for item in found:
            started.remove(item.id, force=True)


def test_cycles_leave_every_counter_where_it_was(
    started: Engine, root: Path, starter: Starter
) -> None:
    """Of the host, of the runtime's state, of the caller and of its starter."""

    def cycle(network: str) -> None:
        started.remove(started.run("base", FOR_EVER, network=network).id, force=True)

    for network in ("bridge", "none", "host"):
        cycle(network)  # what is made once, and kept, is there from now on
    before = _counters(root, starter)
    with nothing_left(root):
        for number in range(CYCLES):
            cycle(("bridge", "none", "host")[number % 3])
    # What the kernel remembers of groups may have gone meanwhile.
    until(lambda: not _grown(before, _counters(root, starter)), f"nothing is more than {before}")


def _grown(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [name for name in before if after[name] > before[name]]


def _counters(root: Path, starter: Starter) -> dict[str, int]:
    """What grows when something is forgotten, but for what `nothing_left` compares."""
    with Netlink() as host, Conntrack() as conntrack:
        return {
            "neighbours": len(list(netstate.neighbours(host))),
            "flows": conntrack.count(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "descriptors of the starter": len(os.listdir(f"/proc/{starter.pid}/fd")),
            "bytes of state": sum(path.stat().st_size for path in root.rglob("*")),
            "children of the starter": len(children(starter.pid)),
        }
