"""Cache of the image `base`, which is assembled from this machine's own programs.

The image is assembled once, without a network, and again whenever a file that it was
made of has changed.
"""

from __future__ import annotations

import os
import zlib
from typing import Final

from linux import proc
from runtime.image.config import Image
from runtime.store import Lock, read_json

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


def get(cache: str) -> Image:
    """Return `base`, assembled if need be."""
    if (found := cached(cache)) is not None:
        return found
    from runtime.image.assemble import assemble  # slow to import, needed once per machine

    lock = Lock.take(f"{cache}/lock")
    assert lock is not None
    try:
        return cached(cache) or assemble(cache)
    finally:
        lock.release()


def config(cache: str) -> bytes:
    """Return the configuration of `base`, which is in the cache."""
    made: str = read_json(f"{cache}/base.json")["config"]
    return made.encode()


def add_mount_points(root: str) -> None:
    """Make the directories and files that every container has mounts on."""
    for directory in ("", "dev", "etc", "proc", "sys"):
        os.makedirs(f"{root}/{directory}", exist_ok=True)
        os.chmod(f"{root}/{directory}", 0o755)  # noqa: S103 - their mode everywhere
    for name in ("hosts", "hostname", "resolv.conf"):
        with open(f"{root}/etc/{name}", "xb") as file:
            os.fchmod(file.fileno(), 0o644)


def recipe() -> int:
    """Return a checksum of the recipe, the same in every copy of this mydocker."""
    return zlib.crc32(proc.read(RECIPE))


def fingerprint(path: str) -> list[int]:
    """Return time, size and inode, which change when a file is replaced."""
    status = os.stat(path)
    return [status.st_mtime_ns, status.st_size, status.st_ino]


def cached(cache: str) -> Image | None:
    """Return the cached image; `None` when anything that it was made of has changed."""
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
