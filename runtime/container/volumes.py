"""Named volumes: directories that outlive the containers that use them.

```
root/volumes/<name>/data         directory mounted into containers
root/volumes/<name>/config.json  creation time; written last
```
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from runtime.errors import ConflictError, InvalidError, NotFoundError, room_for
from runtime.init.rootfs import Bind, parse_bind
from runtime.records import NAME, NAME_RULE, ContainerRecord
from runtime.store import Store, now, read_json, remove_tree, write_json


class Volume(NamedTuple):
    """A named volume; `directory` is the host path of its files."""

    name: str
    directory: str
    created: str


class Volumes:
    """Volumes of one store. `containers` yields the containers that may use them."""

    def __init__(self, store: Store, containers: Callable[[], list[ContainerRecord]]) -> None:
        self._store, self._containers = store, containers
        self._root = f"{store.root}/volumes"

    def create(self, name: str) -> Volume:
        """Create a volume; leave an existing one as it is."""
        if not NAME.fullmatch(name):
            raise InvalidError(f"name a volume {name!r}", "the name is malformed", remedy=NAME_RULE)
        with room_for(f"create volume {name!r}"), self._store.locked():
            if not os.path.exists(f"{self._root}/{name}/config.json"):
                os.makedirs(self._root, mode=0o700, exist_ok=True)
                os.makedirs(f"{self._root}/{name}/data", exist_ok=True)
                # Every user in a container must be able to enter, regardless of the caller's
                # umask.
                os.chmod(f"{self._root}/{name}/data", 0o755)  # noqa: S103
                write_json(f"{self._root}/{name}/config.json", {"created": now()})
        return self.inspect(name)

    def sources(self, binds: Iterable[str]) -> list[Bind]:
        """Create a container's volumes; return all its mounts with host paths as sources."""
        found = [parse_bind("mount a volume", text) for text in binds]
        return [
            item._replace(source=self.create(item.source).directory) if item.volume else item
            for item in found
        ]

    def inspect(self, name: str) -> Volume:
        """Return one volume; raise `NotFoundError` if there is none."""
        directory = f"{self._root}/{name}"
        try:
            if not NAME.fullmatch(name):
                raise FileNotFoundError
            return Volume(
                name, f"{directory}/data", read_json(f"{directory}/config.json")["created"]
            )
        except FileNotFoundError:
            raise NotFoundError(
                f"find volume {name!r}", "no such volume", remedy="mydocker volume ls"
            ) from None

    def all(self) -> list[Volume]:
        """Return every volume, by name."""
        found = []
        for name in sorted(os.listdir(self._root)) if os.path.isdir(self._root) else ():
            try:
                found.append(self.inspect(name))
            except NotFoundError:
                continue  # partly created or removed by a killed call
        return found

    def remove(self, name: str) -> None:
        """Remove a volume and its files; raise `ConflictError` while a container uses it."""
        self.inspect(name)
        with self._store.locked():
            users = self._users().get(name)
            if users:
                raise ConflictError(
                    f"remove volume {name!r}",
                    f"the volume is in use by {', '.join(users)}",
                    remedy=f"mydocker rm {users[0]}",
                )
            self._delete(name)

    def prune(self) -> list[Volume]:
        """Remove every volume that no container uses; return the removed ones."""
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
        os.unlink(f"{self._root}/{name}/config.json")  # from now on the volume does not exist
        remove_tree(f"{self._root}/{name}")
