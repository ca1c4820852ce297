"""Images on disk, the lookup of an image by name or id, and the cache of the image `base`.

```
library/lock                 taken briefly to publish, name or remove images
library/index.json           the images and their names
library/configs/<id>         an image's configuration, byte for byte; the id is its SHA-256
library/layers/<diff id>/    a layer, shared by all images that have it
library/empty/               mount points, below every image that lacks them
library/scratch/<random>/    work in progress; removed at its end
```

An image exists once `index.json` lists it; that file is replaced in one step.
Anything else on disk was left by a process that was killed, and the next change
removes it. There are no reference counts: a layer is in use if the index says so.

Lock order: a container's, the library's, the root's.

`base` is assembled from this machine's own programs, once, without a network, and again
whenever a file that it was made of has changed.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from linux import proc
from runtime import store
from runtime.errors import NotFoundError
from runtime.image.config import (
    Image,
    ImageConfig,
    ImageDefaults,
    id_prefix,
    parse_reference,
    with_tag,
)
from runtime.records import ContainerConfig
from runtime.store import Lock, match_prefix, read_json, write_json


class IndexEntry(NamedTuple):
    """An image in the index; `layers` are diff ids, the lowest first."""

    layers: tuple[str, ...]
    created: str
    size: int
    defaults: ImageDefaults = ImageDefaults()


class Index(NamedTuple):
    """Index of the library: the images by id, and the ids by image name."""

    images: dict[str, IndexEntry]
    names: dict[str, str]

    def names_of(self, identity: str) -> list[str]:
        """Return the names of an image."""
        return sorted(name for name, found in self.names.items() if found == identity)

    def named(self, reference: str) -> str | None:
        """Return the stored form of a name; `None` when no image has it."""
        plain = with_tag(reference)
        if plain in self.names:
            return plain
        longer = parse_reference(reference) if "/" in reference else plain
        return longer if longer in self.names else None

    def find(self, reference: str) -> str | None:
        """Return the ID of the image with that name or ID prefix, if there is one.

        `NotFoundError` when several IDs have the prefix.
        """
        if (name := self.named(reference)) is not None:
            return self.names[name]
        digits = id_prefix(reference)
        found = match_prefix(digits, list(self.images)) if digits else []
        if len(found) > 1:
            some = ", ".join(item[:12] for item in found[:5])
            raise NotFoundError(
                f"find image {reference!r}",
                f"{len(found)} IDs have this prefix: {some}",
                remedy="more digits of the ID, or the name",
            )
        return found[0] if found else None

    def layers(self) -> set[str]:
        """Return every layer of every image."""
        return {layer for known in self.images.values() for layer in known.layers}


class NamedImage(NamedTuple):
    """An image's configuration and its names."""

    config: ImageConfig
    names: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """The image's id."""
        return self.config.identity


