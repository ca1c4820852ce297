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
from harness.testbench.listener import TRANSPORTS, Transport, free_port, shout
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from suites.modes.hostports import assert_not_published


@requirement("NONE-1")
def test_it_has_a_network_namespace_of_its_own(cast: Scene, host: NetnsView) -> None:
    """Neither the host nor any other container is in it, and what it executes is."""
    own = cast[ALONE].net.identity
    others = [spec.name for spec in cast.plan.containers if spec.name != ALONE]
    assert own not in {cast[name].net.identity for name in others}
    assert own != host.identity
    assert entry.view(cast[ALONE]).netns == own[1]


@requirement("NONE-1")
def test_two_of_them_are_apart(scene: Scene) -> None:
    """A second container in mode none is not put into the first one's namespace."""
    scene.containers(one=Nothing(), other=Nothing())
    assert scene["one"].net.identity != scene["other"].net.identity


@requirement("NONE-2")
def test_lo_is_the_only_interface(cast: Scene, runtime: Adapter) -> None:
    """It is up and holds 127.0.0.1/8, for whoever looks from inside too."""
    inside = cast[ALONE].net
    assert set(inside.links()) == {"lo"}
    assert inside.links()["lo"].up == runtime.dialect.none_loopback
    assert [item for item in inside.interfaces() if item.version == 4] == (
        [IPv4Interface("127.0.0.1/8")] if runtime.dialect.none_loopback else []
    )
    assert entry.view(cast[ALONE]).interfaces == {"lo"}


@requirement("NONE-2", "NONE-3", "NONE-6", "LIFE-7")
def test_started_again_it_has_no_more(scene: Scene) -> None:
    """Than lo, which is as it was, and no route."""
    alone = scene.container("alone", Nothing())
    before = loopback_of(alone)
    alone.stop()
    alone.start()
    assert set(alone.net.links()) == {"lo"}
    assert loopback_of(alone) == before
    assert alone.net.routes() == []


@requirement("NONE-3")
def test_the_main_table_is_empty(cast: Scene) -> None:
    """No route of any kind in either family; a bridged container's table is seen to have some."""
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
def test_everything_else_fails_at_once_for_want_of_a_route(cast: Scene) -> None:
    """Its own kernel says so, before any packet; nothing runs into a time-out."""
    row = cast.promised().select(source=ALONE)
    beyond = row.restrict(cell for cell in row if cell.target != LOOPBACK)
    assert {promise.outcome for promise in beyond.values()} == {Outcome.NO_ROUTE, Outcome.NO_NAME}
    assert cast.observed(beyond) == beyond


@requirement("NONE-5")
def test_nothing_it_does_puts_a_frame_on_an_interface_of_the_host(
    scene: Scene, host: NetnsView
) -> None:
    """Datagrams, pings, connections, broadcasts and multicasts: a bridged container's show."""
    scene.containers(bridged=Bridge(), alone=Nothing())
    word, port = os.urandom(16), free_port(host, "udp")
    targets = [
        item.ip for place in (HOST, INTERNET, NS1) for item in scene.place(place).interfaces()
    ]
    for name, shows in (("bridged", True), ("alone", False)):
        sender = scene[name].net
        macs = {
            bytes.fromhex(link.mac.replace(":", ""))
            for link in sender.links().values()
            if link.name != "lo"
        }
        with host.capture() as wire:
            shout(sender, targets, port=port, word=word)
            scene.settle()
        traces = [
            frame for frame in wire.frames() if word in frame.data or frame.data[6:12] in macs
        ]
        assert bool(traces) == shows, f"{name}: {traces}"


@requirement("NONE-6")
def test_ipv6_loopback_is_as_declared(cast: Scene, runtime: Adapter) -> None:
    """::1 is there and answers, or is not there and does not."""
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
    """Whether a container's lo is up, and what it holds."""
    return container.net.links()["lo"].up, container.net.interfaces("lo")
