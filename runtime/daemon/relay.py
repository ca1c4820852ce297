"""Relay of published ports on the IPv6 loopback address to the container.

The kernel cannot redirect these packets: it accepts a packet to `::1` only from `lo`, and the
same goes for the reply. The sockets are those by which the container's pid 1 reserves the port.
The container sees the host as the client, by its address on the container's bridge. Beyond the
quota (`RelayQuota`) a new connection waits until another one ends, and a new UDP session ends
the one that has been silent longest.
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
"""Seconds without a datagram after which a UDP session ends."""


class UdpSession(NamedTuple):
    """UDP session of one client: the socket inside, and the task that returns the replies."""

    far: socket.socket
    answers: asyncio.Task[None]


class Relay:
    """Relay from one socket to `target`, until it is closed.

    Its descriptors count against the `part` of its container.
    """

    def __init__(self, opened: socket.socket, target: End, part: ContainerQuota) -> None:
        self._socket, self._target, self._part = opened, target, part
        self._family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._conversations: dict[Any, UdpSession] = {}
        self._work = Work()
        stream = opened.type == socket.SOCK_STREAM
        self._work.begin(self._streams() if stream else self._datagrams(), opened)

    def close(self) -> None:
        """Stop relaying."""
        self._work.close()

    # --- connections -------------------------------------------------------------

    async def _streams(self) -> None:
        while True:
            accepted = self._work.keep(await accept(self._socket))
            await self._part.take(CONNECTION)  # further connections wait in the kernel's queue
            joined = self._work.begin(self._join(accepted), accepted)
            joined.add_done_callback(lambda _: self._part.give(CONNECTION))

    async def _join(self, near: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            opened = socket.socket(self._family, socket.SOCK_STREAM)
        except OSError:  # no descriptor is left
            self._work.hang_up(near)
            return
        with self._work.using(opened) as far:
            try:
                await loop.sock_connect(far, self._target)
                async with asyncio.TaskGroup() as both:
                    both.create_task(_pour(near, far))
                    both.create_task(_pour(far, near))
            except* OSError:  # one side has reset the connection, or nothing listens
                self._work.hang_up(near)
                self._work.hang_up(far)

    # --- datagrams ---------------------------------------------------------------

    async def _datagrams(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data, caller = await loop.sock_recvfrom(self._socket, _CHUNK)
            with suppress(OSError):  # as with a lost datagram, the client gets no error
                said = self._conversations.pop(caller, None) or await self._conversation(caller)
                if said is not None:
                    self._conversations[caller] = said  # the most recent now
                    await loop.sock_sendall(said.far, data)

    async def _conversation(self, caller: Any) -> UdpSession | None:
        """Open a session; `None` if the container's connections use all of its quota."""
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
    """Copy everything from one side to the other, end of stream included."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK):
        await loop.sock_sendall(sink, data)
    sink.shutdown(socket.SHUT_WR)


_SHARE: Final = 4
"""Relays have at most this fraction (one in so many) of the daemon's descriptors."""
_MOST: Final = 2048
"""Most descriptors for one container, however many there are: each costs memory too."""
CONNECTION: Final = 2
"""Descriptors of a connection: the client's end and the container's.

Each container may have at least as many, or no connection would ever get through.
"""


class RelayQuota:
    """Quota of descriptors for all relays together."""

    def __init__(self) -> None:
        self._parts: set[ContainerQuota] = set()
        self._waiting: list[asyncio.Future[None]] = []

    def part(self) -> ContainerQuota:
        """Return a container's quota, the same size for each."""
        made = ContainerQuota(self)
        self._parts.add(made)
        return made

    def limit(self) -> int:
        """Return the most descriptors that one container may have.

        A container that has more, because there were fewer containers before, keeps them open.
        """
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(CONNECTION, min(_MOST, most // _SHARE // max(1, len(self._parts))))

    def leave(self, part: ContainerQuota) -> None:
        """Remove a container's quota; the others share it."""
        self._parts.discard(part)
        self.wake()

    async def changed(self) -> None:
        """Wait until descriptors have been given back."""
        waits: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waits)
        await waits

    def wake(self) -> None:
        """Wake the waiting connections, which check the quota again."""
        for waits in self._waiting:
            if not waits.done():
                waits.set_result(None)
        self._waiting.clear()


class ContainerQuota:
    """Descriptors that one container's relays have open."""

    def __init__(self, room: RelayQuota) -> None:
        self._room = room
        self._taken = 0

    def take_now(self, count: int) -> bool:
        """Take this many descriptors; false if the quota has no room for them."""
        if self._taken + count > self._room.limit():
            return False
        self._taken += count
        return True

    async def take(self, count: int) -> None:
        """Take this many descriptors, waiting until the quota has room for them."""
        while not self.take_now(count):
            await self._room.changed()

    def give(self, count: int) -> None:
        """Give this many descriptors back."""
        self._taken -= count
        self._room.wake()

    def close(self) -> None:
        """Give up the quota."""
        self._room.leave(self)
