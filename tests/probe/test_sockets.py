"""Tests of a netns's probe sockets: their common port, received packets and replies."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from harness.model.plan import FAMILIES, Family
from harness.probe.sockets import (
    PortsTaken,
    ProbeSockets,
    SocketError,
    open_sockets,
    pending_error,
    plain,
    receive,
    reply,
)
from linux.netns import NetNS
from tests.support.probing import settle
from tests.support.processes import nothing_stays_open
from tests.world.pair import pair

KINDS = {4: socket.AF_INET, 6: socket.AF_INET6}
SOURCE: dict[Family, str] = {4: "192.0.2.1", 6: "2001:db8:5::1"}
FIRST: dict[Family, str] = {4: "192.0.2.2", 6: "2001:db8:5::2"}
SECOND: dict[Family, str] = {4: "192.0.2.3", 6: "2001:db8:5::3"}
PORT = 61234
Pair = tuple[NetNS, NetNS]


@pytest.fixture(scope="module")
def ends() -> Iterator[Pair]:
    """Create the netns of a source and that of a target with two addresses of each family."""
    own = [f"{item[4]}/24" for item in (FIRST, SECOND)] + [
        f"{item[6]}/64" for item in (FIRST, SECOND)
    ]
    with pair([f"{SOURCE[4]}/24", f"{SOURCE[6]}/64"], own) as both:
        yield both


@pytest.fixture
def sockets(ends: Pair) -> Iterator[tuple[ProbeSockets, ProbeSockets]]:
    """Open the probe sockets at each end."""
    one, other = open_sockets(ends, [PORT])
    yield one, other
    one.close()
    other.close()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_port_in_use_in_one_namespace_is_not_chosen(ends: Pair, family: Family, kind: int) -> None:
    """A port that is in use for one protocol, family or namespace is not chosen for any socket."""
    with nothing_stays_open(), ends[1].socket(KINDS[family], kind) as taken:
        taken.bind((FIRST[family], PORT))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        opened = open_sockets(ends, [PORT, PORT + 1])
        assert [own.port for own in opened] == [PORT + 1] * 2
        assert [own.number for own in opened] == [0, 1]
        for own in opened:
            own.close()
        with pytest.raises(
            PortsTaken, match=rf"each of the ports \[{PORT}\] is in use in one of 2"
        ):
            open_sockets(ends, [PORT])


def test_error_other_than_port_in_use_is_raised(ends: Pair) -> None:
    """An error other than a port in use is raised.

    No socket stays open.
    """
    closed = NetNS.new()
    closed.close()
    with nothing_stays_open(), pytest.raises(OSError, match="Bad file descriptor"):
        open_sockets([*ends, closed], [PORT, PORT + 1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("address", [FIRST, SECOND])
def test_witness_replies_from_the_requested_address(
    sockets: tuple[ProbeSockets, ProbeSockets], family: Family, address: dict[Family, str]
) -> None:
    """The witness replies from the requested address.

    It reports the source address and the TTL.
    """
    source, witness = sockets
    hops = {
        4: (socket.IPPROTO_IP, socket.IP_TTL),
        6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
    }
    source.udp[family].setsockopt(*hops[family], 33)
    source.udp[family].sendto(b"who?", (address[family], PORT))
    settle(source.netns, witness.netns)
    request = receive(witness.udp_witness[family])
    assert request is not None
    assert (request.data, request.ttl) == (b"who?", 33)
    assert (request.source, request.to) == (ip_address(SOURCE[family]), ip_address(address[family]))
    reply(witness.udp_witness[family], request, b"me")
    settle(source.netns, witness.netns)
    answer = receive(source.udp[family])
    assert answer is not None
    assert (answer.data, answer.ttl) == (b"me", 64)
    assert (answer.source, answer.port) == (ip_address(address[family]), PORT)


@pytest.mark.parametrize("family", FAMILIES)
def test_closed_probe_connection_leaves_no_time_wait(
    sockets: tuple[ProbeSockets, ProbeSockets], family: Family
) -> None:
    """The client of a probe resets its TCP connection, so no TIME_WAIT is left."""
    source, witness = sockets
    with source.netns.entered():
        stream = source.connecting(family)
    stream.connect_ex((FIRST[family], PORT))
    assert select.select([witness.listener[family]], [], [], 5)[0]
    accepted, _ = witness.listener[family].accept()
    with accepted:
        stream.close()
        assert select.select([accepted], [], [], 5)[0]
        with pytest.raises(ConnectionResetError):
            accepted.recv(1)
    for space in (source.netns, witness.netns):
        table = "tcp" if family == 4 else "tcp6"
        with space.entered(), open(f"/proc/thread-self/net/{table}", encoding="ascii") as file:
            states = [line.split()[3] for line in file.readlines()[1:]]
        assert set(states) == {"0A"}  # TCP_LISTEN


@pytest.mark.parametrize("family", FAMILIES)
def test_error_queue_has_the_icmp_error_and_its_datagram(
    sockets: tuple[ProbeSockets, ProbeSockets], family: Family
) -> None:
    """The error queue returns the ICMP error's name and the datagram that it quotes.

    After that the queue is empty.
    """
    source, witness = sockets
    for text in (b"one", b"two"):
        source.udp[family].sendto(text, (FIRST[family], 9))
        settle(source.netns, witness.netns)
        assert receive(source.udp[family]) is None
        error = pending_error(source.udp[family], family)
        expected = SocketError(
            errno.ECONNREFUSED, text, "port-unreachable", ip_address(FIRST[family])
        )
        assert error == expected
        assert pending_error(source.udp[family], family) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_plain_address_has_no_scope_and_no_ipv4_mapping(text: str, expected: str) -> None:
    """A plain address has no scope.

    An IPv4-mapped IPv6 address becomes an IPv4 address.
    """
    assert str(plain(text)) == expected
