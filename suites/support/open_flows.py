"""UDP and TCP flows that stay open while other containers start and end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from harness.adapters.protocol import Adapter
from harness.model.topology import Address
from harness.probe.sockets import ADDRESS_FAMILIES
from harness.testbench.container import Container
from harness.testbench.listener import SOCKET_KINDS, End, Transport
from harness.testbench.netns_view import NetnsView
from suites.support.features import restarts

PORT: Final = 31070
BOUND: Final = 3.0
LENGTH: Final = 500
"""Bytes of one message."""


class OpenFlow(NamedTuple):
    """The sockets of the client and of the server of a flow."""

    near: socket.socket
    far: socket.socket

    def exchange(self) -> None:
        """Send new data each way, and raise `OSError` or `TimeoutError` if it does not arrive.

        The server sends first. Through an address translation, its data arrives only if conntrack
        has the flow. Data of the client would create a new conntrack entry.
        """
        for one, other in ((self.far, self.near), (self.near, self.far)):
            word = os.urandom(LENGTH)
            one.sendall(word)
            received = b""
            while len(received) < len(word):
                more = other.recv(len(word))
                if not more:
                    raise ConnectionError("the connection was closed")
                received += more
            assert received == word


Flows = dict[str, OpenFlow]
"""Flows, by the names that messages of failures contain."""


@contextmanager
def open_flow(
    near: NetnsView,
    far: NetnsView,
    address: Address,
    *,
    transport: Transport = "tcp",
    by: End | None = None,
) -> Iterator[OpenFlow]:
    """Open a flow from one namespace to the address of another, and send data once each way.

    With `by`, the client uses that published address and port, which lead to `PORT` of `address`.
    """
    called = by or (address, PORT)
    with (
        _socket(far, address, transport) as listener,
        _socket(near, called[0], transport) as calling,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), PORT))
        if transport == "tcp":
            listener.listen()
        calling.connect((str(called[0]), called[1]))
        with _taken(listener, calling, transport) as answering:
            talk = OpenFlow(calling, answering)
            talk.exchange()
            yield talk


def _socket(view: NetnsView, address: Address, transport: Transport) -> socket.socket:
    opened = view.socket(ADDRESS_FAMILIES[address.version], SOCKET_KINDS[transport])
    opened.settimeout(BOUND)
    if address.version == 6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return opened


def _taken(listener: socket.socket, calling: socket.socket, transport: Transport) -> socket.socket:
    """Return the server's socket for the flow of this client."""
    if transport == "udp":
        calling.send(b"hello")
        _, caller = listener.recvfrom(LENGTH)
        listener.connect(caller)
        return listener
    answering, _ = listener.accept()
    answering.settimeout(BOUND)
    return answering


def assert_flows_continue(flows: Flows, after: str) -> None:
    """Assert that data arrives both ways on every flow; `after` names the last step."""
    lost = {}
    for name, talk in flows.items():
        try:
            talk.exchange()
        except OSError as error:
            lost[name] = repr(error)
    assert not lost, after


def assert_flows_survive(flows: Flows, guest: Container, runtime: Adapter) -> None:
    """Assert that the flows survive the stop and the restart of another container."""
    assert_flows_continue(flows, "started")
    if restarts(runtime):
        guest.stop()
        assert_flows_continue(flows, "stopped")
        guest.start()
        assert_flows_continue(flows, "started again")
