"""The images that were loaded, imported and committed, on disk.

```
library/lock                 taken for moments: to publish, to name, to remove
library/index.json           which images there are and what they are called
library/configs/<id>         an image's configuration, byte for byte; the id is its SHA-256
library/layers/<diff id>/    a layer, shared by all images that have it
library/empty/               mount points, below every image that lacks them
library/scratch/<random>/    what somebody is making; gone with them
```

An image is there once `index.json` says so, which is replaced in one step. What
that does not mention was left by somebody who was killed, and the next change
removes it. Nothing is counted: which layers are in use is what the index says.

Lock order: a container's, the library's, the root's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from runtime import store
from runtime.errors import NotFoundError
from runtime.image import references
from runtime.image.base import ImageDefaults
from runtime.store import Lock, match_prefix, read_json, write_json

if TYPE_CHECKING:
    from runtime.image.config import ImageConfig  # brings what `run` has no use for

_MOUNT_POINTS: Final = ("dev", "etc", "proc", "sys")
_LOCK: Final = ".lock"
_MOUNTED_FILES: Final = ("hosts", "hostname", "resolv.conf")


class IndexEntry(NamedTuple):
    """What the index says about an image; `layers` are diff ids, the lowest first."""

    layers: tuple[str, ...]
    created: str
    size: int
    defaults: ImageDefaults = ImageDefaults()


class Index(NamedTuple):
    """Images by id, and ids by name."""

    images: dict[str, IndexEntry]
    names: dict[str, str]

    def names_of(self, identity: str) -> list[str]:
        """What an image is called."""
        return sorted(name for name, found in self.names.items() if found == identity)

    def named(self, reference: str) -> str | None:
        """The name, as it is kept, that a reference means; `None` when no image has it."""
        plain = ":".join(references.split(reference))
        if plain in self.names:
            return plain
        longer = references.parse(reference) if "/" in reference else plain
        return longer if longer in self.names else None

    def layers(self) -> set[str]:
        """Every layer of every image."""
        return {layer for known in self.images.values() for layer in known.layers}


class NewImage(NamedTuple):
    """An image to publish, and what it is to be called."""

    config: ImageConfig
    names: tuple[str, ...] = ()


class Library:
    """All images in one directory, which need not be there yet."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.empty = f"{path}/empty"

    def layer(self, diff_id: str) -> str:
        """The directory of a layer."""
        return f"{self.path}/layers/{diff_id}"

    # --- looking -------------------------------------------------------------

    def index(self) -> Index:
        """What there is, at this moment."""
        try:
            found = read_json(f"{self.path}/index.json")
        except FileNotFoundError:
            return Index({}, {})
        images = {
            identity: IndexEntry(tuple(layers), created, size, ImageDefaults(**defaults))
            for identity, (layers, created, size, defaults) in found["images"].items()
        }
        return Index(images, found["names"])

    def config(self, identity: str) -> bytes:
        """An image's configuration; `FileNotFoundError` when it was removed meanwhile."""
        with open(f"{self.path}/configs/{identity}", "rb") as file:
            return file.read()

    def find(self, index: Index, reference: str) -> str | None:
        """The id of the image of that name, or whose id starts so; `None` when there is none.

        `NotFoundError` when the beginning of an id fits several.
        """
        named = index.named(reference)
        if named is not None:
            return index.names[named]
        digits = references.digits(reference)
        found = match_prefix(digits, list(index.images)) if digits else []
        if len(found) > 1:
            some = ", ".join(item[:12] for item in found[:5])
            raise NotFoundError(
                f"use the image {reference!r}",
                f"{len(found)} ids start so: {some}",
                remedy="more digits, or the name",
            )
        return found[0] if found else None

    def missing(self, layers: Iterable[str]) -> list[str]:
        """Those of the layers that are not here, each once."""
        return [item for item in dict.fromkeys(layers) if not os.path.isdir(self.layer(item))]

    # --- changing ------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the library's lock; what killed callers left is removed afterwards."""
        for directory in ("configs", "layers", "scratch"):
            os.makedirs(f"{self.path}/{directory}", mode=0o700, exist_ok=True)
        lock = Lock.take(f"{self.path}/lock")
        assert lock is not None
        left: list[_Scratch] = []
        try:
            yield
            self._forget()
            left = self._abandoned()
        finally:
            lock.release()
        for item in left:
            item.remove()

    def tidy(self) -> None:
        """Remove what killed callers left, when there is any sign of it."""
        try:
            found = os.listdir(f"{self.path}/scratch")
        except FileNotFoundError:
            return
        if found:
            with self.locked():
                return

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A directory to make things in, on the library's file system; removed afterwards."""
        with self.locked():
            made = _Scratch.make(f"{self.path}/scratch")
        try:
            yield made.directory
        finally:
            made.remove()

    def publish(self, scratch: str, images: Sequence[NewImage]) -> list[str]:
        """Make images known, all at once, whose layers are here or in `scratch`.

        Returns the layers that are in neither, because somebody has removed the
        last other image that had them; nothing is published then.
        """
        with self.locked():
            missing = self.missing(layer for image in images for layer in image.config.layers)
            made = {item for item in missing if os.path.isdir(f"{scratch}/{item}")}
            if gone := [item for item in missing if item not in made]:
                return gone
            self._make_empty(scratch)
            for item in made:
                os.rename(f"{scratch}/{item}", self.layer(item))
            index = self.index()
            for config, names in images:
                with open(f"{self.path}/configs/{config.identity}", "wb") as file:
                    file.write(config.raw)
                index.images[config.identity] = self._known(config)
                index.names.update(dict.fromkeys(names, config.identity))
            self.write(index)
        return []

    def _known(self, config: ImageConfig) -> IndexEntry:
        size = sum(read_json(f"{self.layer(item)}/layer.json")["size"] for item in config.layers)
        return IndexEntry(config.layers, config.created, size, config.defaults)

    def write(self, index: Index) -> None:
        """Replace the index; the lock must be held. Layers without an image go afterwards."""
        images = {
            identity: (*known[:-1], known.defaults._asdict())
            for identity, known in index.images.items()
        }
        write_json(f"{self.path}/index.json", {"images": images, "names": index.names})

    def _make_empty(self, scratch: str) -> None:
        """What a container's mounts need to stand on, so that its own layer stays clean of it."""
        if os.path.isdir(self.empty):
            return
        made = f"{scratch}/empty"
        os.mkdir(made)
        for name in _MOUNT_POINTS:
            os.mkdir(f"{made}/{name}")
        for name in _MOUNTED_FILES:
            with open(f"{made}/etc/{name}", "xb") as file:
                os.fchmod(file.fileno(), 0o644)
        for path in (made, *(f"{made}/{name}" for name in _MOUNT_POINTS)):
            os.chmod(path, 0o755)  # noqa: S103 - what "/" and these are everywhere
        os.rename(made, self.empty)

    def _forget(self) -> None:
        """Take away what the index does not mention; layers at once as a whole."""
        index = self.index()
        for name in os.listdir(f"{self.path}/configs"):
            if name not in index.images:
                os.unlink(f"{self.path}/configs/{name}")
        wanted = index.layers()
        for name in os.listdir(f"{self.path}/layers"):
            if name not in wanted:
                doomed = _Scratch.make(f"{self.path}/scratch")
                os.rename(self.layer(name), f"{doomed.directory}/{name}")
                doomed.lock.release()

    def _abandoned(self) -> list[_Scratch]:
        """The scratch directories that nobody holds, now held by the caller."""
        found = []
        for name in os.listdir(f"{self.path}/scratch"):
            path = f"{self.path}/scratch/{name}"
            if name.endswith(_LOCK):
                lock = Lock.take(path, wait=False)
                if lock is not None:
                    found.append(_Scratch(path.removesuffix(_LOCK), lock))
        return found


class _Scratch(NamedTuple):
    """A directory whose maker is alive as long as its lock is taken.

    The lock is a file beside it: it is there before the directory and goes after it.
    """

    directory: str
    lock: Lock

    @classmethod
    def make(cls, below: str) -> Self:
        """A new one, held. The library's lock must be held, or it could be taken for abandoned."""
        directory = f"{below}/{os.urandom(8).hex()}"
        lock = Lock.take(directory + _LOCK)
        assert lock is not None
        os.mkdir(directory, 0o700)
        return cls(directory, lock)

    def remove(self) -> None:
        """Remove it and give the lock back."""
        store.remove(self.directory)
        with suppress(FileNotFoundError):  # its maker was just about to
            os.unlink(self.directory + _LOCK)
        self.lock.release()
