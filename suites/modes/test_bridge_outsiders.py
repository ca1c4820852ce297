"""Mode bridge, seen from outside: nobody opens a flow to an unpublished container."""

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
"""Outsiders, and whom each of them reaches by way of the host: its forwarding is no obstacle."""


@requirement("BR-9")
@pytest.mark.parametrize("outsider", THROUGH_THE_HOST)
def test_an_outsider_opens_no_flow_to_a_container(cast: Scene, outsider: str) -> None:
    """Not by its own address and a static route through the host, by no protocol; the host does."""
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
def test_not_even_one_packet_gets_in(cast: Scene, runtime: Adapter, host: NetnsView) -> None:
    """What the attacker sends arrives at the host, and the container's interface stays silent."""
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
def test_a_flow_from_inside_opens_no_other_door(cast: Scene, runtime: Adapter) -> None:
    """Who was called by a container answers by way of the host, and by that way only."""
    inside, attacker = cast[CONTAINER01].net, cast.place(ATTACKER)
    answer, knock = os.urandom(16), os.urandom(16)
    with Listener(attacker, "udp") as ear, inside.capture("eth0") as wire:
        meeting = ear.hears(inside, at=cast.world.address(ATTACKER, 4))
        assert meeting
        ear.tell(meeting.seen, answer)
        ear.tell(meeting.own, knock)
        cast.settle()
    arrived = [frame.data for frame in wire.frames()]
    assert any(answer in data for data in arrived)
    got_in = any(knock in data for data in arrived)
    assert got_in == (runtime.dialect.direct_routing == "accept")
