"""Cache of container states, so that a call reads only the states that may have changed."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from typing import NamedTuple

from linux.proc import process_born
from runtime.records import ContainerState
from runtime.store import Store


class _Seen(NamedTuple):
    """A state as it was read, and the stamp that shows if its file is still the same."""

    stamp: tuple[int, int]
    state: ContainerState


class StateCache:
    """Cache of the containers' states in one process, one file each.

    A state file is either replaced when it changes, or rewritten in place with a new time. So
    the same inode with the same time has the same content, and is not read again.

    A container found running a second time is watched by a pidfd (pidfd_open(2)). As long as
    it lives and no call changes its networks, its files are not read at all. So the cost of a
    call does not grow with the number of running containers, except for the list of their ids.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, _Seen] = {}
        self._watched: dict[str, int] = {}
        self._poll = select.poll()
        # Use at most half of the caller's descriptor limit.
        self._most = os.sysconf("SC_OPEN_MAX") // 2

    def unsettled(self) -> Iterator[str]:
        """Yield the ids of containers that differ from their record or have an unfinished one."""
        ids = self._store.ids()
        changing = set(os.listdir(self._store.changing))
        self._drop(ids)
        seen, self._seen = self._seen, {}
        for identity in ids:
            known = seen.get(identity)
            if known is not None and identity in self._watched and identity not in changing:
                self._seen[identity] = known
                continue
            found = self._look(identity, known)
            if found is None:
                yield identity
                continue
            self._seen[identity] = found
            if not settled(found.state):
                yield identity
            elif known is not None and found.state.status == "running":
                self._watch(identity, found.state)

    def _look(self, identity: str, known: _Seen | None) -> _Seen | None:
        try:
            # The stamp is taken before the read: at worst a newer state gets an older stamp.
            status = os.stat(f"{self._store.directory(identity)}/state.json")
            stamp = (status.st_ino, status.st_mtime_ns)
            if known is not None and known.stamp == stamp:
                return known
            return _Seen(stamp, self._store.state(identity))
        except FileNotFoundError:
            return None

    def _watch(self, identity: str, state: ContainerState) -> None:
        if identity in self._watched or len(self._watched) >= self._most:
            return
        try:
            handle = os.pidfd_open(state.pid)
        except OSError:  # the process just ended, or no descriptor is free
            return
        if process_born(state.pid) != state.born:
            os.close(handle)
            return
        self._watched[identity] = handle
        self._poll.register(handle, select.POLLIN)

    def _drop(self, ids: list[str]) -> None:
        """Stop watching those of the containers that have ended or were removed."""
        if not self._watched:
            return
        ended = {handle for handle, _ in self._poll.poll(0)}
        gone = self._watched.keys() - ids
        for identity, handle in tuple(self._watched.items()):
            if handle in ended or identity in gone:
                self.forget(identity)

    def forget(self, identity: str) -> None:
        """Stop watching a container; do nothing if it is not watched."""
        handle = self._watched.pop(identity, None)
        if handle is not None:
            self._poll.unregister(handle)
            os.close(handle)

    def __del__(self) -> None:
        for handle in self._watched.values():
            os.close(handle)


def settled(state: ContainerState) -> bool:
    """Return True if the record matches the kernel, and no change of it was interrupted."""
    if state.changing:
        return False
    if state.status == "running":
        return process_born(state.pid) == state.born
    return state.status in ("created", "exited")
