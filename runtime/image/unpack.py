"""Unpacking of tar entries into a directory, confined to it by the kernel.

Each parent directory is opened beneath the top (openat2(2) with RESOLVE_BENEATH), and an entry is
created in it by its last name alone. No link can therefore lead out, whether it existed before,
came earlier in the archive, or is created meanwhile by another process
(docs/decisions/0005-images-are-hostile-input.md).

In a layer the names of `runtime.image.whiteout` remove files instead.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from typing import Final

from linux.syscalls import RESOLVE_BENEATH, openat2
from runtime.image import whiteout
from runtime.image.config import InvalidArchive
from runtime.image.tar import CAPABILITIES, Readable, TarEntry, TarReader, closing, same_file
from runtime.image.whiteout import is_whiteout

_BASE: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_NEW_FILE: Final = _BASE | os.O_WRONLY | os.O_CREAT | os.O_EXCL
_DIRECTORY: Final = _BASE | os.O_RDONLY | os.O_DIRECTORY
_PATH_ERRORS: Final = {
    errno.EXDEV: "is below a symbolic link that leads out of the archive",
    errno.ELOOP: "is below symbolic links that form a loop",
    errno.ENAMETOOLONG: "is too long for a file system",
    errno.ENOTDIR: "is below a file that is not a directory",
}


IdRanges = tuple[tuple[int, int], ...]
"""IDs of a user namespace as (first, count): user_namespaces(7)."""


def _id_ranges(name: str) -> IdRanges:
    with open(f"/proc/self/{name}", encoding="ascii") as file:
        return tuple((int(line.split()[0]), int(line.split()[2])) for line in file)


def _mapped(number: int, ranges: IdRanges) -> int:
    """Return the ID, or root's if the user namespace does not map the ID."""
    return number if any(0 <= number - first < count for first, count in ranges) else 0


def extract(
    source: Readable, top: int, *, layer: bool, owner: tuple[int, int] | None = None
) -> int:
    """Unpack a tar into the open directory `top`, and return the sum of the files' sizes.

    With `layer` whiteouts are translated. Without it they are ordinary files, and `top` itself is
    not changed. `owner` replaces all owners. Raises `InvalidArchive`, and `OSError` for errors of
    the disk.
    """
    tree = Tree(top, layer=layer, owner=owner)
    reader, size = TarReader(source), 0
    for entry in reader:
        if entry.path or layer:
            tree.add(entry, reader.data())
            size += entry.size
    tree.finish()
    return size


