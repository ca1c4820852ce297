"""Tests of many connections to a port on `::1`: only that port's clients are delayed."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from runtime.engine import Engine
from runtime.records import ContainerRecord
from tests.runtime.conftest import FOR_EVER
from tests.runtime.daemon.dns_client import ask, reply_values
from tests.runtime.support.inspection import netns, processes_titled, until

_ROOM = 100
"""Descriptors that the daemon may open: a quarter is for all relays."""
_ALONE, _BESIDE_ANOTHER = _ROOM // 4 // 2, _ROOM // 4 // 2 // 2
"""Connections through a container's relays at a time."""


@pytest.fixture
def web(engine: Engine, lan: str) -> ContainerRecord:
    """Start a container published on `::1`, and another one; limit the daemon's descriptors."""
    for name, port in (("web", 8080), ("db", 8090)):
        publish = [f"[::1]:{port}:80", f"[::1]:{port}:80/udp"]
        engine.run("base", FOR_EVER, name=name, network=lan, publish=publish)
    found = engine.inspect("web")
    assert reply_values(ask(found, "db")) == {"10.9.0.3"}
    (pid,) = processes_titled(b"mydocker-daemon")
    _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (_ROOM, most))
    return found


class Server:
    """Listener on port 80 of a container, with the connections that have arrived."""

    def __init__(self, opened: socket.socket, stack: ExitStack) -> None:
        self.opened, self._stack = opened, stack
        self._taken: list[socket.socket] = []

    def taken(self) -> list[socket.socket]:
        """Return the connections that have arrived so far."""
        with suppress(BlockingIOError):
            while True:
                self._taken.append(self._stack.enter_context(self.opened.accept()[0]))
        return self._taken


@contextmanager
def _served(container: ContainerRecord, kind: int = socket.SOCK_STREAM) -> Iterator[Server]:
    with (
        ExitStack() as stack,
        netns(container) as space,
        space.socket(socket.AF_INET6, kind) as opened,
    ):
        opened.bind(("::", 80))
        opened.settimeout(10)
        if kind == socket.SOCK_STREAM:
            opened.listen(128)
            opened.setblocking(False)
        yield Server(opened, stack)


def _call(port: int) -> socket.socket:
    return socket.create_connection(("::1", port), 10)


def test_relay_flood_delays_neither_dns_nor_other_containers(
    engine: Engine, web: ContainerRecord
) -> None:
    """DNS queries and other containers are served immediately, however many connections wait."""
    db = engine.inspect("db")
    with _served(web) as flooded, _served(db) as other, ExitStack() as stack:
        for _ in range(_ROOM):
            stack.enter_context(_call(8080))
        until(lambda: len(flooded.taken()) == _BESIDE_ANOTHER, "the relay quota is used up")
        assert reply_values(ask(web, "db")) == {"10.9.0.3"}
        assert reply_values(ask(web, "db", tcp=True)) == {"10.9.0.3"}
        for _ in range(_BESIDE_ANOTHER):
            stack.enter_context(_call(8090))
        until(lambda: len(other.taken()) == _BESIDE_ANOTHER, "all connections are relayed")
        assert len(flooded.taken()) == _BESIDE_ANOTHER


def test_waiting_relayed_connection_proceeds_when_another_ends(web: ContainerRecord) -> None:
    """Waiting relayed connections proceed in the order of their arrival as others end."""
    with _served(web) as server, ExitStack() as stack:
        callers = [stack.enter_context(_call(8080)) for _ in range(_BESIDE_ANOTHER + 1)]
        for number, caller in enumerate(callers):
            caller.sendall(bytes([number]))
        until(lambda: len(server.taken()) == _BESIDE_ANOTHER, "the relay quota is used up")
        callers[0].close()
        server.taken()[0].close()
        until(lambda: len(server.taken()) > _BESIDE_ANOTHER, "the last connection is relayed")
        last = server.taken()[-1]
        last.settimeout(10)
        assert last.recv(1) == bytes([_BESIDE_ANOTHER])


def test_relay_quota_grows_when_another_container_ends(
    engine: Engine, web: ContainerRecord
) -> None:
    """The relay quota of a container grows when another container ends."""
    with _served(web) as server, ExitStack() as stack:
        for _ in range(_ROOM):
            stack.enter_context(_call(8080))
        until(lambda: len(server.taken()) == _BESIDE_ANOTHER, "the relay quota is used up")
        engine.remove("db", force=True)
        until(lambda: len(server.taken()) == _ALONE, "the relay quota has grown")
        assert reply_values(ask(web, "web")) == {"10.9.0.2"}
        assert len(server.taken()) == _ALONE


def test_each_of_many_containers_may_have_one_relayed_connection(
    engine: Engine, lan: str, web: ContainerRecord
) -> None:
    """A container's relay quota is never smaller than one connection needs."""
    for port in range(9000, 9000 + _ROOM // 4 // 2):
        engine.run("base", FOR_EVER, network=lan, publish=[f"[::1]:{port}:80"])
    with _served(web) as server, _call(8080):
        until(lambda: len(server.taken()) == 1, "the connection is relayed")


def test_udp_relay_serves_new_clients_beyond_its_quota(web: ContainerRecord) -> None:
    """Each new UDP client gets replies, however many came before.

    The relay does not keep each client's descriptor.
    """
    with _served(web, socket.SOCK_DGRAM) as server, ExitStack() as stack:
        for number in range(_ROOM):
            caller = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            caller.settimeout(10)
            caller.connect(("::1", 8080))
            caller.send(bytes([number]))
            said, at = server.opened.recvfrom(16)
            server.opened.sendto(said, at)
            assert caller.recv(16) == bytes([number])
        assert reply_values(ask(web, "db")) == {"10.9.0.3"}
        (pid,) = processes_titled(b"mydocker-daemon")
        assert len(os.listdir(f"/proc/{pid}/fd")) < _ROOM // 2
