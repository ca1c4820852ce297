"""`cp`: files from one root directory into another, where neither can lead out of its own.

A root is a container's, or the machine's. Paths are resolved by the kernel below
the root (openat2(2) with RESOLVE_IN_ROOT), so that a link in a container means
what it means inside, also when it is put there in this very moment. What is
copied becomes a tar on one side and is taken as a hostile one on the other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from linux.syscalls import RESOLVE_IN_ROOT, openat2
from runtime.errors import InvalidError, NotFoundError
from runtime.pack import Packer
from runtime.streams import Chunks
from runtime.tarball import Readable, Refused, TarReader
from runtime.unpack import Tree

_MAX_LINKS: Final = 40
_CONTENT: Final = ("", ".", "..")


class Side(NamedTuple):
    """One end of a copy: a path below an open root directory, and what the user called it."""

    root: int
    path: str
    shown: str


def copy(source: Side, target: Side, *, follow: bool = False, archive: bool = False) -> None:
    """Copy a file or a directory, by the rules of `docker cp`.

    Into a directory that is there it goes under its own name, or its content
    alone when the source ends in `/.`; otherwise the target's last name is the
    copy's. With `follow` a link stands for what it points to. With `archive`
    owners are kept; without, all of it is root's.
    """
    asked = f"copy {source.shown} to {target.shown}"
    found = _open(source, asked, follow=follow)
    try:
        whole = stat.S_ISDIR(os.fstat(found).st_mode)
        directory, name = _land(target, asked, whole=whole, name=_name(source))
        try:
            packer = Packer(layer=False, owner=None if archive else (0, 0))
            _fill(directory, Chunks(packer.pack(found, name)), archive=archive)
        finally:
            os.close(directory)
    finally:
        os.close(found)


def pack(source: Side, *, follow: bool = False) -> Iterator[bytes]:
    """A file or directory as the pieces of a tar."""
    found = _open(source, f"copy {source.shown}", follow=follow)
    try:
        yield from Packer(layer=False).pack(found, _name(source))
    finally:
        os.close(found)


def unpack(tar: Readable, target: Side, *, archive: bool = False) -> None:
    """Take a tar into a directory, which must be there."""
    asked = f"unpack into {target.shown}"
    directory = _open(target, asked, follow=True)
    try:
        if not stat.S_ISDIR(os.fstat(directory).st_mode):
            raise InvalidError(asked, "it is not a directory")
        _fill(directory, tar, archive=archive)
    finally:
        os.close(directory)


def _fill(directory: int, tar: Readable, *, archive: bool) -> None:
    tree = Tree(directory, layer=False, owner=None if archive else (0, 0))
    try:
        reader = TarReader(tar)
        for entry in reader:
            if entry.path:  # the directory itself was there before and stays as it is
                tree.add(entry, reader.copy)
        tree.finish()
    finally:
        tree.close()


def _name(source: Side) -> str:
    """Under which name it is copied; none for the content of a directory."""
    last = source.path.rpartition("/")[2] or source.path.rstrip("/").rpartition("/")[2]
    return "" if last in _CONTENT else last


def _open(side: Side, asked: str, *, follow: bool) -> int:
    whole = side.path.rpartition("/")[2] in _CONTENT
    flags = os.O_PATH | (os.O_DIRECTORY if whole else 0)
    if not follow and not whole:
        flags |= os.O_NOFOLLOW
    try:
        return openat2(side.root, side.path or "/", flags, resolve=RESOLVE_IN_ROOT)
    except FileNotFoundError:
        raise NotFoundError(asked, f"there is no {side.shown}") from None
    except NotADirectoryError:
        raise InvalidError(asked, f"{side.shown} is not a directory") from None


def _land(target: Side, asked: str, *, whole: bool, name: str) -> tuple[int, str]:
    """In which open directory the copy goes, and under which name."""
    try:
        found = openat2(target.root, target.path, os.O_PATH, resolve=RESOLVE_IN_ROOT)
    except FileNotFoundError:
        if target.path.endswith("/") and not whole:
            raise NotFoundError(asked, f"there is no directory {target.shown}") from None
        return _parent(target, asked)
    except NotADirectoryError:
        raise InvalidError(asked, f"{target.shown} lies below a file") from None
    status = os.fstat(found)
    if stat.S_ISDIR(status.st_mode):
        return found, name
    os.close(found)
    if whole:
        raise InvalidError(asked, "a directory cannot be copied over a file")
    if not stat.S_ISREG(status.st_mode):
        raise InvalidError(asked, f"{target.shown} is neither a file nor a directory")
    return _parent(target, asked)


def _parent(target: Side, asked: str) -> tuple[int, str]:
    """The directory that the last name of a path is in, after the links that stand there."""
    path = target.path.rstrip("/")
    for _ in range(_MAX_LINKS):
        above, _, name = path.rpartition("/")
        flags = os.O_PATH | os.O_DIRECTORY
        try:
            directory = openat2(target.root, above or "/", flags, resolve=RESOLVE_IN_ROOT)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(asked, f"there is no directory {above or '/'}") from None
        try:
            link = os.readlink(name, dir_fd=directory)
        except OSError:  # no link, or nothing at all
            return directory, name
        os.close(directory)
        path = link if link.startswith("/") else f"{above}/{link}"
    raise Refused(f"{target.shown} is a link that goes in a circle")
