"""Protocols of the world's services: conversations over TCP, single replies over UDP.

A conversation is a generator without a socket: it yields the bytes to send and is
sent the received bytes. `harness.world.services` runs it on a connection.

A service names its client in one line of JSON:
`{"you": [address, port], "me": name, …}`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler
from typing import Final, NamedTuple

from harness.world.dns import DnsQuery, Zone

TCP_PORTS: Final = {"echo": 7, "discard": 9, "chargen": 19, "dns": 53, "http": 80}
UDP_PORTS: Final = {"echo": 7, "dns": 53}

ECHOED: Final = 1024
"""Bytes of a datagram that are echoed, so that the reply always fits one datagram."""

_CHUNK: Final = 1 << 16
_FILL: Final = hashlib.shake_128(b"netmodes").digest(_CHUNK - 8)
_HEAD_LIMIT: Final = 1 << 16
_PREFIX: Final = 2  # the length before every DNS message over TCP, RFC 1035 4.2.2

LISTEN: Final = b""

Dialogue = Generator[bytes, bytes, None]
"""A conversation over TCP: yields bytes to send, or `LISTEN`.

After `LISTEN` it is sent the received bytes, `b""` once the client has finished
sending. After bytes to send it is sent `b""` as soon as they are on their way.
"""


class ServiceClient(NamedTuple):
    """Client of a service: address and port, the namespace, and the recorder of DNS queries."""

    client: tuple[str, int]
    place: str
    note: Callable[[DnsQuery], None]

    def line(self, **more: object) -> bytes:
        """Return the line that tells the client which address the service saw."""
        said = {"you": list(self.client), "me": self.place, **more}
        return json.dumps(said).encode() + b"\n"


class ServiceReplies(NamedTuple):
    """All services, by the names in `TCP_PORTS` and `UDP_PORTS`."""

    streams: dict[str, Callable[[ServiceClient], Dialogue]]
    datagrams: dict[str, Callable[[ServiceClient, bytes], bytes | None]]

    @classmethod
    def over(cls, zone: Zone) -> ServiceReplies:
        """Return all services, with the names of `zone`."""
        return cls(
            {
                "echo": echo,
                "discard": discard,
                "chargen": chargen,
                "dns": lambda guest: dns_stream(zone, guest),
                "http": http,
            },
            {"echo": echo_datagram, "dns": lambda guest, query: dns_datagram(zone, guest, query)},
        )


def echo(guest: ServiceClient) -> Dialogue:
    """Send the client's address, then echo all bytes (RFC 862)."""
    yield guest.line()
    while heard := (yield LISTEN):
        yield heard


def echo_datagram(guest: ServiceClient, data: bytes) -> bytes:
    """Reply with the client, the datagram's size and its first `ECHOED` bytes as latin-1."""
    return guest.line(size=len(data), data=data[:ECHOED].decode("latin-1"))


def discard(guest: ServiceClient) -> Dialogue:
    """Read all bytes (RFC 863), then send their size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    while heard := (yield LISTEN):
        digest.update(heard)
        size += len(heard)
    yield guest.line(size=size, sha256=digest.hexdigest())


def chargen(_: ServiceClient) -> Dialogue:
    """Send as many bytes of `bulk` as the first line requests, in decimal."""
    asked = b""
    while b"\n" not in asked and len(asked) <= 20:
        heard = yield LISTEN
        if not heard:
            return
        asked += heard
    number = asked.partition(b"\n")[0].strip()
    if len(asked) > 20 or not number.isdigit():
        yield b"? how many bytes, in decimal, and a newline\n"
        return
    yield from bulk(int(number))


def bulk(size: int) -> Generator[bytes, object, None]:
    """Yield `size` bytes in chunks, the same every time; no two chunks are equal.

    A lost, doubled or misplaced segment therefore changes the checksum of the whole.
    """
    for number, start in enumerate(range(0, size, _CHUNK)):
        yield (number.to_bytes(8, "big") + _FILL)[: size - start]


def dns_stream(zone: Zone, guest: ServiceClient) -> Dialogue:
    """Answer one query after the other, each behind its length (RFC 7766)."""
    pending = b""
    while heard := (yield LISTEN):
        pending += heard
        while len(pending) >= _PREFIX:
            end = _PREFIX + int.from_bytes(pending[:_PREFIX], "big")
            if len(pending) < end:
                break
            query, pending = pending[_PREFIX:end], pending[end:]
            answer, asked = zone.answer(query, udp=False)
            if asked:
                guest.note(asked)
            if answer is None:
                return  # no DNS is spoken here
            yield len(answer).to_bytes(_PREFIX, "big") + answer


def dns_datagram(zone: Zone, guest: ServiceClient, query: bytes) -> bytes | None:
    """Answer one query."""
    answer, asked = zone.answer(query, udp=True)
    if asked:
        guest.note(asked)
    return answer


def http(guest: ServiceClient) -> Dialogue:
    """Answer one GET or HEAD with the client's address, the Host header and the path."""
    request = b""
    while b"\r\n\r\n" not in request and len(request) <= _HEAD_LIMIT:
        heard = yield LISTEN
        if not heard:
            break
        request += heard
    if request:
        yield _Page(guest, request).said.getvalue()


class _Page(BaseHTTPRequestHandler):
    """The standard library's HTTP, over bytes: refusals and malformed requests are its own."""

    def __init__(self, guest: ServiceClient, request: bytes) -> None:
        self.guest = guest
        self.client_address = guest.client
        self.said = io.BytesIO()
        self.rfile, self.wfile = io.BytesIO(request), self.said
        self.handle_one_request()

    def do_GET(self) -> None:
        """Answer a GET."""
        page = self.guest.line(host=self.headers.get("Host"), path=self.path)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(page)

    do_HEAD = do_GET  # noqa: N815 - the standard library's name

    def log_message(self, *_: object) -> None:
        """Log nothing: visits are recorded elsewhere."""
