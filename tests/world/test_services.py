"""Tests of the replies of the world's services to real packets."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import time

import dns.message
import dns.query
import pytest

from harness.model.plan import FAMILIES, Family
from harness.world.service_protocols import ECHOED, bulk
from harness.world.services import ServiceQuery, Services
from linux.netns import NetNS
from tests.world.serving import (
    CLIENT,
    PATIENCE,
    SERVED,
    datagrams,
    everything,
    stream,
)

pytestmark = pytest.mark.usefixtures("services")


# --- echo, discard, chargen ------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_udp_echo_names_sender_and_receiver(client: NetNS, family: Family) -> None:
    """The reply of the UDP echo is a line that names the sender and the receiver."""
    with datagrams(client, family, "echo") as sock:
        sock.send(b"caf\xe9 \x00")
        seen = json.loads(sock.recv(4096))
        own = list(sock.getsockname()[:2])
    assert seen == {"you": own, "me": "internet", "size": 6, "data": "caf\xe9 \x00"}
    assert own[0] == CLIENT[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_udp_echo_answers_the_largest_datagram(client: NetNS, family: Family) -> None:
    """The reply to the largest UDP datagram, which is fragmented, has the full size."""
    with datagrams(client, family, "echo") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        sock.send(b"\xff" * 65507)
        seen = json.loads(sock.recv(1 << 16))
    assert (seen["size"], seen["data"]) == (65507, "\xff" * ECHOED)


@pytest.mark.parametrize("family", FAMILIES)
def test_tcp_echo_names_the_client_and_returns_all_bytes(client: NetNS, family: Family) -> None:
    """The TCP echo sends a line with the client's address, then returns all bytes."""
    with stream(client, family, "echo") as sock, sock.makefile("rb") as lines:
        assert json.loads(lines.readline()) == {
            "you": list(sock.getsockname()[:2]),
            "me": "internet",
        }
        sock.sendall(b"one\ntwo")
        assert lines.readline() == b"one\n"
        sock.shutdown(socket.SHUT_WR)
        assert lines.read() == b"two"


@pytest.mark.parametrize("family", FAMILIES)
def test_discard_reports_size_and_checksum(client: NetNS, family: Family) -> None:
    """The discard service reports the size and checksum of the data after its last byte."""
    digest, size = hashlib.sha256(), 3_000_001
    with stream(client, family, "discard") as sock:
        for chunk in bulk(size):
            digest.update(chunk)
            sock.sendall(chunk)
        sock.shutdown(socket.SHUT_WR)
        told = json.loads(everything(sock))
    assert (told["size"], told["sha256"]) == (size, digest.hexdigest())


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 5_000_000])
@pytest.mark.parametrize("family", FAMILIES)
def test_chargen_sends_the_requested_number_of_bytes(
    client: NetNS, family: Family, size: int
) -> None:
    """Chargen sends exactly the requested number of bytes of its bulk data."""
    with stream(client, family, "chargen") as sock:
        sock.sendall(f"{size}\n".encode())
        assert everything(sock) == b"".join(bulk(size))


def test_chunks_of_bulk_data_are_distinct() -> None:
    """No two chunks of the bulk data are equal.

    A TCP segment in the wrong place therefore changes the checksum.
    """
    chunks = list(bulk(1 << 20))
    assert len(set(chunks)) == len(chunks) > 1


@pytest.mark.parametrize("asked", [b"many\n", b"\n", b"-1\n", b"9" * 40])
def test_chargen_explains_its_format_on_invalid_request(client: NetNS, asked: bytes) -> None:
    """A chargen request without a valid number gets a reply that explains the request's format."""
    with stream(client, 4, "chargen") as sock:
        sock.sendall(asked)
        assert everything(sock).startswith(b"? how many bytes")


def test_slow_client_does_not_delay_other_clients(services: Services, client: NetNS) -> None:
    """While one client does not read, other clients get replies and are recorded."""
    mark = services.mark()
    with stream(client, 4, "chargen") as slow, stream(client, 4, "echo") as other:
        slow.sendall(b"100000000\n")
        assert json.loads(other.recv(4096))["me"] == "internet"
        assert [visit.service for visit in services.visits(mark)] == ["chargen", "echo"]


