"""Captures as files, read by an independent reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgReader

from harness.testbench.packets import pcapng
from harness.testbench.packets.packet_ring import Frame, FrameKind

DATA = bytes(Ether() / IP() / UDP() / b"odd")


def read(path: Path) -> tuple[list[Any], list[tuple[bytes, Any]]]:
    """Return interfaces and packets of a file, by scapy's reader."""
    reader: Any = RawPcapNgReader(str(path))
    with reader:
        packets = list(reader)
    return reader.interfaces, packets


def stamp(meta: Any) -> int:
    """Return a packet's time in units of its interface's resolution."""
    return int(meta.tshigh) << 32 | int(meta.tslow)


def test_frame_is_written_completely(tmp_path: Path) -> None:
    """Interface, time to the nanosecond, direction, length on the wire, bytes and comment."""
    sent = Frame("a/eth0", 1_700_000_000_123_456_789, FrameKind.OUTGOING, 3000, DATA)
    came = Frame("b/eth0", 1_700_000_000_123_456_999, FrameKind.HOST, len(DATA), DATA)
    file = tmp_path / "wire.pcapng"
    pcapng.write(file, [sent, came], comments={came: "dropped here: chain FORWARD"})
    _, ((first, one), (second, two)) = read(file)
    assert (first, second) == (DATA, DATA)
    assert (one.ifname, two.ifname) == (b"a/eth0", b"b/eth0")
    assert (stamp(one), stamp(two)) == (sent.at, came.at)
    assert (one.tsresol, two.tsresol) == (10**9, 10**9)
    assert (one.direction, two.direction) == (2, 1)
    assert (one.wirelen, two.wirelen) == (3000, len(DATA))
    assert (one.comments, two.comments) == (None, [b"dropped here: chain FORWARD"])


def test_tap_without_frames_is_named(tmp_path: Path) -> None:
    """Where nothing arrived is evidence too."""
    file = tmp_path / "wire.pcapng"
    pcapng.write(file, [], interfaces=["a/eth0", "b/eth0"], comment="nothing came through")
    interfaces, packets = read(file)
    assert [options["name"] for _, _, options in interfaces] == [b"a/eth0", b"b/eth0"]
    assert packets == []
    assert b"nothing came through" in file.read_bytes()


def test_interface_with_and_without_ethernet_is_two(tmp_path: Path) -> None:
    """A reader dissects by link type, and an interface has only one."""
    file = tmp_path / "wire.pcapng"
    bare = Frame("a/tun0", 1, FrameKind.HOST, 28, DATA[14:], ethernet=False)
    pcapng.write(file, [bare, Frame("a/eth0", 2, FrameKind.HOST, len(DATA), DATA)])
    interfaces, packets = read(file)
    assert [link for link, _, _ in interfaces] == [101, 1]
    assert [meta.linktype for _, meta in packets] == [101, 1]


@given(
    frames=st.lists(
        st.builds(
            Frame,
            where=st.sampled_from(["a/eth0", "b/eth0", "x"]),
            at=st.integers(0, 2**64 - 1),
            kind=st.sampled_from(FrameKind),
            length=st.integers(60, 70000),
            data=st.binary(min_size=14, max_size=60),
        )
    ),
    comment=st.text(st.characters(codec="utf-8"), max_size=30),
)
def test_written_frames_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, frames: list[Frame], comment: str
) -> None:
    """Any sequence of frames, of any length."""
    file = tmp_path_factory.getbasetemp() / "whatever.pcapng"
    pcapng.write(file, frames, comment=comment, comments=dict.fromkeys(frames, comment))
    _, packets = read(file)
    assert [(data, meta.ifname.decode(), stamp(meta), meta.wirelen) for data, meta in packets] == [
        (frame.data, frame.where, frame.at, frame.length) for frame in frames
    ]
