"""Unpacking of tar entries into a directory, confined to it by the kernel.

Each parent directory is opened beneath the top (openat2(2) with RESOLVE_BENEATH),
and an entry is made in it by its last name alone. So no link leads out, whether it
was there before, came earlier in the archive, or is made at this moment by another
process (docs/decisions/0005-images-are-hostile-input.md).

In a layer the names of `runtime.image.whiteout` remove files instead.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from linux.syscalls import RESOLVE_BENEATH, openat2
from runtime.image import whiteout
from runtime.image.config import InvalidArchive
from runtime.image.tar import CAPABILITIES, TarEntry
from runtime.image.whiteout import is_whiteout

_BASE: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_NEW_FILE: Final = _BASE | os.O_WRONLY | os.O_CREAT | os.O_EXCL
_DIRECTORY: Final = _BASE | os.O_RDONLY | os.O_DIRECTORY
_PATH_ERRORS: Final = {
    errno.EXDEV: "lies below a link that leads out",
    errno.ELOOP: "lies below links that go in a circle",
    errno.ENAMETOOLONG: "is too long for a file system",
    errno.ENOTDIR: "lies below something that is no directory",
}


IdRanges = tuple[tuple[int, int], ...]
"""Ids of a user namespace as (first, count): user_namespaces(7)."""


def _id_ranges(name: str) -> IdRanges:
    with open(f"/proc/self/{name}", encoding="ascii") as file:
        return tuple((int(line.split()[0]), int(line.split()[2])) for line in file)


def _mapped(number: int, ranges: IdRanges) -> int:
    """Return the id, or root's where the user namespace does not map it."""
    return number if any(0 <= number - first < count for first, count in ranges) else 0


class Tree:
    """A directory that entries are unpacked into.

    The caller closes `top`. With `layer` whiteouts are translated; without they are
    files like others. `owner` replaces all owners. `add` and `finish` raise
    `InvalidArchive`, and `OSError` for the disk's errors.
    """

    def __init__(self, top: int, *, layer: bool, owner: tuple[int, int] | None = None) -> None:
        self._top, self._layer, self._owner = top, layer, owner
        self._uids, self._gids = _id_ranges("uid_map"), _id_ranges("gid_map")
        self._mark = whiteout.attribute()
        self._parent: tuple[str, int] | None = None
        self._times: dict[str, int] = {}

    def add(self, entry: TarEntry, data: Iterable[bytes]) -> None:
        """Make one entry; it replaces an earlier one of that name."""
        if not entry.path:
            if entry.kind != "directory":
                raise InvalidArchive(f"the top of it is a {entry.kind}")
            self._set_directory_metadata(".", self._top, entry)
            return
        directory, _, name = entry.path.rpartition("/")
        try:
            parent = self._open(directory)
            if self._layer and name.startswith(whiteout.PREFIX):
                self._erase(parent, name, entry.path)
            else:
                self._make(parent, name, entry, data)
        except OSError as error:
            if error.errno not in _PATH_ERRORS:
                raise
            raise InvalidArchive(f"{entry.path!r} {_PATH_ERRORS[error.errno]}") from None

    def finish(self) -> None:
        """Set the directories' times, which each entry made in them has changed."""
        for path, moment in self._times.items():
            fd = openat2(self._top, path, _DIRECTORY, resolve=RESOLVE_BENEATH)
            os.utime(fd, ns=(moment, moment))
            os.close(fd)
        self.close()

    def close(self) -> None:
        """Close the cached parent directory."""
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    # --- directories ---------------------------------------------------------

    def _open(self, path: str) -> int:
        """Open a directory, made if it is missing; the descriptor is valid until the next call."""
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
        except (FileNotFoundError, NotADirectoryError):  # the latter for a whiteout, perhaps
            pass
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
        """Make a directory; it replaces a whiteout of its name."""
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            if not is_whiteout(os.stat(name, dir_fd=parent, follow_symlinks=False)):
                raise InvalidArchive(f"{path!r} is in the place of a directory") from None
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o755, dir_fd=parent)
            self._make_opaque(parent, name)

    # --- entries -------------------------------------------------------------

    def _make(self, parent: int, name: str, entry: TarEntry, data: Iterable[bytes]) -> None:
        if entry.kind == "directory":
            self._make_directory(parent, name, entry)
            return
        try:
            self._make_other(parent, name, entry, data)
        except FileExistsError:
            self._unlink(parent, name, entry.path)
            self._make_other(parent, name, entry, data)

    def _make_other(self, parent: int, name: str, entry: TarEntry, data: Iterable[bytes]) -> None:
        match entry.kind:
            case "file":
                fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
                try:
                    for piece in data:
                        _write(fd, piece)
                    self._set_metadata(fd, entry)
                finally:
                    os.close(fd)
                return
            case "link":
                self._link(parent, name, entry)
                return  # it shares the metadata of its target
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
        self._set_directory_metadata(name, parent, entry)

    def _set_directory_metadata(self, name: str, parent: int, entry: TarEntry) -> None:
        with _opened(parent, name) as fd:
            self._set_metadata(fd, entry)
        self._times[entry.path or "."] = entry.mtime_ns

    def _link(self, parent: int, name: str, entry: TarEntry) -> None:
        above, _, base = entry.target.rpartition("/")
        try:
            source = self._descend(above or ".")
            try:
                os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(source)
        except FileNotFoundError:
            raise InvalidArchive(
                f"{entry.path!r} is linked to {entry.target!r}, which is not in the archive"
            ) from None
        except PermissionError:
            raise InvalidArchive(f"{entry.path!r} is a hard link to a directory") from None

    def _unlink(self, parent: int, name: str, path: str) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            raise InvalidArchive(f"{path!r} is in the place of a directory") from None

    def _owned(self, entry: TarEntry) -> tuple[int, int]:
        return self._owner or (_mapped(entry.uid, self._uids), _mapped(entry.gid, self._gids))

    def _set_metadata(self, fd: int, entry: TarEntry) -> None:
        os.fchown(fd, *self._owned(entry))  # before the mode, as it clears setuid bits
        os.fchmod(fd, entry.mode)
        # Other attributes belong to overlayfs and the host's policy.
        if entry.capabilities is not None:
            try:
                os.setxattr(fd, CAPABILITIES, entry.capabilities)
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
            return
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
            # This layer has the name too, and a whiteout is about the layers below.
            if stat.S_ISDIR(found.st_mode):
                self._make_opaque(parent, gone)

    def _make_opaque(self, parent: int, name: str) -> None:
        with _opened(parent, name) as directory:
            whiteout.make_opaque(directory, self._mark)


@contextmanager
def _opened(parent: int, name: str) -> Iterator[int]:
    """Open a directory; ENOTDIR or ELOOP for a link of that name."""
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
