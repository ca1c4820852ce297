"""Mode none: a network namespace with a loopback and nothing else."""

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
def test_container_has_a_netns_of_its_own(cast: Scene, host: NetnsView) -> None:
    """Neither the host nor another container is in it; exec'd processes are."""
    own = cast[ALONE].net.identity
    others = [spec.name for spec in cast.plan.containers if spec.name != ALONE]
    assert own not in {cast[name].net.identity for name in others}
    assert own != host.identity
    assert entry.view(cast[ALONE]).netns == own[1]


@requirement("NONE-1")
def test_two_containers_have_separate_netns(scene: Scene) -> None:
    """A second container does not join the first one's netns."""
    scene.containers(one=Nothing(), other=Nothing())
    assert scene["one"].net.identity != scene["other"].net.identity


@requirement("NONE-2")
def test_lo_is_the_only_interface(cast: Scene, runtime: Adapter) -> None:
    """It is up and has 127.0.0.1/8, also as seen from inside."""
    inside = cast[ALONE].net
    assert set(inside.links()) == {"lo"}
    assert inside.links()["lo"].up == runtime.dialect.none_loopback
    assert [item for item in inside.interfaces() if item.version == 4] == (
        [IPv4Interface("127.0.0.1/8")] if runtime.dialect.none_loopback else []
    )
    assert entry.view(cast[ALONE]).interfaces == {"lo"}


@requirement("NONE-2", "NONE-3", "NONE-6", "LIFE-7")
def test_restarted_container_has_only_lo(scene: Scene) -> None:
    """As before the restart, and no route."""
    alone = scene.container("alone", Nothing())
    before = loopback_of(alone)
    alone.stop()
    alone.start()
    assert set(alone.net.links()) == {"lo"}
    assert loopback_of(alone) == before
    assert alone.net.routes() == []


@requirement("NONE-3")
def test_main_routing_table_is_empty(cast: Scene) -> None:
    """No route of any kind in either family; a bridged container's table is the control."""
    assert cast[CONTAINER01].net.routes()
    assert cast[ALONE].net.routes() == []


@requirement("NONE-4")
def test_loopback_answers_with_ttl_64(cast: Scene, runtime: Adapter) -> None:
    """127.0.0.1 answers pings, datagrams and connections."""
    row = cast.promised().select(source=ALONE, target=LOOPBACK, family=4)
    assert cast.observed(row) == row
    there = Outcome.REPLY if runtime.dialect.none_loopback else Outcome.NO_ROUTE
    assert {promise.outcome for promise in row.values()} == {there}
    ping = cast.observed(row)[Cell(ALONE, LOOPBACK, Protocol.ICMP, 4)]
    assert ping.ttl == (64 if runtime.dialect.none_loopback else None)


@requirement("NONE-4")
def test_all_other_targets_fail_at_once_without_a_route(cast: Scene) -> None:
    """The own kernel reports it before any packet; no attempt times out."""
    row = cast.promised().select(source=ALONE)
    beyond = row.restrict(cell for cell in row if cell.target != LOOPBACK)
    assert {promise.outcome for promise in beyond.values()} == {Outcome.NO_ROUTE, Outcome.NO_NAME}
    assert cast.observed(beyond) == beyond


@requirement("NONE-5")
def test_no_frame_appears_on_host_interfaces(scene: Scene, host: NetnsView) -> None:
    """Pings, UDP, TCP, broadcasts and multicasts; a bridged container is the control."""
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
def test_ipv6_loopback_is_as_declared(cast: Scene, runtime: Adapter) -> None:
    """::1 exists and answers, or does not exist."""
    declared = runtime.dialect.none_loopback6
    held = [item for item in cast[ALONE].net.interfaces() if item.version == 6]
    assert held == ([IPv6Interface("::1/128")] if declared else [])
    row = cast.promised().select(source=ALONE, target=LOOPBACK, family=6)
    assert cast.observed(row) == row
    answer = Outcome.REPLY if declared else Outcome.NO_ROUTE
    assert {promise.outcome for promise in row.values()} == {answer}


@requirement("NONE-7")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_publishing_is_refused_or_warned_of(
    scene: Scene, runtime: Adapter, transport: Transport
) -> None:
    """As declared, and by name; a refusal leaves nothing behind."""
    assert_not_published(scene, Nothing(), runtime.dialect.none_publish, transport)


def loopback_of(container: Container) -> tuple[bool, list[Interface]]:
    """Return the state and the addresses of a container's lo."""
    return container.net.links()["lo"].up, container.net.interfaces("lo")
