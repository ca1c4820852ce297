"""Operations on images: load, import, commit, tag, save, list and remove.

A new image is created in a scratch directory of the store and published in one step at the end.
After an error or a SIGKILL, nothing of it is left.
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from runtime.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    UnsupportedError,
    exhausted,
    is_exhausted,
)
from runtime.image import archive, layer
from runtime.image.config import (
    FETCH_AGAIN,
    Image,
    ImageConfig,
    InvalidArchive,
    id_prefix,
    parse_reference,
    split_reference,
)
from runtime.image.documents import apply_changes, compose, parse_config
from runtime.image.layer import Budget
from runtime.image.store import BASE, ImageStore, NamedImage, base_config, base_image
from runtime.image.tar import Chunks, Readable, pack
from runtime.store import Store, now

NO_NAME: Final = "<none>:<none>"
_CAUSES: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EOPNOTSUPP: "the file system does not support the extended attributes of layers"
    " (tmpfs does since Linux 6.6)",
    errno.EPERM: "this user may not create such files",
}


class RemovedImages(NamedTuple):
    """Result of a removal: the removed names, images and layers."""

    names: list[str]
    images: list[str]
    layers: list[str]


@contextmanager
def user_errors(asked: str, *, kept: str = "nothing was stored") -> Iterator[None]:
    """Turn `InvalidArchive` and `OSError` of the body into errors that the user can act on."""
    try:
        yield
    except InvalidArchive as error:
        remedy = f"{error.remedy}; {kept}" if error.remedy == FETCH_AGAIN else error.remedy
        raise InvalidError(asked, error.happened, error.cause, remedy) from None
    except OSError as error:
        if is_exhausted(error):
            raise exhausted(asked, error) from error
        raise UnsupportedError(
            asked,
            f"{error.strerror}{f': {error.filename}' if error.filename else ''}",
            _CAUSES.get(error.errno or 0, ""),
            "point MYDOCKER_ROOT at another directory" if error.errno in _CAUSES else "",
        ) from error


class Images:
    """The images of a store; `containers` are the containers that may use them."""

    def __init__(self, store: ImageStore, containers: Store) -> None:
        self._store, self._containers = store, containers

    # --- lookup --------------------------------------------------------------

    def get(self, reference: str) -> Image:
        """Return the image with that name or ID prefix; `NotFoundError` otherwise."""
        return self._store.get(reference)

    def all(self) -> list[Image]:
        """Return every image once for each of its names, the newest first."""
        index = self._store.index()
        found = [
            self._store.image(index, identity, name)
            for identity in index.images
            for name in index.names_of(identity) or [NO_NAME]
        ]
        if index.named(BASE) is None:
            found.append(base_image(self._store.cache))
        return sorted(found, key=lambda item: item.created, reverse=True)

    def inspect(self, reference: str) -> tuple[Image, list[str], dict[str, Any]]:
        """Return an image, all its names, and its whole configuration."""
        found = self.get(reference)
        config: dict[str, Any] = json.loads(self._config(found).raw)
        return found, self._store.index().names_of(found.id) or [found.name], config

    def _config(self, found: Image) -> ImageConfig:
        if found.id in self._store.index().images:
            return parse_config(self._store.config(found.id))
        return parse_config(base_config(self._store.cache))

    # --- making --------------------------------------------------------------

    def load(self, file: io.RawIOBase, *, shown: str = "the archive") -> list[NamedImage]:
        """Load all images of an archive: Docker's or OCI's layout, plain or compressed with gzip.

        `InvalidError` when any part is invalid; the store is then unchanged.
        """
        with user_errors(f"load {shown}"), self._store.scratch() as scratch:
            budget = Budget.of_disk(scratch)
            with archive.opened(file, scratch, budget) as opened:
                images, blobs = opened.images()
                wanted = self._store.missing(blobs)
                while True:
                    for item in wanted:
                        layer.build(
                            f"{scratch}/{item}",
                            opened.section(blobs[item].name),
                            budget,
                            diff_id=item,
                            digest=blobs[item].digest,
                        )
                    if not (wanted := self._store.publish(scratch, images)):
                        return images

    def import_root(
        self,
        file: Readable,
        name: str = "",
        *,
        shown: str = "the archive",
        comment: str = "",
        changes: Sequence[str] = (),
    ) -> str:
        """Create an image from the tar of a root file system, and return its ID.

        `changes` are Dockerfile instructions: `documents.INSTRUCTIONS`. Errors as for `load`.
        """
        config = apply_changes({}, changes)
        names = [parse_reference(name)] if name else []
        with user_errors(f"import {shown}"), self._store.scratch() as scratch:
            made = _add_layer(scratch, file, Budget.of_disk(scratch))
            history = [{"created": now(), "comment": comment or f"imported from {shown}"}]
            return self._publish(scratch, compose([made], config, history=history), names)

    def commit(
        self,
        found: Image,
        upper: str,
        name: str,
        config: Mapping[str, Any],
        *,
        author: str = "",
        comment: str = "",
    ) -> str:
        """Create an image from an image and a container's upper directory, and return its ID."""
        names = [parse_reference(name)] if name else []
        asked = f"commit to {name or 'an image'}"
        with user_errors(asked), self._store.scratch() as scratch:
            parent = self._config(found)
            self._add_base(scratch, parent)
            made = [_add_tree(scratch, upper)] if os.path.isdir(upper) else []
            before = json.loads(parent.raw).get("history") or []
            step = {"created": now(), "created_by": comment or "mydocker commit"}
            layers = [*parent.layers, *made]
            new = compose(layers, config, author=author, history=[*before, step])
            return self._publish(scratch, new, names)

    def tag(self, reference: str, name: str) -> None:
        """Tag an image; an existing tag of that name is moved."""
        names = [parse_reference(name)]
        with user_errors(f"tag {reference}"):
            config = self._config(self.get(reference))
            with self._store.scratch() as scratch:
                self._add_base(scratch, config)
                self._publish(scratch, config, names)

    def save(self, wanted: Sequence[str]) -> Iterator[bytes]:
        """Yield the pieces of an archive of images.

        An image that is requested by its ID is saved without a name.
        """
        with user_errors(f"save {' '.join(wanted)}"):
            names: dict[str, list[str]] = {}
            configs: dict[str, ImageConfig] = {}
            for reference in wanted:
                found = self.get(reference)
                configs[found.id] = self._config(found)
                digits = id_prefix(reference)
                if not digits or not found.id.startswith(digits):
                    names.setdefault(found.id, []).append(parse_reference(found.name))
            images = [
                NamedImage(config, tuple(dict.fromkeys(names.get(identity, ()))))
                for identity, config in configs.items()
            ]
            with self._store.scratch() as scratch:
                directories = {}
                for config in configs.values():
                    self._add_base(scratch, config)
                    for item in config.layers:
                        made = f"{scratch}/{item}"
                        directories[item] = made if os.path.isdir(made) else self._store.layer(item)
                yield from archive.save(images, directories)

    def _add_base(self, scratch: str, config: ImageConfig) -> None:
        """Create `base` as a layer in `scratch` if the store does not have it."""
        if self._store.missing(config.layers):
            own = base_image(self._store.cache)
            if own.id == config.identity:
                _add_tree(scratch, own.layers[0])

    def _publish(self, scratch: str, config: ImageConfig, names: Sequence[str]) -> str:
        if self._store.publish(scratch, [NamedImage(config, tuple(names))]):
            raise NotFoundError("create an image", "its base image has just been removed")
        return config.identity

    # --- removing ------------------------------------------------------------

    def remove(self, reference: str, *, force: bool = False) -> RemovedImages:
        """Remove a name, and with the last name the image.

        `ConflictError` names a container that uses the image. With `force` such an image loses its
        names and is kept without a name.
        """
        asked = f"remove the image {reference!r}"
        with self._store.locked():
            index = self._store.index()
            identity = index.find(reference)
            if identity is None:
                raise InvalidError(
                    asked,
                    f"{self.get(reference).name} is assembled from this machine's programs",
                    remedy="delete the directory in MYDOCKER_IMAGE_CACHE,"
                    " by default ~/.cache/mydocker",
                )
            every, by_name = index.names_of(identity), index.named(reference)
            names = [by_name] if by_name is not None else every
            repositories = {split_reference(name)[0] for name in names}
            if by_name is None and len(repositories) > 1 and not force:
                raise ConflictError(
                    asked,
                    f"the image has several names: {', '.join(every)}",
                    remedy="remove each name, or use `mydocker rmi -f`",
                )
            last = len(names) == len(every)
            users = self._users(identity) if last else []
            if users and not force:
                raise ConflictError(
                    asked,
                    f"container {users[0]!r} uses the image",
                    remedy=f"`mydocker rm {users[0]}` first",
                )
            for name in names:
                del index.names[name]
            layers_before = index.layers()
            removed = last and not users
            if removed:
                del index.images[identity]
            self._store.write(index)
            layers = sorted(layers_before - index.layers())
            return RemovedImages(names, [identity] if removed else [], layers)

    def _users(self, identity: str) -> list[str]:
        """Return the names of the containers that were created from an image."""
        found = []
        for item in self._containers.ids():
            try:
                config = self._containers.config(item)
            except FileNotFoundError:
                continue  # removed meanwhile
            if config.image_id == identity:
                found.append(config.name)
        return sorted(found)


def _add_tree(scratch: str, path: str) -> str:
    """Create a layer from a directory, and return its diff ID."""
    return _add_layer(scratch, Chunks(pack(path, layer=True)), Budget.of_disk(scratch))


def _add_layer(scratch: str, source: Readable, budget: Budget) -> str:
    """Create a layer from a tar of unknown digest, and return its diff ID."""
    directory = f"{scratch}/new-{len(os.listdir(scratch))}"
    made = layer.build(directory, source, budget)
    if not os.path.isdir(f"{scratch}/{made.diff_id}"):
        os.rename(directory, f"{scratch}/{made.diff_id}")
    return made.diff_id
