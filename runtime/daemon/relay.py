"""What comes to a published port on the IPv6 loopback address, carried to the container.

The kernel has no way to lead it there: a packet to `::1` is taken only from `lo`, and so
is the answer. The sockets are those by which the container's pid 1 keeps the port.
Whoever calls is seen as the host, by its address on the container's bridge. Beyond what there
is room for (`room`), a connection waits until another has ended, and of conversations over UDP the
one that has been silent longest is over.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from contextlib import suppress
from typing import Any, Final, NamedTuple

from runtime.daemon.tasks import Work, accept

End = tuple[str, int]

_CHUNK: Final = 1 << 16
_FORGOTTEN: Final = 60.0
"""Seconds without a datagram after which a conversation over UDP is taken to be over."""


class UdpSession(NamedTuple):
    """What one caller says over UDP: the socket that says it inside, and who hears the answers."""

    far: socket.socket
    answers: asyncio.Task[None]


class Relay:
    """Carries what comes to one socket to `target`, until it is closed.

    It takes what it opens from the `part` of its container.
    """

    def __init__(self, opened: socket.socket, target: End, part: ContainerQuota) -> None:
        self._socket, self._target, self._part = opened, target, part
        self._family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._conversations: dict[Any, UdpSession] = {}
        self._work = Work()
        stream = opened.type == socket.SOCK_STREAM
        self._work.begin(self._streams() if stream else self._datagrams(), opened)

    def close(self) -> None:
        """Carry nothing more."""
        self._work.close()

    # --- connections -------------------------------------------------------------

    async def _streams(self) -> None:
        while True:
            accepted = self._work.keep(await accept(self._socket))
            await self._part.take(CONNECTION)  # others wait in the kernel's queue meanwhile
            joined = self._work.begin(self._join(accepted), accepted)
            joined.add_done_callback(lambda _: self._part.give(CONNECTION))

    async def _join(self, near: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            opened = socket.socket(self._family, socket.SOCK_STREAM)
        except OSError:  # there is no descriptor left
            self._work.hang_up(near)
            return
        with self._work.using(opened) as far:
            try:
                await loop.sock_connect(far, self._target)
                async with asyncio.TaskGroup() as both:
                    both.create_task(_pour(near, far))
                    both.create_task(_pour(far, near))
            except* OSError:  # one side broke it off, or nobody listens
                self._work.hang_up(near)
                self._work.hang_up(far)

    # --- datagrams ---------------------------------------------------------------

    async def _datagrams(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data, caller = await loop.sock_recvfrom(self._socket, _CHUNK)
            with suppress(OSError):  # the caller is not told, as with a datagram that is lost
                said = self._conversations.pop(caller, None) or await self._conversation(caller)
                if said is not None:
                    self._conversations[caller] = said  # the last now
                    await loop.sock_sendall(said.far, data)

    async def _conversation(self, caller: Any) -> UdpSession | None:
        """A new one; `None` where other things of the container's take all the room."""
        while not self._part.take_now(1):
            if not self._conversations:
                return None
            longest_silent = next(iter(self._conversations.values())).answers
            longest_silent.cancel()
            await asyncio.wait([longest_silent])
        far = None
        try:
            far = self._work.keep(socket.socket(self._family, socket.SOCK_DGRAM))
            far.connect(self._target)
        except OSError:
            if far is not None:
                self._work.let_go(far)
            self._part.give(1)
            raise
        answers = self._work.begin(self._answers(far, caller), far)
        answers.add_done_callback(lambda _: self._forget(caller))
        return UdpSession(far, answers)

    def _forget(self, caller: Any) -> None:
        self._conversations.pop(caller, None)
        self._part.give(1)

    async def _answers(self, far: socket.socket, caller: Any) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError, TimeoutError):
            while True:
                async with asyncio.timeout(_FORGOTTEN):
                    data = await loop.sock_recv(far, _CHUNK)
                await loop.sock_sendto(self._socket, data, caller)


async def _pour(source: socket.socket, sink: socket.socket) -> None:
    """Carry everything, and the end of it."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK):
        await loop.sock_sendall(sink, data)
    sink.shutdown(socket.SHUT_WR)


_SHARE: Final = 4
"""Relays have at most one in so many of the descriptors that this process may open."""
_MOST: Final = 2048
"""Descriptors for one container at most, however many there are: each costs memory too."""
CONNECTION: Final = 2
"""Descriptors of a connection: the caller's end and the container's. Each container has as many at
least, or nobody would ever get through."""


class RelayQuota:
    """What there is for all relays together."""

    def __init__(self) -> None:
        self._parts: set[ContainerQuota] = set()
        self._waiting: list[asyncio.Future[None]] = []

    def part(self) -> ContainerQuota:
        """One container's part, as large as everybody's."""
        made = ContainerQuota(self)
        self._parts.add(made)
        return made

    def limit(self) -> int:
        """Descriptors that one container has.

        Who has more, because there were fewer containers before, keeps what is open.
        """
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(CONNECTION, min(_MOST, most // _SHARE // max(1, len(self._parts))))

    def leave(self, part: ContainerQuota) -> None:
        """Without this part there is more for the others."""
        self._parts.discard(part)
        self.wake()

    async def changed(self) -> None:
        """Wait until somebody has given something back."""
        waits: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waits)
        await waits

    def wake(self) -> None:
        """Have those look again who wait."""
        for waits in self._waiting:
            if not waits.done():
                waits.set_result(None)
        self._waiting.clear()


class ContainerQuota:
    """What one container's relays have open."""

    def __init__(self, room: RelayQuota) -> None:
        self._room = room
        self._taken = 0

    def take_now(self, count: int) -> bool:
        """Take so many; false where there is no room for them."""
        if self._taken + count > self._room.limit():
            return False
        self._taken += count
        return True

    async def take(self, count: int) -> None:
        """Take so many, once there is room for them."""
        while not self.take_now(count):
            await self._room.changed()

    def give(self, count: int) -> None:
        """Give so many back."""
        self._taken -= count
        self._room.wake()

    def close(self) -> None:
        """Take nothing more."""
        self._room.leave(self)
