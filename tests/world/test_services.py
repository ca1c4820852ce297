"""What the world's services answer, over real packets, and what they record."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from typing import Any, cast

import dns.flags
import dns.message
import dns.query
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.model import FAMILIES, Family
from harness.topology import Topology
from harness.world import services as module
from harness.world.answers import ECHOED, TCP_PORTS, UDP_PORTS, bulk
from harness.world.dns import BIG, BIG_TEXT
from harness.world.host import quiet_fork
from harness.world.services import Question, Services, ServicesDied
from linux import rtnl
from linux.netlink import Netlink
from linux.netns import NetNS
from tests.world.pair import PORT, pair

SERVED = {4: "203.0.113.10", 6: "2001:db8:1::10"}
CLIENT = {4: "203.0.113.7", 6: "2001:db8:1::7"}
SOCKETS = {4: socket.AF_INET, 6: socket.AF_INET6}
PATIENCE = 5.0

pytestmark = pytest.mark.usefixtures("services")

Places = dict[str, tuple[NetNS, list[Any]]]


@pytest.fixture(scope="module")
def namespaces() -> Iterator[tuple[NetNS, NetNS]]:
    """The internet and somebody on the same link."""
    with pair(
        ["203.0.113.10/24", "2001:db8:1::10/64"], ["203.0.113.7/24", "2001:db8:1::7/64"]
    ) as ends:
        yield ends


@pytest.fixture(scope="module")
def client(namespaces: tuple[NetNS, NetNS]) -> NetNS:
    """The namespace to ask from."""
    return namespaces[1]


@pytest.fixture(scope="module")
def places(namespaces: tuple[NetNS, NetNS]) -> Places:
    """What `Services.start` is told."""
    return {"internet": (namespaces[0], [ip_address(text) for text in SERVED.values()])}


@pytest.fixture(scope="module")
def services(places: Places) -> Iterator[Services]:
    """The services, running."""
    with Services.start(places) as running:
        yield running


def stream(client: NetNS, family: Family, service: str) -> socket.socket:
    """A connection from the client to a service."""
    opened = client.socket(SOCKETS[family], socket.SOCK_STREAM)
    opened.settimeout(PATIENCE)
    opened.connect((SERVED[family], TCP_PORTS[service]))
    return opened


def datagrams(client: NetNS, family: Family, service: str) -> socket.socket:
    """A socket of the client's that sends to a service."""
    opened = client.socket(SOCKETS[family], socket.SOCK_DGRAM)
    opened.settimeout(PATIENCE)
    opened.connect((SERVED[family], UDP_PORTS[service]))
    return opened


def everything(sock: socket.socket) -> bytes:
    """All that the other side says until it has said everything."""
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def drain(sock: socket.socket) -> None:
    """Read, and keep nothing, until the connection ends in whatever way."""
    with contextlib.suppress(ConnectionError):
        while sock.recv(1 << 16):
            pass


