"""Named volumes: directories that outlive the containers that use them.

```
root/volumes/<name>/data         what a container sees
root/volumes/<name>/config.json  when it was made; written last
```
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from runtime import store as trees
from runtime.errors import ConflictError, InvalidError, NotFoundError, room_for
from runtime.init.binds import Bind, parse
from runtime.records import ContainerRecord
from runtime.store import NAME, NAME_RULE, Store, now, read_json, write_json


class Volume(NamedTuple):
    """A named volume; `directory` is where its files are on the host."""

    name: str
    directory: str
    created: str


class Volumes:
    """The volumes of one store. `containers` tells who could be using them."""

    def __init__(self, store: Store, containers: Callable[[], list[ContainerRecord]]) -> None:
        self._store, self._containers = store, containers
        self._root = f"{store.root}/volumes"

    def create(self, name: str) -> Volume:
        """Make a volume; one that is there stays as it is."""
        if not NAME.fullmatch(name):
            raise InvalidError(f"name a volume {name!r}", "the name is malformed", remedy=NAME_RULE)
        with room_for(f"create volume {name!r}"), self._store.locked():
            if not os.path.exists(f"{self._root}/{name}/config.json"):
                os.makedirs(self._root, mode=0o700, exist_ok=True)
                os.makedirs(f"{self._root}/{name}/data", exist_ok=True)
                # Every user inside must get in, whatever the caller's umask.
                os.chmod(f"{self._root}/{name}/data", 0o755)  # noqa: S103
                write_json(f"{self._root}/{name}/config.json", {"created": now()})
        return self.inspect(name)

    def sources(self, binds: Iterable[str]) -> list[Bind]:
        """The mounts of a container with paths of the host for all, its volumes made."""
        found = [parse("mount a volume", text) for text in binds]
        return [
            item._replace(source=self.create(item.source).directory) if item.volume else item
            for item in found
        ]

    def inspect(self, name: str) -> Volume:
        """One volume; `NotFoundError` else."""
        directory = f"{self._root}/{name}"
        try:
            if not NAME.fullmatch(name):
                raise FileNotFoundError
            return Volume(
                name, f"{directory}/data", read_json(f"{directory}/config.json")["created"]
            )
        except FileNotFoundError:
            raise NotFoundError(
                f"find volume {name!r}", "there is no such volume", remedy="mydocker volume ls"
            ) from None

    def all(self) -> list[Volume]:
        """Every volume, by name."""
        found = []
        for name in sorted(os.listdir(self._root)) if os.path.isdir(self._root) else ():
            try:
                found.append(self.inspect(name))
            except NotFoundError:
                continue  # half-made or half-removed, by a call that was killed
        return found

    def remove(self, name: str) -> None:
        """Remove a volume with all that is in it; `ConflictError` while a container names it."""
        self.inspect(name)
        with self._store.locked():
            users = self._users().get(name)
            if users:
                raise ConflictError(
                    f"remove volume {name!r}",
                    f"{', '.join(users)} would miss it",
                    remedy=f"mydocker rm {users[0]}",
                )
            self._delete(name)

    def prune(self) -> list[Volume]:
        """Remove every volume that no container names; those that were removed."""
        with self._store.locked():
            users = self._users()
            unused = [item for item in self.all() if item.name not in users]
            for item in unused:
                self._delete(item.name)
        return unused

    def _users(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for item in self._containers():
            for text in item.config.binds:
                found.setdefault(text.partition(":")[0], []).append(item.name)
        return found

    def _delete(self, name: str) -> None:
        os.unlink(f"{self._root}/{name}/config.json")  # from now on there is no such volume
        trees.remove(f"{self._root}/{name}")
