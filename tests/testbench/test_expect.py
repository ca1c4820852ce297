"""Tests of packet templates, and of expectations about captured frames."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, GRE, Ether
from scapy.packet import Packet, Raw

from harness.testbench.packets import expect
from harness.testbench.packets.packet_ring import Frame, FrameKind


def frame(packet: Packet, *, unfinished_checksum: bool = False) -> Frame:
    """Return a captured frame."""
    data = bytes(Ether() / packet)
    return Frame("internet/eth0", 0, FrameKind.HOST, len(data), data, unfinished_checksum)


REQUEST = frame(IP(src="198.51.100.7", dst="203.0.113.10", ttl=60) / UDP(sport=1, dport=4242))
REPLY = frame(IP(src="203.0.113.10", dst="198.51.100.7") / UDP(sport=4242, dport=1))
ERROR = frame(IP(src="192.0.2.1", dst="198.51.100.7") / ICMP(type=11))
HOUSEKEEPING = [
    frame(ARP()),
    frame(IPv6() / ICMPv6ND_NS()),
    frame(IPv6() / IPv6ExtHdrHopByHop() / ICMPv6MLReport2()),
    frame(IP(proto=2, dst="224.0.0.22") / b"a report"),
]


def test_expect_one_names_the_nearest_frame_and_its_difference() -> None:
    """A failed `expect_one` first names the most similar frame and its differences."""
    with pytest.raises(AssertionError) as failure:
        expect.one([ERROR, REPLY, REQUEST], IP(src="172.17.0.2") / UDP(dport=4242))
    lines = str(failure.value).splitlines()
    assert lines[0] == (
        "no frame matches IP(src=172.17.0.2) / UDP(dport=4242); the nearest of 3 captured:"
    )
    assert "198.51.100.7:1 > 203.0.113.10:4242" in lines[1]
    assert lines[2].strip() == "IP.src is 198.51.100.7, not 172.17.0.2"
    assert lines[-1].strip() == "the frame has no UDP layer"


def test_expect_one_rejects_two_frames() -> None:
    """`expect_one` rejects two matching frames and lists both."""
    with pytest.raises(AssertionError, match=r"2 frames match UDP\(\), not one:") as failure:
        expect.one([REQUEST, ERROR, REPLY], UDP())
    assert "ICMP" not in str(failure.value)


def test_expect_one_each_rejects_more_frames_than_sent() -> None:
    """`expect_one_each` fails if there are more matching frames than sent packets.

    A SYN is retransmitted after a second: two errors for one SYN are too many.
    """
    error, sent = ICMP(type=11), UDP(dport=4242)
    expect.one_each([REQUEST, ERROR], error, to=sent)
    expect.one_each([REQUEST, ERROR, REQUEST, ERROR], error, to=sent)
    expect.one_each([REQUEST, REQUEST, ERROR], error, to=sent)
    expect.one_each([ERROR], error, to=sent)
    with pytest.raises(AssertionError, match=r"2 frames match .*, but 1 were sent:"):
        expect.one_each([REQUEST, ERROR, ERROR], error, to=sent)
    with pytest.raises(AssertionError, match=r"2 frames match .*, but 0 were sent:"):
        expect.one_each([ERROR, ERROR], error, to=sent)
    with pytest.raises(AssertionError, match="no frame matches"):
        expect.one_each([REQUEST], error, to=sent)


def test_expect_none_lists_matching_frames() -> None:
    """A failed `expect_none` lists the matching frames and no others."""
    expect.none([REQUEST, REPLY], ICMP(), IP(src="10.0.0.0/8"))
    with pytest.raises(
        AssertionError, match=r"1 frames match ICMP\(\), and none should:\n .*192\.0\.2\.1"
    ):
        expect.none([REQUEST, ERROR], UDP(dport=7), ICMP())


def test_long_list_of_frames_is_truncated_and_counted() -> None:
    """A failure lists at most six frames and counts the others.

    The same holds for the list of the most similar frames.
    """
    with pytest.raises(AssertionError, match=r"and none should:(?s:.*)… and 14 more$") as failure:
        expect.none([REQUEST] * 20, UDP())
    assert str(failure.value).count("internet/eth0") == 6
    with pytest.raises(AssertionError) as failure:
        expect.one([REQUEST] * 1000, UDP(dport=1))
    assert str(failure.value).count("internet/eth0") == 6


def test_expect_only_accepts_each_template_and_housekeeping() -> None:
    """`expect_only` accepts any number of frames of each template.

    It also accepts housekeeping such as ARP.
    """
    expect.only([REQUEST, REPLY, REPLY, *HOUSEKEEPING], UDP(dport=4242), UDP(sport=4242))


def test_expect_only_lists_frames_without_a_template() -> None:
    """`expect_only` lists a frame that matches no template."""
    with pytest.raises(AssertionError, match=r"1 frames do not match UDP\(\):\n .*ICMP"):
        expect.only([REQUEST, ERROR, *HOUSEKEEPING], UDP())


def test_expect_only_rejects_an_empty_capture() -> None:
    """`expect_only` fails if no frame matches one of its templates."""
    with pytest.raises(AssertionError, match="no frame was captured"):
        expect.only([], UDP())
    with pytest.raises(AssertionError, match=r"no frame matches ICMP\(\)"):
        expect.only([REQUEST], UDP(), ICMP())


# --- templates ----------------------------------------------------------------------

UDP_PACKET = IP(src="192.0.2.1", dst="192.0.2.2", ttl=63) / UDP(sport=1000, dport=4242) / b"hello"
TCP_PACKET = IP(src="192.0.2.1", dst="192.0.2.2") / TCP(dport=80, flags="S")
V6_PACKET = IPv6(src="2001:db8::1", dst="2001:db8::2") / ICMPv6EchoRequest(id=7)
DNS_PACKET = IP() / UDP(dport=53) / DNS(qd=DNSQR(qname="api.example.com"))
ERROR_PACKET = IP(src="192.0.2.9") / ICMP(type=3, code=3) / UDP_PACKET


def captured(packet: Packet) -> Packet:
    """Return the packet as captured: all fields are filled in, then dissected."""
    return Ether(bytes(Ether(src="02:42:ac:11:00:02", dst="02:42:ac:11:00:03") / packet))


@pytest.mark.parametrize(
    ("packet", "template"),
    [
        (UDP_PACKET, IP()),
        (UDP_PACKET, UDP()),
        (UDP_PACKET, Ether() / IP() / UDP()),
        (UDP_PACKET, Ether(src="02:42:AC:11:00:02")),
        (UDP_PACKET, IP(src="192.0.2.1") / UDP(dport=4242)),
        (UDP_PACKET, IP(ttl=63)),
        (UDP_PACKET, IP(ttl=[62, 63])),
        (UDP_PACKET, IP(proto="udp")),
        (UDP_PACKET, UDP(dport=(4000, 5000))),
        (UDP_PACKET, UDP(dport=[(1, 2), (4242, 4242)])),
        (UDP_PACKET, IP(src="192.0.2.0/24")),
        (UDP_PACKET, IP(src=IPv4Address("192.0.2.1"))),
        (UDP_PACKET, IP(src=IPv4Network("192.0.2.0/24"))),
        (UDP_PACKET, IP(src=["198.51.100.1", IPv4Network("192.0.2.0/30")])),
        (UDP_PACKET, UDP() / b"hello"),
        (UDP_PACKET, UDP(chksum=None)),
        (TCP_PACKET, TCP(flags="S")),
        (V6_PACKET, IPv6(src=IPv6Address("2001:db8::1")) / ICMPv6EchoRequest(id=7)),
        (V6_PACKET, IPv6(dst=IPv6Network("2001:db8::/32"))),
        (V6_PACKET, IPv6(dst="2001:DB8:0::2")),
        (DNS_PACKET, DNS(qd=DNSQR(qname="api.example.com"))),
        (DNS_PACKET, DNS(qd=DNSQR())),
        (IP() / UDP(dport=53) / DNS(qd=[]), DNS()),
        (DNS_PACKET, UDP(dport=53) / DNS(qd=[DNSQR(qtype="A")])),
        (DNS_PACKET, UDP() / bytes(DNS_PACKET[DNS])),
        (ERROR_PACKET, IP() / ICMP(type=3) / IP(src="192.0.2.1") / UDP(dport=4242)),
        (ERROR_PACKET, IPerror() / UDPerror(sport=1000)),
        (ARP(op="who-has", pdst="192.0.2.1"), ARP(pdst="192.0.2.1")),
    ],
)
def test_packet_template_compares_only_its_own_fields(packet: Packet, template: Packet) -> None:
    """A template compares only the fields that it sets.

    Outer layers, unset fields and other spellings of a value make no difference.
    """
    assert expect.differences(template, captured(packet)) == ()


@pytest.mark.parametrize(
    ("packet", "template", "expected"),
    [
        (UDP_PACKET, IP(src="192.0.2.9"), [("IP", "src")]),
        (UDP_PACKET, IP(ttl=64) / UDP(dport=53), [("IP", "ttl"), ("UDP", "dport")]),
        (UDP_PACKET, IP(ttl=[64, 65]), [("IP", "ttl")]),
        (UDP_PACKET, UDP(dport=(1, 1023)), [("UDP", "dport")]),
        (UDP_PACKET, IP(src="198.51.100.0/24"), [("IP", "src")]),
        (UDP_PACKET, IP(src=IPv4Network("198.51.100.0/24")), [("IP", "src")]),
        (UDP_PACKET, IP(src=IPv4Address("192.0.2.9")), [("IP", "src")]),
        (UDP_PACKET, UDP() / b"hell", [("Raw", "load")]),
        (UDP_PACKET, IP() / TCP(), [("TCP", "")]),
        (UDP_PACKET, IP() / UDP() / Raw(b"hello") / IP(), [("IP", "")]),
        (UDP_PACKET, IPv6(), [("IPv6", "")]),
        (UDP_PACKET, Ether() / UDP(), [("UDP", "")]),
        (UDP_PACKET, UDP(chksum=1), [("UDP", "chksum")]),
        (UDP_PACKET, IP(chksum=1), [("IP", "chksum")]),
        (UDP_PACKET, Ether(dst="02:42:ac:11:00:09"), [("Ether", "dst")]),
        (TCP_PACKET, TCP(flags="SA"), [("TCP", "flags")]),
        (TCP_PACKET, TCP() / b"x", [("Raw", "load")]),
        (V6_PACKET, IPv6(dst=IPv6Network("2001:db9::/32")), [("IPv6", "dst")]),
        (DNS_PACKET, DNS(qd=DNSQR(qname="example.com")), [("DNS", "qd")]),
        # scapy's default: equal to an empty DNS query, yet it was set.
        (DNS_PACKET, DNS(qd=DNSQR(qname="www.example.com")), [("DNS", "qd")]),
        (IP() / GRE() / IP(), GRE(key_present=1, key=7), [("GRE", "key_present"), ("GRE", "key")]),
        (DNS_PACKET, DNS(qd=[DNSQR(qtype="A"), DNSQR(qtype="AAAA")]), [("DNS", "qd")]),
        (ERROR_PACKET, UDP(), [("UDP", "")]),
        (ERROR_PACKET, IP(src="192.0.2.1"), [("IP", "src")]),
    ],
)
def test_differences_from_a_template_are_named(
    packet: Packet, template: Packet, expected: list[tuple[str, str]]
) -> None:
    """Each differing field and each missing layer is named once."""
    found = expect.differences(template, captured(packet))
    assert [(difference.layer, difference.field) for difference in found] == expected


def test_best_matching_header_of_a_tunnel_is_compared() -> None:
    """Of two headers in a tunnel, the one with fewer differences is compared with the template."""
    packet = captured(IP(src="192.0.2.1") / IP(src="10.0.0.1") / UDP(dport=1))
    assert expect.differences(IP(src="192.0.2.1"), packet) == ()
    assert expect.differences(IP(src="10.0.0.1") / UDP(dport=1), packet) == ()
    (difference,) = expect.differences(IP(src="10.0.0.9") / UDP(dport=1), packet)
    assert difference == expect.PacketDifference("IP", "src", "10.0.0.9", "10.0.0.1")
    # The outer header differs in its next protocol, which counts more than an address.
    (difference,) = expect.differences(IP(src="192.0.2.1") / UDP(dport=1), packet)
    assert difference == expect.PacketDifference("IP", "src", "192.0.2.1", "10.0.0.1")


def test_unfinished_checksum_is_no_difference() -> None:
    """An incomplete checksum above IP is no difference; the checksum of IP is always compared."""
    template = IP(chksum=1) / UDP(chksum=1)
    (difference,) = expect.differences(template, captured(UDP_PACKET), unfinished_checksum=True)
    assert (difference.layer, difference.field) == ("IP", "chksum")
    v6 = IPv6() / ICMPv6EchoRequest(cksum=1)
    assert expect.differences(v6, captured(V6_PACKET), unfinished_checksum=True) == ()
    assert expect.differences(v6, captured(V6_PACKET)) != ()


def test_packet_template_has_a_readable_form() -> None:
    """A message names the layers, fields and values that the template sets."""
    template = IP(src="192.0.2.9", dst=IPv4Network("10.0.0.0/8")) / UDP(dport=53) / b"x"
    written = "IP(src=192.0.2.9, dst=10.0.0.0/8) / UDP(dport=53) / Raw(load=b'x')"
    assert expect.describe(template) == written


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    """Draw IPv4 packets that contain UDP or TCP, with arbitrary fields."""
    network = IP(
        src=str(draw(st.ip_addresses(v=4))),
        dst=str(draw(st.ip_addresses(v=4))),
        ttl=draw(st.integers(1, 255)),
        tos=draw(st.integers(0, 255)),
        id=draw(st.integers(0, 65535)),
    )
    source, target = draw(PORTS), draw(PORTS)
    if draw(st.booleans()):
        return network / UDP(sport=source, dport=target) / draw(st.binary(max_size=20))
    number, flags = draw(st.integers(0, 2**32 - 1)), draw(FLAGS)
    return network / TCP(sport=source, dport=target, seq=number, flags=flags)


# Ports that scapy does not associate with a protocol.
PORTS = st.integers(20000, 30000)
FLAGS = st.sampled_from(["S", "SA", "A", "FA", "R"])


@given(packet=packets(), data=st.data())
def test_one_changed_field_is_the_only_difference(packet: Packet, data: Any) -> None:
    """If one field is changed, only this field differs, and both values are shown.

    An unchanged packet matches itself.
    """
    seen = captured(packet)
    assert expect.differences(packet, seen) == expect.differences(seen, seen) == ()
    layer = data.draw(st.sampled_from([IP, type(packet.payload)]))
    name = data.draw(st.sampled_from(sorted({"ttl", "id"} if layer is IP else {"sport", "dport"})))
    other = data.draw(st.integers(1, 255).filter(lambda value: value != packet[layer].fields[name]))
    packet[layer].fields[name] = other
    assert expect.differences(packet, seen) == (
        expect.PacketDifference(layer.__name__, name, other, seen[layer].fields[name]),
    )
