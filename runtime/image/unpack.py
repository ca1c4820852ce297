"""A directory filled from a tar, entry by entry, without ever leaving it.

The kernel does the checking: every parent directory is opened beneath the top
(openat2(2) with RESOLVE_BENEATH), and an entry is made in it by its last name
alone. So no link leads out, whether it was there before, came earlier in the
archive, or is put there by somebody else in this very moment.

In a layer the names that `runtime.image.whiteout` explains take something away instead.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, Self

from linux.syscalls import RESOLVE_BENEATH, openat2
from runtime.image import whiteout
from runtime.image.tar import InvalidArchive, TarEntry
from runtime.image.whiteout import is_whiteout

_CAPABILITIES: Final = "security.capability"
_BASE: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_NEW_FILE: Final = _BASE | os.O_WRONLY | os.O_CREAT | os.O_EXCL
_DIRECTORY: Final = _BASE | os.O_RDONLY | os.O_DIRECTORY
_LEADS_ASTRAY: Final = {
    errno.EXDEV: "lies below a link that leads out",
    errno.ELOOP: "lies below links that go in a circle",
    errno.ENAMETOOLONG: "is too long for a file system",
    errno.ENOTDIR: "lies below something that is no directory",
}

Payload = Callable[[Callable[[bytes], object]], None]
"""Gives an entry's data to the function that it is called with."""


class IdMap(NamedTuple):
    """Which ids the caller's user namespace has: ranges of (first, count)."""

    uids: tuple[tuple[int, int], ...]
    gids: tuple[tuple[int, int], ...]

    @classmethod
    def own(cls) -> Self:
        """The caller's, from user_namespaces(7)."""
        return cls(_ranges("uid_map"), _ranges("gid_map"))

    def owner(self, uid: int, gid: int) -> tuple[int, int]:
        """The ids that a file can have here: an id that is not mapped becomes root's."""
        return _mapped(uid, self.uids), _mapped(gid, self.gids)


def _ranges(name: str) -> tuple[tuple[int, int], ...]:
    with open(f"/proc/self/{name}", encoding="ascii") as file:
        return tuple((int(line.split()[0]), int(line.split()[2])) for line in file)


def _mapped(number: int, ranges: tuple[tuple[int, int], ...]) -> int:
    return number if any(0 <= number - first < count for first, count in ranges) else 0


