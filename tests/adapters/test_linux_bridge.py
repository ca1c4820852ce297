"""Tests of the Linux bridges and veth pairs of bare runtimes, and of the records about them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from harness.adapters.bare import networks, store
from harness.adapters.bare.linux_bridge import LinuxBridge, VethBridge
from harness.adapters.bare.store import BareRecord
from harness.adapters.support.program import ProgramRefused
from harness.model.plan import HOST, Bridge, ContainerSpec, NetworkSpec
from harness.testbench.netns_view import fixed
from harness.world.build import World
from linux.netns import NetNS

WIRING = LinuxBridge("hand0", NetworkSpec("bridge", subnet=IPv4Network("10.84.0.0/24")))
PLUGGING = VethBridge(WIRING.bridge, WIRING.spec)
WANTED = ContainerSpec("c", Bridge("lan"), also=("other",), mac="02:00:00:00:00:0c")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Build a world without a runtime."""
    with World.build() as built:
        yield built


def test_network_is_a_bridge_and_is_completely_removed(world: World) -> None:
    """A network is a Linux bridge with addresses of both families, a MAC and an MTU.

    The host forwards its packets until it is removed. Nothing of it is left.
    """
    host = fixed(HOST, world.namespaces[HOST])
    spec = NetworkSpec("lan", subnet=IPv4Network("10.86.9.0/24"), ipv6=True, mtu=1400)
    world.host.call(WIRING.create, NetworkSpec("first", ipv6=True))  # turns forwarding on
    before = host.snapshot()
    facts = world.host.call(WIRING.create, spec)
    assert facts.interface is not None
    link = host.links()[facts.interface]
    assert link.mtu == 1400
    assert set(facts.gateways) <= set(host.interfaces(facts.interface))
    assert str(facts.gateways[0]) == "10.86.9.1/24"
    world.host.call(WIRING.remove, "lan")
    assert before.changes(host.snapshot()) == []
    world.host.call(WIRING.remove, "first")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (NetworkSpec("x", subnet=IPv4Network("198.51.100.0/25")), "overlaps 198.51.100.0/24"),
        (NetworkSpec("x", internal=True), "a Linux bridge does not support internal"),
        (NetworkSpec("x", mtu=70000), "network x: "),
    ],
)
def test_impossible_network_is_refused_and_leaves_nothing(
    world: World, spec: NetworkSpec, said: str
) -> None:
    """The error for an impossible network has the reason, and nothing of the network is left."""
    host = fixed(HOST, world.namespaces[HOST])
    before = set(host.links())
    with pytest.raises(ProgramRefused, match=said):
        world.host.call(WIRING.create, spec)
    assert set(host.links()) == before
    assert "x" not in world.host.call(networks.names)


def test_container_has_a_veth_pair_per_network(world: World) -> None:
    """A container has a veth pair per network, with addresses, MAC, MTU and default routes.

    The veth pairs are removed even if a container that joined it still runs.
    """
    host = fixed(HOST, world.namespaces[HOST])
    record = BareRecord(WANTED, (), attached=WANTED.networks)
    for name in WANTED.networks:
        world.host.call(PLUGGING.create, NetworkSpec(name, ipv6=True, mtu=1400))
    world.host.call(os.makedirs, store.bundle("c"))
    before = set(host.links())
    wired = world.host.call(PLUGGING.wire, record)
    with NetNS.at(f"/proc/{world.host.pid}/root{wired.netns}") as space:
        inside = fixed("c", space)
        assert inside.links()["lo"].up
        for endpoint, name in zip(wired.endpoints, ("eth0", "eth1"), strict=True):
            assert {endpoint.address, endpoint.address6} <= set(inside.interfaces(name))
            link = inside.links()[name]
            assert (link.mac, link.mtu, link.running) == (endpoint.mac, 1400, True)
        assert wired.endpoints[0].mac == WANTED.mac
        for key in ("accept_ra", "accept_dad"):
            assert inside.sysctl(f"net.ipv6.conf.eth1.{key}") == "0"
        first = {wired.endpoints[0].gateway, wired.endpoints[0].gateway6}
        assert first == {str(route.via) for route in inside.routes() if route.destination is None}
        ports = set(host.links()) - before
        assert [host.links()[port].running for port in ports] == [True, True]
        assert [host.interfaces(port) for port in ports] == [[], []]
        world.host.call(PLUGGING.unwire, record)
        assert set(inside.links()) == {"lo"}
    assert set(host.links()) == before
    for name in WANTED.networks:
        world.host.call(PLUGGING.remove, name)


def test_cni_container_id_is_unique_per_container() -> None:
    """A new container with the name of an earlier one has another CNI id.

    A restarted container keeps its CNI id.
    """
    record = BareRecord(ContainerSpec("web", Bridge("one")), (), attached=("one", "other"))
    again = BareRecord(record.spec, (), attached=("one", "other"))
    own, later, others = (
        {item.container for item in store.attachments(known, "")}
        for known in (record, replace(record, pid=7), again)
    )
    assert len(own) == 1
    assert own == later
    assert not own & others
