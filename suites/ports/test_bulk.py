"""A lot of data by a published port: long streams, and datagrams that fit no link."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Final

import pytest

from harness import bulk
from harness.addresses import LOOPBACKS
from harness.call import there_and_back
from harness.marks import requirement
from harness.model import ATTACKER, HOST, Family
from harness.place import Place
from harness.scene import Scene
from harness.topology import Address
from harness.traffic import ANYWHERE, End
from suites.ports.shop import INSIDE, PORTS, heard_in, meets

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
    assert bulk.upload(*ends, SIZE, port=INSIDE, by=by) == bulk.sent(SIZE)
    assert bulk.download(*ends, SIZE, port=INSIDE, by=by) == bulk.sent(SIZE)


@requirement("PUB-1")
@groups
def test_who_has_said_all_is_answered(market: Scene, family: Family, who: Collection[str]) -> None:
    """A call ends by halves: the container hears it to its end, and only then says something."""
    for ends, by in ways(market, family, who):
        said = bulk.in_turn(*ends, SHORT, port=INSIDE, by=by)
        assert said == (bulk.sent(SHORT), bulk.sent(SHORT))


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
            assert bulk.break_off(*ends, by_caller=by_caller, port=INSIDE, by=by)
        assert bulk.upload(*ends, SIZE, port=INSIDE, by=by) == bulk.sent(SIZE)


@requirement("PUB-14")
@groups
def test_a_call_that_is_cut_short_does_not_look_whole(
    market: Scene, family: Family, who: Collection[str]
) -> None:
    """By either side, with all that was sent delivered: the other hears no end of it."""
    for ends, by in ways(market, family, who):
        for by_caller in (True, False):
            assert bulk.cut_short(*ends, by_caller=by_caller, port=INSIDE, by=by), by_caller


def ways(
    market: Scene, family: Family, who: Collection[str]
) -> Iterator[tuple[tuple[Place, Place, Address], End]]:
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
