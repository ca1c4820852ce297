"""Tests of the services' record of visits, and of the services' process."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.model.plan import FAMILIES
from harness.model.topology import Topology
from harness.world import services as module
from harness.world.host import quiet_fork
from harness.world.service_protocols import TCP_PORTS, UDP_PORTS
from harness.world.services import Services, ServicesDied
from linux import rtnetlink
from linux.netlink import Netlink
from linux.netns import NetNS
from tests.support.processes import nothing_stays_open
from tests.world.pair import PORT, pair
from tests.world.serving import (
    CLIENT,
    PATIENCE,
    SERVED,
    Places,
    datagrams,
    drain,
    everything,
    stream,
)

pytestmark = pytest.mark.usefixtures("services")


# --- the record ----------------------------------------------------------------------


def test_services_record_every_visit(services: Services, client: NetNS) -> None:
    """The process records each visit with its client, transport, service and address."""
    mark, expected = services.mark(), []
    for family in FAMILIES:
        for service in TCP_PORTS:
            with stream(client, family, service) as sock:
                expected.append(("tcp", sock.getsockname()[:2], service, SERVED[family]))
        for service in UDP_PORTS:
            with datagrams(client, family, service) as sock:
                sock.send(b"?")
                expected.append(("udp", sock.getsockname()[:2], service, SERVED[family]))
    seen = services.visits(mark)
    assert sorted(
        (visit.transport, visit.client, visit.service, visit.address) for visit in seen
    ) == sorted(expected)
    assert {visit.namespace for visit in seen} == {"internet"}
    assert [visit.at for visit in seen] == sorted(visit.at for visit in seen)


def test_services_record_every_delivered_datagram(services: Services, client: NetNS) -> None:
    """The visits since a mark are exactly the datagrams that were sent after the mark."""
    with datagrams(client, 4, "echo") as sock:
        for count in (1, 100, 50):
            mark = services.mark()
            for _ in range(count):
                sock.send(b"!")
            assert len(services.visits(mark)) == count
        assert len(services.visits()) >= 151


def test_client_without_return_route_is_recorded(
    services: Services, client: NetNS, namespaces: tuple[NetNS, NetNS]
) -> None:
    """A datagram from a client without a return route is recorded.

    The next datagram gets a reply.
    """
    mark = services.mark()
    with Netlink(client) as netlink:
        netlink.send([rtnetlink.add_address(PORT, ip_interface("fd00:9::9/128"))])
    with (
        datagrams(client, 6, "echo") as sock,
        client.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other,
    ):
        other.bind(("fd00:9::9", 0))
        other.sendto(b"lost", (SERVED[6], UDP_PORTS["echo"]))
        sock.send(b"kept")
        assert json.loads(sock.recv(4096))["data"] == "kept"
    assert [visit.client[0] for visit in services.visits(mark)] == ["fd00:9::9", CLIENT[6]]


def test_visits_can_be_read_during_an_endless_transfer(services: Services, client: NetNS) -> None:
    """The services process answers queries for its visits during an endless transfer."""
    with stream(client, 4, "chargen") as sock:
        sock.sendall(b"1000000000000\n")
        reader = threading.Thread(target=drain, args=(sock,))
        reader.start()
        for _ in range(100):
            services.mark()
        sock.shutdown(socket.SHUT_RDWR)
        reader.join(PATIENCE)
    assert not reader.is_alive()


@pytest.mark.parametrize("service", UDP_PORTS)
def test_datagram_from_a_service_port_is_not_answered(
    services: Services, client: NetNS, service: str
) -> None:
    """A datagram whose source port is a service's port is recorded, but gets no reply."""
    mark = services.mark()
    for port in UDP_PORTS.values():
        with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((CLIENT[4], port))
            sock.sendto(bytes(12), (SERVED[4], UDP_PORTS[service]))
            assert services.visits(mark)[-1].client == (CLIENT[4], port)
            with pytest.raises(BlockingIOError):
                sock.recv(4096)


# --- the process -----------------------------------------------------------------------


def echoed(client: NetNS, served: str = SERVED[4]) -> object:
    """Send a datagram to the echo service and return its decoded reply."""
    with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.sendto(b"hi", (served, UDP_PORTS["echo"]))
        return json.loads(sock.recv(4096))["me"]


@pytest.fixture
def elsewhere() -> Iterator[tuple[Places, NetNS]]:
    """Create a netns without services, and a client on the same link."""
    with pair(["192.0.2.1/24"], ["192.0.2.2/24"]) as (one, other):
        yield {"elsewhere": (one, [ip_address("192.0.2.1")])}, other


def test_services_restart_on_the_same_ports(elsewhere: tuple[Places, NetNS]) -> None:
    """Services can restart on the same ports although earlier connections linger."""
    places, client = elsewhere
    for _ in range(2):
        with (
            Services.start(places) as services,
            client.socket(socket.AF_INET, socket.SOCK_STREAM) as sock,
        ):
            sock.settimeout(PATIENCE)
            sock.connect(("192.0.2.1", TCP_PORTS["chargen"]))
            sock.sendall(b"1\n")
            assert everything(sock)
        assert services.pid == 0
        services.stop()


