"""Tests of a full mesh, in which each pair of containers exchanges packets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address

import pytest

from bench import mesh
from bench.mesh import Member, Mesh, Prober
from harness.model.matrix import Matrix
from harness.model.plan import HOST, Cell, Outcome, Protocol
from harness.testbench.scene import Scene
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink

NAMES = tuple(f"m{number}" for number in range(5))
Ask = Callable[..., Mesh]


@pytest.fixture
def members(scene: Scene) -> Iterator[list[Member]]:
    """Start the containers, all on one bridge."""
    with ExitStack() as stack:
        found = []
        for name in NAMES:
            made = scene.container(name)
            address = made.started.endpoints[0].address
            assert address is not None
            found.append(Member(name, stack.enter_context(made.net.open()), address.ip))
        yield found


@pytest.fixture
def ask(scene: Scene) -> Iterator[Ask]:
    """Return a function that probes every pair of these containers."""
    bridge = scene.runtime.network_facts("bridge").interface
    with scene.netns(HOST).open() as host:

        def ask_all(members: list[Member]) -> Mesh:
            control = scene.world.namespaces["lan"]
            return mesh.ask(members, host=host, bridge=bridge or "", control=control)

        yield ask_all


def cell(source: str, target: str) -> Cell:
    """Return the cell for ICMP over IPv4 between two containers."""
    return Cell(source, target, Protocol.ICMP, 4)


def test_mesh_observes_every_pair_as_promised(
    scene: Scene, members: list[Member], ask: Ask
) -> None:
    """The observations of a mesh equal the oracle's promises.

    A container's packets to itself are included.
    """
    found = ask(members)
    assert len(found) == found.kept(64) == len(NAMES) ** 2
    assert Matrix(found) == scene.promised(list(found))


def test_mesh_reports_only_isolated_ports_as_dropped(
    scene: Scene, members: list[Member], ask: Ask
) -> None:
    """Two bridge ports that are isolated cannot reach each other.

    All other pairs can.
    """
    with scene.netns(HOST).open() as host, Netlink(host) as netlink:
        for name in ("m1", "m3"):
            port = scene[name].net.links()["eth0"].peer
            assert port is not None
            netlink.send([rtnetlink.isolate_port(port)])
    found = ask(members)
    silent = {item for item, seen in found.items() if seen.outcome is Outcome.DROPPED}
    assert silent == {cell("m1", "m3"), cell("m3", "m1")}
    assert found.kept(64) == len(NAMES) ** 2 - 2


def test_repeated_mesh_observes_current_isolation(scene: Scene, members: list[Member]) -> None:
    """A repeated mesh observes the current isolation of ports.

    It accepts no reply with a nonce of an earlier mesh.
    """
    bridge = scene.runtime.network_facts("bridge").interface or ""
    control = scene.world.namespaces["lan"]
    with (
        scene.netns(HOST).open() as host,
        Prober(members, host=host, bridge=bridge, control=control) as prober,
    ):
        assert prober.ask().kept(64) == len(NAMES) ** 2
        ports = [scene[name].net.links()["eth0"].peer or 0 for name in ("m1", "m3")]
        with Netlink(host) as netlink:
            netlink.send([rtnetlink.isolate_port(port) for port in ports])
        found = prober.ask()
        silent = {item for item, seen in found.items() if seen.outcome is Outcome.DROPPED}
        assert silent == {cell("m1", "m3"), cell("m3", "m1")}
        with Netlink(host) as netlink:
            netlink.send([rtnetlink.isolate_port(port, isolated=False) for port in ports])
        assert prober.ask().kept(64) == len(NAMES) ** 2


def test_mesh_reports_reply_of_another_member_as_wrong_peer(
    members: list[Member], ask: Ask
) -> None:
    """If a request is sent to the address of another member, the outcome is a wrong peer."""
    wrong = members[1]._replace(address=members[2].address)
    found = ask([members[0], wrong, members[2]])
    assert found[cell("m0", "m1")].outcome is Outcome.WRONG_PEER
    assert found[cell("m0", "m2")].outcome is Outcome.REPLY
    assert found.kept(64) < 9


def test_mesh_reports_unused_address_as_dropped(members: list[Member], ask: Ask) -> None:
    """A request to an address that nothing replies for is dropped."""
    nobody = members[1]._replace(name="nobody", address=IPv4Address("172.17.77.77"))
    found = ask([*members[:1], nobody, *members[2:]])
    assert {seen.outcome for item, seen in found.items() if item.target == "nobody"} == {
        Outcome.DROPPED
    }
    assert found[cell("m0", "m2")].outcome is Outcome.REPLY


def test_mesh_leaves_no_permanent_neighbour_entries(members: list[Member], ask: Ask) -> None:
    """After a mesh, its containers have no permanent neighbour entries."""
    ask(members)
    for member in members:
        with Netlink(member.space) as netlink:
            states = [item.state for item in rtnetlink_dump.neighbours(netlink)]
        assert not [state for state in states if state & rtnetlink.NUD_PERMANENT]
