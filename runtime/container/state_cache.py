"""Which containers have to be looked at: cheaply, since every call asks it of all of them."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from typing import NamedTuple

from linux.proc import process_born
from runtime.records import ContainerState
from runtime.store import Store


class _Seen(NamedTuple):
    """A state as it was read, and what tells whether its file is still the same."""

    stamp: tuple[int, int]
    state: ContainerState


class StateCache:
    """What one process remembers of the containers' states, file by file.

    A state's file is replaced when it changes, or written into with a time of its own: the
    same inode with the same time has the same content, and need not be read again.

    Of a container that is found running a second time the process is watched (pidfd_open(2)):
    as long as it lives, and nobody changes its networks, nothing at all is read. So what a
    call costs does not grow with the containers that run, but for the list of their names.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, _Seen] = {}
        self._watched: dict[str, int] = {}
        self._poll = select.poll()
        # Half of the descriptors that the caller may have are left to others.
        self._most = os.sysconf("SC_OPEN_MAX") // 2

    def unsettled(self) -> Iterator[str]:
        """The ids of those that are not as their record says, or whose record is unfinished."""
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
            # Read after the stamp was taken: at worst a newer state under an older stamp.
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
        except OSError:  # it just ended, or there are no descriptors left
            return
        if process_born(state.pid) != state.born:
            os.close(handle)
            return
        self._watched[identity] = handle
        self._poll.register(handle, select.POLLIN)

    def _drop(self, ids: list[str]) -> None:
        """Watch those no longer that have ended, or are gone."""
        if not self._watched:
            return
        ended = {handle for handle, _ in self._poll.poll(0)}
        gone = self._watched.keys() - ids
        for identity, handle in tuple(self._watched.items()):
            if handle in ended or identity in gone:
                self.forget(identity)

    def forget(self, identity: str) -> None:
        """Watch a container no longer; one that is not watched is no failure."""
        handle = self._watched.pop(identity, None)
        if handle is not None:
            self._poll.unregister(handle)
            os.close(handle)

    def __del__(self) -> None:
        for handle in self._watched.values():
            os.close(handle)


def settled(state: ContainerState) -> bool:
    """Whether things are as the record says, and nobody was interrupted changing them."""
    if state.changing:
        return False
    if state.status == "running":
        return process_born(state.pid) == state.born
    return state.status in ("created", "exited")
