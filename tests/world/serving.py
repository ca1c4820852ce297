"""Fixtures: the world's services at one end of a veth pair, and clients at the other end."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from harness.model.plan import Family
from harness.world.service_protocols import TCP_PORTS, UDP_PORTS
from harness.world.services import Services
from linux.netns import NetNS
from tests.world.pair import pair

SERVED = {4: "203.0.113.10", 6: "2001:db8:1::10"}
CLIENT = {4: "203.0.113.7", 6: "2001:db8:1::7"}
SOCKETS = {4: socket.AF_INET, 6: socket.AF_INET6}
PATIENCE = 10.0

Places = dict[str, tuple[NetNS, list[Any]]]


@pytest.fixture(scope="module")
def namespaces() -> Iterator[tuple[NetNS, NetNS]]:
    """Create the netns of the internet and that of a client on the same link."""
    with pair(
        ["203.0.113.10/24", "2001:db8:1::10/64"], ["203.0.113.7/24", "2001:db8:1::7/64"]
    ) as ends:
        yield ends


@pytest.fixture(scope="module")
def client(namespaces: tuple[NetNS, NetNS]) -> NetNS:
    """Return the netns of the client."""
    return namespaces[1]


@pytest.fixture(scope="module")
def places(namespaces: tuple[NetNS, NetNS]) -> Places:
    """Return the argument of `Services.start`: the addresses to serve in each namespace."""
    return {"internet": (namespaces[0], [ip_address(text) for text in SERVED.values()])}


@pytest.fixture(scope="module")
def services(places: Places) -> Iterator[Services]:
    """Start the services, and stop them after the tests."""
    with Services.start(places) as running:
        yield running


def stream(client: NetNS, family: Family, service: str) -> socket.socket:
    """Open a TCP connection from the client to a service."""
    opened = client.socket(SOCKETS[family], socket.SOCK_STREAM)
    opened.settimeout(PATIENCE)
    opened.connect((SERVED[family], TCP_PORTS[service]))
    return opened


def datagrams(client: NetNS, family: Family, service: str) -> socket.socket:
    """Open a UDP socket of the client that sends to a service."""
    opened = client.socket(SOCKETS[family], socket.SOCK_DGRAM)
    opened.settimeout(PATIENCE)
    opened.connect((SERVED[family], UDP_PORTS[service]))
    return opened


def everything(sock: socket.socket) -> bytes:
    """Return all bytes received until the other side closes the connection."""
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def drain(sock: socket.socket) -> None:
    """Read from the connection until it ends, and discard the data."""
    with contextlib.suppress(ConnectionError):
        while sock.recv(1 << 16):
            pass