class ImageStore:
    """The images below a state directory, and the machine's own image `base`."""

    def __init__(self, root: str) -> None:
        self.path = f"{root}/library"
        self.cache = cache_directory(root)
        """Directory of `base`."""

    # --- lookup --------------------------------------------------------------

    def get(self, reference: str) -> Image:
        """Return the image with that name or ID prefix; `NotFoundError` otherwise."""
        index = self.index()
        identity = index.find(reference)
        if identity is not None:
            return self.image(index, identity, reference)
        digits = id_prefix(reference)
        if with_tag(reference) == BASE:
            return base_image(self.cache)
        if digits and (found := base_image(self.cache)).id.startswith(digits):
            return found
        raise NotFoundError(f"find image {reference!r}", "no such image", remedy="mydocker images")

    @contextmanager
    def pinned(self, reference: str) -> Iterator[Image]:
        """Look an image up, and keep it from being removed during the body."""
        if self.index().find(reference) is None:
            yield self.get(reference)
        else:
            with self.locked():
                yield self.get(reference)

    def of(self, config: ContainerConfig) -> Image:
        """Return the image that a container was created from, even when its name has moved."""
        index = self.index()
        if config.image_id in index.images:
            return self.image(index, config.image_id, config.image)
        # Images that containers use stay in the index, so this one is `base`, which changes with
        # the machine.
        return base_image(self.cache)

    def image(self, index: Index, identity: str, name: str) -> Image:
        """Return an image of the index under one of its names."""
        known = index.images[identity]
        # overlayfs refuses a layer that is listed twice; the upper one hides the lower one
        # completely
        layers = [f"{self.layer(item)}/tree" for item in reversed(known.layers)]
        stack = (*dict.fromkeys(layers), f"{self.path}/empty")
        return Image(name, stack, known.size, known.created, identity, known.defaults)

    def index(self) -> Index:
        """Read the index."""
        try:
            found = read_json(f"{self.path}/index.json")
        except FileNotFoundError:
            return Index({}, {})
        images = {
            identity: IndexEntry(tuple(layers), created, size, ImageDefaults(**defaults))
            for identity, (layers, created, size, defaults) in found["images"].items()
        }
        return Index(images, found["names"])

    def layer(self, diff_id: str) -> str:
        """Return the directory of a layer."""
        return f"{self.path}/layers/{diff_id}"

    def config(self, identity: str) -> bytes:
        """Return an image's configuration; `FileNotFoundError` when it has been removed."""
        with open(f"{self.path}/configs/{identity}", "rb") as file:
            return file.read()

    def missing(self, layers: Iterable[str]) -> list[str]:
        """Return the layers that are not on disk, each once."""
        return [item for item in dict.fromkeys(layers) if not os.path.isdir(self.layer(item))]

    # --- changes -------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the library's lock; leftovers of killed processes are removed afterwards."""
        for directory in ("configs", "layers", "scratch"):
            os.makedirs(f"{self.path}/{directory}", mode=0o700, exist_ok=True)
        lock = Lock.take(f"{self.path}/lock")
        assert lock is not None
        abandoned: dict[str, Lock] = {}
        try:
            yield
            self._remove_unlisted()
            abandoned = self._abandoned()
        finally:
            lock.release()
        for path, own in abandoned.items():
            store.remove_tree(path)
            own.release()

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """Create a directory on the library's file system, which is removed after the body.

        It is locked as long as its creator is alive.
        """
        with self.locked():
            made = self._make_scratch()
            lock = Lock.take(made, create=False)
            assert lock is not None
        try:
            yield made
        finally:
            store.remove_tree(made)
            lock.release()

    def _make_scratch(self) -> str:
        """Create a scratch directory.

        Hold the library's lock until the directory is locked.
        """
        made = f"{self.path}/scratch/{os.urandom(8).hex()}"
        os.mkdir(made, 0o700)
        return made

    def publish(self, scratch: str, images: Sequence[NamedImage]) -> list[str]:
        """List images in the index, in one step; their layers are on disk or in `scratch`.

        Return the layers that are in neither; in that case nothing is published. Such a layer was
        removed meanwhile, with the last other image that had it.
        """
        with self.locked():
            missing = self.missing(layer for image in images for layer in image.config.layers)
            made = {item for item in missing if os.path.isdir(f"{scratch}/{item}")}
            if gone := [item for item in missing if item not in made]:
                return gone
            self._make_mount_points(scratch)
            for item in made:
                os.rename(f"{scratch}/{item}", self.layer(item))
            index = self.index()
            for config, names in images:
                with open(f"{self.path}/configs/{config.identity}", "wb") as file:
                    file.write(config.raw)
                size = sum(
                    read_json(f"{self.layer(item)}/layer.json")["size"] for item in config.layers
                )
                index.images[config.identity] = IndexEntry(
                    config.layers, config.created, size, config.defaults
                )
                index.names.update(dict.fromkeys(names, config.identity))
            self.write(index)
        return []

    def write(self, index: Index) -> None:
        """Replace the index; the library's lock must be held.

        Unused layers are removed when the lock is released.
        """
        images = {
            identity: (*known[:-1], known.defaults._asdict())
            for identity, known in index.images.items()
        }
        write_json(f"{self.path}/index.json", {"images": images, "names": index.names})

    def _make_mount_points(self, scratch: str) -> None:
        """Make the mount points below every image, so that no container makes its own."""
        if not os.path.isdir(f"{self.path}/empty"):
            add_mount_points(f"{scratch}/empty")
            os.rename(f"{scratch}/empty", f"{self.path}/empty")

    def _remove_unlisted(self) -> None:
        """Remove files that the index does not list; each layer disappears in one step."""
        index = self.index()
        for name in os.listdir(f"{self.path}/configs"):
            if name not in index.images:
                os.unlink(f"{self.path}/configs/{name}")
        for name in set(os.listdir(f"{self.path}/layers")) - index.layers():
            os.rename(self.layer(name), f"{self._make_scratch()}/{name}")

    def _abandoned(self) -> dict[str, Lock]:
        """Lock and return the scratch directories whose makers were killed."""
        found = {}
        for name in os.listdir(f"{self.path}/scratch"):
            path = f"{self.path}/scratch/{name}"
            with suppress(FileNotFoundError):  # its maker has just removed it
                if (lock := Lock.take(path, wait=False, create=False)) is not None:
                    found[path] = lock
        return found


