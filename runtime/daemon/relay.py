"""Relay of published ports on the IPv6 loopback address to the container.

The kernel cannot redirect these packets: it accepts a packet to `::1`, request or reply, only from
`lo`. The relay uses the sockets by which the container's pid 1 reserves the port. For the
container, the client is the host, with its address on the container's bridge.

Beyond the quota (`RelayQuota`) a new connection waits until another one ends, and a new UDP session
ends the one that has been silent longest.
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
    """UDP session of one client: the socket to the container, and the task that returns replies."""

    inside: socket.socket
    replies: asyncio.Task[None]


class Relay:
    """Relay from one socket to `target`, until it is closed.

    The relay's descriptors count against `part`, the quota of its container.
    """

    def __init__(self, opened: socket.socket, target: End, part: ContainerQuota) -> None:
        self._socket, self._target, self._part = opened, target, part
        self._family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._sessions: dict[Any, UdpSession] = {}
        self._work = Work()
        stream = opened.type == socket.SOCK_STREAM
        self._work.begin(self._relay_connections() if stream else self._relay_datagrams(), opened)

    def close(self) -> None:
        """Stop relaying."""
        self._work.close()

    # --- connections -------------------------------------------------------------

    async def _relay_connections(self) -> None:
        while True:
            accepted = self._work.keep(await accept(self._socket))
            await self._part.take(CONNECTION)  # further connections wait in the kernel's queue
            joined = self._work.begin(self._join(accepted), accepted)
            joined.add_done_callback(lambda _: self._part.give(CONNECTION))

    async def _join(self, outside: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            opened = socket.socket(self._family, socket.SOCK_STREAM)
        except OSError:  # no descriptor is left
            self._work.reset(outside)
            return
        with self._work.using(opened) as inside:
            try:
                await loop.sock_connect(inside, self._target)
                async with asyncio.TaskGroup() as both:
                    both.create_task(_pour(outside, inside))
                    both.create_task(_pour(inside, outside))
            except* OSError:  # one side has reset the connection, or nothing listens
                self._work.reset(outside)
                self._work.reset(inside)

    # --- datagrams ---------------------------------------------------------------

    async def _relay_datagrams(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data, client = await loop.sock_recvfrom(self._socket, _CHUNK)
            with suppress(OSError):  # as with a lost datagram, the client gets no error
                session = self._sessions.pop(client, None) or await self._open_session(client)
                if session is not None:
                    self._sessions[client] = session  # the most recent now
                    await loop.sock_sendall(session.inside, data)

    async def _open_session(self, client: Any) -> UdpSession | None:
        """Open a session; `None` if the container's connections use all of its quota."""
        while not self._part.take_now(1):
            if not self._sessions:
                return None
            longest_silent = next(iter(self._sessions.values())).replies
            longest_silent.cancel()
            await asyncio.wait([longest_silent])
        inside = None
        try:
            inside = self._work.keep(socket.socket(self._family, socket.SOCK_DGRAM))
            inside.connect(self._target)
        except OSError:
            if inside is not None:
                self._work.release(inside)
            self._part.give(1)
            raise
        replies = self._work.begin(self._return_replies(inside, client), inside)
        replies.add_done_callback(lambda _: self._forget(client))
        return UdpSession(inside, replies)

    def _forget(self, client: Any) -> None:
        self._sessions.pop(client, None)
        self._part.give(1)

    async def _return_replies(self, inside: socket.socket, client: Any) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError, TimeoutError):
            while True:
                async with asyncio.timeout(_FORGOTTEN):
                    data = await loop.sock_recv(inside, _CHUNK)
                await loop.sock_sendto(self._socket, data, client)


async def _pour(source: socket.socket, sink: socket.socket) -> None:
    """Copy all data from one socket to the other, and then the end of the stream."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK):
        await loop.sock_sendall(sink, data)
    sink.shutdown(socket.SHUT_WR)


_SHARE: Final = 4
"""Relays have at most this fraction (one in so many) of the daemon's descriptors."""
_MOST: Final = 2048
"""Maximum descriptors for one container, in any case: each costs memory too."""
CONNECTION: Final = 2
"""Descriptors of a connection: the client's end and the container's.

Each container may have at least this many, or no connection could ever be relayed.
"""


class RelayQuota:
    """Quota of descriptors for all relays together."""

    def __init__(self) -> None:
        self._parts: set[ContainerQuota] = set()
        self._waiting: list[asyncio.Future[None]] = []

    def part(self) -> ContainerQuota:
        """Return a quota for a container; all containers have quotas of the same size."""
        made = ContainerQuota(self)
        self._parts.add(made)
        return made

    def limit(self) -> int:
        """Return the maximum number of descriptors that one container may have.

        A container that has more, because there were fewer containers before, keeps them open.
        """
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(CONNECTION, min(_MOST, most // _SHARE // max(1, len(self._parts))))

    def leave(self, part: ContainerQuota) -> None:
        """Remove a container's quota; the other containers share the descriptors."""
        self._parts.discard(part)
        self.wake()

    async def changed(self) -> None:
        """Wait until descriptors have been released."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(woken)
        await woken

    def wake(self) -> None:
        """Wake the waiting connections, which check the quota again."""
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)
        self._waiting.clear()


class ContainerQuota:
    """Descriptors that one container's relays have open."""

    def __init__(self, quota: RelayQuota) -> None:
        self._quota = quota
        self._taken = 0

    def take_now(self, count: int) -> bool:
        """Reserve this many descriptors; return false if the quota has no room for them."""
        if self._taken + count > self._quota.limit():
            return False
        self._taken += count
        return True

    async def take(self, count: int) -> None:
        """Reserve this many descriptors; wait until the quota has room for them."""
        while not self.take_now(count):
            await self._quota.changed()

    def give(self, count: int) -> None:
        """Release this many descriptors."""
        self._taken -= count
        self._quota.wake()

    def close(self) -> None:
        """Release the quota."""
        self._quota.leave(self)
