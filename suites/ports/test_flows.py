"""UDP flows to a published port that continue while the container is restarted or replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

import pytest

from harness.model.plan import ATTACKER, HOST, INTERNET, NS1, Protocol
from harness.model.topology import Address
from harness.plugin.marks import requirement
from harness.testbench.client import Client
from harness.testbench.container import Container
from harness.testbench.listener import Listener
from harness.testbench.scene import LOOPBACKS
from suites.ports.published import BESIDE, INSIDE, PublishedContainer, PublishNetwork, reaches_host

CALLERS: Final = (ATTACKER, INTERNET, NS1, HOST, BESIDE)


Way = tuple[str, Address]
"""A client, and the address to which it sends."""


class PortFlow(NamedTuple):
    """A client of the published port that uses one source port for all its datagrams."""

    way: Way
    call: Client

    def send(self, word: bytes) -> None:
        """Send another datagram."""
        self.call.error()  # a pending error would make the next send fail
        self.call.send(word)


@contextmanager
def flows(publish_network: PublishNetwork) -> Iterator[list[PortFlow]]:
    """Open one UDP flow from each client in each family, and from the host to its loopback."""
    ways: list[Way] = [
        (name, publish_network.own(family))
        for name in CALLERS
        for family in publish_network.families
        if reaches_host(publish_network.scene, name, publish_network.own(family))
    ]
    ways += [(HOST, LOOPBACKS[family]) for family in publish_network.families]
    with ExitStack() as stack:
        yield [
            PortFlow(
                way,
                stack.enter_context(Client(view, Protocol.UDP, way[1], port=publish_network.port)),
            )
            for way in ways
            if (view := publish_network.scene.netns(way[0]))
        ]


class ServedClients(NamedTuple):
    """Clients whose datagrams reach the container, and clients that get a reply."""

    arrived: set[Way]
    answered: set[Way]


def served_clients(
    publish_network: PublishNetwork,
    found: Sequence[PublishedContainer],
    calling: Sequence[PortFlow],
) -> ServedClients:
    """Return which clients reach the container and which get a reply, after all packets arrived.

    Assert that the client on the LAN is among both. Other tests assert that all clients arrive, and
    check the source of replies.
    """
    publish_network.await_taps()
    arrived = set()
    for published in found:
        if published.transport == "udp":
            with published.listener() as listener:
                words = {number.to_bytes(): flow for number, flow in enumerate(calling)}
                for word, flow in words.items():
                    if flow.way[1].version == published.family:
                        flow.send(word)
                publish_network.scene.settle()
                while came := [item for item in listener.pending() if item[0] in words]:
                    for word, sender in came:
                        arrived.add(words[word].way)
                        listener.send(sender, word)
                    publish_network.scene.settle()
    calls = ((flow.way, flow.call) for flow in calling)
    answered = {way for way, call in calls if not call.error() and call.receive_nowait()}
    assert {
        (ATTACKER, publish_network.own(family)) for family in publish_network.families
    } <= answered & arrived
    return ServedClients(arrived, answered)


def assert_served(
    publish_network: PublishNetwork,
    found: Sequence[PublishedContainer],
    calling: Sequence[PortFlow],
    before: ServedClients,
) -> None:
    """Assert that each flow that worked before still does: its next datagram gets a reply."""
    publish_network.await_taps()
    for published in found:
        if published.transport == "udp":
            with published.listener() as listener:
                for number, flow in enumerate(calling):
                    if flow.way in before.arrived and flow.way[1].version == published.family:
                        word = f"{published.container.name} is called, {number}".encode()
                        flow.send(word)
                        listener.send(source_of(word, listener), word)
                        if flow.way in before.answered:
                            assert flow.call.receive() == word


def source_of(word: bytes, listener: Listener) -> tuple[Address, int]:
    """Return the source of a datagram with this word; ignore late datagrams of an earlier round."""
    while True:
        data, sender = listener.receive()
        if data == word:
            return sender


def assert_unreached(
    publish_network: PublishNetwork, other: Container, calling: Sequence[PortFlow]
) -> None:
    """Assert that no flow reaches the container `other`, at any address; it publishes no port."""
    with ExitStack() as stack:
        listeners = {
            other.net.address(family): stack.enter_context(
                Listener(other.net, "udp", family=family, port=INSIDE)
            )
            for family in publish_network.families
        }
        for flow in calling:
            flow.send(b"is anybody there?")
        publish_network.scene.settle()
        for own, listener in listeners.items():
            assert own
            with Client(other.net, Protocol.UDP, own, port=INSIDE) as control:
                control.send(b"you are meant")
                assert listener.receive()[0] == b"you are meant"


@requirement("PUB-8")
@pytest.mark.parametrize("how", ["restarted", "replaced"])
def test_continued_udp_flow_reaches_restarted_or_new_container(
    publish_network: PublishNetwork, how: str
) -> None:
    """An open UDP flow to a published port reaches the restarted or new container at once.

    While no container has the port, the flow reaches none, not even one with the former address.
    """
    found = publish_network.publish("web")
    web = found[0].container
    with flows(publish_network) as calling:
        before = served_clients(publish_network, found, calling)
        if how == "restarted":
            web.stop()
        else:
            web.remove()
        heir = publish_network.container("heir")
        assert_unreached(publish_network, heir, calling)
        if how == "restarted":
            web.start()
        else:
            found = publish_network.publish("new")
        assert_served(publish_network, found, calling, before)
        assert_unreached(publish_network, heir, calling)


@requirement("PUB-8")
def test_udp_flow_that_begins_before_publishing_reaches_container(
    publish_network: PublishNetwork,
) -> None:
    """A UDP flow that begins before the port is published reaches the container after that."""
    with flows(publish_network) as calling:
        assert_unreached(publish_network, publish_network.scene[BESIDE], calling)
        found = publish_network.publish("web")
        with flows(publish_network) as fresh:
            alike = served_clients(publish_network, found, fresh)
        assert_served(publish_network, found, calling, alike)
