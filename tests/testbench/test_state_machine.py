"""Tests that random histories detect leftovers of removed containers and networks.

A history is a random sequence of steps on a scene.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import DEFAULT_NETWORK, HOST, Attached, Bridge
from harness.plugin.progress import Steps
from harness.world.build import World
from harness.world.leak_guard import LeakGuard
from linux import nftables, rtnetlink
from linux.netlink import Netlink
from suites.properties.ownership import OwnershipMarks, borne
from suites.properties.state_machine import SHORT, History, HistoryStage


def test_removed_container_leaves_identifiers_of_no_other_container() -> None:
    """The identifiers of a removed container are those that no other container has.

    An address that another container has by now is no leftover.
    """
    marks = OwnershipMarks()
    marks.know("a", {"a", "172.18.0.2", "process 5"})
    marks.know("b", {"b", "172.18.0.3"})
    assert marks.forget_except({"a", "b"}) == set()
    marks.know("a", {"a", "172.18.0.2", "process 9"})
    assert marks.forget_except({"a", "b"}) == {"process 5"}
    marks.know("c", {"c", "172.18.0.2"})
    assert marks.forget_except({"b", "c"}) == {"a", "process 9"}
    assert marks.forget_except({"b", "c"}) == set()


def test_identifier_matches_only_as_a_separate_word() -> None:
    """An identifier does not match within longer addresses, names or numbers."""
    things = ["address 172.18.0.2/16 of lo", "address 172.18.0.21/16 of lo", "process 50 (sleep)"]
    assert borne({"172.18.0.2"}, things) == things[:1]
    assert borne({"process 5"}, things) == []
    assert borne(set(), things) == []
    assert borne(
        {"fd00::2"}, ["neighbour fd00::2 of docker0", "neighbour fd00::21 of docker0"]
    ) == ["neighbour fd00::2 of docker0"]
    assert borne({"fd00::2"}, ["address fd00::2:1/64 of lo", "address 1:fd00::2/64 of lo"]) == []
    assert borne({"eth0", "02:42:ac"}, ["link eth0: new", "neighbour with 02:42:ac: new"]) != []
    assert borne({"net1"}, ["nft rule inet mydocker forward net1: answers"])


@pytest.fixture
def history(world: World, runtime: Adapter, guard: LeakGuard) -> Iterator[History]:
    """Begin a random sequence of steps with the world and the runtime."""
    steps = Steps(lambda _: None, "a history", examples=1, steps=1)
    made = History(HistoryStage(world, runtime, guard, steps))
    yield made
    made.teardown()


def begin(history: History, name: str) -> None:
    """Start a container on the default network, as a step of the history."""
    history.acting = name
    history.scene.container(name, Bridge(DEFAULT_NETWORK))
    history.bridged.add(name)
    history.removed_objects_leave_nothing()


@pytest.mark.parametrize("digits", [SHORT, None], ids=["short", "whole"])
def test_leftover_with_id_of_removed_container_is_found(
    history: History, world: World, digits: int | None
) -> None:
    """A leftover with a removed container's id is found at the step that removes it.

    No other object of the container is left, and other containers keep their tables.
    """
    for name in ("one", "other"):
        begin(history, name)
    table = nftables.Table("inet", f"own-{history.scene['one'].facts().id[:digits]}")
    with nftables.Nft(world.namespaces[HOST]) as opened:
        opened.apply([nftables.add_table(table)])
        history.removed_objects_leave_nothing()
        history.scene.remove("one")
        with pytest.raises(TimeoutError, match=table.name.removeprefix("own-")) as raised:
            history.removed_objects_leave_nothing()
        assert f"nft table inet {table.name}" in str(raised.value.__notes__)
        opened.apply([nftables.del_table(table)])


def test_leftover_of_a_removed_network_is_found(history: History, world: World) -> None:
    """A leftover route of a removed network is found by the network's subnet."""
    history.acting = "net"
    history.scene.network("net")
    history.removed_objects_leave_nothing()
    (subnet, *_) = (item.network for item in history.stage.runtime.network_facts("net").gateways)
    history.scene.remove_network("net")
    with Netlink(world.namespaces[HOST]) as opened:
        left = rtnetlink.add_blackhole(subnet)
        opened.send([left])
        with pytest.raises(TimeoutError, match=str(subnet)):
            history.removed_objects_leave_nothing()
        opened.send([left._replace(kind=rtnetlink.RTM_DELROUTE, flags=0)])


def test_additional_veth_pair_is_found(history: History, world: World) -> None:
    """A container with more veth pairs than networks is reported.

    A disconnect or a restart may leave such a pair.
    """
    begin(history, "one")
    left = "one has no more veth pairs than networks"
    with Netlink(world.namespaces[HOST]) as opened:
        opened.send([rtnetlink.add_veth("left0", "left1")])
        with pytest.raises(TimeoutError, match=left):
            history.removed_objects_leave_nothing()
        opened.send([rtnetlink.del_link("left0")])


def test_removed_container_has_no_veth_pairs(history: History) -> None:
    """A removed container has no veth pairs, even if a new pair has the same name.

    Some runtimes number their veth pairs.
    """
    before = dict(history.veths)
    begin(history, "one")
    history.scene.remove("one")
    history.removed_objects_leave_nothing()
    assert history.veths == before


def test_pending_neighbours_of_removed_container_are_removed(history: History) -> None:
    """Incomplete neighbour entries of a removed container are removed.

    A queued packet would keep its namespace and its veth pair alive. Isolated ports are not
    resolved over IPv6: the kernel gives up after three seconds, and a step waits for two.
    """
    history.scene.network("net", ipv6=True, icc=False)
    for history.acting, mode in (("one", Bridge("net")), ("by-hand", Attached("net"))):
        history.scene.container(history.acting, mode)
        history.removed_objects_leave_nothing()
    history.observed_equals_promised()
    history.scene.remove("by-hand")
    history.removed_objects_leave_nothing()
