"""All images there are: those in the library, and `base`, which the machine itself is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runtime.errors import ConflictError, InvalidError
from runtime.image import base, references
from runtime.image.base import Image
from runtime.image.library import Index, Library
from runtime.records import ContainerConfig
from runtime.store import Store, read_json

if TYPE_CHECKING:  # they bring what `run` has no use for, and are imported where they are needed
    from runtime.image.create import LoadedImage, ParentImage
    from runtime.image.tar import Readable

NO_NAME: Final = "<none>:<none>"


class RemovedImages(NamedTuple):
    """What `remove` has done: names that were taken away, images and layers that are gone."""

    names: list[str]
    images: list[str]
    layers: list[str]


class Images:
    """The images below a state directory, and the machine's own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._library = Library(f"{store.root}/library")
        self._cache = base.cache_directory(store.root)

    # --- looking -------------------------------------------------------------

    def get(self, reference: str) -> Image:
        """The image of that name, or whose id starts so; `NotFoundError` else."""
        index = self._library.index()
        identity = self._library.find(index, reference)
        if identity is not None:
            return self._known(index, identity, reference)
        digits = references.digits(reference)
        own = base.every(self._cache) if digits else []
        by_id = [found for found in own if found.id.startswith(digits)]
        return by_id[0] if by_id else base.get(reference, self._cache)

    @contextmanager
    def pinned(self, reference: str) -> Iterator[Image]:
        """The same, and nobody can remove it meanwhile."""
        if self._library.find(self._library.index(), reference) is None:
            yield self.get(reference)
        else:
            with self._library.locked():
                yield self.get(reference)

    def of(self, config: ContainerConfig) -> Image:
        """The image that a container was made from, whatever its name means by now."""
        index = self._library.index()
        if config.image_id in index.images:
            return self._known(index, config.image_id, config.image)
        # The machine's own, which changes with the machine; asked for by its id then, perhaps.
        own = [item for item in base.every(self._cache) if item.id == config.image_id]
        return own[0] if own else base.get(config.image, self._cache)

    def all(self) -> list[Image]:
        """Every image once for each of its names, the newest first."""
        self._library.tidy()
        index = self._library.index()
        found = [
            self._known(index, identity, name)
            for identity in index.images
            for name in index.names_of(identity) or [NO_NAME]
        ]
        own = [
            item._replace(name=_full(item.name))
            for item in base.every(self._cache)
            if index.named(item.name) is None
        ]
        return sorted([*found, *own], key=lambda item: item.created, reverse=True)

    def inspect(self, reference: str) -> tuple[Image, list[str], dict[str, Any]]:
        """An image, all its names, and its whole configuration."""
        found = self.get(reference)
        config: dict[str, Any] = json.loads(self.origin(found).config.raw)
        return found, self._library.index().names_of(found.id) or [_full(found.name)], config

    def _known(self, index: Index, identity: str, name: str) -> Image:
        known = index.images[identity]
        # The same layer twice would be in its own way; the upper one hides all of the lower.
        layers = [f"{self._library.layer(item)}/tree" for item in reversed(known.layers)]
        stack = (*dict.fromkeys(layers), self._library.empty)
        return Image(name, stack, known.size, known.created, identity, known.defaults)

    def origin(self, found: Image) -> ParentImage:
        """An image as something to build on, to name or to save."""
        from runtime.image.config import parse
        from runtime.image.create import ParentImage

        if found.id in self._library.index().images:
            return ParentImage(parse(self._library.config(found.id)))
        made = read_json(f"{self._cache}/base.json")
        return ParentImage(parse(made["config"].encode()), f"{self._cache}/{made['layer']}")

    # --- making --------------------------------------------------------------

    def load(self, file: Readable, *, shown: str = "the archive") -> list[LoadedImage]:
        """Take all images of an archive: Docker's or OCI's layout, plain or compressed by gzip.

        `InvalidError` when any of it is not right; nothing has changed then.
        """
        from runtime.image import create

        with create.explained(f"load {shown}"):
            return create.load(self._library, file)

    def import_root(
        self,
        file: Readable,
        name: str = "",
        *,
        shown: str = "the archive",
        comment: str = "",
        changes: Sequence[str] = (),
    ) -> str:
        """Make an image of the tar of a root file system; its id. Errors as for `load`.

        `changes` are lines of a Dockerfile, as `runtime.image.instructions` takes them.
        """
        from runtime.image import create, instructions

        config = instructions.apply({}, changes)
        names = [references.parse(name)] if name else []
        with create.explained(f"import {shown}"):
            return create.import_root(
                self._library,
                file,
                names=names,
                config=config,
                comment=comment or f"imported from {shown}",
            )

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
        """Make an image of an image and a container's own layer; its id."""
        from runtime.image import create

        names = [references.parse(name)] if name else []
        with create.explained(f"commit to {name or 'an image'}"):
            return create.commit(
                self._library,
                self.origin(found),
                upper,
                names=names,
                config=config,
                author=author,
                comment=comment,
            )

    def tag(self, reference: str, name: str) -> None:
        """Call an image also `name`; whatever was called so before is not any more."""
        from runtime.image import create

        names = [references.parse(name)]
        with create.explained(f"tag {reference}"):
            create.name(self._library, self.origin(self.get(reference)), names)

    def save(self, wanted: Sequence[str]) -> Iterator[bytes]:
        """The pieces of an archive of images, for `load`, here and elsewhere.

        An image that is asked for by its id is saved without a name.
        """
        from runtime.image import archive, create

        with create.explained(f"save {' '.join(wanted)}"):
            named: dict[str, list[str]] = {}
            origins: dict[str, ParentImage] = {}
            for reference in wanted:
                found = self.get(reference)
                origins[found.id] = self.origin(found)
                digits = references.digits(reference)
                name = [] if digits and found.id.startswith(digits) else [found.name]
                named.setdefault(found.id, []).extend(references.parse(item) for item in name)
            with create.layer_directories(self._library, list(origins.values())) as directories:
                saved = [
                    archive.ImageToSave(origin.config, tuple(dict.fromkeys(named[identity])))
                    for identity, origin in origins.items()
                ]
                yield from archive.save(saved, directories)

    # --- removing ------------------------------------------------------------

    def remove(self, reference: str, *, force: bool = False) -> RemovedImages:
        """Take a name away, and with the last name the image.

        `ConflictError` names the container that uses it. With `force` it loses
        its names all the same, and stays without one.
        """
        asked = f"remove the image {reference!r}"
        with self._library.locked():
            index = self._library.index()
            identity = self._library.find(index, reference)
            if identity is None:
                raise _not_removable(asked, self.get(reference))
            every, by_name = index.names_of(identity), index.named(reference)
            names = [by_name] if by_name is not None else every
            gone = len(names) == len(every)
            repositories = {references.split(name)[0] for name in names}
            if by_name is None and len(repositories) > 1 and not force:
                raise ConflictError(
                    asked,
                    f"it is called {' and '.join(every)}",
                    remedy="remove it by name, or `mydocker rmi -f`",
                )
            users = self._users(identity) if gone else []
            if users and not force:
                raise ConflictError(
                    asked,
                    f"container {users[0]!r} uses it",
                    remedy=f"`mydocker rm {users[0]}` before",
                )
            for name in names:
                del index.names[name]
            layers_before = index.layers()
            if gone and not users:
                del index.images[identity]
            self._library.write(index)
            layers = sorted(layers_before - index.layers())
            return RemovedImages(names, [] if identity in index.images else [identity], layers)

    def _users(self, identity: str) -> list[str]:
        """The names of containers that were made from an image."""
        found = []
        for item in self._store.ids():
            try:
                config = self._store.config(item)
            except FileNotFoundError:
                continue  # removed meanwhile
            if config.image_id == identity:
                found.append(config.name)
        return sorted(found)


def _full(name: str) -> str:
    return ":".join(references.split(name))


def _not_removable(asked: str, found: Image) -> InvalidError:
    return InvalidError(
        asked,
        f"{found.name} is put together from this machine's own programs",
        remedy="delete the directory that MYDOCKER_IMAGE_CACHE names, else ~/.cache/mydocker",
    )