# --- HTTP --------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_http_page_names_client_host_and_path(client: NetNS, family: Family) -> None:
    """The HTTP page shows the client's address, the requested host and the path."""
    connection = http.client.HTTPConnection("www.example.com")
    connection.sock = stream(client, family, "http")
    connection.request("GET", "/some/page?x=1")
    with connection.getresponse() as response:
        page = json.loads(response.read())
    assert response.status == 200
    assert page.pop("you")[0] == CLIENT[family]
    assert page == {"me": "internet", "host": "www.example.com", "path": "/some/page?x=1"}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"HEAD / HTTP/1.0\r\n\r\n", b"200"),
        (b"POST / HTTP/1.0\r\n\r\n", b"501"),
        (b"GET / HTTP/x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"431"),
        (b"GET /" + b"x" * 70000, b"414"),
    ],
)
def test_http_request_gets_the_status_of_its_method(
    client: NetNS, request_: bytes, status: bytes
) -> None:
    """HEAD returns only the header; unknown methods and malformed requests get an error status."""
    with stream(client, 4, "http") as sock:
        sock.sendall(request_)
        head, _, body = everything(sock).partition(b"\r\n\r\n")
    assert status in head
    assert not (body and request_.startswith(b"HEAD"))


def test_http_response_is_readable_despite_excess_request_data(client: NetNS) -> None:
    """A client that sends too much data can still read the response."""
    with stream(client, 4, "http") as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n" + b"x" * 100_000)
        assert b"200 OK" in everything(sock)
        sock.sendall(b"x" * 100_000)


# --- DNS ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_sentinel_dns_query_is_answered_and_recorded(
    services: Services, client: NetNS, family: Family
) -> None:
    """A DNS query is recorded with its time, transport, client, name and type."""
    mark, before = services.mark(), time.time()
    query = dns.message.make_query(
        f"X{family}.sentinel.example.com", "A" if family == 4 else "AAAA"
    )
    with datagrams(client, family, "dns") as sock:
        sock.send(query.to_wire())
        answer = dns.message.from_wire(sock.recv(4096))
        by_udp = sock.getsockname()[:2]
    with stream(client, family, "dns") as sock:
        by_tcp = sock.getsockname()[:2]
        whole = dns.query.tcp(query, SERVED[family], sock=sock, timeout=PATIENCE)
    assert [str(item) for item in answer.answer[0]] == [SERVED[family]]
    assert whole.answer == answer.answer
    name, kind = f"x{family}.sentinel.example.com", "A" if family == 4 else "AAAA"
    first, second = services.queries(mark)
    assert before <= first.at <= second.at <= time.time()
    assert [first, second] == [
        ServiceQuery(first.at, "internet", "udp", by_udp, name, kind),
        ServiceQuery(second.at, "internet", "tcp", by_tcp, name, kind),
    ]


def test_dns_queries_over_tcp_may_be_segmented_in_any_way(client: NetNS) -> None:
    """Every DNS query on a TCP connection gets a reply, in whatever segments it arrives."""
    queries = [
        dns.message.make_query("www.example.com", kind, id=number)
        for number, kind in enumerate(("A", "AAAA", "MX"))
    ]
    with stream(client, 4, "dns") as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        joined = b"".join(query.to_wire(prepend_length=True) for query in queries)
        for piece in (joined[:1], joined[1:50], joined[50:]):
            sock.sendall(piece)
        deadline = time.time() + PATIENCE
        answers = [dns.query.receive_tcp(sock, deadline)[0] for _ in queries]
    assert all(query.is_response(answer) for query, answer in zip(queries, answers, strict=True))


def test_tcp_stream_that_is_not_dns_is_closed(client: NetNS) -> None:
    """A TCP stream to the DNS service that is not DNS is closed without a reply."""
    with stream(client, 4, "dns") as sock:
        sock.sendall(b"\0\3abc")
        assert everything(sock) == b""
