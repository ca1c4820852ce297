"""Tests of the daemon's start and end, and of its relays."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest

from linux.netns import NetNS
from linux.proc import process_born
from runtime.daemon import client, dns_socket
from runtime.daemon.client import DaemonClient
from runtime.engine import Engine
from runtime.errors import ConflictError, MydockerError
from runtime.records import ContainerRecord
from tests.runtime.conftest import FOR_EVER
from tests.runtime.daemon.dns_client import (
    GATEWAY,
    RESOLVER,
    ask,
    fixed_reply,
    name_server,
    reply_values,
)
from tests.runtime.support.inspection import netns, nothing_left, processes, until
from tests.runtime.support.killing import Step, killed_at, steps


def _daemons() -> set[int]:
    found = set()
    for pid in processes():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            own = os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/thread-self/ns/net")
            if words[0] == b"mydocker-daemon" and own:
                found.add(pid)
    return found


def test_daemon_runs_from_the_first_container_to_the_last(
    engine: Engine, lan: str, root: Path
) -> None:
    """One daemon serves all containers of user-defined networks and ends with the last."""
    engine.run("base", FOR_EVER)
    assert not _daemons()
    with nothing_left(root):
        one = engine.run("base", FOR_EVER, network=lan)
        until(lambda: len(_daemons()) == 1, "the daemon runs")
        two = engine.run("base", FOR_EVER, network=lan)
        assert len(_daemons()) == 1
        engine.remove(one.id, force=True)
        assert reply_values(ask(two, two.name)) == {"10.9.0.3"}
        engine.remove(two.id, force=True)
        assert not _daemons()
    three = engine.run("base", FOR_EVER, name="three", network=lan)
    assert reply_values(ask(three, "three")) == {"10.9.0.2"}


def test_daemon_releases_netns_of_an_exited_container(engine: Engine, lan: str) -> None:
    """The daemon releases the netns of an exited container without any mydocker call."""
    web = engine.run("base", FOR_EVER, network=lan)
    until(lambda: bool(_daemons()), "the daemon runs")
    assert reply_values(ask(web, web.name)) == {"10.9.0.2"}
    os.kill(web.state.pid, signal.SIGKILL)
    until(lambda: not _daemons(), "the daemon has ended")


def test_daemon_keeps_no_descriptor_of_a_stopped_container(engine: Engine, lan: str) -> None:
    """An open connection and a pending query do not keep a stopped container's netns alive."""
    engine.run("base", FOR_EVER, name="stays", network=lan)
    until(lambda: bool(_daemons()), "the daemon runs")
    (pid,) = _daemons()
    assert reply_values(ask(engine.inspect("stays"), "stays"))
    before = _descriptors(pid)
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=["10.9.0.200"])
    with netns(web) as space, space.socket(socket.AF_INET, socket.SOCK_STREAM) as idle:
        idle.connect((RESOLVER, 53))
        ask(web, "web", tcp=True)
        with pytest.raises(dns.exception.Timeout):
            ask(web, "www.example", patience=0.2)
        assert len(_descriptors(pid)) > len(before) + 3
        engine.stop("web", timeout=0)
    assert _descriptors(pid) == before


def _descriptors(pid: int) -> list[str]:
    directory = f"/proc/{pid}/fd"
    found = []
    for number in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"{directory}/{number}"))
    assert not [item for item in found if item.startswith("net:")]
    return sorted(found)


def test_next_command_replaces_a_killed_daemon(engine: Engine, lan: str) -> None:
    """After the daemon was killed, the next mydocker call starts a new one.

    The new daemon serves the same containers.
    """
    web = engine.run("base", FOR_EVER, name="web", network=lan, publish=["8080:80"])
    db = engine.run("base", FOR_EVER, name="db", network=lan)
    assert reply_values(ask(web, "db")) == {"10.9.0.3"}
    (old,) = _daemons()
    os.kill(old, signal.SIGKILL)
    until(lambda: not process_born(old), "the old daemon is dead")
    engine.containers()
    until(lambda: _daemons() - {old} != set(), "another daemon runs")
    until(lambda: _answers(web), "the daemon serves the container")
    assert reply_values(ask(db, "web")) == {"10.9.0.2"}
    assert _called_on_loopback6(web) == "fd00:9::1"
    engine.remove("web", force=True)
    assert reply_values(ask(db, "db")) == {"10.9.0.3"}
    engine.remove("db", force=True)
    assert not _daemons()


