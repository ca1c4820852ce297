"""A flow between two places, that was open before something came and went beside it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from harness.adapters.protocol import Adapter
from harness.model.topology import Address
from harness.testbench.container import Container
from harness.testbench.listener import End, Transport
from harness.testbench.netns_view import NetnsView
from suites.support.features import restarts

PORT: Final = 31070
BOUND: Final = 3.0
LENGTH: Final = 500
"""Bytes of one word of a conversation."""
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_KINDS: Final[dict[Transport, socket.SocketKind]] = {
    "tcp": socket.SOCK_STREAM,
    "udp": socket.SOCK_DGRAM,
}


class OpenFlow(NamedTuple):
    """Both ends of a flow: who began it, and who was called."""

    near: socket.socket
    far: socket.socket

    def exchange(self) -> None:
        """Send something new each way; `OSError`, `TimeoutError` when it does not arrive.

        Who was called speaks first: through an address translation that comes to the
        other side only while the flow is known, and what the other side says makes it known again.
        """
        for one, other in ((self.far, self.near), (self.near, self.far)):
            word = os.urandom(LENGTH)
            one.sendall(word)
            heard = b""
            while len(heard) < len(word):
                more = other.recv(len(word))
                if not more:
                    raise ConnectionError("it was closed")
                heard += more
            assert heard == word


Flows = dict[str, OpenFlow]
"""By what a failure calls them."""


@contextmanager
def talking(
    near: NetnsView,
    far: NetnsView,
    address: Address,
    *,
    transport: Transport = "tcp",
    by: End | None = None,
) -> Iterator[OpenFlow]:
    """A flow from one place to the other's address, used once before the body.

    With `by` it is begun there: to a port that is published for `PORT` of that address.
    """
    called = by or (address, PORT)
    with (
        _socket(far, address, transport) as ear,
        _socket(near, called[0], transport) as calling,
    ):
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.bind((str(address), PORT))
        if transport == "tcp":
            ear.listen()
        calling.connect((str(called[0]), called[1]))
        with _taken(ear, calling, transport) as answering:
            talk = OpenFlow(calling, answering)
            talk.exchange()
            yield talk


def _socket(place: NetnsView, address: Address, transport: Transport) -> socket.socket:
    opened = place.socket(_FAMILIES[address.version], _KINDS[transport])
    opened.settimeout(BOUND)
    if address.version == 6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return opened


def _taken(ear: socket.socket, calling: socket.socket, transport: Transport) -> socket.socket:
    """What hears the caller, and nobody else."""
    if transport == "udp":
        calling.send(b"hello")
        _, caller = ear.recvfrom(LENGTH)
        ear.connect(caller)
        return ear
    answering, _ = ear.accept()
    answering.settimeout(BOUND)
    return answering


def go_on(flows: Flows, after: str) -> None:
    """Whoever was called speaks, then who has called: nothing is refused or lost."""
    lost = {}
    for name, talk in flows.items():
        try:
            talk.exchange()
        except OSError as error:
            lost[name] = repr(error)
    assert not lost, after


def go_on_beside(flows: Flows, guest: Container, runtime: Adapter) -> None:
    """So they do after a container has started, and after it is stopped and started again."""
    go_on(flows, "started")
    if restarts(runtime):
        guest.stop()
        go_on(flows, "stopped")
        guest.start()
        go_on(flows, "started again")
