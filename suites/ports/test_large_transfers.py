"""Large TCP transfers and large datagrams through a published port."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Final

import pytest

from harness.model.plan import ATTACKER, HOST, Family
from harness.plugin.marks import requirement
from harness.testbench.client import round_trip
from harness.testbench.listener import ANYWHERE, End
from harness.testbench.scene import LOOPBACKS, Scene
from harness.testbench.transfer import Transfer, expected
from suites.ports.published import INSIDE, PORTS, inner_family, reaches_host

SIZE: Final = 1 << 20
"""Length of a transfer in bytes."""
SHORT: Final = 10_000
"""Bytes of a request, and of its response."""
TIMES: Final = 5
"""Number of aborted connections: a failure may depend on the order of events."""
DATAGRAM: Final = hashlib.shake_128(b"too much for one frame").digest(8000)

callers = pytest.mark.parametrize(
    "caller", [ATTACKER, "peer", pytest.param(HOST, id="host-loopback")]
)
groups = pytest.mark.parametrize(
    "sources", [(ATTACKER, "peer"), (HOST,)], ids=["lan-and-peer", "host-loopback"]
)


@requirement("PUB-1", "BR-25")
@callers
def test_large_tcp_transfer_through_published_port_arrives_intact(
    ports_scene: Scene, family: Family, caller: str
) -> None:
    """A large TCP transfer through a published port arrives intact in both directions."""
    transfer = through_port(ports_scene, caller, family)
    assert transfer.upload(SIZE) == transfer.download(SIZE) == expected(SIZE)


@requirement("PUB-1")
@groups
def test_half_closed_connection_through_published_port_receives_response(
    ports_scene: Scene, family: Family, sources: Collection[str]
) -> None:
    """A client that closes its sending side still gets the response of a published port."""
    for transfer in transfers(ports_scene, family, sources):
        assert transfer.half_closed(SHORT) == (expected(SHORT), expected(SHORT))


@requirement("PUB-1", "BR-23")
@callers
def test_datagram_of_8000_bytes_through_published_port_is_echoed(
    ports_scene: Scene, family: Family, caller: str
) -> None:
    """A datagram of 8000 bytes to a published port arrives in fragments and is echoed."""
    ends = (
        ports_scene.netns(caller),
        ports_scene.netns("published"),
        ANYWHERE[inner_family(ports_scene.runtime, family)],
    )
    by = called(ports_scene, caller, family, PORTS["udp"])
    assert round_trip(*ends, DATAGRAM, port=INSIDE, by=by) == (DATAGRAM, DATAGRAM)


@requirement("PUB-1")
@groups
def test_aborted_connection_through_published_port_affects_no_other(
    ports_scene: Scene, family: Family, sources: Collection[str]
) -> None:
    """If one side aborts a transfer through a published port, the other side gets a reset.

    The next connection works.
    """
    for transfer in transfers(ports_scene, family, sources):
        for by_caller in (True, False) * TIMES:
            assert transfer.abort_while_sending(by_caller=by_caller)
        assert transfer.upload(SIZE) == expected(SIZE)


@requirement("PUB-14")
@groups
def test_reset_through_published_port_is_not_an_end_of_stream(
    ports_scene: Scene, family: Family, sources: Collection[str]
) -> None:
    """A reset through a published port after data has arrived does not become an end of stream."""
    for transfer in transfers(ports_scene, family, sources):
        for by_caller in (True, False):
            assert transfer.reset_after_delivery(by_caller=by_caller), by_caller


def transfers(ports_scene: Scene, family: Family, sources: Collection[str]) -> Iterator[Transfer]:
    """Yield a transfer for each client that reaches the host's address."""
    for caller in sources:
        transfer = through_port(ports_scene, caller, family)
        assert transfer.by
        if reaches_host(ports_scene, caller, transfer.by[0]):
            yield transfer


def through_port(ports_scene: Scene, caller: str, family: Family) -> Transfer:
    """Return a transfer from a client to the container through its published port."""
    at = ANYWHERE[inner_family(ports_scene.runtime, family)]
    by = called(ports_scene, caller, family, PORTS["tcp"])
    return Transfer(
        ports_scene.netns(caller), ports_scene.netns("published"), at, port=INSIDE, by=by
    )


def called(ports_scene: Scene, caller: str, family: Family, port: int) -> End:
    """Return the address and port that a client connects to; the host connects to its loopback."""
    own = LOOPBACKS[family] if caller == HOST else ports_scene.world.address(HOST, family)
    return own, port
