"""Outsiders and containers in mode bridge: outsiders open no flow to an unpublished container."""

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
"""Targets that each outsider reaches through the host, as a control that it forwards."""


@requirement("BR-9")
@pytest.mark.parametrize("outsider", THROUGH_THE_HOST)
def test_outsider_opens_no_flow_to_unpublished_container(cast: Scene, outsider: str) -> None:
    """No outsider opens a flow to an unpublished container, even with a static route.

    The host reaches the container, and the outsider reaches other targets through the host.
    """
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
def test_no_packet_of_outsider_enters_unpublished_container(
    cast: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """The host forwards an outsider's packets to an unpublished container only if declared.

    As a control, the packets arrive at the host.
    """
    inside = cast[CONTAINER01].net
    attack = IP(src=str(cast.world.address(ATTACKER, 4)), dst=str(inside.address(4)))
    with host.capture("eth0") as lan, inside.capture("eth0") as wire:
        cast.observed(list(cells((ATTACKER,), (CONTAINER01,), families=(4,))))
        cast.settle()
    for protocol in (ICMP(), UDP(), TCP()):
        assert lan.matching(attack / protocol), "the attacker's packets do not arrive at the host"
        got_in = bool(wire.matching(attack / protocol))
        assert got_in == (runtime.dialect.direct_routing == "accept")


@requirement("BR-9")
def test_outgoing_flow_opens_no_other_port_of_container(cast: Scene, runtime: Adapter) -> None:
    """A container's UDP flow lets in replies from its server, and no packet to another port.

    A runtime may declare that the host forwards such packets.
    """
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
