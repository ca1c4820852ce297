"""Large transfers over a TCP connection, with a check that the data arrives unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from harness.model.topology import Address
from harness.probe.sockets import ADDRESS_FAMILIES, RESET_ON_CLOSE
from harness.testbench.listener import End
from harness.testbench.netns_view import NetnsView
from harness.world import service_protocols

BOUND: Final = 10.0
"""Seconds that a transfer of some megabytes may take. It takes milliseconds."""

_PIECE: Final = 1 << 18


class StreamDigest(NamedTuple):
    """Digest of transferred data: its size in bytes and its SHA-256."""

    size: int
    sha256: str


def expected(size: int) -> StreamDigest:
    """Return the digest of the first `size` bytes that `upload` and `download` send."""
    digest = hashlib.sha256()
    for piece in service_protocols.bulk(size):
        digest.update(piece)
    return StreamDigest(size, digest.hexdigest())


class Transfer(NamedTuple):
    """Transfers over TCP connections from `caller` to the address `at` of `server`.

    Each method opens a new connection to `port`, or to a port that the kernel chooses. With `by`
    the caller connects to that published port instead. The methods raise `TimeoutError` if the data
    or the end of the stream does not arrive within `BOUND`. The error tells the progress.
    """

    caller: NetnsView
    server: NetnsView
    at: Address
    port: int = 0
    by: End | None = None

    def upload(self, size: int) -> StreamDigest:
        """Send `size` bytes from the caller; return the digest of what arrives at the server."""
        with self._connection() as (near, far):
            return _carry(near, far, size)

    def download(self, size: int) -> StreamDigest:
        """Send `size` bytes from the server; return the digest of what arrives at the caller."""
        with self._connection() as (near, far):
            return _carry(far, near, size)

    def half_closed(self, size: int) -> tuple[StreamDigest, StreamDigest]:
        """Send `size` bytes from each end in turn, the caller first; each ends with a half-close.

        Returns the digest of what arrives at the server, and of what arrives at the caller.
        """
        with self._connection() as (near, far):
            there = _carry(near, far, size)
            _end_half(near, far)
            back = _carry(far, near, size)
            _end_half(far, near)
            return there, back

    def abort_while_sending(self, *, by_caller: bool) -> bool:
        """Reset the connection at one end while the other end sends.

        Returns True if the sender sees the reset. `by_caller` selects the end that resets.
        """
        with self._connection() as (near, far):
            resetting, sending = (near, far) if by_caller else (far, near)
            sending.sendall(next(service_protocols.bulk(_PIECE)))
            resetting.recv(1)  # the connection works end to end, and unread data remains
            _reset(resetting)
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

    def reset_after_delivery(self, *, by_caller: bool) -> bool:
        """Reset the connection at one end after all data has arrived at the other end.

        Returns True if the other end sees the reset, False if it sees an end of stream. `by_caller`
        selects the end that resets.
        """
        with self._connection() as (near, far):
            resetting, receiving = (near, far) if by_caller else (far, near)
            _carry(resetting, receiving, _PIECE)
            _reset(resetting)
            receiving.settimeout(BOUND)
            try:
                more = receiving.recv(1)
            except ConnectionResetError:
                return True
        if more:
            raise ConnectionError("more bytes arrived than were sent")
        return False

    @contextlib.contextmanager
    def _connection(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        called = self.by[0] if self.by else self.at
        with (
            self.server.socket(ADDRESS_FAMILIES[self.at.version], socket.SOCK_STREAM) as listener,
            self.caller.socket(ADDRESS_FAMILIES[called.version], socket.SOCK_STREAM) as near,
        ):
            listener.bind((str(self.at), self.port))
            listener.listen()
            for opened in (listener, near):
                opened.settimeout(BOUND)
            near.connect((str(called), self.by[1]) if self.by else listener.getsockname())
            far, _ = listener.accept()
            with far:
                far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                yield near, far


def _reset(opened: socket.socket) -> None:
    """Reset the connection: send a RST instead of a FIN."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    opened.close()


def _end_half(ending: socket.socket, other: socket.socket) -> None:
    """Shut down one direction; the other end must see the end of stream, and no more data."""
    ending.shutdown(socket.SHUT_WR)
    other.settimeout(BOUND)
    if other.recv(_PIECE):
        raise ConnectionError("more bytes arrived than were sent")


def _carry(source: socket.socket, target: socket.socket, size: int) -> StreamDigest:
    """Send and receive at the same time, because the sockets cannot buffer all data."""
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
                f"{arrived} of {size} bytes arrived within {BOUND} s, from "
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
                raise ConnectionError(
                    f"{arrived} of {size} bytes arrived before the connection was closed"
                )
            digest.update(piece)
            arrived += len(piece)
    return StreamDigest(arrived, digest.hexdigest())
