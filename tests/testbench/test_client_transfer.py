"""Tests of clients, bulk transfers, offloads and shared taps on a veth pair."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import UDP

from harness.model.plan import FAMILIES, Family, Protocol
from harness.model.topology import Address
from harness.probe.quiescence import Quiet
from harness.testbench.client import Client, round_trip
from harness.testbench.netns_view import NetnsView, fixed
from harness.testbench.packets import craft
from harness.testbench.packets.capture import TapPool
from harness.testbench.packets.offload import without_offload
from harness.testbench.transfer import Transfer, expected
from harness.world.service_protocols import TCP_PORTS
from harness.world.services import Services
from tests.world.pair import pair

NEAR = ("192.0.2.1/24", "2001:db8::1/64")
FAR = ("192.0.2.2/24", "2001:db8::2/64")
FAR_ADDRESS: dict[int, Address] = {4: ip_address("192.0.2.2"), 6: ip_address("2001:db8::2")}
CLOSED = 4243
ECHO = TCP_PORTS["echo"]
LONGEST_FRAME = 14 + 1500

Ends = tuple[NetnsView, NetnsView]


@pytest.fixture(scope="module")
def ends() -> Iterator[Ends]:
    """Create the namespaces of a client and of a server."""
    with (
        pair(NEAR, FAR) as (near, far),
        Services.start({"far": (far, list(FAR_ADDRESS.values()))}),
    ):
        yield fixed("near", near), fixed("far", far)


@pytest.fixture(scope="module")
def wires(ends: Ends) -> Iterator[TapPool]:
    """Open taps at both ends."""
    with TapPool() as opened:
        yield opened


def settle(ends: Ends) -> None:
    """Return once no packet is in transit between the two namespaces."""
    with ends[0].open() as near, ends[1].open() as far, Quiet(near, [near, far]) as quiet:
        quiet.wait()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", list(Protocol))
def test_client_message_gets_a_reply(
    ends: Ends, wires: TapPool, family: Family, protocol: Protocol
) -> None:
    """A client's message gets a reply, and its request has the requested port and TTL."""
    options: dict[str, Any] = {"port": ECHO, "own_port": 40001, "ttl": 9}
    with (
        wires.capture(ends[1]) as wire,
        Client(ends[0], protocol, FAR_ADDRESS[family], **options) as call,
    ):
        assert call.own_port == 40001
        call.send(b"a word")
        answer = call.receive()
        assert answer == b"a word" if protocol is Protocol.ICMP else b'"me": "far"' in answer
        assert call.error() == ""
    request = craft.request(family, protocol, sport=40001, dport=ECHO)
    wire.expect_one(craft.ip(family, dst=FAR_ADDRESS[family], ttl=9) / request)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("protocol", "error"), [(Protocol.UDP, "port-unreachable"), (Protocol.TCP, "reset")]
)
def test_client_reports_the_error_of_a_refused_message(
    ends: Ends, family: Family, protocol: Protocol, error: str
) -> None:
    """`Client.error` returns the name of a refused message's error, also when called again."""
    with Client(ends[0], protocol, FAR_ADDRESS[family], port=CLOSED) as call:
        call.send(b"anybody?")
        settle(ends)
        assert call.error() == error
        assert call.error() == error


@pytest.mark.parametrize("family", FAMILIES)
def test_unfragmentable_message_larger_than_mtu_is_refused(ends: Ends, family: Family) -> None:
    """The client's kernel refuses a message with the DF bit if it exceeds the known path MTU."""
    with Client(ends[0], Protocol.UDP, FAR_ADDRESS[family], port=ECHO, whole=True) as call:
        assert call.mtu == 1500
        with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
            call.send(bytes(1500))


def test_client_message_without_reply_is_an_error(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no reply arrives, the client raises an error that names the target.

    It says that no ICMP error arrived either.
    """
    monkeypatch.setattr("harness.testbench.client.BOUND", 0.01)
    with (
        Client(ends[0], Protocol.UDP, FAR_ADDRESS[4], port=ECHO) as call,
        pytest.raises(TimeoutError, match=r"udp from near to 192\.0\.2\.2 port 7: .* and no error"),
    ):
        call.receive()


@pytest.mark.parametrize("family", FAMILIES)
def test_long_datagram_survives_fragmentation(ends: Ends, family: Family) -> None:
    """A long datagram is fragmented, reassembled, and returned unchanged."""
    data = bytes(range(250)) * 40
    assert round_trip(*ends, FAR_ADDRESS[family], data) == (data, data)


@pytest.mark.parametrize("family", FAMILIES)
def test_transfer_arrives_unchanged(ends: Ends, family: Family) -> None:
    """Uploads and downloads arrive unchanged.

    Data of a different size has a different digest.
    """
    transfer, size = Transfer(*ends, FAR_ADDRESS[family]), 1 << 20
    assert transfer.upload(size) == transfer.download(size) == expected(size) != expected(size - 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("by_caller", [True, False])
def test_reset_differs_from_end_of_stream(
    ends: Ends, family: Family, monkeypatch: pytest.MonkeyPatch, *, by_caller: bool
) -> None:
    """A reset and an end of stream are different results of a transfer."""
    transfer = Transfer(*ends, FAR_ADDRESS[family])
    assert transfer.reset_after_delivery(by_caller=by_caller)
    monkeypatch.setattr("harness.testbench.transfer._reset", socket.socket.close)
    monkeypatch.setattr("harness.testbench.transfer.RESET_ON_CLOSE", struct.pack("ii", 0, 0))
    assert not transfer.reset_after_delivery(by_caller=by_caller)


def test_captured_packets_without_offload_fit_the_mtu(ends: Ends, wires: TapPool) -> None:
    """With offloads disabled, captured segments have at most the MTU and complete checksums.

    Afterwards the offloads are enabled again.
    """

    def sent() -> list[tuple[bool, bool]]:
        with wires.capture(ends[0]) as wire:
            Transfer(*ends, FAR_ADDRESS[4]).upload(200_000)
        frames = [frame for frame in wire.frames() if frame.outgoing]
        return [(frame.length > LONGEST_FRAME, frame.unfinished_checksum) for frame in frames]

    with without_offload(ends[0]):
        assert set(sent()) == {(False, False)}
    assert any(long and unfinished for long, unfinished in sent())


def test_second_capture_reuses_a_tap(ends: Ends, wires: TapPool) -> None:
    """A second capture uses the same tap as the first one, but has none of its frames."""
    for word in (b"first", b"second"):
        with wires.capture(*ends) as wire, Client(ends[0], Protocol.UDP, FAR_ADDRESS[4]) as call:
            call.send(word)
            settle(ends)
        frames = wire.matching(UDP())
        assert {bytes(frame.packet[UDP].payload) for frame in frames} == {word}
    assert wires.tap(ends[0]) is wires.tap(ends[0])
