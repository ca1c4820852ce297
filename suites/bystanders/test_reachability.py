"""Reachability between ns1, ns2, the host and outsiders while containers start and end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from harness.model import oracle
from harness.model.features import Feature
from harness.model.plan import (
    ATTACKER,
    BR0,
    HOST,
    INTERNET,
    NS1,
    NS2,
    OUTSIDERS,
    Cell,
    Family,
)
from harness.plugin.marks import requirement
from harness.probe.sockets import ADDRESS_FAMILIES
from harness.testbench.listener import BOUND, TRANSPORTS, Transport
from harness.testbench.scene import Scene
from harness.world.service_protocols import TCP_PORTS
from suites.support.features import another, every_mode, ipv4_and_ipv6, restarts
from suites.support.packet_kinds import every_port_answers

ASKED = frozenset({HOST, BR0, NS1, NS2, INTERNET, ATTACKER})


@requirement("BYS-2")
def test_outsiders_reach_each_other_before_during_and_after_containers(scene: Scene) -> None:
    """Outsiders reach the same targets with equal TTLs before, during and after container runs."""
    _assert_as_promised(scene)
    every_mode(scene)
    _assert_as_promised(scene)
    scene.remove(scene.plan.containers[0].name)
    _assert_as_promised(scene)
    scene.close()
    _assert_as_promised(scene)


def _assert_as_promised(scene: Scene) -> None:
    """Compare reachability with the promises of a runtime that blocks no outsider.

    The runtime's own declaration on router advertisements is ignored.
    """
    kept = replace(scene.runtime.dialect, router6="kept")
    row = oracle.promised(scene.plan, kept, scene.world.topology)
    row = row.restrict(cell for cell in row if _is_between_outsiders(cell))
    assert {cell.source for cell in row} >= {HOST, NS1, NS2}
    assert scene.observed(row) == row


def _is_between_outsiders(cell: Cell) -> bool:
    return cell.source in OUTSIDERS and cell.target in ASKED


@requirement("BYS-2")
@ipv4_and_ipv6
def test_open_connections_of_bystanders_survive_container_lifecycle(
    scene: Scene, family: Family
) -> None:
    """Open connections of bystanders survive while containers and networks start and end."""
    with ExitStack() as stack:
        calls = [stack.enter_context(_echoing(scene, name, family)) for name in (NS1, NS2, HOST)]
        for _ in _comings_and_goings(scene):
            for call in calls:
                _say(call)


def _comings_and_goings(scene: Scene) -> Iterator[None]:
    """Start and remove containers of every declared mode, and yield after each step."""
    every_mode(scene)
    yield
    first = scene.plan.containers[0].name
    scene[first].stop()
    yield
    if restarts(scene.runtime):
        scene.start(first)
        yield
    if Feature.CONNECT in scene.runtime.features:
        other = another(scene)
        for change in (scene.connect, scene.disconnect):
            change(first, other)
            yield
    scene.remove(*(spec.name for spec in scene.plan.containers))
    yield
    for network in scene.plan.networks:
        scene.remove_network(network.name)
        yield


@requirement("BYS-2")
@ipv4_and_ipv6
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_bystanders_reach_each_other_on_every_port(
    scene: Scene, family: Family, transport: Transport
) -> None:
    """Bystanders reach each other and the internet on every port that no container publishes."""
    every_mode(scene)
    for caller, target in ((NS1, NS2), (NS1, INTERNET), (ATTACKER, NS1), (HOST, INTERNET)):
        every_port_answers(scene, caller, target, transport, family)


@contextmanager
def _echoing(scene: Scene, name: str, family: Family) -> Iterator[socket.socket]:
    """Open a TCP connection from a namespace to the internet's echo service."""
    with scene.netns(name).socket(ADDRESS_FAMILIES[family], socket.SOCK_STREAM) as call:
        call.settimeout(BOUND)
        call.connect((str(scene.world.address(INTERNET, family)), TCP_PORTS["echo"]))
        assert call.recv(4096)  # the service reports the client's address
        _say(call)
        yield call


def _say(call: socket.socket) -> None:
    word, received = os.urandom(64), b""
    call.send(word)
    while len(received) < len(word):
        part = call.recv(len(word) - len(received))
        assert part, "the connection was closed"
        received += part
    assert received == word