# --- echo, discard, chargen ------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_udp_echo_tells_whom_it_saw(client: NetNS, family: Family) -> None:
    """A datagram comes back as a line that names its sender and its receiver."""
    with datagrams(client, family, "echo") as sock:
        sock.send(b"caf\xe9 \x00")
        seen = json.loads(sock.recv(4096))
        own = list(sock.getsockname()[:2])
    assert seen == {"you": own, "me": "internet", "size": 6, "data": "caf\xe9 \x00"}
    assert own[0] == CLIENT[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_udp_echo_answers_the_largest_datagram(client: NetNS, family: Family) -> None:
    """A datagram in many fragments is answered in few, with its whole size."""
    with datagrams(client, family, "echo") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        sock.send(b"\xff" * 65507)
        seen = json.loads(sock.recv(1 << 16))
    assert (seen["size"], seen["data"]) == (65507, "\xff" * ECHOED)


@pytest.mark.parametrize("family", FAMILIES)
def test_tcp_echo_tells_whom_it_saw_and_says_back(client: NetNS, family: Family) -> None:
    """The first line names the guest; then every byte comes back, and the end after them."""
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
def test_discard_tells_what_it_got(client: NetNS, family: Family) -> None:
    """After the last byte the sink tells size and SHA-256 of them all."""
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
def test_chargen_says_as_much_as_was_asked_for(client: NetNS, family: Family, size: int) -> None:
    """The bytes are those of `bulk`, exactly as many as the line says."""
    with stream(client, family, "chargen") as sock:
        sock.sendall(f"{size}\n".encode())
        assert everything(sock) == b"".join(bulk(size))


def test_no_two_chunks_of_the_bulk_are_equal() -> None:
    """A segment in the wrong place changes the checksum of the whole."""
    chunks = list(bulk(1 << 20))
    assert len(set(chunks)) == len(chunks) > 1


@pytest.mark.parametrize("asked", [b"many\n", b"\n", b"-1\n", b"9" * 40])
def test_chargen_explains_what_it_wants(client: NetNS, asked: bytes) -> None:
    """What is no number is answered with what would be one."""
    with stream(client, 4, "chargen") as sock:
        sock.sendall(asked)
        assert everything(sock).startswith(b"? how many bytes")


def test_a_slow_reader_holds_up_nobody(services: Services, client: NetNS) -> None:
    """While one guest does not read what it asked for, others are served and recorded."""
    mark = services.mark()
    with stream(client, 4, "chargen") as slow, stream(client, 4, "echo") as other:
        slow.sendall(b"100000000\n")
        assert json.loads(other.recv(4096))["me"] == "internet"
        assert [visit.service for visit in services.seen(mark)] == ["chargen", "echo"]


# --- HTTP --------------------------------------------------------------------------


def get(client: NetNS, family: Family) -> http.client.HTTPResponse:
    """One request for a page of www.example.com; the response is read to its end."""
    connection = http.client.HTTPConnection("www.example.com")
    connection.sock = stream(client, family, "http")
    connection.request("GET", "/some/page?x=1")
    return connection.getresponse()


@pytest.mark.parametrize("family", FAMILIES)
def test_http_names_the_guest_and_the_host(client: NetNS, family: Family) -> None:
    """The page tells whom the server saw and which host and path were asked for."""
    with get(client, family) as response:
        page = json.loads(response.read())
    assert response.status == 200
    assert page.pop("you")[0] == CLIENT[family]
    assert page == {"me": "internet", "host": "www.example.com", "path": "/some/page?x=1"}


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 501)])
def test_http_knows_its_methods(client: NetNS, method: str, status: int) -> None:
    """HEAD gets the head only, and a method that is not there is refused as such."""
    with stream(client, 4, "http") as sock:
        sock.sendall(f"{method} / HTTP/1.0\r\n\r\n".encode())
        head, _, body = everything(sock).partition(b"\r\n\r\n")
    assert head.split()[1] == str(status).encode()
    assert bool(body) == (method == "POST")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET\r\n\r\n", b"400"),
        (b"GET / HTTP/x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"431"),
        (b"GET /" + b"x" * 70000, b"414"),
    ],
)
def test_http_refuses_what_is_malformed(client: NetNS, request_: bytes, status: bytes) -> None:
    """A request that is none, or too long, gets the status that says so."""
    with stream(client, 4, "http") as sock:
        sock.sendall(request_)
        assert status in everything(sock)


def test_an_answer_is_not_lost_with_the_connection(client: NetNS) -> None:
    """A guest that goes on talking after its answer can still read the answer."""
    with stream(client, 4, "http") as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n" + b"x" * 100_000)
        assert b"200 OK" in everything(sock)
        sock.sendall(b"x" * 100_000)


# --- DNS ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_question_is_answered_and_recorded(
    services: Services, client: NetNS, family: Family
) -> None:
    """Any sentinel name has the internet's address, and its asker is told by transport."""
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
    first, second = services.asked(mark)
    assert before <= first.at <= second.at <= time.time()
    assert [first, second] == [
        Question(first.at, "internet", "udp", by_udp, name, kind),
        Question(second.at, "internet", "tcp", by_tcp, name, kind),
    ]


def test_a_truncated_answer_is_whole_over_tcp(client: NetNS) -> None:
    """The big name has TC over UDP and all its text over TCP."""
    query = dns.message.make_query(BIG, "TXT", use_edns=0, payload=4096)
    with datagrams(client, 4, "dns") as sock:
        sock.send(query.to_wire())
        assert dns.message.from_wire(sock.recv(65535)).flags & dns.flags.TC
    with stream(client, 4, "dns") as sock:
        (rrset,) = dns.query.tcp(query, SERVED[4], sock=sock, timeout=PATIENCE).answer
    assert rrset[0].strings == tuple(text.encode() for text in BIG_TEXT)


