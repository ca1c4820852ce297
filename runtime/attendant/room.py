"""How much relays may have open at a time, shared among the containers that they are for.

Whoever is on this machine can call a port on `::1` as often as he likes. What he takes by that
he takes from other callers of that container's, and not from names, nor from other containers.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Final

_SHARE: Final = 4
"""Relays have at most one in so many of the descriptors that this process may open."""
_MOST: Final = 2048
"""Descriptors for one container at most, however many there are: each costs memory too."""
CONNECTION: Final = 2
"""Descriptors of a connection: the caller's end and the container's. Each container has as many at
least, or nobody would ever get through."""


class Room:
    """What there is for all relays together."""

    def __init__(self) -> None:
        self._parts: set[Part] = set()
        self._waiting: list[asyncio.Future[None]] = []

    def part(self) -> Part:
        """One container's part, as large as everybody's."""
        made = Part(self)
        self._parts.add(made)
        return made

    def limit(self) -> int:
        """Descriptors that one container has.

        Who has more, because there were fewer containers before, keeps what is open.
        """
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(CONNECTION, min(_MOST, most // _SHARE // max(1, len(self._parts))))

    def leave(self, part: Part) -> None:
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


class Part:
    """What one container's relays have open."""

    def __init__(self, room: Room) -> None:
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
