"""Large transfers over one TCP connection, and their integrity."""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from harness.model.topology import Address
from harness.testbench.listener import End
from harness.testbench.netns_view import NetnsView
from harness.world import service_protocols

BOUND: Final = 10.0
"""Seconds that a transfer of some megabytes may take. It takes milliseconds."""

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_PIECE: Final = 1 << 18
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing resets, so that no TIME_WAIT keeps the port."""


class StreamDigest(NamedTuple):
    """Identity of data: its size in bytes and its SHA-256."""

    size: int
    sha256: str


def expected(size: int) -> StreamDigest:
    """Return the digest of the `size` bytes that `upload` and `download` send."""
    digest = hashlib.sha256()
    for piece in service_protocols.bulk(size):
        digest.update(piece)
    return StreamDigest(size, digest.hexdigest())


def upload(
    caller: NetnsView,
    server: NetnsView,
    at: Address,
    size: int,
    *,
    port: int = 0,
    by: End | None = None,
) -> StreamDigest:
    """Connect `caller` to `at`, send `size` bytes, and return what arrives at `server`.

    On `port`, or on one that the kernel chooses. With `by` the caller connects to that published
    port instead. `TimeoutError`, which reports the progress, when it does not end within `BOUND`.
    """
    with _connection(caller, server, at, port, by) as (near, far):
        return _carry(near, far, size)


def download(
    caller: NetnsView,
    server: NetnsView,
    at: Address,
    size: int,
    *,
    port: int = 0,
    by: End | None = None,
) -> StreamDigest:
    """Connect `caller` to `at`, have `server` send, and return what arrives at `caller`."""
    with _connection(caller, server, at, port, by) as (near, far):
        return _carry(far, near, size)


def half_closed(
    caller: NetnsView,
    server: NetnsView,
    at: Address,
    size: int,
    *,
    port: int = 0,
    by: End | None = None,
) -> tuple[StreamDigest, StreamDigest]:
    """Transfer in both directions one after the other, each ended by a half-close.

    Return what arrives at `server`, and then at `caller`. `at`, `port` and `by` as for `upload`;
    `TimeoutError` also when an end of stream does not arrive within `BOUND`.
    """
    with _connection(caller, server, at, port, by) as (near, far):
        there = _carry(near, far, size)
        _end_half(near, far)
        back = _carry(far, near, size)
        _end_half(far, near)
        return there, back


def abort_while_sending(
    caller: NetnsView,
    server: NetnsView,
    at: Address,
    *,
    by_caller: bool,
    port: int = 0,
    by: End | None = None,
) -> bool:
    """Reset a connection while the other side sends; return True if that one sees the reset.

    `at`, `port` and `by` as for `upload`; the caller resets, or the server.
    """
    with _connection(caller, server, at, port, by) as (near, far):
        breaking, sending = (near, far) if by_caller else (far, near)
        sending.sendall(next(service_protocols.bulk(_PIECE)))
        breaking.recv(1)  # the connection works end to end, and unread data remains
        _reset(breaking)
        sending.setblocking(False)
        deadline = time.monotonic() + BOUND
        while (left := deadline - time.monotonic()) > 0:
            select.select([], [sending], [], left)
            try:
                sending.send(bytes(_PIECE))
            except BlockingIOError:
                continue
            except ConnectionError:
                return True
    return False


def reset_after_delivery(
    caller: NetnsView,
    server: NetnsView,
    at: Address,
    *,
    by_caller: bool,
    port: int = 0,
    by: End | None = None,
) -> bool:
    """Reset a connection after all data has arrived; return True if the other side sees it.

    False if it sees an end of stream instead. `at`, `port` and `by` as for `upload`; the caller
    resets, or the server. `TimeoutError` when nothing is seen within `BOUND`.
    """
    with _connection(caller, server, at, port, by) as (near, far):
        breaking, hearing = (near, far) if by_caller else (far, near)
        _carry(breaking, hearing, _PIECE)
        _reset(breaking)
        hearing.settimeout(BOUND)
        try:
            more = hearing.recv(1)
        except ConnectionResetError:
            return True
    if more:
        raise ConnectionError("there was more than was sent")
    return False


def _reset(opened: socket.socket) -> None:
    """Reset the connection: no end of stream is sent."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    opened.close()


def _end_half(ending: socket.socket, other: socket.socket) -> None:
    """Half-close; the other side must see the end of stream and no further data."""
    ending.shutdown(socket.SHUT_WR)
    other.settimeout(BOUND)
    if other.recv(_PIECE):
        raise ConnectionError("there was more than was sent")


@contextlib.contextmanager
def _connection(
    caller: NetnsView, server: NetnsView, at: Address, port: int, by: End | None
) -> Iterator[tuple[socket.socket, socket.socket]]:
    called = by[0] if by else at
    with (
        server.socket(_FAMILIES[at.version], socket.SOCK_STREAM) as listener,
        caller.socket(_FAMILIES[called.version], socket.SOCK_STREAM) as near,
    ):
        listener.bind((str(at), port))
        listener.listen()
        for opened in (listener, near):
            opened.settimeout(BOUND)
        near.connect((str(called), by[1]) if by else listener.getsockname())
        far, _ = listener.accept()
        with far:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            yield near, far


def _carry(source: socket.socket, target: socket.socket, size: int) -> StreamDigest:
    """Pass the data through both sockets at once: neither buffers all of it."""
    for opened in (source, target):
        opened.setblocking(False)
    pieces = service_protocols.bulk(size)
    unsent = memoryview(next(pieces, b""))
    digest, arrived = hashlib.sha256(), 0
    deadline = time.monotonic() + BOUND
    while arrived < size:
        left = deadline - time.monotonic()
        ready, free, _ = select.select([target], [source] if unsent else [], [], max(left, 0))
        if not ready and not free:
            raise TimeoutError(
                f"of {size} bytes {arrived} arrived within {BOUND} s, from "
                f"{source.getsockname()[0]} to {target.getsockname()[0]}"
            )
        if free:
            with contextlib.suppress(BlockingIOError):  # the agent's socket may seem free
                unsent = unsent[source.send(unsent) :] or memoryview(next(pieces, b""))
        if ready:
            try:
                piece = target.recv(_PIECE)
            except BlockingIOError:  # the agent has announced data that is handed over already
                continue
            if not piece:
                raise ConnectionError(f"of {size} bytes {arrived} arrived, then it was closed")
            digest.update(piece)
            arrived += len(piece)
    return StreamDigest(arrived, digest.hexdigest())
