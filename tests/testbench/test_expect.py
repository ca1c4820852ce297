"""Expectations about frames, and their failure messages."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6MLReport2, ICMPv6ND_NS, IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

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


def test_one_returns_the_frame() -> None:
    """The frame that is like the template can be examined further."""
    assert expect.one([REQUEST, REPLY], UDP(dport=4242)) is REQUEST


def test_one_names_the_nearest_frame_and_its_difference() -> None:
    """A failure begins with the packet that came closest, and its difference."""
    with pytest.raises(AssertionError) as failure:
        expect.one([ERROR, REPLY, REQUEST], IP(src="172.17.0.2") / UDP(dport=4242))
    lines = str(failure.value).splitlines()
    assert lines[0] == (
        "no frame is like IP(src=172.17.0.2) / UDP(dport=4242); of 3 captured these come nearest:"
    )
    assert "198.51.100.7:1 > 203.0.113.10:4242" in lines[1]
    assert lines[2].strip() == "IP.src is 198.51.100.7, not 172.17.0.2"
    assert lines[-1].strip() == "there is no UDP there"


def test_one_shows_at_most_six_frames() -> None:
    """Among a thousand packets only the nearest are listed."""
    with pytest.raises(AssertionError) as failure:
        expect.one([REQUEST] * 1000, UDP(dport=1))
    assert str(failure.value).count("internet/eth0") == expect.SHOWN == 6


def test_one_reports_an_empty_capture() -> None:
    """An empty capture is told apart from one without a match."""
    with pytest.raises(AssertionError, match="nothing at all was captured"):
        expect.one([], IP())


def test_one_rejects_two_frames() -> None:
    """Both are listed."""
    with pytest.raises(AssertionError, match=r"2 frames are like UDP\(\), not one:") as failure:
        expect.one([REQUEST, ERROR, REPLY], UDP())
    assert "ICMP" not in str(failure.value)


def test_one_each_rejects_more_than_were_sent() -> None:
    """A SYN is retransmitted after a second: two errors for one SYN are too many."""
    told, sent = ICMP(type=11), UDP(dport=4242)
    expect.one_each([REQUEST, ERROR], told, to=sent)
    expect.one_each([REQUEST, ERROR, REQUEST, ERROR], told, to=sent)
    expect.one_each([REQUEST, REQUEST, ERROR], told, to=sent)
    expect.one_each([ERROR], told, to=sent)
    with pytest.raises(AssertionError, match=r"2 frames are like .*, though 1 were sent:"):
        expect.one_each([REQUEST, ERROR, ERROR], told, to=sent)
    with pytest.raises(AssertionError, match=r"2 frames are like .*, though 0 were sent:"):
        expect.one_each([ERROR, ERROR], told, to=sent)
    with pytest.raises(AssertionError, match="no frame is like"):
        expect.one_each([REQUEST], told, to=sent)


def test_none_lists_matching_frames() -> None:
    """Other frames are not listed."""
    expect.none([REQUEST, REPLY], ICMP(), IP(src="10.0.0.0/8"))
    with pytest.raises(AssertionError, match=r"like ICMP\(\), yet 1 are:\n .*192\.0\.2\.1"):
        expect.none([REQUEST, ERROR], UDP(dport=7), ICMP())


def test_long_list_is_truncated_and_counted() -> None:
    """The number of frames is complete, the list has six."""
    with pytest.raises(AssertionError, match=r"yet 20 are:(?s:.*)… and 14 more$") as failure:
        expect.none([REQUEST] * 20, UDP())
    assert str(failure.value).count("internet/eth0") == expect.SHOWN


def test_only_accepts_each_template_and_housekeeping() -> None:
    """Every template is met, by any number of frames."""
    expect.only([REQUEST, REPLY, REPLY, *HOUSEKEEPING], UDP(dport=4242), UDP(sport=4242))


def test_only_names_other_frames() -> None:
    """A frame that no template is like is listed."""
    with pytest.raises(AssertionError, match=r"besides UDP\(\) there were 1 others:\n .*ICMP"):
        expect.only([REQUEST, ERROR, *HOUSEKEEPING], UDP())


def test_only_rejects_an_empty_capture() -> None:
    """A template without a frame is a failure."""
    with pytest.raises(AssertionError, match="nothing at all was captured"):
        expect.only([], UDP())
    with pytest.raises(AssertionError, match=r"no frame is like ICMP\(\)"):
        expect.only([REQUEST], UDP(), ICMP())


def test_unfinished_checksum_is_not_compared() -> None:
    """The frame itself says whether its checksum can be compared."""
    template = UDP(chksum=0xBEEF)
    expect.none([frame(IP() / UDP())], template)
    expect.one([frame(IP() / UDP(), unfinished_checksum=True)], template)
