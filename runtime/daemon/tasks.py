"""Asyncio tasks with their sockets, all closed by one method."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Final

_RESET: Final = struct.pack("ii", 1, 0)
"""Linger for no time: close(2) resets the connection (socket(7))."""

AGAIN: Final = 0.1
"""Seconds until accept is retried after a lack of descriptors or memory."""
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of accept(2) for a lack of resources: nothing is wrong with the listener."""


async def accept(listening: socket.socket) -> socket.socket:
    """Accept the next connection; it stays in the queue until a descriptor is free."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            accepted, _ = await loop.sock_accept(listening)
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            await asyncio.sleep(AGAIN)
        else:
            return accepted


class Work:
    """Tasks for one container; once closed, none of their sockets is open.

    A socket in a container's netns keeps that netns, with all its links, alive.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: set[socket.socket] = set()

    def __len__(self) -> int:
        """Return the number of running tasks."""
        return len(self._tasks)

    def begin(self, work: Coroutine[None, None, None], *own: socket.socket) -> asyncio.Task[None]:
        """Start a task; its `own` sockets are closed when it ends."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        for opened in own:
            self.keep(opened)

        def over(_: object) -> None:
            for opened in own:
                self.release(opened)

        task.add_done_callback(over)
        return task

    def keep(self, opened: socket.socket) -> socket.socket:
        """Register a socket and make it non-blocking."""
        opened.setblocking(False)
        self._sockets.add(opened)
        return opened

    def release(self, opened: socket.socket) -> None:
        """Close a registered socket; a second call does nothing."""
        if opened not in self._sockets:
            return
        self._sockets.discard(opened)
        # A cancelled task removes its reader later, by descriptor number: by then the number may
        # belong to another socket.
        loop = asyncio.get_running_loop()
        loop.remove_reader(opened)
        loop.remove_writer(opened)
        opened.close()

    def reset(self, opened: socket.socket) -> None:
        """Reset a connection, so that the peer learns that it was cut off."""
        with suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.release(opened)

    @contextmanager
    def using(self, opened: socket.socket) -> Iterator[socket.socket]:
        """Register a socket for the duration of the body."""
        try:
            yield self.keep(opened)
        finally:
            self.release(opened)

    def close(self) -> None:
        """Cancel all tasks and close all sockets."""
        for task in self._tasks:
            task.cancel()
        for opened in tuple(self._sockets):
            self.release(opened)
