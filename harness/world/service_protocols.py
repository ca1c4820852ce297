"""What the world's services say: conversations over TCP, single answers over UDP.

A conversation is a generator that knows no socket: it yields what is to be said
and is sent what was heard. `harness.world.services` carries them out.

Wherever a service tells whom it speaks to, it does so in one line of JSON:
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
"""How much of a datagram comes back, in bytes, so that the answer always fits one."""

_CHUNK: Final = 1 << 16
_FILL: Final = hashlib.shake_128(b"netmodes").digest(_CHUNK - 8)
_HEAD_LIMIT: Final = 1 << 16
_PREFIX: Final = 2  # the length before every DNS message over TCP, RFC 1035 4.2.2

LISTEN: Final = b""

Dialogue = Generator[bytes, bytes, None]
"""A conversation over TCP: yields what to say, or `LISTEN`.

After `LISTEN` it is sent what was heard, `b""` once the other side has said
everything; after saying something it is sent `b""` as soon as that is on its way.
"""


class ServiceClient(NamedTuple):
    """Whom a service speaks to: address and port, where, and who wants to know the questions."""

    client: tuple[str, int]
    place: str
    note: Callable[[DnsQuery], None]

    def line(self, **more: object) -> bytes:
        """The line that tells the guest whom the service saw."""
        said = {"you": list(self.client), "me": self.place, **more}
        return json.dumps(said).encode() + b"\n"


class ServiceReplies(NamedTuple):
    """Everything that is served, by the names in `TCP_PORTS` and `UDP_PORTS`."""

    streams: dict[str, Callable[[ServiceClient], Dialogue]]
    datagrams: dict[str, Callable[[ServiceClient, bytes], bytes | None]]

    @classmethod
    def over(cls, zone: Zone) -> ServiceReplies:
        """All services, with the names of `zone`."""
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
    """Tell whom it saw, then say back everything (RFC 862)."""
    yield guest.line()
    while heard := (yield LISTEN):
        yield heard


def echo_datagram(guest: ServiceClient, data: bytes) -> bytes:
    """Tell whom it saw, the size of the datagram and its first `ECHOED` bytes as latin-1."""
    return guest.line(size=len(data), data=data[:ECHOED].decode("latin-1"))


def discard(guest: ServiceClient) -> Dialogue:
    """Take everything in (RFC 863), then tell its size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    while heard := (yield LISTEN):
        digest.update(heard)
        size += len(heard)
    yield guest.line(size=size, sha256=digest.hexdigest())


def chargen(_: ServiceClient) -> Dialogue:
    """Say as many bytes of `bulk` as the first line asks for, in decimal."""
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
    """`size` bytes, in chunks, the same every time; no two chunks are equal.

    So a lost, doubled or misplaced segment changes the checksum of the whole.
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
    """Answer one GET or HEAD with whom it saw, the Host header and the path."""
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
        """Say nothing: visits are recorded elsewhere."""