class Tree:
    """A directory being filled. `add` and `finish` raise `InvalidArchive`, and `OSError` as the disk does.

    `top` is an open directory that stays the caller's. With `layer` whiteouts
    are translated; without they are files like others. `owner`, where it is
    given, is everybody's.
    """

    def __init__(self, top: int, *, layer: bool, owner: tuple[int, int] | None = None) -> None:
        self._top, self._layer, self._owner = top, layer, owner
        self._ids = IdMap.own()
        self._mark = whiteout.attribute()
        self._parent: tuple[str, int] | None = None
        self._times: dict[str, int] = {}

    def add(self, entry: TarEntry, payload: Payload) -> None:
        """Make one entry; one of that name that was made before gives way."""
        if not entry.path:
            if entry.kind != "directory":
                raise InvalidArchive(f"the top of it is a {entry.kind}")
            self._furnish_directory(".", self._top, entry)
            return
        directory, _, name = entry.path.rpartition("/")
        try:
            parent = self._open(directory)
            if self._layer and name.startswith(whiteout.PREFIX):
                self._erase(parent, name, entry.path)
            else:
                self._make(parent, name, entry, payload)
        except OSError as error:
            if error.errno not in _LEADS_ASTRAY:
                raise
            raise InvalidArchive(f"{entry.path!r} {_LEADS_ASTRAY[error.errno]}") from None

    def finish(self) -> None:
        """Give the directories their times, which every entry made in them has changed."""
        for path, moment in self._times.items():
            fd = openat2(self._top, path, _DIRECTORY, resolve=RESOLVE_BENEATH)
            os.utime(fd, ns=(moment, moment))
            os.close(fd)
        self.close()

    def close(self) -> None:
        """Give back what is open."""
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    # --- directories ---------------------------------------------------------

    def _open(self, path: str) -> int:
        """An open directory, made where it is not there; valid until the next call."""
        if not path:
            return self._top
        if self._parent is not None and self._parent[0] == path:
            return self._parent[1]
        fd = self._reach(path)
        self.close()
        self._parent = (path, fd)
        return fd

    def _reach(self, path: str) -> int:
        try:
            return self._descend(path)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            pass  # a whiteout of the name, perhaps
        above, _, name = path.rpartition("/")
        parent = self._reach(above) if above else os.dup(self._top)
        try:
            self._mkdir(parent, name, path)
        finally:
            os.close(parent)
        return self._descend(path)

    def _descend(self, path: str) -> int:
        return openat2(self._top, path, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_BENEATH)

    def _mkdir(self, parent: int, name: str, path: str) -> None:
        """Make a directory in the place of nothing, or of a whiteout."""
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            if not is_whiteout(os.stat(name, dir_fd=parent, follow_symlinks=False)):
                raise InvalidArchive(f"{path!r} is in the place of a directory") from None
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o755, dir_fd=parent)
            self._make_opaque(parent, name)

    # --- entries -------------------------------------------------------------

    def _make(self, parent: int, name: str, entry: TarEntry, payload: Payload) -> None:
        if entry.kind == "directory":
            self._make_directory(parent, name, entry)
            return
        try:
            self._make_other(parent, name, entry, payload)
        except FileExistsError:
            self._unlink(parent, name, entry.path)
            self._make_other(parent, name, entry, payload)

    def _make_other(self, parent: int, name: str, entry: TarEntry, payload: Payload) -> None:
        match entry.kind:
            case "file":
                fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
                try:
                    payload(lambda data: _write(fd, data))
                    self._furnish(fd, entry)
                finally:
                    os.close(fd)
                return
            case "link":
                self._link(parent, name, entry)
                return
            case "symlink":
                os.symlink(entry.target, name, dir_fd=parent)
                os.chown(name, *self._owned(entry), dir_fd=parent, follow_symlinks=False)
            case _:
                os.mkfifo(name, 0o600, dir_fd=parent)
                fd = os.open(name, os.O_PATH | _BASE, dir_fd=parent)
                try:
                    os.chown(f"/proc/self/fd/{fd}", *self._owned(entry))
                    os.chmod(f"/proc/self/fd/{fd}", entry.mode)
                finally:
                    os.close(fd)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _make_directory(self, parent: int, name: str, entry: TarEntry) -> None:
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=parent)
        else:
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o700, dir_fd=parent)
                if self._layer and is_whiteout(found):
                    self._make_opaque(parent, name)
        self._furnish_directory(name, parent, entry)

    def _furnish_directory(self, name: str, parent: int, entry: TarEntry) -> None:
        with _opened(parent, name) as fd:
            self._furnish(fd, entry)
        self._times[entry.path or "."] = entry.mtime_ns

    def _link(self, parent: int, name: str, entry: TarEntry) -> None:
        above, _, base = entry.target.rpartition("/")
        try:
            source = self._descend(above or ".")
        except FileNotFoundError:
            raise _linked_to_nothing(entry) from None
        try:
            os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise _linked_to_nothing(entry) from None
        except PermissionError:
            raise InvalidArchive(f"{entry.path!r} is a hard link to a directory") from None
        finally:
            os.close(source)

    def _unlink(self, parent: int, name: str, path: str) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            raise InvalidArchive(f"{path!r} is in the place of a directory") from None

    def _owned(self, entry: TarEntry) -> tuple[int, int]:
        return self._owner or self._ids.owner(entry.uid, entry.gid)

    def _furnish(self, fd: int, entry: TarEntry) -> None:
        os.fchown(fd, *self._owned(entry))  # before the mode: it takes setuid bits away
        os.fchmod(fd, entry.mode)
        if _CAPABILITIES in entry.xattrs:
            # The only attribute that is kept: overlayfs and the host's policy own the others.
            try:
                os.setxattr(fd, _CAPABILITIES, entry.xattrs[_CAPABILITIES])
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                raise InvalidArchive(f"{entry.path!r} has malformed file capabilities") from None
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    # --- whiteouts -----------------------------------------------------------

    def _erase(self, parent: int, name: str, path: str) -> None:
        if name == whiteout.OPAQUE:
            if parent == self._top:
                raise InvalidArchive("it hides everything below it, which an overlay cannot")
            self._make_opaque(parent, ".")
            return
        if name.startswith(whiteout.RESERVED):
            return  # what AUFS kept for itself
        gone = name.removeprefix(whiteout.PREFIX)
        if gone in ("", ".", ".."):
            raise InvalidArchive(f"the whiteout {path!r} is of no name")
        try:
            found = os.stat(gone, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            with _opened(parent, ".") as directory:
                if not whiteout.is_opaque(directory, self._mark):
                    whiteout.make(directory, gone)
        else:
            # It is in this layer too, and a whiteout means the layers below.
            if stat.S_ISDIR(found.st_mode):
                self._make_opaque(parent, gone)

    def _make_opaque(self, parent: int, name: str) -> None:
        with _opened(parent, name) as directory:
            whiteout.make_opaque(directory, self._mark)


@contextmanager
def _opened(parent: int, name: str) -> Iterator[int]:
    """A directory itself, never what a link of that name points to."""
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def _linked_to_nothing(entry: TarEntry) -> InvalidArchive:
    return InvalidArchive(
        f"{entry.path!r} is linked to {entry.target!r}, which is not in the archive"
    )


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
