"""Which containers have to be looked at: cheaply, since every call asks it of all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from runtime.records import ContainerState
from runtime.state import Store, process_born


class _Seen(NamedTuple):
    """A state as it was read, and what tells whether its file is still the same."""

    stamp: tuple[int, int]
    state: ContainerState


class Glance:
    """What one process remembers of the containers' states, file by file.

    A state's file is replaced when it changes, never written into: the same inode with
    the same time has the same content, and need not be read again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, _Seen] = {}

    def unsettled(self) -> Iterator[str]:
        """The ids of those that are not as their record says, or whose record is unfinished."""
        seen, self._seen = self._seen, {}
        for identity in self._store.ids():
            found = self._look(identity, seen.get(identity))
            if found is None:
                yield identity
                continue
            self._seen[identity] = found
            if not settled(found.state):
                yield identity

    def _look(self, identity: str, known: _Seen | None) -> _Seen | None:
        try:
            # Read after the stamp was taken: at worst a newer state under an older stamp.
            status = os.stat(f"{self._store.directory(identity)}/state.json")
            stamp = (status.st_ino, status.st_mtime_ns)
            if known is not None and known.stamp == stamp:
                return known
            return _Seen(stamp, self._store.state(identity))
        except FileNotFoundError:
            return None


def settled(state: ContainerState) -> bool:
    """Whether things are as the record says, and nobody was interrupted changing them."""
    if state.changing:
        return False
    if state.status == "running":
        return process_born(state.pid) == state.born
    return state.status in ("created", "exited")
