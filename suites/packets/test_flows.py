"""Flows that share a port, and flows that carry a lot."""

from __future__ import annotations

import contextlib
from typing import Final

import pytest

from harness.model.plan import GATEWAY, HOST, INTERNET, PROTOCOLS, Protocol
from harness.plugin.marks import requirement
from harness.testbench import transfer
from harness.testbench.packets.offload import without_offload
from harness.world.service_protocols import TCP_PORTS
from suites.support.three_containers import ThreeContainers

OWN_PORT: Final = 31045
ECHO: Final = TCP_PORTS["echo"]
SIZE: Final = 4 << 20
"""Bytes of a transfer."""
SHORT: Final = 10_000
"""Bytes of a question, and of its answer."""


@requirement("BR-24")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_two_containers_may_use_the_same_port(trio: ThreeContainers, protocol: Protocol) -> None:
    """Towards one server, at the same time; it tells them apart, and each hears its own answer."""
    options = {"port": ECHO, "own_port": OWN_PORT}
    with (
        trio.capture(INTERNET) as wire,
        trio.call("a", INTERNET, protocol, **options) as one,
        trio.call("b", INTERNET, protocol, **options) as other,
    ):
        one.say(b"from a")
        other.say(b"from b")
        heard = one.hear(), other.hear()
    request = trio.request(protocol, sport=(1, 65535), dport=ECHO)
    requests = wire.matching(trio.ip(HOST, INTERNET) / request)
    port = "id" if protocol is Protocol.ICMP else "sport"
    assert len({frame.packet[type(request)].getfieldval(port) for frame in requests}) == 2
    for name, answer in zip(("a", "b"), heard, strict=True):
        wanted = b'"me": "internet"' if protocol is Protocol.TCP else f"from {name}".encode()
        assert wanted in answer


@requirement("BR-25")
@pytest.mark.parametrize("offload", [True, False], ids=["offloaded", "done in software"])
@pytest.mark.parametrize(
    ("caller", "server"), [("a", "b"), ("a", INTERNET), (GATEWAY, "a"), ("a", GATEWAY)]
)
def test_bulk_tcp_arrives_intact(
    trio: ThreeContainers, caller: str, server: str, *, offload: bool
) -> None:
    """Both ways, with segments and checksums left to the card, and with the container's own."""
    ends = trio.place(caller), trio.place(server), trio.address(server)
    with contextlib.nullcontext() if offload else without_offload(trio.place("a")):
        assert transfer.upload(*ends, SIZE) == transfer.sent(SIZE)
        assert transfer.download(*ends, SIZE) == transfer.sent(SIZE)


@requirement("BR-4", "BR-7", "BR-25")
@pytest.mark.parametrize(("caller", "server"), [("a", "b"), ("a", INTERNET), ("a", GATEWAY)])
def test_who_has_said_all_is_answered(trio: ThreeContainers, caller: str, server: str) -> None:
    """A connection ends by halves: the one side is heard to its end, and then hears the other."""
    ends = trio.place(caller), trio.place(server), trio.address(server)
    assert transfer.in_turn(*ends, SHORT) == (transfer.sent(SHORT), transfer.sent(SHORT))
