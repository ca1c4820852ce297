"""Frames with a VLAN tag or an unusual EtherType, which must not leave their bridge."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from scapy.layers.inet import UDP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from harness.model.plan import ATTACKER, GATEWAY, HOST, INTERNET, NS1, NS2, Protocol
from harness.plugin.marks import requirement
from harness.testbench.container import Container
from harness.testbench.packets.craft import EVERYBODY_MAC, send_frame
from suites.support.three_containers import ThreeContainers

OUTSIDE: Final = (HOST, NS1, NS2, ATTACKER, INTERNET, "d")
PORT: Final = 31050
WORD: Final = b"out of the ordinary"
PLAIN: Final = b"just as it should be"
ETHERTYPES: Final = (0x0000, 0x0801, 0x8035, 0x8847, 0x8863, 0x88B5, 0x88CC, 0x9000)
"""EtherTypes: a length, X.75, RARP, MPLS, PPPoE, an experimental one, LLDP, loopback."""
RESERVED: Final = ("01:80:c2:00:00:00", "01:80:c2:00:00:03", "01:80:c2:00:00:0e")
"""Link-local groups of a bridge (IEEE 802.1D): spanning tree, 802.1X, LLDP."""
MULTICAST_SOURCE: Final = "03:00:5e:10:00:01"


@requirement("L2-2")
def test_tagged_and_non_ip_frames_stay_on_the_bridge(
    trio: ThreeContainers, other_network_container: Container
) -> None:
    """Frames with a VLAN tag, an unknown EtherType or a multicast source stay on their bridge."""
    frames = [
        frame
        for target in (NS1, ATTACKER, INTERNET, "d", GATEWAY)
        for frame in disguised(trio, target)
    ]
    unknown = [
        Ether(src=trio.mac("a"), dst=mac, type=kind) / WORD
        for mac in (EVERYBODY_MAC, trio.mac(GATEWAY), *RESERVED)
        for kind in ETHERTYPES
    ]
    with trio.capture("a", "b", *OUTSIDE) as wire:
        send_frame(trio.netns("a"), *frames, *unknown)
        for name in (NS1, NS2, ATTACKER, INTERNET, "d"):
            with trio.client(HOST, name, Protocol.UDP, port=PORT) as call:
                call.send(PLAIN)
    left = [frame for frame in wire.frames(at=trio.at("a")) if WORD in frame.data]
    assert len(left) == len(frames) + len(unknown)
    assert [frame for frame in wire.frames(at=trio.at("b")) if WORD in frame.data]
    for name in OUTSIDE:
        seen = wire.frames(at=trio.at(name))
        assert [frame for frame in seen if PLAIN in frame.data], (
            f"the control packet is not captured at {name}"
        )
        assert [str(frame) for frame in seen if WORD in frame.data] == []


@requirement("L2-2")
def test_tagged_frames_of_the_lan_reach_no_container(trio: ThreeContainers) -> None:
    """A reply from the LAN with a VLAN tag reaches no container, but the untagged reply does."""
    with (
        trio.capture("a", ATTACKER, HOST) as wire,
        trio.client("a", ATTACKER, Protocol.UDP, port=PORT) as call,
    ):
        call.send(b"do answer")
        trio.settle()
        asked = wire.expect_one(UDP(dport=PORT) / b"do answer", at=trio.at(ATTACKER)).packet
        seen_as = ip_address(asked.payload.src)
        answer = trio.ip(ATTACKER, seen_as) / UDP(sport=PORT, dport=asked[UDP].sport)
        head = Ether(src=trio.mac(ATTACKER), dst=trio.mac(HOST))
        send_frame(
            trio.netns(ATTACKER),
            *(head / tag / answer / WORD for tag in tags()),
            head / answer / PLAIN,
        )
    assert len(wire.matching(answer / WORD, at=trio.at(HOST))) == len(tags())
    wire.expect_one(trio.ip(ATTACKER, "a") / UDP() / PLAIN, at=trio.at("a"))
    wire.expect_none(UDP() / WORD, at=trio.at("a"))


def disguised(trio: ThreeContainers, target: str) -> list[Packet]:
    """Craft datagrams from container `a` to a target, with VLAN tags or a multicast source MAC."""
    mac, gateway = trio.mac("a"), trio.mac(GATEWAY)
    datagram = trio.ip("a", target) / UDP(dport=PORT) / WORD
    return [
        *(
            Ether(src=mac, dst=to) / tag / datagram
            for tag in tags()
            for to in (gateway, EVERYBODY_MAC)
        ),
        Ether(src=MULTICAST_SOURCE, dst=gateway) / datagram,
    ]


def tags() -> list[Packet]:
    """Return headers with two different VLAN tags and with a nested one (802.1Q, 802.1ad)."""
    return [Dot1Q(vlan=7), Dot1Q(vlan=4094), Dot1AD(vlan=7) / Dot1Q(vlan=1)]