def test_queries_over_tcp_may_come_in_pieces_and_in_one_piece(client: NetNS) -> None:
    """Every query on a connection is answered, however its bytes are cut."""
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


def test_no_dns_no_answer_but_the_end(client: NetNS) -> None:
    """A stream that speaks something else is hung up on."""
    with stream(client, 4, "dns") as sock:
        sock.sendall(b"\0\3abc")
        assert everything(sock) == b""


# --- the record ----------------------------------------------------------------------


def test_every_visit_is_recorded(services: Services, client: NetNS) -> None:
    """Who came, by which transport, to which service and which address, is told."""
    mark, expected = services.mark(), []
    for family in FAMILIES:
        for service in TCP_PORTS:
            with stream(client, family, service) as sock:
                expected.append(("tcp", sock.getsockname()[:2], service, SERVED[family]))
        for service in UDP_PORTS:
            with datagrams(client, family, service) as sock:
                sock.send(b"?")
                expected.append(("udp", sock.getsockname()[:2], service, SERVED[family]))
    seen = services.seen(mark)
    assert sorted(
        (visit.transport, visit.client, visit.service, visit.address) for visit in seen
    ) == sorted(expected)
    assert {visit.place for visit in seen} == {"internet"}
    assert [visit.at for visit in seen] == sorted(visit.at for visit in seen)


def test_what_was_delivered_is_in_the_record(services: Services, client: NetNS) -> None:
    """A request for the record comes after every datagram sent before it."""
    with datagrams(client, 4, "echo") as sock:
        for count in (1, 100, 50):
            mark = services.mark()
            for _ in range(count):
                sock.send(b"!")
            assert len(services.seen(mark)) == count


def test_a_mark_divides_the_record(services: Services, client: NetNS) -> None:
    """What came before a mark is not told after it, and is still told without it."""
    with datagrams(client, 4, "echo") as sock:
        sock.send(b"before")
        mark = services.mark()
        assert services.seen(mark) == []
        sock.send(b"after")
        assert len(services.seen(mark)) == 1
        assert len(services.seen()) >= 2


def test_a_guest_out_of_reach_is_recorded(
    services: Services, client: NetNS, namespaces: tuple[NetNS, NetNS]
) -> None:
    """A datagram from where no route leads back is seen, and the next one is answered."""
    mark = services.mark()
    with Netlink(client) as netlink:
        netlink.send([rtnl.add_address(PORT, ip_interface("fd00:9::9/128"))])
    with (
        datagrams(client, 6, "echo") as sock,
        client.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other,
    ):
        other.bind(("fd00:9::9", 0))
        other.sendto(b"lost", (SERVED[6], UDP_PORTS["echo"]))
        sock.send(b"kept")
        assert json.loads(sock.recv(4096))["data"] == "kept"
    assert [visit.client[0] for visit in services.seen(mark)] == ["fd00:9::9", CLIENT[6]]


def test_a_fast_reader_does_not_hold_up_the_record(services: Services, client: NetNS) -> None:
    """While one guest is fed without end, the record is told as ever."""
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
def test_services_do_not_talk_to_each_other(
    services: Services, client: NetNS, service: str
) -> None:
    """A datagram that claims to come from a service is recorded, not answered."""
    mark = services.mark()
    for port in UDP_PORTS.values():
        with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((CLIENT[4], port))
            sock.sendto(bytes(12), (SERVED[4], UDP_PORTS[service]))
            assert services.seen(mark)[-1].client == (CLIENT[4], port)
            with pytest.raises(BlockingIOError):
                sock.recv(4096)


# --- the process -----------------------------------------------------------------------


def echoed(client: NetNS, served: str = SERVED[4]) -> object:
    """What a service says of itself when a datagram is sent to it."""
    with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.sendto(b"hi", (served, UDP_PORTS["echo"]))
        return json.loads(sock.recv(4096))["me"]


@pytest.fixture
def elsewhere() -> Iterator[tuple[Places, NetNS]]:
    """A place where nothing is served yet, and somebody on the same link."""
    with pair(["192.0.2.1/24"], ["192.0.2.2/24"]) as (one, other):
        yield {"elsewhere": (one, [ip_address("192.0.2.1")])}, other


def test_what_is_asked_at_once_is_answered(elsewhere: tuple[Places, NetNS]) -> None:
    """There is nothing to wait for between the start and the first question."""
    places, client = elsewhere
    with Services.start(places):
        assert echoed(client, "192.0.2.1") == "elsewhere"


