"""Tests of captures between two namespaces, and of capture files, which scapy reads."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.utils import RawPcapNgReader

from harness.testbench.packets import pcapng
from harness.testbench.packets.capture import Capture, CaptureLost, Tap
from harness.testbench.packets.packet_ring import WITH_ETHERNET_HEADER, Frame, FrameKind
from linux import rtnetlink
from linux.netlink import Netlink, Request, attributes, number
from linux.netns import NetNS
from tests.support.processes import nothing_stays_open
from tests.world.pair import PORT, pair

ARPHRD_NONE = 0xFFFE

NEAR, FAR = "192.0.2.1", "192.0.2.2"
SERVICE = 4242
IFLA_PROMISCUITY = 30


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[NetNS, NetNS]]:
    """Connect two namespaces by a veth pair with permanent neighbours, so that no ARP is sent."""
    with pair([f"{NEAR}/24", "2001:db8::1/64"], [f"{FAR}/24", "2001:db8::2/64"]) as both:
        with both[0].socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", (FAR, 9))
        yield both


@pytest.fixture(scope="module")
def taps(ends: tuple[NetNS, NetNS]) -> Iterator[list[Tap]]:
    """Open a tap at each end.

    The far tap is opened first, so that the taps are not in the order of a packet's path.
    """
    with Tap(ends[1], "eth0", owner="far") as far, Tap(ends[0], "eth0", owner="near") as near:
        yield [far, near]


@pytest.fixture(scope="module")
def everywhere(ends: tuple[NetNS, NetNS]) -> Iterator[Tap]:
    """Open one tap on all interfaces of the near end."""
    with Tap(ends[0], owner="near") as tap:
        yield tap


@pytest.fixture
def sock(ends: tuple[NetNS, NetNS]) -> Iterator[socket.socket]:
    """Open a UDP socket at the near end."""
    with ends[0].socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        yield opened


def test_packet_is_captured_at_every_tap(taps: list[Tap], sock: socket.socket) -> None:
    """A packet is captured at the tap of each end, and so is its reply."""
    before = time.time_ns()
    with Capture(taps) as wire:
        sock.sendto(b"hello", (FAR, SERVICE))
    after = time.time_ns()
    sent = IP(src=NEAR, dst=FAR, ttl=64) / UDP(dport=SERVICE) / b"hello"
    refused = IP(src=FAR) / ICMP(type=3, code=3) / IP(dst=FAR) / UDP(dport=SERVICE)
    story = [
        (wire.expect_one(sent, at="near/eth0"), FrameKind.OUTGOING),
        (wire.expect_one(sent, at="far/eth0"), FrameKind.HOST),
        (wire.expect_one(refused, at="far/eth0"), FrameKind.OUTGOING),
        (wire.expect_one(refused, at="near/eth0"), FrameKind.HOST),
    ]
    stamps = [frame.at for frame, _ in story]
    assert before <= stamps[0] < stamps[1] < stamps[2] < stamps[3] <= after
    assert [frame.kind for frame, _ in story] == [kind for _, kind in story]
    assert {frame.length for frame in wire.matching(sent)} == {14 + 20 + 8 + 5}


def test_frames_are_in_order_of_time(taps: list[Tap], sock: socket.socket) -> None:
    """The frames of several taps are sorted by time.

    Regression: the first frames of a new socket had the time of reading, tap by tap.
    """
    for _ in range(20):
        with Capture(taps) as wire:
            sock.sendto(b"", (FAR, SERVICE))
        seen = [frame.where for frame in wire.frames() if frame.packet.haslayer(UDP)]
        assert seen == ["near/eth0", "far/eth0"]


def test_capture_has_only_packets_of_its_block(taps: list[Tap], sock: socket.socket) -> None:
    """A capture has only the packets sent within its `with` block.

    It can be read before the block ends.
    """
    sock.sendto(b"before", (FAR, SERVICE))
    with Capture(taps) as wire:
        wire.expect_none(UDP(dport=SERVICE))
        sock.sendto(b"inside", (FAR, SERVICE))
        wire.expect_one(UDP(dport=SERVICE), at="far/eth0")
    sock.sendto(b"after", (FAR, SERVICE))
    wire.expect_one(UDP(dport=SERVICE), at="far/eth0")
    wire.expect_only(UDP(dport=SERVICE), ICMP(type=3))


def test_tap_on_all_interfaces_names_interface_of_each_frame(
    everywhere: Tap, sock: socket.socket
) -> None:
    """With a tap on all interfaces, each frame has the name of its interface."""
    with Capture([everywhere]) as wire:
        sock.sendto(b"out", (FAR, SERVICE))
        sock.sendto(b"in", (NEAR, SERVICE))
    wire.expect_one(UDP() / b"out", at="near/eth0")
    wire.expect_none(UDP() / b"out", at="near/lo")
    assert {frame.where for frame in wire.matching(UDP() / b"in")} == {"near/lo"}
    assert [frame.outgoing for frame in wire.matching(UDP() / b"in")] == [True, False]


def test_frames_of_removed_interface_have_its_index(
    everywhere: Tap, ends: tuple[NetNS, NetNS]
) -> None:
    """Frames of a removed interface are kept; the interface's index is in place of the name."""
    with Netlink(ends[0]) as netlink, Capture([everywhere]) as wire:
        netlink.send([rtnetlink.add_bridge("gone", index=77)])
        with ends[0].socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
            raw.bind(("gone", 0))
            raw.send(bytes(Ether() / IP() / UDP(dport=SERVICE)))
        netlink.send([rtnetlink.del_link("gone")])
    assert wire.expect_one(UDP(dport=SERVICE)).where == "near/if77"


