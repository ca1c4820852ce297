"""How images come to be: loaded, imported, committed, or given one more name.

Everything is made in a scratch directory of the library and published in one
step at the end; after an error, or a SIGKILL, there is nothing of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from runtime.errors import NotFoundError, UnsupportedError, exhausted, is_exhausted
from runtime.image import archive, layer
from runtime.image import config as imageconfig
from runtime.image.config import ImageConfig
from runtime.image.layer import Budget, Chunks
from runtime.image.library import Library, NewImage
from runtime.image.tar import InvalidArchive, Packer, Readable
from runtime.store import now

_CAUSES: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EOPNOTSUPP: "the file system cannot keep the attributes that layers need"
    " (a tmpfs can from Linux 6.6 on)",
    errno.EPERM: "this user may not make such files",
}


class LoadedImage(NamedTuple):
    """An image that was loaded: its id and its names."""

    identity: str
    names: tuple[str, ...]


class ParentImage(NamedTuple):
    """An image that is built on: its configuration, and `tree` where its one layer is files only.

    That is so for `base`, which becomes a layer with a digest once it is needed as one.
    """

    config: ImageConfig
    tree: str = ""


@contextmanager
def explained(asked: str, *, kept: str = "nothing of it was kept") -> Iterator[None]:
    """Turn what a hostile archive or a full disk raises into an error that tells what to do."""
    try:
        yield
    except InvalidArchive as error:
        raise error.asked(asked, kept=kept) from None
    except OSError as error:
        if is_exhausted(error):
            raise exhausted(asked, error) from error
        raise UnsupportedError(
            asked,
            f"{error.strerror}{f': {error.filename}' if error.filename else ''}",
            _CAUSES.get(error.errno or 0, ""),
            "point MYDOCKER_ROOT at another directory" if error.errno in _CAUSES else "",
        ) from error


def load(library: Library, file: Readable) -> list[LoadedImage]:
    """Take all images of an archive, or none. Raises `InvalidArchive` and `OSError`: see `explained`."""
    with library.scratch() as scratch:
        budget = Budget.of_disk(scratch)
        with archive.opened(file, scratch, budget) as opened:
            offered = opened.images()
            blobs = {
                diff_id: blob
                for image in offered
                for diff_id, blob in zip(image.config.layers, image.blobs, strict=True)
            }
            images = [NewImage(image.config, image.names) for image in offered]
            wanted = library.missing(blobs)
            while True:
                for item in wanted:
                    layer.build(
                        f"{scratch}/{item}",
                        opened.section(blobs[item].name),
                        budget,
                        diff_id=item,
                        digest=blobs[item].digest,
                    )
                if not (wanted := library.publish(scratch, images)):
                    return [LoadedImage(image.config.identity, image.names) for image in offered]


def import_root(
    library: Library,
    file: Readable,
    *,
    names: Sequence[str],
    config: Mapping[str, Any],
    comment: str,
) -> str:
    """Make an image of the tar of a root file system; its id. Raises as `load`."""
    with library.scratch() as scratch:
        made = _layer(scratch, file, Budget.of_disk(scratch))
        history = [{"created": now(), "comment": comment}]
        image = NewImage(imageconfig.compose([made], config, history=history), tuple(names))
        library.publish(scratch, [image])
        return image.config.identity


def commit(
    library: Library,
    origin: ParentImage,
    upper: str,
    *,
    names: Sequence[str],
    config: Mapping[str, Any],
    author: str = "",
    comment: str = "",
) -> str:
    """Make an image of an image and what a container has changed; its id. Raises as `load`.

    `upper` is the container's own layer, which need not be there.
    """
    with library.scratch() as scratch:
        budget = Budget.of_disk(scratch)
        _adopt(library, origin, scratch, budget)
        made = [_packed(scratch, upper, budget)] if os.path.isdir(upper) else []
        before = imageconfig.parse_json(origin.config.raw, "configuration").get("history") or []
        step = {"created": now(), "created_by": comment or "mydocker commit"}
        return _publish(
            library,
            scratch,
            imageconfig.compose(
                [*origin.config.layers, *made],
                config,
                author=author,
                history=[*before, step],
            ),
            names,
        )


def base_config(tree: str, created: str) -> ImageConfig:
    """The configuration of an image whose one layer has the files of a directory."""
    found = hashlib.sha256()
    with _open(tree) as top:
        for piece in Packer(layer=True).pack(top):
            found.update(piece)
    return imageconfig.compose([found.hexdigest()], {}, created=created)


def name(library: Library, origin: ParentImage, names: Sequence[str]) -> None:
    """Call an image also `names`. Raises as `load`."""
    with library.scratch() as scratch:
        _adopt(library, origin, scratch, Budget.of_disk(scratch))
        _publish(library, scratch, origin.config, names)


@contextmanager
def layer_directories(library: Library, origins: Sequence[ParentImage]) -> Iterator[dict[str, str]]:
    """Where the layers of images are, by diff id, those of `base` for the time being."""
    with library.scratch() as scratch:
        found = {}
        for origin in origins:
            _adopt(library, origin, scratch, Budget.of_disk(scratch))
            for item in origin.config.layers:
                made = f"{scratch}/{item}"
                found[item] = made if os.path.isdir(made) else library.layer(item)
        yield found


def _adopt(library: Library, origin: ParentImage, scratch: str, budget: Budget) -> None:
    if origin.tree and library.missing(origin.config.layers):
        _packed(scratch, origin.tree, budget)


def _packed(scratch: str, path: str, budget: Budget) -> str:
    with _open(path) as top:
        return _layer(scratch, Chunks(Packer(layer=True).pack(top)), budget)


@contextmanager
def _open(path: str) -> Iterator[int]:
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield top
    finally:
        os.close(top)


def _layer(scratch: str, source: Readable, budget: Budget) -> str:
    """Make a layer whose digest nobody knows yet; its diff id."""
    number = len(os.listdir(scratch))
    made = layer.build(f"{scratch}/new-{number}", source, budget)
    if not os.path.isdir(f"{scratch}/{made.diff_id}"):
        os.rename(f"{scratch}/new-{number}", f"{scratch}/{made.diff_id}")
    return made.diff_id


def _publish(library: Library, scratch: str, config: ImageConfig, names: Sequence[str]) -> str:
    if library.publish(scratch, [NewImage(config, tuple(names))]):
        raise NotFoundError("make an image", "the image it is built on was removed meanwhile")
    return config.identity
