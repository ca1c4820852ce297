"""Mode none, in which a container has a network namespace with only a loopback."""

from __future__ import annotations

import os
from ipaddress import IPv4Interface, IPv6Interface

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import (
    ALONE,
    CONTAINER01,
    HOST,
    INTERNET,
    LOOPBACK,
    NS1,
    Bridge,
    Cell,
    Nothing,
    Outcome,
    Protocol,
)
from harness.model.topology import Interface
from harness.plugin.marks import requirement
from harness.testbench import container as entry
from harness.testbench.container import Container
from harness.testbench.listener import TRANSPORTS, Transport, broadcast, free_port
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from suites.modes.conftest import assert_not_published


@requirement("NONE-1")
def test_container_without_network_has_its_own_netns(cast: Scene, host: NetnsView) -> None:
    """A container without a network has its own netns, not the host's or another container's.

    Processes that are exec'd in the container are in that netns too.
    """
    own = cast[ALONE].net.identity
    others = [spec.name for spec in cast.plan.containers if spec.name != ALONE]
    assert own not in {cast[name].net.identity for name in others}
    assert own != host.identity
    assert entry.view(cast[ALONE]).netns == own[1]


@requirement("NONE-1")
def test_two_containers_without_network_have_separate_netns(scene: Scene) -> None:
    """Two containers without a network have separate netns."""
    scene.containers(one=Nothing(), other=Nothing())
    assert scene["one"].net.identity != scene["other"].net.identity


@requirement("NONE-2")
def test_container_without_network_has_only_lo(cast: Scene, runtime: Adapter) -> None:
    """A container without a network has only lo, which is up and has 127.0.0.1/8 if declared."""
    inside = cast[ALONE].net
    assert set(inside.links()) == {"lo"}
    assert inside.links()["lo"].up == runtime.dialect.none_loopback
    assert [item for item in inside.interfaces() if item.version == 4] == (
        [IPv4Interface("127.0.0.1/8")] if runtime.dialect.none_loopback else []
    )
    assert entry.view(cast[ALONE]).interfaces == {"lo"}


@requirement("NONE-2", "NONE-3", "NONE-6", "LIFE-7")
def test_restarted_container_without_network_has_only_lo(scene: Scene) -> None:
    """A restarted container without a network has only lo, unchanged, and no route."""
    alone = scene.container("alone", Nothing())
    before = loopback_of(alone)
    alone.stop()
    alone.start()
    assert set(alone.net.links()) == {"lo"}
    assert loopback_of(alone) == before
    assert alone.net.routes() == []


@requirement("NONE-3")
def test_container_without_network_has_empty_main_routing_table(cast: Scene) -> None:
    """A container without a network has an empty main routing table in both families.

    As a control, a bridged container's table has routes.
    """
    assert cast[CONTAINER01].net.routes()
    assert cast[ALONE].net.routes() == []


@requirement("NONE-4")
def test_loopback_of_container_without_network_replies_with_ttl_64(
    cast: Scene, runtime: Adapter
) -> None:
    """In a container without a network, 127.0.0.1 replies by ICMP, UDP and TCP, with TTL 64."""
    row = cast.promised().select(source=ALONE, target=LOOPBACK, family=4)
    assert cast.observed(row) == row
    there = Outcome.REPLY if runtime.dialect.none_loopback else Outcome.NO_ROUTE
    assert {promise.outcome for promise in row.values()} == {there}
    ping = cast.observed(row)[Cell(ALONE, LOOPBACK, Protocol.ICMP, 4)]
    assert ping.ttl == (64 if runtime.dialect.none_loopback else None)


@requirement("NONE-4")
def test_container_without_network_gets_no_route_at_once(cast: Scene) -> None:
    """A container without a network gets "no route" at once for every target but its loopback.

    The container's own kernel reports the missing route, so no attempt times out.
    """
    row = cast.promised().select(source=ALONE)
    beyond = row.restrict(cell for cell in row if cell.target != LOOPBACK)
    assert {promise.outcome for promise in beyond.values()} == {Outcome.NO_ROUTE, Outcome.NO_NAME}
    assert cast.observed(beyond) == beyond


@requirement("NONE-5")
def test_container_without_network_sends_no_frame_to_the_host(
    scene: Scene, host: NetnsView
) -> None:
    """No frame of a container without a network appears on an interface of the host.

    The container sends pings, UDP, TCP, broadcasts and multicasts. A bridged container is the
    control.
    """
    scene.containers(bridged=Bridge(), alone=Nothing())
    word, port = os.urandom(16), free_port(host, "udp")
    targets = [item.ip for name in (HOST, INTERNET, NS1) for item in scene.netns(name).interfaces()]
    for name, shows in (("bridged", True), ("alone", False)):
        sender = scene[name].net
        macs = {
            bytes.fromhex(link.mac.replace(":", ""))
            for link in sender.links().values()
            if link.name != "lo"
        }
        with host.capture() as wire:
            broadcast(sender, targets, port=port, payload=word)
            scene.settle()
        traces = [
            frame for frame in wire.frames() if word in frame.data or frame.data[6:12] in macs
        ]
        assert bool(traces) == shows, f"{name}: {traces}"


@requirement("NONE-6")
def test_ipv6_loopback_of_container_without_network_is_as_declared(
    cast: Scene, runtime: Adapter
) -> None:
    """A container without a network has ::1 exactly if the runtime declares so.

    If ::1 is present, it answers.
    """
    declared = runtime.dialect.none_loopback6
    held = [item for item in cast[ALONE].net.interfaces() if item.version == 6]
    assert held == ([IPv6Interface("::1/128")] if declared else [])
    row = cast.promised().select(source=ALONE, target=LOOPBACK, family=6)
    assert cast.observed(row) == row
    answer = Outcome.REPLY if declared else Outcome.NO_ROUTE
    assert {promise.outcome for promise in row.values()} == {answer}


@requirement("NONE-7")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_publishing_without_network_is_refused_or_warned_about(
    scene: Scene, runtime: Adapter, transport: Transport
) -> None:
    """Publishing a port without a network is refused, or ignored with a warning, as declared.

    The port stays free on the host, and a refusal leaves nothing.
    """
    assert_not_published(scene, Nothing(), runtime.dialect.none_publish, transport)


def loopback_of(container: Container) -> tuple[bool, list[Interface]]:
    """Return whether a container's lo is up, and the addresses of lo."""
    return container.net.links()["lo"].up, container.net.interfaces("lo")
