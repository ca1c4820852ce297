"""DNS client for a container's resolver, and a name server for its forwarded queries."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
from dns.message import Message

from runtime.records import ContainerRecord
from tests.runtime.support.inspection import netns

RESOLVER = "127.0.0.11"
GATEWAY = "10.9.0.1"
"""Address of the host on the network `lan`."""


def ask(
    asker: ContainerRecord,
    name: str,
    kind: str = "A",
    *,
    tcp: bool = False,
    payload: int = 0,
    patience: float = 10,
) -> Message:
    """Send a query from inside a container; return the reply of the container's resolver."""
    query = dns.message.make_query(name, kind, use_edns=0 if payload else False, payload=payload)
    number = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with netns(asker) as space, space.socket(socket.AF_INET, number) as opened:
        opened.settimeout(patience)
        opened.connect((RESOLVER, 53))
        opened.setblocking(False)
        if tcp:
            return dns.query.tcp(query, RESOLVER, patience, sock=opened)
        return dns.query.udp(query, RESOLVER, patience, sock=opened)


@contextlib.contextmanager
def connected_to_resolver(asker: ContainerRecord) -> Iterator[socket.socket]:
    """Connect from inside a container to the container's resolver."""
    with netns(asker) as space, space.socket(socket.AF_INET, socket.SOCK_STREAM) as opened:
        opened.settimeout(10)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.connect((RESOLVER, 53))
        yield opened


def encoded_queries(*names: str) -> bytes:
    """Return DNS queries as they follow each other on a connection, each after its length."""
    queries = [dns.message.make_query(name, "A", use_edns=False) for name in names]
    return b"".join(query.to_wire(prepend_length=True) for query in queries)


def replies_on(opened: socket.socket) -> Iterator[Message]:
    """Yield the replies on a connection, until the other side closes it."""
    with contextlib.suppress(EOFError):
        while True:
            answer, _ = dns.query.receive_tcp(opened)
            yield answer


def queried_name(answer: Message) -> str:
    """Return the name that a reply is about."""
    return answer.question[0].name.to_text(omit_final_dot=True)


def reply_values(answer: Message) -> set[str]:
    """Return the values in a reply."""
    return {rdata.to_text() for rrset in answer.answer for rdata in rrset}


def rcode(answer: Message) -> str:
    """Return a reply's response code, by name."""
    return dns.rcode.to_text(answer.rcode())


class NameServer:
    """Name server of the host that replies as a function says, and records its queries."""

    def __init__(self, address: str, answer: Callable[[Message, bool], Message | None]) -> None:
        self.queries: list[tuple[str, bool]] = []
        self._answer = answer
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for opened in (self._udp, self._tcp):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((address, 53))
        self._tcp.listen()
        self._threads = [
            threading.Thread(target=work) for work in (self._serve_udp, self._serve_tcp)
        ]
        for thread in self._threads:
            thread.start()

    def _reply_to(self, wire: bytes, *, tcp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        self.queries.append((query.question[0].name.to_text(), tcp))
        answer = self._answer(query, tcp)
        return answer.to_wire() if answer else None

    def _serve_udp(self) -> None:
        while True:
            wire, asker = self._udp.recvfrom(4096)
            if not wire:
                return
            if answer := self._reply_to(wire, tcp=False):
                self._udp.sendto(answer, asker)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._tcp.accept()
                with accepted:
                    wire = accepted.recv(4096)[2:]
                    if answer := self._reply_to(wire, tcp=True):
                        accepted.sendall(len(answer).to_bytes(2, "big") + answer)

    def close(self) -> None:
        """Stop the name server."""
        self._tcp.shutdown(socket.SHUT_RDWR)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._udp.getsockname())
        for thread in self._threads:
            thread.join()
        self._tcp.close()
        self._udp.close()


@contextlib.contextmanager
def name_server(
    answer: Callable[[Message, bool], Message | None], address: str = GATEWAY
) -> Iterator[NameServer]:
    """Run a name server on one of the host's addresses for the duration of the body."""
    with contextlib.closing(NameServer(address, answer)) as server:
        yield server


def fixed_reply(query: Message, tcp: bool) -> Message:  # noqa: FBT001 - `NameServer` calls it so
    """Reply with one address for any name, but with 200 addresses for `big.example`.

    A reply with 200 addresses fits only into TCP.
    """
    answer = dns.message.make_response(query, recursion_available=True)
    if query.question[0].name.to_text() == "big.example.":
        if not tcp:
            answer.flags |= dns.flags.TC
            return answer
        values = [f"192.0.2.{number}" for number in range(200)]
    else:
        values = ["192.0.2.1"]
    answer.answer.append(dns.rrset.from_text_list(query.question[0].name, 5, "IN", "A", values))
    return answer
