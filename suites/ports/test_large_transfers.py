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
from harness.testbench.addressing import LOOPBACKS
from harness.testbench.client import there_and_back
from harness.testbench.listener import ANYWHERE, End
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from suites.ports.published import INSIDE, PORTS, heard_in, meets

SIZE: Final = 1 << 20
"""Bytes of a transfer."""
SHORT: Final = 10_000
"""Bytes of a question, and of its answer."""
TIMES: Final = 5
"""How often a call is broken off: what comes of it may depend on who is told first."""
DATAGRAM: Final = hashlib.shake_128(b"too much for one frame").digest(8000)

callers = pytest.mark.parametrize(
    "caller", [ATTACKER, "peer", pytest.param(HOST, id="the host by its loopback")]
)
groups = pytest.mark.parametrize(
    "who", [(ATTACKER, "peer"), (HOST,)], ids=["others", "the host by its loopback"]
)


@requirement("PUB-1", "BR-25")
@callers
def test_bulk_tcp_arrives_intact(market: Scene, family: Family, caller: str) -> None:
    """Both ways."""
    ends = market.place(caller), market.place("shop"), ANYWHERE[heard_in(market.runtime, family)]
    by = called(market, caller, family, PORTS["tcp"])
    assert transfer.upload(*ends, SIZE, port=INSIDE, by=by) == transfer.sent(SIZE)
    assert transfer.download(*ends, SIZE, port=INSIDE, by=by) == transfer.sent(SIZE)


@requirement("PUB-1")
@groups
def test_who_has_said_all_is_answered(market: Scene, family: Family, who: Collection[str]) -> None:
    """A call ends by halves: the container hears it to its end, and only then says something."""
    for ends, by in ways(market, family, who):
        said = transfer.in_turn(*ends, SHORT, port=INSIDE, by=by)
        assert said == (transfer.sent(SHORT), transfer.sent(SHORT))


@requirement("PUB-1", "BR-23")
@callers
def test_a_datagram_of_8000_bytes_goes_there_and_back(
    market: Scene, family: Family, caller: str
) -> None:
    """In as many fragments as it takes."""
    ends = market.place(caller), market.place("shop"), ANYWHERE[heard_in(market.runtime, family)]
    by = called(market, caller, family, PORTS["udp"])
    assert there_and_back(*ends, DATAGRAM, port=INSIDE, by=by) == (DATAGRAM, DATAGRAM)


@requirement("PUB-1")
@groups
def test_a_call_that_is_broken_off_ends_no_other(
    market: Scene, family: Family, who: Collection[str]
) -> None:
    """Amid a transfer, by either side: the other is told, and whoever calls next is heard."""
    for ends, by in ways(market, family, who):
        for by_caller in (True, False) * TIMES:
            assert transfer.break_off(*ends, by_caller=by_caller, port=INSIDE, by=by)
        assert transfer.upload(*ends, SIZE, port=INSIDE, by=by) == transfer.sent(SIZE)


@requirement("PUB-14")
@groups
def test_a_call_that_is_cut_short_does_not_look_whole(
    market: Scene, family: Family, who: Collection[str]
) -> None:
    """By either side, with all that was sent delivered: the other hears no end of it."""
    for ends, by in ways(market, family, who):
        for by_caller in (True, False):
            assert transfer.cut_short(*ends, by_caller=by_caller, port=INSIDE, by=by), by_caller


def ways(
    market: Scene, family: Family, who: Collection[str]
) -> Iterator[tuple[tuple[NetnsView, NetnsView, Address], End]]:
    """Those whose calls get to the host; whom it is for, where that listens; what is called."""
    for caller in who:
        by = called(market, caller, family, PORTS["tcp"])
        if meets(market, caller, by[0]):
            at = ANYWHERE[heard_in(market.runtime, family)]
            yield (market.place(caller), market.place("shop"), at), by


def called(market: Scene, caller: str, family: Family, port: int) -> End:
    """Where somebody calls the published port: the host on its loopback."""
    own = LOOPBACKS[family] if caller == HOST else market.world.address(HOST, family)
    return own, port
