"""What holds of a container holds of it when it has been connected, and taken off, while it ran."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Final

import pytest

from harness.adapters.protocol import Adapter, Feature, RuntimeRefused
from harness.call import Call
from harness.guard import Guard
from harness.marks import requirement
from harness.model import (
    GATEWAY,
    HOST,
    Bridge,
    ContainerSpec,
    Family,
    NetworkSpec,
    Plan,
    Protocol,
)
from harness.packets import craft
from harness.packets.wires import Wires
from harness.place import Place
from harness.scene import Scene
from harness.traffic import TRANSPORTS, Transport, introduce
from harness.world.build import World
from harness.world.snapshot import Snapshot
from suites.claimed import has_ipv6
from suites.names import held
from suites.trio import both_families

HOME, MORE, LESS = "home", "more", "less"
OWN_PORT: Final = 31075
ROOM_FOR_ONE: Final = IPv4Network("172.30.71.0/30")


@pytest.fixture(scope="module")
def moved(world: World, runtime: Adapter) -> Iterator[Scene]:
    """`moved` was started on one network, connected to two, and taken off one.

    `still` stays on the first, `third` on the one that it is on besides.
    """
    dual = has_ipv6(runtime)
    plan = Plan(
        networks=tuple(NetworkSpec(name, ipv6=dual) for name in (HOME, MORE, LESS)),
        containers=(
            ContainerSpec("moved", Bridge(HOME)),
            ContainerSpec("still", Bridge(HOME)),
            ContainerSpec("third", Bridge(MORE)),
        ),
    )
    with Scene(world, runtime, plan) as made:
        if Feature.CONNECT in runtime.features:
            made.connect("moved", LESS)
            made.connect("moved", MORE)
            made.disconnect("moved", LESS)
        made.ready()
        yield made


@requirement("NET-3", "BR-7")
@both_families
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", ["moved", "still"])
def test_the_internet_sees_the_host(
    moved: Scene, internet: Place, name: str, transport: Transport, family: Family
) -> None:
    """Whoever was connected, and whoever only was beside it."""
    address = internet.address(family)
    assert address is not None
    meeting = introduce(moved[name].net, address, transport)
    assert meeting.own[0] in {item.ip for item in moved[name].net.interfaces()}
    assert meeting.seen[0] == moved.world.address(HOST, family)


@requirement("NET-3", "BR-12")
def test_every_link_of_it_agrees_on_the_mtu(moved: Scene) -> None:
    """Each interface, its end in the host, and the bridge that this is a port of."""
    host = {link.ifindex: link for link in moved.place(GATEWAY).links().values()}
    inside = [link for name, link in moved["moved"].net.links().items() if name != "lo"]
    ends = [host[link.peer or 0] for link in inside]
    bridges = [host[end.master or 0] for end in ends]
    own = {moved.runtime.network_facts(name).interface for name in (HOME, MORE)}
    assert {bridge.name for bridge in bridges} == own
    assert len({link.mtu for link in (*inside, *ends, *bridges)}) == 1


@requirement("NET-3", "BR-13")
@both_families
def test_a_third_container_receives_nothing_that_is_for_it(moved: Scene, family: Family) -> None:
    """On the network that it was connected to: an echo request goes to whom it is for."""
    addresses = {name: held(moved, name, family, MORE).pop() for name in ("moved", "third")}
    with Wires() as own, own.capture(moved["third"].net) as wire:
        for address in addresses.values():
            with Call(moved.place(HOST), Protocol.ICMP, address, own_port=OWN_PORT) as call:
                call.say()
                assert call.hear() == b""
        moved.settle()
    asked = {
        name: craft.ip(family, dst=address)
        / craft.request(family, Protocol.ICMP, sport=OWN_PORT, dport=0)
        for name, address in addresses.items()
    }
    wire.expect_one(asked["third"])
    wire.expect_none(asked["moved"])


@requirement("NET-3", "BR-16")
def test_where_no_address_is_left_it_is_not_connected(scene: Scene, guard: Guard) -> None:
    """With a reason, and leaving nothing behind, neither inside nor in the host."""
    scene.network("full", subnet=ROOM_FOR_ONE)
    scene.network("roomy")
    scene.containers(only=Bridge("full"), late=Bridge("roomy"))
    inside = Snapshot.of(scene["late"].net)
    with guard.holding(), pytest.raises(RuntimeRefused) as refused:
        scene.runtime.connect("late", "full")
    assert str(refused.value).strip()
    assert inside.changes(Snapshot.of(scene["late"].net)) == []
