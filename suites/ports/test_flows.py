"""UDP flows that go on while the container behind a published port ends, and another comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

import pytest

from harness.model.plan import ATTACKER, HOST, INTERNET, NS1, Protocol
from harness.model.topology import Address
from harness.plugin.marks import requirement
from harness.testbench.addressing import LOOPBACKS
from harness.testbench.client import Client
from harness.testbench.container import Container
from harness.testbench.listener import Listener
from suites.ports.published import BESIDE, INSIDE, PublishedContainer, PublishNetwork, meets

CALLERS: Final = (ATTACKER, INTERNET, NS1, HOST, BESIDE)


Way = tuple[str, Address]
"""Who calls which address."""


class PortFlow(NamedTuple):
    """A socket that calls the published port and keeps its own."""

    way: Way
    call: Client

    def say(self, word: bytes) -> None:
        """Send a datagram more."""
        self.call.told()  # takes what the socket was told of the last one, or it would be refused
        self.call.say(word)


@contextmanager
def flows(fair: PublishNetwork) -> Iterator[list[PortFlow]]:
    """One from each caller in each family, and one from the host to its loopback."""
    ways: list[Way] = [
        (name, fair.own(family))
        for name in CALLERS
        for family in fair.families
        if meets(fair.scene, name, fair.own(family))
    ]
    ways += [(HOST, LOOPBACKS[family]) for family in fair.families]
    with ExitStack() as stack:
        yield [
            PortFlow(way, stack.enter_context(Client(place, Protocol.UDP, way[1], port=fair.port)))
            for way in ways
            if (place := fair.scene.place(way[0]))
        ]


class ServedClients(NamedTuple):
    """Who is heard by a container, and of those who is answered."""

    heard: set[Way]
    answered: set[Way]


def who_is_served(
    fair: PublishNetwork, found: Sequence[PublishedContainer], calling: Sequence[PortFlow]
) -> ServedClients:
    """By the time that the world is quiet; the LAN is heard, and answered.

    That everybody is, and that an answer comes from where the call went, are other promises.
    """
    fair.await_taps()
    heard = set()
    for shop in found:
        if shop.transport == "udp":
            with shop.ear() as ear:
                words = {number.to_bytes(): flow for number, flow in enumerate(calling)}
                for word, flow in words.items():
                    if flow.way[1].version == shop.family:
                        flow.say(word)
                fair.scene.settle()
                while came := [item for item in ear.come() if item[0] in words]:
                    for word, sender in came:
                        heard.add(words[word].way)
                        ear.tell(sender, word)
                    fair.scene.settle()
    answered = {flow.way for flow in calling if not flow.call.told() and flow.call.heard()}
    assert {(ATTACKER, fair.own(family)) for family in fair.families} <= answered & heard
    return ServedClients(heard, answered)


def assert_served(
    fair: PublishNetwork,
    found: Sequence[PublishedContainer],
    calling: Sequence[PortFlow],
    before: ServedClients,
) -> None:
    """The next datagram of every flow is heard, and answered, whose was before."""
    fair.await_taps()
    for shop in found:
        if shop.transport == "udp":
            with shop.ear() as ear:
                for number, flow in enumerate(calling):
                    if flow.way in before.heard and flow.way[1].version == shop.family:
                        word = f"{shop.container.name} is called, {number}".encode()
                        flow.say(word)
                        ear.tell(who_says(word, ear), word)
                        if flow.way in before.answered:
                            assert flow.call.hear() == word


def who_says(word: bytes, ear: Listener) -> tuple[Address, int]:
    """From where a word comes; one of before may come late."""
    while True:
        heard, sender = ear.heard()
        if heard == word:
            return sender


def assert_unheard(fair: PublishNetwork, other: Container, calling: Sequence[PortFlow]) -> None:
    """A container that was asked for nothing hears none of them, whosever address it has."""
    with ExitStack() as stack:
        ears = {
            other.net.address(family): stack.enter_context(
                Listener(other.net, "udp", family=family, port=INSIDE)
            )
            for family in fair.families
        }
        for flow in calling:
            flow.say(b"is anybody there?")
        fair.scene.settle()
        for own, ear in ears.items():
            assert own
            with Client(other.net, Protocol.UDP, own, port=INSIDE) as control:
                control.say(b"you are meant")
                assert ear.heard()[0] == b"you are meant"


@requirement("PUB-8")
@pytest.mark.parametrize("how", ["started again", "removed and replaced"])
def test_a_flow_that_goes_on_reaches_the_new_container(fair: PublishNetwork, how: str) -> None:
    """At once, by whichever way it comes; in between nobody hears it, also who has the address."""
    found = fair.opened("web")
    web = found[0].container
    with flows(fair) as calling:
        before = who_is_served(fair, found, calling)
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
        assert_served(fair, found, calling, before)
        assert_unheard(fair, heir, calling)


@requirement("PUB-8")
def test_a_flow_from_before_reaches_the_container(fair: PublishNetwork) -> None:
    """Who has called in vain, and goes on to, is heard once somebody publishes the port."""
    with flows(fair) as calling:
        assert_unheard(fair, fair.scene[BESIDE], calling)
        found = fair.opened("web")
        with flows(fair) as fresh:
            alike = who_is_served(fair, found, fresh)
        assert_served(fair, found, calling, alike)
