"""Mode bridge from outside: no outsider opens a flow to an unpublished container."""

from __future__ import annotations

import os
from typing import Final

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP

from harness.adapters.protocol import Adapter
from harness.model.plan import (
    ATTACKER,
    CONTAINER01,
    CONTAINER02,
    HOST,
    INTERNET,
    NS1,
    NS2,
    Outcome,
    cells,
)
from harness.plugin.marks import requirement
from harness.testbench.listener import Listener
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene

THROUGH_THE_HOST: Final = {ATTACKER: NS1, INTERNET: NS1, NS1: INTERNET, NS2: INTERNET}
"""Outsiders, and targets that each reaches through the host: forwarding works."""


@requirement("BR-9")
@pytest.mark.parametrize("outsider", THROUGH_THE_HOST)
def test_outsider_opens_no_flow_to_container(cast: Scene, outsider: str) -> None:
    """A static route through the host does not help, by any protocol; the host's calls work."""
    control = cast.promised(
        [
            *cells((HOST,), (CONTAINER01, CONTAINER02)),
            *cells((outsider,), (THROUGH_THE_HOST[outsider],), families=(4,)),
        ]
    )
    seen = cast.observed(control)
    assert seen == control
    assert {met.outcome for met in seen.values()} == {Outcome.REPLY}
    row = cast.promised(list(cells((outsider,), (CONTAINER01, CONTAINER02))))
    assert row
    assert cast.observed(row) == row


@requirement("BR-9")
def test_no_packet_of_outsider_enters_the_container(
    cast: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """Packets of the attacker arrive at the host, and none at the container's interface."""
    inside = cast[CONTAINER01].net
    attack = IP(src=str(cast.world.address(ATTACKER, 4)), dst=str(inside.address(4)))
    with host.capture("eth0") as lan, inside.capture("eth0") as wire:
        cast.observed(list(cells((ATTACKER,), (CONTAINER01,), families=(4,))))
        cast.settle()
    for protocol in (ICMP(), UDP(), TCP()):
        assert lan.matching(attack / protocol), "the attacker's packets do come to the host"
        got_in = bool(wire.matching(attack / protocol))
        assert got_in == (runtime.dialect.direct_routing == "accept")


@requirement("BR-9")
def test_outgoing_flow_does_not_open_other_ports(cast: Scene, runtime: Adapter) -> None:
    """Replies of the called server arrive; its other packets do not."""
    inside, attacker = cast[CONTAINER01].net, cast.netns(ATTACKER)
    answer, knock = os.urandom(16), os.urandom(16)
    with Listener(attacker, "udp") as listener, inside.capture("eth0") as wire:
        exchange = listener.reached_from(inside, at=cast.world.address(ATTACKER, 4))
        assert exchange
        listener.send(exchange.seen, answer)
        listener.send(exchange.own, knock)
        cast.settle()
    arrived = [frame.data for frame in wire.frames()]
    assert any(answer in data for data in arrived)
    got_in = any(knock in data for data in arrived)
    assert got_in == (runtime.dialect.direct_routing == "accept")
