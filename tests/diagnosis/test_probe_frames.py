"""Tests of the check whether a captured frame belongs to a probe."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness.diagnosis.packet_path import Role
from harness.diagnosis.probe_frames import of_frame, sightings
from harness.testbench.packets.packet_ring import Frame, FrameKind

A, B = "192.0.2.1", "192.0.2.2"
QUESTION = Raw(b"nmodQ" + bytes(12))
FRAMES: dict[str, tuple[Packet, Role, str]] = {
    "udp": (IP(src=A, dst=B) / UDP(dport=61001) / QUESTION, Role.REQUEST, "udp"),
    "answer": (IP(src=A, dst=B) / UDP() / Raw(b"nmodA"), Role.REPLY, "udp"),
    "echo": (IP(src=A, dst=B) / ICMP(type=8) / QUESTION, Role.REQUEST, "icmp"),
    "echoed": (IP(src=A, dst=B) / ICMP(type=0) / QUESTION, Role.REPLY, "icmp"),
    "echo6": (
        IPv6(src="2001:db8::1", dst="2001:db8::2") / ICMPv6EchoRequest(data=QUESTION.load),
        Role.REQUEST,
        "icmp",
    ),
    "syn": (IP(src=A, dst=B) / TCP(dport=61001, flags="S"), Role.REQUEST, "tcp"),
    "syn-ack": (IP(src=A, dst=B) / TCP(sport=61001, dport=40000, flags="SA"), Role.REPLY, "tcp"),
    "reset": (IP(src=A, dst=B) / TCP(sport=61001, dport=40000, flags="RA"), Role.ERROR, "tcp"),
    "unreachable": (
        IP(src=B, dst=A) / ICMP(type=3, code=13) / IP(src=A, dst=B) / UDP() / QUESTION,
        Role.ERROR,
        "icmp",
    ),
    "who-has": (ARP(op=1, psrc=A, pdst=B), Role.SOLICITATION, "arp"),
    "is-at": (ARP(op=2, psrc=B, pdst=A), Role.ADVERTISEMENT, "arp"),
    "tagged": (Dot1Q(vlan=7) / IP(src=A, dst=B) / UDP() / QUESTION, Role.REQUEST, "udp"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_classified_by_role_and_protocol(name: str) -> None:
    """Frames of the probe are classified by role and protocol.

    The target of a neighbour solicitation counts as its destination.
    """
    packet, role, protocol = FRAMES[name]
    seen = of_frame(bytes(Ether() / packet))
    assert seen is not None
    assert (seen.role, seen.protocol) == (role, protocol)
    if role in (Role.SOLICITATION, Role.ADVERTISEMENT):
        assert seen.destination == ip_address(B)


def test_icmp_errors_have_the_names_in_probe_results() -> None:
    """The names of ICMP errors are those in the results of probes."""
    seen = of_frame(bytes(Ether() / FRAMES["unreachable"][0]))
    assert seen is not None
    assert seen.code == "admin-prohibited"


@pytest.mark.parametrize(
    "packet",
    [
        IP() / UDP() / Raw(b"something"),
        IP() / ICMP(type=8) / Raw(b"something"),
        IP() / TCP(sport=40000, dport=80, flags="S"),
        IP() / ICMP(type=3, code=1) / IP() / UDP() / Raw(b"something"),
        IP(proto=47) / QUESTION,
    ],
    ids=["udp", "echo", "tcp", "error", "gre"],
)
def test_frames_of_others_are_ignored(packet: Packet) -> None:
    """Frames without the nonce or port of the probe are ignored."""
    assert of_frame(bytes(Ether() / packet)) is None


def test_dns_frames_count_only_for_name_lookups() -> None:
    """DNS frames belong to the probe only if it looks up a name and the lookup fails."""
    question = bytes(Ether() / IP(src=A, dst=B) / UDP(sport=40000, dport=53) / Raw(b"www"))
    assert of_frame(question) is None
    seen = of_frame(question, names=True)
    assert seen is not None
    assert seen.role is Role.REQUEST


def test_error_before_the_request_is_ignored() -> None:
    """An ICMP error that comes before the request is ignored, as it belongs to an earlier probe."""
    error, request = (
        Frame("a/eth0", at, FrameKind.HOST, 100, bytes(Ether() / FRAMES[name][0]))
        for at, name in enumerate(["unreachable", "udp"])
    )
    assert [item.seen.role for item in sightings([error, request])] == [Role.REQUEST]
    assert len(sightings([request, error])) == 2


@given(data=st.binary(max_size=120), ethernet=st.booleans(), names=st.booleans())
@example(data=bytes(Ether() / IPv6() / ICMPv6ND_NS())[:60], ethernet=True, names=False)
@example(data=bytes(12) + b"\x08\x00" + b"\x45", ethernet=True, names=True)
def test_malformed_frames_do_not_raise(data: bytes, *, ethernet: bool, names: bool) -> None:
    """Malformed frames raise no error, because containers may send any bytes."""
    of_frame(data, ethernet=ethernet, names=names)


@pytest.mark.parametrize("name", FRAMES)
def test_truncated_frames_do_not_raise(name: str) -> None:
    """Frames that are truncated at any byte raise no error."""
    whole = bytes(Ether() / FRAMES[name][0])
    for length in range(len(whole)):
        of_frame(whole[:length])