def test_unfinished_checksum_is_marked(
    taps: list[Tap], ends: tuple[NetNS, NetNS], sock: socket.socket
) -> None:
    """A frame whose checksum the kernel has not computed yet is marked as such.

    A wrong checksum is not excused. The kernel's own datagrams lack their checksum when a tap
    captures them.
    """
    wrong = Ether(dst=b"\xff" * 6) / IP(src=NEAR, dst=FAR) / UDP(dport=SERVICE, chksum=1) / b"raw"
    with Capture(taps) as wire, ends[0].socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        sock.sendto(b"cooked", (FAR, SERVICE))
        raw.bind(("eth0", 0))
        raw.send(bytes(wrong))
    wire.expect_one(UDP(chksum=0xDEAD) / b"cooked", at="far/eth0")
    wire.expect_one(UDP(chksum=1) / b"raw", at="far/eth0")
    wire.expect_none(UDP(chksum=0xDEAD) / b"raw")


def test_captured_frame_has_its_vlan_tag(taps: list[Tap], ends: tuple[NetNS, NetNS]) -> None:
    """A captured frame has its VLAN tag, which the kernel stores apart from the frame."""
    sent = bytes(Ether(dst=b"\xff" * 6) / Dot1Q(vlan=7, prio=3) / IP() / UDP(dport=SERVICE))
    with Capture(taps) as wire, ends[0].socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind(("eth0", 0))
        raw.send(sent)
    frame = wire.expect_one(Dot1Q(vlan=7, prio=3) / IP() / UDP(), at="far/eth0")
    assert (frame.data, frame.length, frame.kind) == (sent, len(sent), FrameKind.BROADCAST)


def test_truncated_frame_keeps_its_original_length(ends: tuple[NetNS, NetNS]) -> None:
    """A frame longer than a slot of the ring is truncated, and its original length is known."""
    with (
        ends[0].socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        Tap(ends[0], "lo") as tap,
        Capture([tap]) as wire,
    ):
        sock.sendto(bytes(9000), ("127.0.0.1", SERVICE))
    frame = wire.matching(IP() / UDP(dport=SERVICE), at="lo")[0]
    assert frame.length == 14 + 20 + 8 + 9000
    assert 1500 < len(frame.data) < 2048


def test_frame_of_mtu_size_is_captured_completely(taps: list[Tap], sock: socket.socket) -> None:
    """A frame of up to 1500 bytes, the usual MTU, is captured completely."""
    data = os.urandom(1472)
    with Capture(taps) as wire:
        sock.sendto(data, (FAR, SERVICE))
    wire.expect_one(UDP() / data, at="far/eth0")


def flood(sock: socket.socket) -> None:
    """Send more packets than a small ring can hold."""
    for _ in range(200):
        sock.sendto(b"", (FAR, SERVICE))


@pytest.fixture
def small(ends: tuple[NetNS, NetNS]) -> Iterator[Tap]:
    """Open a tap with a small ring buffer."""
    with Tap(ends[1], "eth0", owner="far", slots=64) as tap:
        yield tap


def test_overflow_of_a_tap_fails_every_expectation(
    small: Tap, sock: socket.socket, tmp_path: Path
) -> None:
    """If a tap's ring overflows, every expectation of the capture fails.

    The number of lost frames is in the error, and the others can be written to a file. The next
    capture is not affected.
    """
    wire = Capture([small])
    with pytest.raises(CaptureLost, match=r"lost \d+ at far/eth0\. Call drain\(\) in betw"), wire:
        flood(sock)
    with pytest.raises(CaptureLost):
        wire.expect_none(TCP())
    wire.write(tmp_path / "wire.pcapng")
    assert len(read(tmp_path / "wire.pcapng")[1]) == 64
    flood(sock)
    with Capture([small]) as again:
        sock.sendto(b"again", (FAR, SERVICE))
    again.expect_one(UDP())
    again.expect_one(UDP() / b"again")


def test_regularly_drained_capture_loses_no_frame(small: Tap, sock: socket.socket) -> None:
    """A capture loses no frame if `drain` collects the frames often enough."""
    with Capture([small]) as wire:
        for _ in range(200):
            sock.sendto(b"", (FAR, SERVICE))
            wire.drain()
    assert len(wire.matching(UDP(dport=SERVICE))) == 200


