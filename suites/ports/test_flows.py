"""UDP flows that go on while the container behind a published port ends, and another comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from harness.addresses import LOOPBACKS
from harness.call import Call
from harness.container import Container
from harness.marks import requirement
from harness.model import ATTACKER, HOST, INTERNET, NS1, Family, Protocol
from harness.scene import Scene
from harness.traffic import Ear
from suites.ports.shop import INSIDE, OWN, Shop, home, opened

CALLERS: Final = (ATTACKER, INTERNET, NS1, HOST, "peer")


@contextmanager
def flows(scene: Scene, family: Family) -> Iterator[list[Call]]:
    """A socket of each caller's that keeps its port, the host's loopback called as well."""
    own = scene.world.address(HOST, family)
    ends = [*((name, own) for name in CALLERS), (HOST, LOOPBACKS[family])]
    with ExitStack() as stack:
        yield [
            stack.enter_context(Call(scene.place(name), Protocol.UDP, address, port=OWN))
            for name, address in ends
        ]


def assert_served(shop: Shop, calls: Sequence[Call]) -> None:
    """The next datagram of every flow is heard, and answered to who sent it."""
    with shop.ear() as ear:
        for number, call in enumerate(calls):
            word = f"{shop.container.name} is called, {number}".encode()
            _say(call, word)
            heard, sender = ear.heard()
            assert heard == word
            ear.tell(sender, heard)
            assert call.hear() == word


def assert_unheard(scene: Scene, other: Container, family: Family, calls: Sequence[Call]) -> None:
    """A container that was asked for nothing hears none of them, whosever address it has."""
    address = other.net.address(family)
    assert address
    with (
        Ear(other.net, "udp", family=family, port=INSIDE) as ear,
        Call(scene.place(HOST), Protocol.UDP, address, port=INSIDE) as control,
    ):
        for call in calls:
            _say(call, b"is anybody there?")
        scene.settle()
        control.say(b"you are meant")
        assert ear.heard()[0] == b"you are meant"


def _say(call: Call, word: bytes) -> None:
    call.told()  # takes what the socket was told of the last one, or it would be refused
    call.say(word)


@requirement("PUB-8")
@pytest.mark.parametrize("how", ["started again", "removed and replaced"])
def test_a_flow_that_goes_on_reaches_the_new_container(
    fair: Scene, family: Family, how: str
) -> None:
    """At once, by whichever way it comes; in between nobody hears it, also who has the address."""
    shop = _opened(fair, family, "web")
    with flows(fair, family) as calls:
        assert_served(shop, calls)
        if how == "started again":
            shop.container.stop()
        else:
            shop.container.remove()
        heir = fair.container("heir", home(family))
        assert_unheard(fair, heir, family, calls)
        if how == "started again":
            shop.container.start()
        else:
            shop = _opened(fair, family, "new")
        assert_served(shop, calls)
        assert_unheard(fair, heir, family, calls)


@requirement("PUB-8")
def test_a_flow_from_before_reaches_the_container(fair: Scene, family: Family) -> None:
    """Who has called in vain, and goes on to, is heard once somebody publishes the port."""
    with flows(fair, family) as calls:
        assert_unheard(fair, fair["peer"], family, calls)
        assert_served(_opened(fair, family, "web"), calls)


def _opened(scene: Scene, family: Family, name: str) -> Shop:
    """A container that publishes over UDP."""
    return next(shop for shop in opened(scene, family, name=name) if shop.transport == "udp")
