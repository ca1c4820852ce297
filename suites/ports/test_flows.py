"""UDP flows that go on while the container behind a published port ends, and another comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

import pytest

from harness.addresses import LOOPBACKS
from harness.call import Call
from harness.container import Container
from harness.marks import requirement
from harness.model import ATTACKER, HOST, INTERNET, NS1, Family, Protocol
from harness.traffic import Ear
from suites.ports.fair import BESIDE, Fair
from suites.ports.shop import INSIDE, Shop, has_taps, meets

CALLERS: Final = (ATTACKER, INTERNET, NS1, HOST, BESIDE)


class Flow(NamedTuple):
    """A socket that calls the published port and keeps its own."""

    family: Family
    call: Call

    def say(self, word: bytes) -> None:
        """Send a datagram more."""
        self.call.told()  # takes what the socket was told of the last one, or it would be refused
        self.call.say(word)


@contextmanager
def flows(fair: Fair) -> Iterator[list[Flow]]:
    """One from each caller in each family, and one from the host to its loopback."""
    ends = [
        (name, family, fair.own(family))
        for name in CALLERS
        for family in fair.families
        if meets(fair.scene, name, fair.own(family))
    ]
    ends += [(HOST, family, LOOPBACKS[family]) for family in fair.families]
    with ExitStack() as stack:
        yield [
            Flow(family, stack.enter_context(Call(place, Protocol.UDP, address, port=fair.port)))
            for name, family, address in ends
            if (place := fair.scene.place(name))
        ]


def assert_served(found: Sequence[Shop], calling: Sequence[Flow]) -> None:
    """The next datagram of every flow is heard, and answered to who sent it.

    pasta has the host's own datagrams go to the tap's fe80:: address, which the kernel checks
    for a second (RFC 4862) like any other.
    """
    scene = found[0].scene
    if has_taps(scene.runtime):
        scene.ready()
    for shop in found:
        if shop.transport == "udp":
            with shop.ear() as ear:
                for number, flow in enumerate(calling):
                    if flow.family == shop.family:
                        word = f"{shop.container.name} is called, {number}".encode()
                        flow.say(word)
                        heard, sender = ear.heard()
                        assert heard == word
                        ear.tell(sender, heard)
                        assert flow.call.hear() == word


def assert_unheard(fair: Fair, other: Container, calling: Sequence[Flow]) -> None:
    """A container that was asked for nothing hears none of them, whosever address it has."""
    with ExitStack() as stack:
        ears = {
            other.net.address(family): stack.enter_context(
                Ear(other.net, "udp", family=family, port=INSIDE)
            )
            for family in fair.families
        }
        for flow in calling:
            flow.say(b"is anybody there?")
        fair.scene.settle()
        for own, ear in ears.items():
            assert own
            with Call(other.net, Protocol.UDP, own, port=INSIDE) as control:
                control.say(b"you are meant")
                assert ear.heard()[0] == b"you are meant"


@requirement("PUB-8")
@pytest.mark.parametrize("how", ["started again", "removed and replaced"])
def test_a_flow_that_goes_on_reaches_the_new_container(fair: Fair, how: str) -> None:
    """At once, by whichever way it comes; in between nobody hears it, also who has the address."""
    found = fair.opened("web")
    web = found[0].container
    with flows(fair) as calling:
        assert_served(found, calling)
        if how == "started again":
            web.stop()
        else:
            web.remove()
        heir = fair.container("heir")
        assert_unheard(fair, heir, calling)
        if how == "started again":
            web.start()
        else:
            found = fair.opened("new")
        assert_served(found, calling)
        assert_unheard(fair, heir, calling)


@requirement("PUB-8")
def test_a_flow_from_before_reaches_the_container(fair: Fair) -> None:
    """Who has called in vain, and goes on to, is heard once somebody publishes the port."""
    with flows(fair) as calling:
        assert_unheard(fair, fair.scene[BESIDE], calling)
        assert_served(fair.opened("web"), calling)