def test_services_process_serves_several_namespaces(
    elsewhere: tuple[Places, NetNS], namespaces: tuple[NetNS, NetNS]
) -> None:
    """One services process serves each namespace under the namespace's name.

    It serves as soon as it has started.
    """
    places, client = elsewhere
    both = {**places, "far": (namespaces[1], [ip_address(CLIENT[4])])}
    with Services.start(both) as services:
        assert echoed(client, "192.0.2.1") == "elsewhere"
        assert echoed(namespaces[0], CLIENT[4]) == "far"
        assert [visit.namespace for visit in services.visits()] == ["elsewhere", "far"]


def test_services_name_an_address_they_cannot_bind(elsewhere: tuple[Places, NetNS]) -> None:
    """If an address cannot be bound, the error names the socket.

    No descriptor stays open.
    """
    places, _ = elsewhere
    netns = places["elsewhere"][0]
    wrong = [ip_address("192.0.2.1"), ip_address("192.0.2.9")]
    said = r"tcp port 7 of 192\.0\.2\.9 in elsewhere: .*interface"
    with nothing_stays_open(), pytest.raises(OSError, match=said):
        Services.start({"elsewhere": (netns, wrong)})


def test_services_process_inherits_no_descriptors_or_group(
    services: Services,
) -> None:
    """The services process holds only sockets, one epoll and /dev/null.

    The process has its own process group, so Ctrl-C does not reach it.
    """
    assert os.getpgid(services.pid) == services.pid != os.getpgid(0)
    folder = f"/proc/{services.pid}/fd"
    held = {os.readlink(f"{folder}/{number}").partition(":")[0] for number in os.listdir(folder)}
    assert held == {"socket", "anon_inode", "/dev/null"}


@pytest.mark.parametrize("use", [Services.mark, Services.visits, Services.queries, Services.stop])
def test_request_to_killed_services_raises(elsewhere: tuple[Places, NetNS], use: Any) -> None:
    """Any request to killed services raises an error, which names the signal."""
    services = Services.start(elsewhere[0])
    pidfd = os.pidfd_open(services.pid)
    os.kill(services.pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)
    with pytest.raises(ServicesDied, match="SIGKILL"):
        use(services)
    assert services.pid == 0


@pytest.mark.parametrize("use", [Services.mark, Services.stop])
def test_failed_services_process_reports_its_traceback(
    elsewhere: tuple[Places, NetNS], use: Any
) -> None:
    """If the services process fails, the error has its exit status and traceback."""
    services = Services.start(elsewhere[0], topology=cast("Topology", object()))
    pidfd = os.pidfd_open(services.pid)
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)
    with pytest.raises(ServicesDied, match=r"exit status 1(.|\n)*AttributeError"):
        use(services)


def test_hanging_services_process_is_killed(
    elsewhere: tuple[Places, NetNS], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hanging services process is killed at the time limit.

    Its late reply is an error.
    """
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    services = Services.start(elsewhere[0])
    os.kill(services.pid, signal.SIGSTOP)
    with pytest.raises(ServicesDied, match=r"did not return its record within 0\.05 s"):
        services.visits()
    with pytest.raises(ServicesDied, match="there is no record"):
        services.visits()


def test_services_die_with_their_parent(elsewhere: tuple[Places, NetNS]) -> None:
    """Services end when the process that started them is killed, even if they are stopped.

    They may be stopped by SIGSTOP.
    """
    read, write = os.pipe()
    parent = quiet_fork()
    if parent == 0:
        services = Services.start(elsewhere[0])
        services.mark()
        os.kill(services.pid, signal.SIGSTOP)
        os.write(write, b"%d\n" % services.pid)
        signal.pause()
    pidfd = os.pidfd_open(int(os.read(read, 16)))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    ended = select.select([pidfd], [], [], PATIENCE)[0]
    for number in (read, write, pidfd):
        os.close(number)
    assert ended


@pytest.mark.parametrize("service", TCP_PORTS)
@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(st.binary(max_size=300), max_size=4), reset=st.booleans())
def test_services_survive_arbitrary_tcp_data(
    services: Services, client: NetNS, service: str, pieces: list[bytes], *, reset: bool
) -> None:
    """Services survive any bytes over TCP, and any way to end the connection."""
    with stream(client, 4, service) as sock:
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(ConnectionError):  # the service may reset the connection
            for piece in pieces:
                sock.sendall(piece)
    assert services.mark() > 0


@pytest.mark.parametrize("service", UDP_PORTS)
@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=2000))
def test_services_survive_arbitrary_datagrams(
    services: Services, client: NetNS, service: str, data: bytes
) -> None:
    """Services survive any bytes in a datagram."""
    mark = services.mark()
    with datagrams(client, 4, service) as sock:
        sock.send(data)
    assert len(services.visits(mark)) == 1
