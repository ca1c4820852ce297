"""A lot of data by a published port: long streams, and datagrams that fit no link."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Final

import pytest

from harness.model.plan import ATTACKER, HOST, Family
from harness.model.topology import Address
from harness.plugin.marks import requirement
from harness.testbench import transfer
from harness.testbench.client import round_trip
from harness.testbench.listener import ANYWHERE, End
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import LOOPBACKS, Scene
from suites.ports.published import INSIDE, PORTS, inner_family, reaches_host

SIZE: Final = 1 << 20
"""Bytes of a transfer."""
SHORT: Final = 10_000
"""Bytes of a request, and of its response."""
TIMES: Final = 5
"""Number of aborted calls: the effect may depend on the order of events."""
DATAGRAM: Final = hashlib.shake_128(b"too much for one frame").digest(8000)

callers = pytest.mark.parametrize(
    "caller", [ATTACKER, "peer", pytest.param(HOST, id="the host by its loopback")]
)
groups = pytest.mark.parametrize(
    "sources", [(ATTACKER, "peer"), (HOST,)], ids=["others", "the host by its loopback"]
)


@requirement("PUB-1", "BR-25")
@callers
def test_large_tcp_transfer_arrives_intact(ports_scene: Scene, family: Family, caller: str) -> None:
    """In both directions."""
    ends = (
        ports_scene.place(caller),
        ports_scene.place("published"),
        ANYWHERE[inner_family(ports_scene.runtime, family)],
    )
    by = called(ports_scene, caller, family, PORTS["tcp"])
    assert transfer.upload(*ends, SIZE, port=INSIDE, by=by) == transfer.expected(SIZE)
    assert transfer.download(*ends, SIZE, port=INSIDE, by=by) == transfer.expected(SIZE)


@requirement("PUB-1")
@groups
def test_half_closed_connection_is_answered(
    ports_scene: Scene, family: Family, sources: Collection[str]
) -> None:
    """The container reads to the end of stream and then responds."""
    for ends, by in ways(ports_scene, family, sources):
        said = transfer.half_closed(*ends, SHORT, port=INSIDE, by=by)
        assert said == (transfer.expected(SHORT), transfer.expected(SHORT))


@requirement("PUB-1", "BR-23")
@callers
def test_datagram_of_8000_bytes_is_echoed(ports_scene: Scene, family: Family, caller: str) -> None:
    """In as many fragments as needed."""
    ends = (
        ports_scene.place(caller),
        ports_scene.place("published"),
        ANYWHERE[inner_family(ports_scene.runtime, family)],
    )
    by = called(ports_scene, caller, family, PORTS["udp"])
    assert round_trip(*ends, DATAGRAM, port=INSIDE, by=by) == (DATAGRAM, DATAGRAM)


@requirement("PUB-1")
@groups
def test_aborted_connection_affects_no_other(
    ports_scene: Scene, family: Family, sources: Collection[str]
) -> None:
    """Either side aborts amid a transfer: the other sees a reset, and the next call works."""
    for ends, by in ways(ports_scene, family, sources):
        for by_caller in (True, False) * TIMES:
            assert transfer.abort_while_sending(*ends, by_caller=by_caller, port=INSIDE, by=by)
        assert transfer.upload(*ends, SIZE, port=INSIDE, by=by) == transfer.expected(SIZE)


@requirement("PUB-14")
@groups
def test_reset_is_not_seen_as_end_of_stream(
    ports_scene: Scene, family: Family, sources: Collection[str]
) -> None:
    """Either side resets after all data is delivered: the other sees no end of stream."""
    for ends, by in ways(ports_scene, family, sources):
        for by_caller in (True, False):
            assert transfer.reset_after_delivery(*ends, by_caller=by_caller, port=INSIDE, by=by), (
                by_caller
            )


def ways(
    ports_scene: Scene, family: Family, sources: Collection[str]
) -> Iterator[tuple[tuple[NetnsView, NetnsView, Address], End]]:
    """Return the callers that reach the host, the listener, and the called address."""
    for caller in sources:
        by = called(ports_scene, caller, family, PORTS["tcp"])
        if reaches_host(ports_scene, caller, by[0]):
            at = ANYWHERE[inner_family(ports_scene.runtime, family)]
            yield (ports_scene.place(caller), ports_scene.place("published"), at), by


def called(ports_scene: Scene, caller: str, family: Family, port: int) -> End:
    """Return the address of the published port for a caller: for the host its loopback."""
    own = LOOPBACKS[family] if caller == HOST else ports_scene.world.address(HOST, family)
    return own, port
