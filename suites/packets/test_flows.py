"""Flows with the same source port, and large transfers."""

from __future__ import annotations

import contextlib
from typing import Final

import pytest

from harness.model.plan import GATEWAY, HOST, INTERNET, PROTOCOLS, Protocol
from harness.plugin.marks import requirement
from harness.testbench.packets.offload import without_offload
from harness.testbench.transfer import Transfer, expected
from harness.world.service_protocols import TCP_PORTS
from suites.support.three_containers import ThreeContainers

OWN_PORT: Final = 31045
ECHO: Final = TCP_PORTS["echo"]
SIZE: Final = 4 << 20
"""Length of a transfer in bytes."""
SHORT: Final = 10_000
"""Bytes of a request and of its response."""


@requirement("BR-24")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_two_containers_with_same_source_port_receive_their_own_replies(
    trio: ThreeContainers, protocol: Protocol
) -> None:
    """Two containers that send from the same source port to one server get their own replies."""
    options = {"port": ECHO, "own_port": OWN_PORT}
    with (
        trio.capture(INTERNET) as wire,
        trio.client("a", INTERNET, protocol, **options) as one,
        trio.client("b", INTERNET, protocol, **options) as other,
    ):
        one.send(b"from a")
        other.send(b"from b")
        received = one.receive(), other.receive()
    request = trio.request(protocol, sport=(1, 65535), dport=ECHO)
    requests = wire.matching(trio.ip(HOST, INTERNET) / request)
    port = "id" if protocol is Protocol.ICMP else "sport"
    assert len({frame.packet[type(request)].getfieldval(port) for frame in requests}) == 2
    for name, answer in zip(("a", "b"), received, strict=True):
        wanted = b'"me": "internet"' if protocol is Protocol.TCP else f"from {name}".encode()
        assert wanted in answer


@requirement("BR-25")
@pytest.mark.parametrize("offload", [True, False], ids=["with-offload", "without-offload"])
@pytest.mark.parametrize(
    ("caller", "server"), [("a", "b"), ("a", INTERNET), (GATEWAY, "a"), ("a", GATEWAY)]
)
def test_large_tcp_transfer_arrives_intact(
    trio: ThreeContainers, caller: str, server: str, *, offload: bool
) -> None:
    """A large TCP transfer arrives intact in both directions, with offloads on and off."""
    transfer = Transfer(trio.netns(caller), trio.netns(server), trio.address(server))
    with contextlib.nullcontext() if offload else without_offload(trio.netns("a")):
        assert transfer.upload(SIZE) == transfer.download(SIZE) == expected(SIZE)


@requirement("BR-4", "BR-7", "BR-25")
@pytest.mark.parametrize(("caller", "server"), [("a", "b"), ("a", INTERNET), ("a", GATEWAY)])
def test_half_closed_connection_receives_its_response(
    trio: ThreeContainers, caller: str, server: str
) -> None:
    """A client that closes its sending side still receives the server's response."""
    transfer = Transfer(trio.netns(caller), trio.netns(server), trio.address(server))
    assert transfer.half_closed(SHORT) == (expected(SHORT), expected(SHORT))