def _answers(asker: ContainerRecord) -> bool:
    try:
        return bool(reply_values(ask(asker, asker.name, patience=0.2)))
    except (ConnectionRefusedError, dns.exception.Timeout):
        return False


def test_ipv6_relay_ignores_multicast_from_peers(engine: Engine, lan: str) -> None:
    """The relay ignores a peer's packet to `ff02::1`, all nodes on the link, such as the host."""
    web = engine.run("base", FOR_EVER, network=lan, publish=["8080:80/udp"])
    peer = engine.run("base", FOR_EVER, network=lan)
    with (
        netns(web) as inside,
        netns(peer) as beside,
        inside.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ear,
        beside.socket(socket.AF_INET6, socket.SOCK_DGRAM) as caller,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as host,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other,
    ):
        ear.bind(("", 80))
        ear.settimeout(10)
        other.bind(("", 8081))
        other.settimeout(10)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        for word in (b"one", b"two"):
            for port in (8080, 8081):
                caller.sendto(b"to everybody", ("ff02::1", port))
            assert other.recv(64) == b"to everybody"
            host.sendto(word, ("::1", 8080))
            assert ear.recv(64) == word


def test_next_start_replaces_a_killed_daemon(engine: Engine, lan: str) -> None:
    """After the daemon was killed, the next start gives all containers name resolution again."""
    web = engine.run("base", FOR_EVER, name="web", network=lan)
    until(lambda: bool(_daemons()), "the daemon runs")
    (old,) = _daemons()
    os.kill(old, signal.SIGKILL)
    until(lambda: not process_born(old), "the old daemon is dead")
    db = engine.run("base", FOR_EVER, name="db", network=lan)
    assert reply_values(ask(db, "web")) == {"10.9.0.2"}
    until(lambda: _answers(web), "the daemon serves the container")


def test_concurrent_starts_share_one_daemon(engine: Engine, lan: str, root: Path) -> None:
    """Concurrent starts share one daemon, and every query gets a reply."""
    with nothing_left(root):
        for _ in range(2):
            workers = []
            for number in range(8):
                pid = os.fork()
                if not pid:
                    code = 1
                    try:
                        own = Engine(root)
                        web = own.run("base", FOR_EVER, name=f"w{number}", network=lan)
                        code = 0 if len(reply_values(ask(web, f"w{number}"))) == 1 else 2
                        own.remove(web.id, force=True)
                    finally:
                        os._exit(code)
                workers.append(pid)
            assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers] == [0] * 8
            assert not _daemons()


def _called_on_loopback6(
    web: ContainerRecord, *, kind: socket.SocketKind = socket.SOCK_STREAM
) -> str:
    """Return the client address that a listener sees when the host connects to `[::1]:8080`.

    The listener is in the container, on port 80.
    """
    with (
        netns(web) as space,
        space.socket(socket.AF_INET6, kind) as ear,
        socket.socket(socket.AF_INET6, kind) as call,
    ):
        ear.bind(("", 80))
        ear.settimeout(10)
        call.settimeout(10)
        if kind == socket.SOCK_STREAM:
            ear.listen()
            call.connect(("::1", 8080))
            accepted, caller = ear.accept()
            with accepted:
                call.sendall(b"x" * 300_000)
                call.shutdown(socket.SHUT_WR)
                heard = b"".join(iter(lambda: accepted.recv(1 << 16), b""))
                accepted.sendall(heard[::-1])
            assert b"".join(iter(lambda: call.recv(1 << 16), b"")) == b"x" * 300_000
        else:
            for word in (b"one", b"two"):
                call.sendto(word, ("::1", 8080))
                heard, caller = ear.recvfrom(64)
                ear.sendto(heard.upper(), caller)
                assert call.recv(64) == word.upper()
        return str(caller[0])


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_port_published_on_ipv6_loopback_is_relayed(engine: Engine, lan: str, kind: str) -> None:
    """The daemon relays a port on `::1` in both directions, with the host as client.

    A connection that the container does not accept is reset.
    """
    number = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    web = engine.run("base", FOR_EVER, network=lan, publish=[f"[::1]:8080:80/{kind}"])
    assert _called_on_loopback6(web, kind=number) == "fd00:9::1"
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as call:
        call.settimeout(10)
        if kind == "tcp":
            with pytest.raises(ConnectionResetError):
                _connect_and_read(call)
    engine.network_create("aaa", subnet6="fd00:a::/64")
    engine.network_connect("aaa", web.id)
    assert _called_on_loopback6(web, kind=number) == "fd00:a::1"
    engine.stop(web.id, timeout=0)
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as call,
        pytest.raises(ConnectionRefusedError),
    ):
        call.connect(("::1", 8080))


