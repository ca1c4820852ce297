"""Bridges made by hand: what they are made of, and that nothing of them stays."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

import pytest

from harness.adapters.by_hand import ByHand
from harness.adapters.program import Refused
from harness.model import HOST, NetworkSpec
from harness.place import fixed
from harness.world.build import World
from harness.world.snapshot import Snapshot

WIRING = ByHand("hand0", NetworkSpec("bridge", subnet=IPv4Network("10.84.0.0/24")))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A world without a runtime."""
    with World.build() as built:
        yield built


def test_a_network_is_a_bridge_with_addresses_and_goes_without_a_trace(world: World) -> None:
    """Both families, its own MAC and MTU; the host forwards from then on."""
    host = fixed(HOST, world.namespaces[HOST])
    spec = NetworkSpec("lan", subnet=IPv4Network("10.86.9.0/24"), ipv6=True, mtu=1400)
    world.host.call(WIRING.create, NetworkSpec("first", ipv6=True))  # which turns forwarding on
    before = Snapshot.of(host)
    facts = world.host.call(WIRING.create, spec)
    assert facts.interface is not None
    link = host.links()[facts.interface]
    assert link.mtu == 1400
    assert set(facts.gateways) <= set(host.interfaces(facts.interface))
    assert str(facts.gateways[0]) == "10.86.9.1/24"
    world.host.call(WIRING.remove, "lan")
    assert before.changes(Snapshot.of(host)) == []
    world.host.call(WIRING.remove, "first")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (NetworkSpec("x", subnet=IPv4Network("198.51.100.0/25")), "overlaps 198.51.100.0/24"),
        (NetworkSpec("x", internal=True), "a bridge alone is not internal"),
        (NetworkSpec("x", mtu=70000), "network x: "),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    world: World, spec: NetworkSpec, said: str
) -> None:
    """With what is wrong."""
    host = fixed(HOST, world.namespaces[HOST])
    before = set(host.links())
    with pytest.raises(Refused, match=said):
        world.host.call(WIRING.create, spec)
    assert set(host.links()) == before
    assert "x" not in world.host.call(WIRING.names)
