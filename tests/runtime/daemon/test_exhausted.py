"""Tests of a daemon without free descriptors: new clients wait, and no service ends."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from runtime.daemon import client
from runtime.engine import Engine
from runtime.errors import MydockerError
from runtime.records import ContainerRecord
from tests.runtime.conftest import FOR_EVER
from tests.runtime.daemon.dns_client import (
    ask,
    connected_to_resolver,
    encoded_queries,
    rcode,
    replies_on,
    reply_values,
)
from tests.runtime.support.inspection import netns, processes_titled


@pytest.fixture
def web(engine: Engine, lan: str) -> ContainerRecord:
    """Start a container that answers on a published port and has the daemon's service."""
    made = engine.run("base", FOR_EVER, name="web", network=lan, publish=["[::1]:8080:80"])
    assert reply_values(ask(made, "web")) == {"10.9.0.2"}
    return made


@contextmanager
def _no_descriptors_left(web: ContainerRecord, spare: int = 0) -> Iterator[None]:
    """Leave the daemon only `spare` free descriptors."""
    (pid,) = processes_titled(b"mydocker-daemon")
    used = {int(number) for number in os.listdir(f"/proc/{pid}/fd")}
    free = [number for number in range(max(used) + spare + 2) if number not in used]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[spare], before[1]))
    try:
        yield
        # By now the daemon has noticed the new client.
        assert rcode(ask(web, "web")) in ("NOERROR" if spare else "SERVFAIL")
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_dns_over_tcp_waits_while_descriptors_are_exhausted(web: ContainerRecord) -> None:
    """A DNS connection waits in the accept queue while the daemon has no free descriptor."""
    with ExitStack() as stack:
        with _no_descriptors_left(web):
            opened = stack.enter_context(connected_to_resolver(web))
            opened.sendall(encoded_queries("web"))
        assert reply_values(next(replies_on(opened))) == {"10.9.0.2"}


def test_relayed_connection_waits_while_descriptors_are_exhausted(web: ContainerRecord) -> None:
    """A relayed connection waits while the daemon has no free descriptor.

    The host's own clients can open any number of connections.
    """
    with netns(web) as space, space.socket(socket.AF_INET6, socket.SOCK_STREAM) as server:
        server.bind(("::", 80))
        server.listen()
        server.settimeout(10)
        with _no_descriptors_left(web):
            opened = socket.create_connection(("::1", 8080), 10)
        with opened, server.accept()[0] as accepted:
            opened.sendall(b"hi")
            assert accepted.recv(2) == b"hi"


def test_command_waits_while_the_daemon_has_no_free_descriptor(
    engine: Engine, lan: str, root: Path, web: ContainerRecord
) -> None:
    """A mydocker call waits while the daemon has no free descriptor, without a busy loop.

    A busy loop would write a line into the daemon's log for each attempt.
    """
    with _no_descriptors_left(web):
        engine.containers()
    engine.run("base", FOR_EVER, name="db", network=lan)
    assert reply_values(ask(web, "db")) == {"10.9.0.3"}
    assert (root / "daemon.log").read_text() == ""


@pytest.mark.parametrize("spare", range(1, 5))
def test_partly_received_request_leaks_no_descriptor(
    engine: Engine, lan: str, web: ContainerRecord, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    """The daemon closes the descriptors of a request that arrived only in part.

    The kernel passes as many descriptors as are free; the others are lost.
    """
    (pid,) = processes_titled(b"mydocker-daemon")
    before = sorted(os.listdir(f"/proc/{pid}/fd"))
    monkeypatch.setattr(client, "_BOUND", 0.2)
    with _no_descriptors_left(web, spare), suppress(MydockerError):
        engine.run("base", FOR_EVER, name="db", network=lan)
        engine.remove("db", force=True)
    assert reply_values(ask(web, "web")) == {"10.9.0.2"}
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == before