class Tree:
    """A directory that entries are unpacked into; see `extract`."""

    def __init__(self, top: int, *, layer: bool, owner: tuple[int, int] | None) -> None:
        self._top, self._layer, self._owner = top, layer, owner
        self._uids, self._gids = _id_ranges("uid_map"), _id_ranges("gid_map")
        self._mark = whiteout.attribute()
        self._times: dict[str, int] = {}

    def add(self, entry: TarEntry, data: Iterable[bytes]) -> None:
        """Create one entry; it replaces an earlier one with the same name."""
        if not entry.path:
            if entry.kind != "directory":
                raise InvalidArchive(f"its top is a {entry.kind}, not a directory")
            self._set_directory_metadata(".", self._top, entry)
            return
        directory, _, name = entry.path.rpartition("/")
        try:
            with closing(self._reach(directory)) as parent:
                if self._layer and name.startswith(whiteout.PREFIX):
                    self._erase(parent, name, entry.path)
                elif entry.kind == "directory":
                    self._make_directory(parent, name, entry)
                else:
                    self._replace(parent, name, entry, data)
        except OSError as error:
            if error.errno not in _PATH_ERRORS:
                raise
            raise InvalidArchive(f"{entry.path!r} {_PATH_ERRORS[error.errno]}") from None

    def finish(self) -> None:
        """Set the times of directories to those in the archive.

        The creation of an entry in a directory had changed the directory's time.
        """
        for path, moment in self._times.items():
            with closing(self._descend(path)) as fd:
                os.utime(same_file(fd), ns=(moment, moment))

    # --- directories ---------------------------------------------------------

    def _reach(self, path: str) -> int:
        """Open a directory; create it if it is missing."""
        with suppress(FileNotFoundError, NotADirectoryError):  # the latter for a whiteout
            return self._descend(path)
        above, _, name = path.rpartition("/")
        with closing(self._reach(above)) as parent:
            self._mkdir(parent, name, path)
        return self._descend(path)

    def _descend(self, path: str) -> int:
        flags = os.O_PATH | os.O_DIRECTORY
        return openat2(self._top, path or ".", flags, resolve=RESOLVE_BENEATH)

    def _mkdir(self, parent: int, name: str, path: str) -> None:
        """Create a directory; it replaces a whiteout of its name."""
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            if not is_whiteout(os.stat(name, dir_fd=parent, follow_symlinks=False)):
                raise InvalidArchive(f"{path!r} would replace a directory") from None
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o755, dir_fd=parent)
            self._make_opaque(parent, name)

    # --- entries -------------------------------------------------------------

    def _replace(self, parent: int, name: str, entry: TarEntry, data: Iterable[bytes]) -> None:
        try:
            self._make(parent, name, entry, data)
        except FileExistsError:
            try:
                os.unlink(name, dir_fd=parent)
            except IsADirectoryError:
                raise InvalidArchive(f"{entry.path!r} would replace a directory") from None
            self._make(parent, name, entry, data)

    def _make(self, parent: int, name: str, entry: TarEntry, data: Iterable[bytes]) -> None:
        match entry.kind:
            case "file":
                with os.fdopen(os.open(name, _NEW_FILE, 0o600, dir_fd=parent), "wb") as file:
                    file.writelines(data)
                    file.flush()
                    self._set_metadata(file.fileno(), entry)
            case "link":
                self._link(parent, name, entry)  # it shares the metadata of its target
            case "symlink":
                os.symlink(entry.target, name, dir_fd=parent)
                os.chown(name, *self._owned(entry), dir_fd=parent, follow_symlinks=False)
                times = (entry.mtime_ns, entry.mtime_ns)
                os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
            case _:
                os.mkfifo(name, 0o600, dir_fd=parent)
                with closing(os.open(name, os.O_PATH | _BASE, dir_fd=parent)) as fd:
                    self._set_metadata(same_file(fd), entry)

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
        self._times[entry.path] = entry.mtime_ns

    def _link(self, parent: int, name: str, entry: TarEntry) -> None:
        above, _, base = entry.target.rpartition("/")
        try:
            with closing(self._descend(above)) as source:
                os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise InvalidArchive(
                f"{entry.path!r} is linked to {entry.target!r}, which is not in the archive"
            ) from None
        except PermissionError:
            raise InvalidArchive(f"{entry.path!r} is a hard link to a directory") from None

    def _owned(self, entry: TarEntry) -> tuple[int, int]:
        return self._owner or (_mapped(entry.uid, self._uids), _mapped(entry.gid, self._gids))

    def _set_metadata(self, file: int | str, entry: TarEntry) -> None:
        os.chown(file, *self._owned(entry))  # before the mode, as it clears setuid bits
        os.chmod(file, entry.mode)
        # Other attributes belong to overlayfs and the host's policy.
        if entry.capabilities is not None:
            try:
                os.setxattr(file, CAPABILITIES, entry.capabilities)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                raise InvalidArchive(f"{entry.path!r} has malformed file capabilities") from None
        os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))

    # --- whiteouts -----------------------------------------------------------

    def _erase(self, parent: int, name: str, path: str) -> None:
        if name == whiteout.OPAQUE:
            if path == name:
                raise InvalidArchive(
                    "its opaque whiteout is at the top, which overlayfs does not support"
                )
            self._make_opaque(parent, ".")
            return
        if name.startswith(whiteout.RESERVED):
            return
        gone = name.removeprefix(whiteout.PREFIX)
        if gone in ("", ".", ".."):
            raise InvalidArchive(f"the whiteout {path!r} names no file")
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


def _opened(parent: int, name: str) -> AbstractContextManager[int]:
    """Open a directory; fail with ENOTDIR or ELOOP if the name is a symbolic link."""
    return closing(os.open(name, _DIRECTORY, dir_fd=parent))