def test_services_can_be_started_again(elsewhere: tuple[Places, NetNS]) -> None:
    """After a stop the ports are free, connections that lingered notwithstanding."""
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


def test_one_process_serves_many_places(
    elsewhere: tuple[Places, NetNS], namespaces: tuple[NetNS, NetNS]
) -> None:
    """Each namespace is served under its own name, by one process."""
    places, client = elsewhere
    both = {**places, "far": (namespaces[1], [ip_address(CLIENT[4])])}
    with Services.start(both) as services:
        assert echoed(client, "192.0.2.1") == "elsewhere"
        assert echoed(namespaces[0], CLIENT[4]) == "far"
        assert [visit.place for visit in services.seen()] == ["elsewhere", "far"]


def test_an_address_that_is_not_there_is_named(elsewhere: tuple[Places, NetNS]) -> None:
    """The error tells which socket could not be opened, and nothing stays open."""
    places, _ = elsewhere
    netns = places["elsewhere"][0]
    before = os.listdir("/proc/self/fd")
    wrong = [ip_address("192.0.2.1"), ip_address("192.0.2.9")]
    with pytest.raises(OSError, match=r"tcp port 7 of 192\.0\.2\.9 in elsewhere: .*interface"):
        Services.start({"elsewhere": (netns, wrong)})
    assert os.listdir("/proc/self/fd") == before


def test_the_process_keeps_nothing_of_its_parent(services: Services) -> None:
    """It holds its own sockets, one epoll and /dev/null: no namespace, pipe or file of ours."""
    folder = f"/proc/{services.pid}/fd"
    held = {os.readlink(f"{folder}/{number}").partition(":")[0] for number in os.listdir(folder)}
    assert held == {"socket", "anon_inode", "/dev/null"}


def test_signals_from_the_terminal_are_not_for_it(services: Services) -> None:
    """Ctrl-C goes to pytest's process group, and the services are in one of their own."""
    assert os.getpgid(services.pid) == services.pid != os.getpgid(0)


@pytest.mark.parametrize("use", [Services.mark, Services.seen, Services.asked, Services.stop])
def test_a_killed_process_is_noticed(elsewhere: tuple[Places, NetNS], use: Any) -> None:
    """Whatever is asked of services that were killed, the error tells by which signal."""
    services = Services.start(elsewhere[0])
    pidfd = os.pidfd_open(services.pid)
    os.kill(services.pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)
    with pytest.raises(ServicesDied, match="SIGKILL"):
        use(services)
    assert services.pid == 0


@pytest.mark.parametrize("use", [Services.mark, Services.stop])
def test_a_failure_tells_its_traceback(elsewhere: tuple[Places, NetNS], use: Any) -> None:
    """When the process fails by an exception, the error holds all it had to say."""
    services = Services.start(elsewhere[0], topology=cast("Topology", object()))
    pidfd = os.pidfd_open(services.pid)
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)
    with pytest.raises(ServicesDied, match=r"exit status 1(.|\n)*AttributeError"):
        use(services)


def test_a_process_that_hangs_is_ended(
    elsewhere: tuple[Places, NetNS], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that does not come in time is an error, not a wait without end."""
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    services = Services.start(elsewhere[0])
    os.kill(services.pid, signal.SIGSTOP)
    with pytest.raises(ServicesDied, match=r"did not tell what it saw within 0\.05 s"):
        services.seen()
    with pytest.raises(ServicesDied, match="nobody to ask"):
        services.seen()


def test_services_die_with_their_parent(elsewhere: tuple[Places, NetNS]) -> None:
    """When the process that started them is killed they end at once, even if they hang."""
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
def test_no_stream_breaks_it(
    services: Services, client: NetNS, service: str, pieces: list[bytes], *, reset: bool
) -> None:
    """Whatever bytes come over TCP, and however the connection ends, services go on."""
    with stream(client, 4, service) as sock:
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(ConnectionError):  # it may hang up on nonsense
            for piece in pieces:
                sock.sendall(piece)
    assert services.mark() > 0


@pytest.mark.parametrize("service", UDP_PORTS)
@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=2000))
def test_no_datagram_breaks_it(
    services: Services, client: NetNS, service: str, data: bytes
) -> None:
    """Whatever bytes come in a datagram, services go on."""
    mark = services.mark()
    with datagrams(client, 4, service) as sock:
        sock.send(data)
    assert len(services.seen(mark)) == 1