def test_tap_serves_one_capture_at_a_time(taps: list[Tap]) -> None:
    """A tap serves one capture at a time.

    Two captures at one tap would take frames from each other. If the body of a capture
    raises an error, the next capture can open its taps.
    """
    taken = r"active at far/eth0, near/eth0"
    with Capture(taps), pytest.raises(RuntimeError, match=taken), Capture(taps):
        pass
    with pytest.raises(ZeroDivisionError), Capture(taps):
        raise ZeroDivisionError
    with Capture(taps):
        pass


def test_expectation_at_unknown_interface_is_an_error(taps: list[Tap], everywhere: Tap) -> None:
    """An expectation at an interface without a tap is an error, even for `expect_none`."""
    with Capture([*taps, everywhere]) as wire:
        with pytest.raises(ValueError, match="no tap captures at 'eth0', only at far/eth0, n"):
            wire.expect_none(IP(), at="eth0")
        wire.expect_none(UDP(), at="near/lo")


def test_error_for_unknown_interface_names_interface_and_netns(ends: tuple[NetNS, NetNS]) -> None:
    """A capture at an unknown interface raises an error with interface and namespace.

    No socket stays open.
    """
    with nothing_stays_open():
        with pytest.raises(
            OSError, match=r"cannot capture at far/eth7: No such device\. The inter"
        ):
            Tap(ends[1], "eth7", owner="far")
        with Tap(ends[1], "eth0"):
            pass


def test_tap_does_not_make_its_interface_promiscuous(
    taps: list[Tap], ends: tuple[NetNS, NetNS]
) -> None:
    """A tap does not make its interface promiscuous."""
    with Capture(taps), Netlink(ends[0]) as netlink:
        (answer,) = netlink.ask(
            Request(rtnetlink.RTM_GETLINK, 0, rtnetlink.link_body(index=PORT), "look up eth0")
        )
    promiscuity = dict(attributes(answer, rtnetlink.LINK.size))[IFLA_PROMISCUITY]
    assert number(promiscuity) == 0


def read(path: Path) -> tuple[list[Any], list[tuple[bytes, Any]]]:
    """Return the interfaces and packets of a capture file, as scapy reads them."""
    reader: Any = RawPcapNgReader(str(path))
    with reader:
        packets = list(reader)
    return reader.interfaces, packets


def test_written_capture_has_taps_and_ordered_packets(
    taps: list[Tap], sock: socket.socket, tmp_path: Path
) -> None:
    """A written capture file names every tap and has the packets in order of time."""
    file = tmp_path / "wire.pcapng"
    with Tap(taps[0]._netns, "lo", owner="far") as idle, Capture([*taps, idle]) as wire:
        sock.sendto(b"", (FAR, SERVICE))
    first = wire.frames()[0]
    wire.write(file, comment="nothing came through", comments={first: "the first"})
    interfaces, packets = read(file)
    assert [options["name"] for *_, options in interfaces] == [b"far/eth0", b"near/eth0", b"far/lo"]
    assert [data for data, _ in packets] == [frame.data for frame in wire.frames()]
    assert packets[0][1].comments == [b"the first"]
    assert b"nothing came through" in file.read_bytes()


@pytest.mark.parametrize("packet", [IP() / UDP(), IPv6() / UDP()])
def test_frame_without_ethernet_header_is_dissected_by_ip_version(packet: IP | IPv6) -> None:
    """A frame without an Ethernet header is dissected as IPv4 or IPv6 by its version field."""
    ethernet = ARPHRD_NONE in WITH_ETHERNET_HEADER  # the type of a tun interface
    frame = Frame("tun0", 0, FrameKind.HOST, 28, bytes(packet), ethernet=ethernet)
    assert type(frame.packet) is type(packet)
    assert str(frame).startswith("tun0 in  IP")


@given(
    frames=st.lists(
        st.builds(
            Frame,
            where=st.sampled_from(["a/eth0", "b/eth0", "x"]),
            at=st.integers(0, 2**64 - 1),
            kind=st.sampled_from(FrameKind),
            length=st.integers(60, 70000),
            data=st.binary(min_size=14, max_size=60),
            ethernet=st.booleans(),
        )
    ),
    comment=st.text(st.characters(codec="utf-8"), max_size=30),
)
def test_written_frames_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, frames: list[Frame], comment: str
) -> None:
    """A written frame is read back with all its properties.

    The properties are bytes, interface, link type, time in nanoseconds, direction, length and
    comment.
    """
    file = tmp_path_factory.getbasetemp() / "frames.pcapng"
    pcapng.write(file, frames, comment=comment, comments=dict.fromkeys(frames, comment))
    for (data, meta), frame in zip(read(file)[1], frames, strict=True):
        assert (data, meta.ifname.decode()) == (frame.data, frame.where)
        assert meta.linktype == (1 if frame.ethernet else 101)
        assert (int(meta.tshigh) << 32 | int(meta.tslow), meta.tsresol) == (frame.at, 10**9)
        assert meta.direction == (2 if frame.outgoing else 1)
        assert meta.wirelen == frame.length
        assert meta.comments == ([comment.encode()] if comment else None)
