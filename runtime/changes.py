"""What a container has changed in its image's files, as `docker diff` tells it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Literal, NamedTuple

from linux.syscalls import RESOLVE_BENEATH, openat2
from runtime import whiteouts
from runtime.tarball import clean

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Change(NamedTuple):
    """One path, and whether it was added, changed or deleted."""

    kind: Literal["A", "C", "D"]
    path: str


def changes(upper: int, lower: int) -> Iterator[Change]:
    """Every path that differs, parents first. Both are open directories.

    `upper` is the container's own layer on disk, `lower` its image's files as an
    overlay shows them. A directory counts as changed when anything in it is.
    `Refused` where they lie deeper than an image's files may.
    """
    return _Comparison(lower).below(os.dup(upper), "", seen=True)


class _Comparison:
    def __init__(self, lower: int) -> None:
        self._lower = lower
        self._mark = whiteouts.attribute()

    def below(self, directory: int, path: str, *, seen: bool) -> Iterator[Change]:
        """Compare a directory of the upper layer, which is closed at the end.

        `seen` tells whether the image has the directory too.
        """
        try:
            names = set(os.listdir(directory))
            hidden = seen and path and whiteouts.is_opaque(directory, self._mark)
            gone = self._names(path) - names if hidden else set()
            for name in sorted(names | gone):
                inner = f"{path}/{name}"
                if name in gone:
                    yield Change("D", inner)
                    continue
                try:
                    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # it is gone, as it may in a container that runs
                if whiteouts.is_whiteout(status):
                    yield Change("D", inner)
                    continue
                clean(inner.lstrip("/"), "the path")
                before = self._mode(inner) if seen else None
                yield Change("A" if before is None else "C", inner)
                if stat.S_ISDIR(status.st_mode):
                    both = before is not None and stat.S_ISDIR(before)
                    try:
                        opened = os.open(name, _DIRECTORY, dir_fd=directory)
                    except (FileNotFoundError, NotADirectoryError):
                        continue
                    yield from self.below(opened, inner, seen=both)
        finally:
            os.close(directory)

    def _open(self, path: str, flags: int) -> int:
        return openat2(self._lower, path.lstrip("/"), flags, resolve=RESOLVE_BENEATH)

    def _mode(self, path: str) -> int | None:
        """What the image has at a path; `None` for nothing."""
        try:
            fd = self._open(path, os.O_PATH | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.fstat(fd).st_mode
        finally:
            os.close(fd)

    def _names(self, path: str) -> set[str]:
        fd = self._open(path, _DIRECTORY)
        try:
            return set(os.listdir(fd))
        finally:
            os.close(fd)
