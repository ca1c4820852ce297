"""Packets that outsiders send to a container's own address, with the host as the router."""

from __future__ import annotations

from typing import Final

import pytest

from harness.model.plan import ATTACKER, GATEWAY, HOST, INTERNET, NS1, Protocol
from harness.plugin.marks import requirement
from harness.testbench.packets.craft import send_packet
from suites.support.packet_kinds import PORT, WORD, everything
from suites.support.three_containers import ThreeContainers

CONTROL: Final = b"from the host"


@requirement("BR-9")
@pytest.mark.parametrize("outsider", [ATTACKER, INTERNET, NS1])
def test_routed_packets_of_outsider_do_not_reach_container(
    trio: ThreeContainers, outsider: str
) -> None:
    """The host drops all packets that an outsider routes to a container, unless declared otherwise.

    Some packets look like a reply or like part of a flow.
    """
    sent = list(everything(trio, outsider, "a"))
    with trio.netns(HOST).capture() as outside, trio.capture("a") as wire:
        for packet in sent:
            send_packet(trio.netns(outsider), packet)
        with trio.client(GATEWAY, "a", Protocol.UDP, port=PORT) as call:
            call.send(CONTROL)
    came = outside.matching(trio.ip(outsider, "a"))
    assert len([frame for frame in came if WORD in frame.data]) >= len(sent)
    seen = wire.frames(at=trio.at("a"))
    assert [frame for frame in seen if CONTROL in frame.data]
    arrived = [str(frame) for frame in seen if WORD in frame.data and not frame.outgoing]
    direct = trio.scene.runtime.dialect.direct(trio.family)
    assert bool(arrived) == (direct == "accept"), arrived
