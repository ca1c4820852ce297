"""A lot of data over one TCP connection, and whether it arrives as it was sent."""

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
    """What identifies data: its size in bytes and its SHA-256."""

    size: int
    sha256: str


def expected(size: int) -> StreamDigest:
    """What `upload` and `download` send when they are to send `size` bytes."""
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
    """What arrives at `server` when `caller` connects to `at` and sends `size` bytes.

    On `port`, or on one that the kernel chooses. With `by` the caller connects there: to a port
    that is published for this one. `TimeoutError`, which says how far it got, when it does not end
    within `BOUND`.
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
    """What arrives at `caller` when it connects to `at` and `server` sends `size` bytes."""
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
    """What arrives when one side sends all it has, ends its half, and only then the other does.

    At `server`, which hears the caller to the end, and then at `caller`. `at`, `port` and `by` as
    for `upload`; `TimeoutError` also when an end is not told within `BOUND`.
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
    """Reset a connection while the other side sends; whether that one is told within `BOUND`.

    `at`, `port` and `by` as for `upload`; the caller does it, or the server.
    """
    with _connection(caller, server, at, port, by) as (near, far):
        breaking, sending = (near, far) if by_caller else (far, near)
        sending.sendall(next(service_protocols.bulk(_PIECE)))
        breaking.recv(1)  # the way is open, to its end, and there is more to come
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
    """Reset a connection by which all that was sent has arrived; whether the other side is told.

    And not that it has ended, as if nothing more had been to come. `at`, `port` and `by` as for
    `upload`; the caller does it, or the server. `TimeoutError` when nothing is told within `BOUND`.
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
    """Break off: no end is told, and nothing that comes is taken any more."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    opened.close()


def _end_half(ending: socket.socket, other: socket.socket) -> None:
    """Say that nothing more will come; the other side hears that, and nothing before it."""
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
            with contextlib.suppress(BlockingIOError):  # one elsewhere is free as far as we know
                unsent = unsent[source.send(unsent) :] or memoryview(next(pieces, b""))
        if ready:
            try:
                piece = target.recv(_PIECE)
            except BlockingIOError:  # an agent has told of what it has handed over since
                continue
            if not piece:
                raise ConnectionError(f"of {size} bytes {arrived} arrived, then it was closed")
            digest.update(piece)
            arrived += len(piece)
    return StreamDigest(arrived, digest.hexdigest())