def _connect_and_read(call: socket.socket) -> None:
    call.connect(("::1", 8080))  # fails itself if the reset comes at once
    call.recv(1)


@pytest.mark.parametrize(
    "step",
    steps(
        (DaemonClient, "serve"),
        (client, "_request"),
        (DaemonClient, "_begin"),
        (client, "_bind"),
        (DaemonClient, "_start"),
        (dns_socket, "open_dns_sockets"),
    ).values(),
)
def test_name_resolution_works_after_a_killed_start(
    engine: Engine, root: Path, lan: str, step: Step
) -> None:
    """A container starts with name resolution after another start was killed at any step.

    Nothing of the killed start is left.
    """
    with nothing_left(root):
        killed_at(step, lambda: Engine(root).run("base", FOR_EVER, name="web", network=lan))
        until(lambda: not _starting(engine), "the killed start's child has ended")
        with contextlib.suppress(MydockerError):
            engine.remove("web", force=True)
        db = engine.run("base", FOR_EVER, name="web", network=lan)
        assert reply_values(ask(db, "web")) == {"10.9.0.2"}
        engine.remove("web", force=True)
        until(lambda: not _daemons(), "the daemon has ended")


def _starting(engine: Engine) -> bool:
    return any(item.state.status in ("starting", "removing") for item in engine.containers())


def test_start_fails_while_the_daemon_is_suspended(
    engine: Engine, lan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start fails while SIGSTOP suspends the daemon, and leaves nothing running.

    The error names the DNS daemon.
    """
    engine.run("base", FOR_EVER, network=lan)
    until(lambda: bool(_daemons()), "the daemon runs")
    (pid,) = _daemons()
    monkeypatch.setattr(client, "_BOUND", 0.2)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(MydockerError, match="DNS daemon"):
            engine.run("base", FOR_EVER, name="web", network=lan)
        assert [item.name for item in engine.containers()].count("web") == 0
    finally:
        os.kill(pid, signal.SIGCONT)
    with pytest.raises(ConflictError):
        engine.network_remove(lan)


def test_containers_are_listed_with_a_full_daemon_queue(
    engine: Engine, lan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers can be listed while the daemon's queue of connections is full.

    Other calls wait or get an error.
    """
    engine.run("base", FOR_EVER, name="web", network=lan)
    until(lambda: bool(_daemons()), "the daemon runs")
    (pid,) = _daemons()
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(100):
            assert engine.inspect("web").running
        with monkeypatch.context() as patched:
            patched.setattr(client, "_BOUND", 0.2)
            with pytest.raises(MydockerError, match="DNS daemon"):
                engine.run("base", FOR_EVER, name="late", network=lan)
    finally:
        os.kill(pid, signal.SIGCONT)
    db = engine.run("base", FOR_EVER, name="db", network=lan)
    assert reply_values(ask(db, "web")) == {"10.9.0.2"}
    assert _daemons() == {pid}


def test_daemon_returns_to_the_host_netns_after_a_query(
    engine: Engine, lan: str, host: NetNS
) -> None:
    """The daemon is in the host's netns again after a query from inside a container."""
    web = engine.run("base", FOR_EVER, network=lan, dns=[GATEWAY])
    with name_server(fixed_reply):
        assert reply_values(ask(web, "www.example")) == {"192.0.2.1"}
    (pid,) = _daemons()
    assert os.readlink(f"/proc/{pid}/ns/net") == f"net:[{host.id[1]}]"