BASE: Final = "base:latest"
RECIPE: Final = f"{os.path.dirname(__file__)}/assemble.py"
"""Source of the code that assembles `base`: an image of another recipe is made anew."""


def cache_directory(root: str) -> str:
    """Return the cache's directory: $MYDOCKER_IMAGE_CACHE, the user's cache, or below `root`.

    A directory that another user can write to is not used.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = os.environ.get("MYDOCKER_IMAGE_CACHE") or f"{home}/mydocker"
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
        status = os.stat(path)
        own = status.st_uid == os.geteuid() and not status.st_mode & 0o022
        if own and os.access(path, os.W_OK):
            return path
    except OSError:
        pass
    path = f"{root}/images"
    os.makedirs(path, mode=0o755, exist_ok=True)
    return path


def base_image(cache: str) -> Image:
    """Return `base`, assembled if need be."""
    if (found := _cached_base(cache)) is not None:
        return found
    from runtime.image.assemble import assemble  # slow to import, needed once per machine

    lock = Lock.take(f"{cache}/lock")
    assert lock is not None
    try:
        return _cached_base(cache) or assemble(cache)
    finally:
        lock.release()


def base_config(cache: str) -> bytes:
    """Return the configuration of `base`, which is in the cache."""
    made: str = read_json(f"{cache}/base.json")["config"]
    return made.encode()


def add_mount_points(root: str) -> None:
    """Make the directories and files that every container has mounts on.

    They are part of `base`, but not of its recipe: after a change here, change `assemble.py` too.
    """
    for directory in ("", "dev", "etc", "proc", "sys"):
        os.makedirs(f"{root}/{directory}", exist_ok=True)
        os.chmod(f"{root}/{directory}", 0o755)  # noqa: S103 - their mode everywhere
    for name in ("hosts", "hostname", "resolv.conf"):
        with open(f"{root}/etc/{name}", "xb") as file:
            os.fchmod(file.fileno(), 0o644)


def recipe_checksum() -> int:
    """Return a checksum of the recipe, the same in every copy of this mydocker."""
    return zlib.crc32(proc.read(RECIPE))


def fingerprint(path: str) -> list[int]:
    """Return a file's time, size and inode, which change when the file is replaced."""
    status = os.stat(path)
    return [status.st_mtime_ns, status.st_size, status.st_ino]


def _cached_base(cache: str) -> Image | None:
    """Return the cached image; `None` when a file that the image was made of has changed."""
    try:
        made = read_json(f"{cache}/base.json")
        same = all(fingerprint(path) == mark for path, mark in made["from"].items())
        if same and made["recipe"] == recipe_checksum():
            layer = f"{cache}/{made['layer']}"
            os.stat(layer)
            return Image(BASE, (layer,), made["size"], made["created"], made["id"])
    except (OSError, ValueError, KeyError):
        pass
    return None
