"""Protocols of the world's services: dialogues over TCP, single replies over UDP.

A dialogue is a generator that uses no socket. It yields bytes to send; the value of each `yield` is
the bytes that were received. `harness.world.services` runs the generator on a TCP connection. A
service reports the client's address in one line of JSON: `{"you": [address, port], "me": name, …}`.
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

`LISTEN` returns the received bytes, `b""` once the client has finished sending. Bytes to send
return `b""` as soon as they are passed to the kernel.
"""


class ServiceClient(NamedTuple):
    """Client of a service, as the service sees it.

    `address` is its address and port, `namespace` the service's namespace. `note` records a DNS
    query.
    """

    address: tuple[str, int]
    namespace: str
    note: Callable[[DnsQuery], None]

    def line(self, **more: object) -> bytes:
        """Return the line of JSON that tells the client the address that the service saw."""
        seen = {"you": list(self.address), "me": self.namespace, **more}
        return json.dumps(seen).encode() + b"\n"


def echo(client: ServiceClient) -> Dialogue:
    """Send the client's address, then echo all bytes (RFC 862)."""
    yield client.line()
    while data := (yield LISTEN):
        yield data


def echo_datagram(client: ServiceClient, data: bytes) -> bytes:
    """Reply with the client's address, the datagram's size and its first `ECHOED` bytes.

    The bytes are decoded as latin-1.
    """
    return client.line(size=len(data), data=data[:ECHOED].decode("latin-1"))


def discard(client: ServiceClient) -> Dialogue:
    """Read and discard all bytes (RFC 863), then send their number and SHA-256."""
    digest, size = hashlib.sha256(), 0
    while data := (yield LISTEN):
        digest.update(data)
        size += len(data)
    yield client.line(size=size, sha256=digest.hexdigest())


def chargen(_: ServiceClient) -> Dialogue:
    """Send the first N bytes of `bulk`; the client's first line is N in decimal."""
    requested = b""
    while b"\n" not in requested and len(requested) <= 20:
        data = yield LISTEN
        if not data:
            return
        requested += data
    number = requested.partition(b"\n")[0].strip()
    if len(requested) > 20 or not number.isdigit():
        yield b"? how many bytes, in decimal, and a newline\n"
        return
    yield from bulk(int(number))


def bulk(size: int) -> Generator[bytes, object, None]:
    """Yield `size` bytes in chunks: always the same bytes, and no two chunks equal.

    A lost, duplicated or misplaced segment therefore changes the checksum of the transfer.
    """
    for number, start in enumerate(range(0, size, _CHUNK)):
        yield (number.to_bytes(8, "big") + _FILL)[: size - start]


def dns_stream(zone: Zone, client: ServiceClient) -> Dialogue:
    """Reply to DNS queries over TCP; each message follows its length (RFC 7766)."""
    pending = b""
    while data := (yield LISTEN):
        pending += data
        while len(pending) >= _PREFIX:
            end = _PREFIX + int.from_bytes(pending[:_PREFIX], "big")
            if len(pending) < end:
                break
            query, pending = pending[_PREFIX:end], pending[end:]
            answer, question = zone.answer(query, udp=False)
            if question:
                client.note(question)
            if answer is None:
                return  # not DNS
            yield len(answer).to_bytes(_PREFIX, "big") + answer


def dns_datagram(zone: Zone, client: ServiceClient, query: bytes) -> bytes | None:
    """Reply to one DNS query over UDP."""
    answer, question = zone.answer(query, udp=True)
    if question:
        client.note(question)
    return answer


def http(client: ServiceClient) -> Dialogue:
    """Reply to one GET or HEAD request with the client's address, the Host header and the path."""
    request = b""
    while b"\r\n\r\n" not in request and len(request) <= _HEAD_LIMIT:
        data = yield LISTEN
        if not data:
            break
        request += data
    if request:
        yield _Page(client, request).page.getvalue()


class _Page(BaseHTTPRequestHandler):
    """The standard library's HTTP server, used on bytes in memory.

    It rejects malformed requests by itself.
    """

    def __init__(self, client: ServiceClient, request: bytes) -> None:
        self.client = client
        self.client_address = client.address
        self.page = io.BytesIO()
        self.rfile, self.wfile = io.BytesIO(request), self.page
        self.handle_one_request()

    def do_GET(self) -> None:
        """Reply to a GET."""
        body = self.client.line(host=self.headers.get("Host"), path=self.path)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the standard library's name

    def log_message(self, *_: object) -> None:
        """Log nothing: the services record each visit already."""
