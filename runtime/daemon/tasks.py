"""Tasks under way and the sockets they use, which end together and at once."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Final

_RESET: Final = struct.pack("ii", 1, 0)
"""Linger for no time: to close is to reset (socket(7))."""

AGAIN: Final = 0.1
"""Seconds until who comes is looked for again, when there was nothing to open a connection with."""
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Why nobody can be let in just now, as accept(2) tells it: nothing is wrong with who listens."""


async def accept(listening: socket.socket) -> socket.socket:
    """The next connection; whoever comes while no descriptor is left waits in the queue."""
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
    """What is done for one container: once closed, no socket of it is open.

    A socket in a container's namespace keeps that namespace, with all its links, alive.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: set[socket.socket] = set()

    def __len__(self) -> int:
        """How many tasks are under way."""
        return len(self._tasks)

    def begin(self, work: Coroutine[None, None, None], *own: socket.socket) -> asyncio.Task[None]:
        """Have something done; the sockets that are its own are closed when it is."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        for opened in own:
            self.keep(opened)

        def over(_: object) -> None:
            for opened in own:
                self.let_go(opened)

        task.add_done_callback(over)
        return task

    def keep(self, opened: socket.socket) -> socket.socket:
        """Use a socket, from now on without blocking."""
        opened.setblocking(False)
        self._sockets.add(opened)
        return opened

    def let_go(self, opened: socket.socket) -> None:
        """Close a socket that was kept; a second call does nothing."""
        if opened not in self._sockets:
            return
        self._sockets.discard(opened)
        # A task that is cancelled forgets its reader later, and by number: by then it may
        # be another socket's.
        loop = asyncio.get_running_loop()
        loop.remove_reader(opened)
        loop.remove_writer(opened)
        opened.close()

    def hang_up(self, opened: socket.socket) -> None:
        """Close a connection so that the other side learns that it was broken off."""
        with suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.let_go(opened)

    @contextmanager
    def using(self, opened: socket.socket) -> Iterator[socket.socket]:
        """Keep a socket for the length of the body."""
        try:
            yield self.keep(opened)
        finally:
            self.let_go(opened)

    def close(self) -> None:
        """Do nothing more."""
        for task in self._tasks:
            task.cancel()
        for opened in tuple(self._sockets):
            self.let_go(opened)
