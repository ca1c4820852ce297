"""A directory as a tar: the way back from `runtime.unpack`.

Every file is opened once, by its name in its open parent and without following
it, and all that is asked of it is asked of that descriptor. So a container that
exchanges a file for a link meanwhile gains nothing, and a FIFO is never read.

The same files give the same bytes, whenever and by whomever they are packed:
names are sorted, owners are numbers, times are whole seconds.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import Final

from runtime import whiteouts
from runtime.tarball import BLOCK, CHUNK, Refused, clean
from runtime.whiteouts import is_whiteout

END: Final = bytes(2 * BLOCK)
"""The mark that a complete tar ends with."""

_OBJECT: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_CAPABILITIES: Final = "security.capability"


def header(info: tarfile.TarInfo) -> bytes:
    """The header of an entry, extended where the plain one is too small for it."""
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padded(size: int) -> bytes:
    """What fills the last block of `size` bytes."""
    return bytes(-size % BLOCK)


class Packer:
    """Packs one directory or file. With `layer` the overlay's marks become those of a layer.

    `owner`, where it is given, is everybody's.
    """

    def __init__(self, *, layer: bool, owner: tuple[int, int] | None = None) -> None:
        self._mark = whiteouts.attribute() if layer else ""
        self._owner = owner
        self._links: dict[tuple[int, int], str] = {}

    def pack(self, top: int, name: str = "") -> Iterator[bytes]:
        """The pieces of a tar of the file or directory behind `top`, under `name`.

        A directory without a name is packed as `.`, its content below it. Raises
        `Refused` for what our own reading does not take: devices, reserved names,
        too many directories in each other.
        """
        yield from self._object(os.dup(top), name)
        yield END

    def _object(self, fd: int, path: str) -> Iterator[bytes]:
        """Pack what `fd` is, and close it."""
        try:
            status = os.fstat(fd)
            clean(path, "the path")
            info = self._info(path, status)
            match stat.S_IFMT(status.st_mode):
                case stat.S_IFDIR:
                    info.type = tarfile.DIRTYPE
                    yield header(info)
                    yield from self._directory(fd, path)
                case stat.S_IFREG:
                    first = self._first(status, path)
                    if first != path:
                        info.type, info.linkname = tarfile.LNKTYPE, first
                        yield header(info)
                    else:
                        yield from self._file(fd, info, status.st_size)
                case stat.S_IFLNK:
                    info.type, info.linkname = tarfile.SYMTYPE, os.readlink("", dir_fd=fd)
                    yield header(info)
                case stat.S_IFIFO:
                    info.type = tarfile.FIFOTYPE
                    yield header(info)
                case stat.S_IFSOCK:
                    return  # nobody listens to it any more where it comes to
                case _ if self._mark and is_whiteout(status):
                    directory, _, name = path.rpartition("/")
                    yield _marker(directory, whiteouts.PREFIX + name)
                case _:
                    raise Refused(
                        f"/{path} is a device, which no archive of ours has",
                        cause="",
                        remedy="leave out the directory that it is in",
                    )
        finally:
            os.close(fd)

    def _first(self, status: os.stat_result, path: str) -> str:
        """The path under which the same file was packed before; `path` for the first time."""
        if status.st_nlink == 1:
            return path
        return self._links.setdefault((status.st_dev, status.st_ino), path)

    def _info(self, path: str, status: os.stat_result) -> tarfile.TarInfo:
        info = tarfile.TarInfo(path or ".")
        info.mode = stat.S_IMODE(status.st_mode)
        info.uid, info.gid = self._owner or (status.st_uid, status.st_gid)
        info.mtime = int(status.st_mtime)
        return info

    def _file(self, fd: int, info: tarfile.TarInfo, size: int) -> Iterator[bytes]:
        info.size = size
        same = f"/proc/self/fd/{fd}"
        try:
            value = os.getxattr(same, _CAPABILITIES)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
        else:
            text = value.decode(errors="surrogateescape")
            info.pax_headers = {f"SCHILY.xattr.{_CAPABILITIES}": text}
        yield header(info)
        with open(same, "rb", buffering=0) as file:
            left = size
            while left and (data := file.read(min(CHUNK, left))):
                left -= len(data)
                yield data
        while left:  # it has been cut short meanwhile; its header is out already
            yield bytes(min(CHUNK, left))
            left -= min(CHUNK, left)
        yield padded(size)

    def _directory(self, fd: int, path: str) -> Iterator[bytes]:
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            if self._mark and path and whiteouts.is_opaque(readable, self._mark):
                yield _marker(path, whiteouts.OPAQUE)
            for name in sorted(os.listdir(readable)):
                inner = f"{path}/{name}" if path else name
                if self._mark and name.startswith(whiteouts.PREFIX):
                    raise Refused(
                        f"/{inner} has a name that images use to remove files",
                        cause="",
                        remedy="give it another name, or use `mydocker export`",
                    )
                try:
                    found = os.open(name, _OBJECT, dir_fd=readable)
                except FileNotFoundError:
                    continue  # it is gone, as it may in a container that runs
                yield from self._object(found, inner)
        finally:
            os.close(readable)


def _marker(directory: str, name: str) -> bytes:
    return header(tarfile.TarInfo(f"{directory}/{name}" if directory else name))
