"""Images: where a container's files come from.

`base` is assembled from the machine itself, without a network: a static busybox
where there is one, else some of the host's programs with the libraries that
their loader names. It is made once, cached, and made again when anything it was
made of has changed.
"""

from __future__ import annotations

import os
import zlib
from typing import Final, NamedTuple

from linux import proc
from runtime.errors import NotFoundError
from runtime.store import Lock, read_json

BASE: Final = "base"
BUSYBOX: Final = "busybox"
RECIPE: Final = tuple(
    os.path.join(os.path.dirname(__file__), name) for name in ("assemble.py", "imagepython.py")
)
"""How `base` is made: one that was made otherwise is made anew."""


class ImageDefaults(NamedTuple):
    """What an image asks of its containers, where nobody asks otherwise. `""` and `[]`: nothing."""

    env: list[str] = []  # noqa: RUF012 - a named tuple's default is never changed
    entrypoint: list[str] = []  # noqa: RUF012
    command: list[str] = []  # noqa: RUF012
    workdir: str = ""
    user: str = ""
    exposed: list[str] = []  # noqa: RUF012
    stop_signal: str = ""
    labels: dict[str, str] = {}  # noqa: RUF012


class Image(NamedTuple):
    """One image: its name, its layers (uppermost first) and its size in bytes.

    `id` is the SHA-256 of its configuration, in hexadecimal digits.
    """

    name: str
    layers: tuple[str, ...]
    size: int
    created: str
    id: str = ""
    defaults: ImageDefaults = ImageDefaults()


def cache_directory(root: str) -> str:
    """Where `base` is kept: $MYDOCKER_IMAGE_CACHE, the user's cache, or below `root`.

    A cache that another user could write to is not used.
    """
    asked = os.environ.get("MYDOCKER_IMAGE_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for path in [asked] if asked else [f"{home}/mydocker"]:
        try:
            os.makedirs(path, mode=0o755, exist_ok=True)
            status = os.stat(path)
        except OSError:
            continue
        if (
            status.st_uid == os.geteuid()
            and not status.st_mode & 0o022
            and os.access(path, os.W_OK)
        ):
            return path
    path = f"{root}/images"
    os.makedirs(path, mode=0o755, exist_ok=True)
    return path


def get(name: str, cache: str) -> Image:
    """The image of that name, assembled if need be; `NotFoundError` when there is none."""
    short = name.removesuffix(":latest")
    if short in (BASE, BUSYBOX):
        image = cached_base(cache) or _assembled_base(cache)
        if short == BASE or os.path.exists(f"{image.layers[0]}/bin/busybox"):
            return image._replace(name=short)
    raise NotFoundError(
        f"use the image {name!r}",
        "there is no such image",
        "busybox is there only where the machine has a static busybox" if short == BUSYBOX else "",
        "mydocker images",
    )


def every(cache: str) -> list[Image]:
    """All images."""
    found = [get(BASE, cache)]
    if os.path.exists(f"{found[0].layers[0]}/bin/busybox"):
        found.append(found[0]._replace(name=BUSYBOX))
    return found


def recipe() -> int:
    """What changes when `base` is made otherwise: the same in every copy of this mydocker."""
    return zlib.crc32(b"".join(map(proc.read, RECIPE)))


def fingerprint(path: str) -> list[int]:
    """What changes when a file is replaced: time, size, inode."""
    status = os.stat(path)
    return [status.st_mtime_ns, status.st_size, status.st_ino]


def cached_base(cache: str) -> Image | None:
    """The cached `base`, when nothing that it was made of has changed."""
    try:
        made = read_json(f"{cache}/base.json")
        same = all(fingerprint(path) == mark for path, mark in made["from"].items())
        if same and made["recipe"] == recipe():
            layer = f"{cache}/{made['layer']}"
            os.stat(layer)
            return Image(BASE, (layer,), made["size"], made["created"], made["id"])
    except (OSError, ValueError, KeyError):
        pass
    return None


def _assembled_base(cache: str) -> Image:
    from runtime.image.assemble import assemble  # slow to import, needed once a machine

    lock = Lock.take(f"{cache}/lock")
    assert lock is not None
    try:
        return cached_base(cache) or assemble(cache)
    finally:
        lock.release()
