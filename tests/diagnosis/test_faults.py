"""The story names the place of a fault.

One fault of each kind; `docs/evidence.md` covers all of them.
"""

from __future__ import annotations

import importlib.resources
from typing import NamedTuple

import pytest

from harness.adapters import registry
from harness.diagnosis.replay import Diagnosis, Replay
from harness.faults.adapter import FaultyAdapter, FaultyFactory
from harness.faults.fault import discover
from harness.model import requirements
from harness.model.plan import Bridge, Cell, Family, Protocol
from harness.testbench.scene import Scene
from harness.world.build import World

SABOTAGE = 'rule 1 (handle 2), "sabotage"'


class Case(NamedTuple):
    """A cell under a fault, and the words that name the place."""

    fault: str
    source: str
    target: str
    protocol: str
    words: str
    family: Family = 4


CASES = [
    Case(
        "no-masquerade", "a", "internet", "udp", "masquerade did not apply: source stayed 172.17."
    ),
    Case("ipv6-untranslated", "l", "internet", "tcp", "masquerade did not apply: source stayed", 6),
    Case("gateway-is-deaf-to-pings", "a", "gateway", "icmp", f"chain input-150, {SABOTAGE}"),
    Case("internet-is-out-of-reach", "a", "internet", "tcp", f"chain forward-150, {SABOTAGE}"),
    Case("host-cannot-connect-in", "host", "a", "tcp", f"chain output-150, {SABOTAGE}"),
    Case(
        "peers-lose-datagrams",
        "a",
        "b",
        "udp",
        f"table bridge sabotage, chain forward0, {SABOTAGE}",
    ),
    Case(
        "networks-are-not-isolated",
        "a",
        "l",
        "icmp",
        "it should not have arrived, and came by a → host → l",
    ),
    Case("loopback-down", "a", "loopback", "udp", "link a/lo is down"),
    Case(
        "host-end-down",
        "a",
        "internet",
        "tcp",
        "link a/eth0 has no carrier: its other end, host/veth",
    ),
    Case("peers-are-isolated", "a", "b", "icmp", "is isolated from other isolated ports"),
    Case("narrow-prefix", "a", "b", "icmp", "the TTL of the request is not 64: forwarded by host"),
    Case(
        "address-given-twice", "a", "b", "udp", "answered by the wrong peer: a, where b was meant"
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
def test_story_names_the_place_of_the_fault(case: Case) -> None:
    """The cell is one that the fault breaks."""
    assert case.words in "\n".join(under(case).lines)


def under(case: Case) -> Diagnosis:
    """Return the diagnosis of the cell, in a world with a faulty runtime."""
    rows = requirements.load(importlib.resources.files("suites") / "requirements.toml")
    fault, made = discover(rows)[case.fault], list[FaultyAdapter]()
    with World.build() as world:
        runtime = FaultyFactory(registry.find("mydocker"), fault, made)(world.host)
        runtime.start()
        with Scene(world, runtime) as scene:
            scene.containers(a=Bridge(), b=Bridge())
            scene.network("lan", ipv6=True)
            scene.container("l", Bridge("lan"))
            cell = Cell(case.source, case.target, Protocol(case.protocol), case.family)
            with Replay(scene, [cell]) as examination:
                found = examination.of(cell, scene.promised([cell])[cell])
        runtime.stop()
    assert sum(item.acted for item in made) > 0
    return found
