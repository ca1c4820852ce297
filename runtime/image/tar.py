"""Tar archives: reading of hostile input, and packing of a directory.

`tarfile` decodes and encodes the 512 bytes of a header; the rest is done here. The reader of
`tarfile` follows chains of extended headers by recursion, and reads them into memory however large
they claim to be. It takes a damaged header for the end of the archive. POSIX.1-2024 pax(1) and the
GNU tar manual describe the formats.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal, NamedTuple, Protocol

from runtime.image import whiteout
from runtime.image.config import InvalidArchive
from runtime.image.whiteout import is_whiteout

BLOCK: Final = 512
CHUNK: Final = 1 << 20
MAX_DEPTH: Final = 256
"""Limit on nested directories: a deeper archive is treated as a bomb."""
MAX_ENTRIES: Final = 1_000_000
"""Limit on the entries of one archive: a larger one is treated as a bomb."""
END: Final = bytes(2 * BLOCK)
"""Mark at the end of a complete tar."""

_MAX_EXTENSION: Final = 1 << 20
_MAX_PATH: Final = 4095
_MAX_NAME: Final = 255
_MAX_ID: Final = (1 << 32) - 2
_MAX_SIZE: Final = (1 << 63) - 1
_DECIMAL: Final = re.compile(rb"(-?\d{1,19})(?:\.(\d{1,9})\d*)?")
CAPABILITIES: Final = "security.capability"
"""The extended attribute of file capabilities."""
_PAX_CAPABILITIES: Final = f"SCHILY.xattr.{CAPABILITIES}"
_OPEN_ENTRY: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

Kind = Literal["file", "directory", "symlink", "link", "fifo"]

_KINDS: Final[dict[bytes, Kind]] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "link",
    tarfile.FIFOTYPE: "fifo",
}
_REFUSED: Final = {
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""
        ...


class TarEntry(NamedTuple):
    """One entry of a tar.

    `path` is relative and clean, `""` for the top. `target` is a symlink's text, or the
    clean path of the entry that a hard link refers to. `capabilities` is the only extended
    attribute that is kept. `offset` is the position of the data.
    """

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    target: str
    capabilities: bytes | None
    offset: int


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """Close a descriptor after the body."""
    try:
        yield fd
    finally:
        os.close(fd)


def same_file(fd: int) -> str:
    """Return a path of an open file, for calls that refuse O_PATH descriptors: proc(5)."""
    return f"/proc/self/fd/{fd}"


def clean(path: str, what: str) -> str:
    """Return a path of an archive without `.` and doubled slashes.

    `InvalidArchive` when the path is absolute, has `..`, or is too long or too deep.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    shown = repr(path if len(path) < 80 else f"{path[:80]}…")
    if path.startswith("/"):
        raise InvalidArchive(f"{what} {shown} is absolute")
    if ".." in parts:
        raise InvalidArchive(f"{what} {shown} leads out of the archive")
    if "\0" in path:
        raise InvalidArchive(f"{what} {shown} contains a zero byte")
    if len(parts) > MAX_DEPTH:
        raise InvalidArchive(f"{what} {shown} is {len(parts)} directories deep")
    lengths = [len(part.encode(errors="surrogateescape")) for part in parts]
    if sum(lengths) + len(parts) > _MAX_PATH or max(lengths, default=0) > _MAX_NAME:
        raise InvalidArchive(f"{what} {shown} is too long for a file system")
    return "/".join(parts)


class TarReader:
    """Iterator over the entries of a tar, with access to the data of the current one.

    Iterating raises `InvalidArchive` at the first fault: a damaged or missing header, a path that
    leads out of the archive's top directory, a device, too many entries.
    """

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._offset = 0
        self._left = 0
        """Bytes of the current entry that have not been read."""
        self._padding = 0
        self._headers = 0
        self._global: dict[str, bytes] = {}
        self._held = self._held_globally = 0
        """Bytes of extended headers in memory."""

    def __iter__(self) -> Iterator[TarEntry]:
        extended: dict[str, bytes] = {}
        while (info := self._header()) is not None:
            if info.type == tarfile.XGLTYPE:
                self._global.update(_records(self._extension(info)))
                self._held_globally += info.size
            elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                extended.update(_records(self._extension(info)))
            elif info.type == tarfile.GNUTYPE_LONGNAME:
                extended["path"] = self._extension(info).rstrip(b"\0")
            elif info.type == tarfile.GNUTYPE_LONGLINK:
                extended["linkpath"] = self._extension(info).rstrip(b"\0")
            else:
                yield self._entry(info, self._global | extended)
                for _ in self.data():
                    pass
                extended, self._held = {}, self._held_globally
        if extended:
            raise InvalidArchive("it ends in the middle of an entry")

    def data(self) -> Iterator[bytes]:
        """Yield the rest of the current entry's data."""
        while self._left:
            data = self._source.read(min(CHUNK, self._left))
            if not data:
                raise InvalidArchive(f"it ends {self._left} bytes before its last file does")
            self._left -= len(data)
            self._offset += len(data)
            yield data
        if self._padding:
            self._exactly(self._padding)
            self._padding = 0

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            data = self._source.read(size)
            if not data:
                raise InvalidArchive("it has no end-of-archive marker")
            parts.append(data)
            size -= len(data)
            self._offset += len(data)
        return b"".join(parts)

    def _header(self) -> tarfile.TarInfo | None:
        self._headers += 1
        if self._headers > MAX_ENTRIES:
            raise InvalidArchive(f"it has more than {MAX_ENTRIES} entries")
        where = self._offset
        block = self._exactly(BLOCK)
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
            return None
        except (tarfile.HeaderError, ValueError) as error:
            raise InvalidArchive(f"its header at byte {where} is damaged ({error})") from None
        if not 0 <= info.size <= _MAX_SIZE:
            raise InvalidArchive(f"an entry has an impossible size of {info.size} bytes")
        self._expect(info.size)
        return info

    def _expect(self, size: int) -> None:
        self._left, self._padding = size, -size % BLOCK

    def _extension(self, info: tarfile.TarInfo) -> bytes:
        self._held += info.size
        if self._held > _MAX_EXTENSION:
            raise InvalidArchive(f"the extended headers of one entry have {self._held} bytes")
        return b"".join(self.data())

    def _entry(self, info: tarfile.TarInfo, extended: dict[str, bytes]) -> TarEntry:
        name = _text(extended.get("path")) or info.name
        if what := _REFUSED.get(info.type):
            raise InvalidArchive(f"{name!r} is {what}")
        kind = _KINDS.get(info.type)
        if kind is None:
            raise InvalidArchive(f"{name!r} is of an unknown type ({info.type!r})")
        if any(key.startswith("GNU.sparse.") for key in extended):
            raise InvalidArchive(f"{name!r} is a sparse file")
        path = clean(name, "the path")
        target = _text(extended.get("linkpath")) or info.linkname
        if kind == "link":
            target = clean(target, f"{path!r} has a bad link target: the path")
        elif kind == "symlink" and (not target or "\0" in target or len(target) > _MAX_PATH):
            raise InvalidArchive(f"the link {path!r} has an empty or malformed target")
        size = _number(extended, "size", info.size, _MAX_SIZE)
        if kind != "file":  # even if its header has another size
            size = 0
        self._expect(size)
        return TarEntry(
            path=path,
            kind=kind,
            mode=info.mode & 0o7777,
            uid=_number(extended, "uid", info.uid, _MAX_ID),
            gid=_number(extended, "gid", info.gid, _MAX_ID),
            mtime_ns=_time(extended.get("mtime"), int(info.mtime)),
            size=size,
            target=target,
            capabilities=extended.get(_PAX_CAPABILITIES),
            offset=self._offset,
        )


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="surrogateescape")


def _records(data: bytes) -> dict[str, bytes]:
    """Parse an extended header: lines of `LENGTH KEY=VALUE`, whose length counts the line."""
    found = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 8)
        digits = data[position:space]
        end = position + int(digits) if space > 0 and digits.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not position < end <= len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise InvalidArchive("an extended header is malformed")
        found[_text(key)] = value
        position = end
    return found


def _number(extended: dict[str, bytes], key: str, plain: int, most: int) -> int:
    raw = extended.get(key)
    if raw is not None:
        plain = int(raw) if raw.isdigit() and len(raw) < 20 else -1
    if not 0 <= plain <= most:
        raise InvalidArchive(f"an entry has an invalid {key}: {raw or plain!r}")
    return plain


def _time(raw: bytes | None, plain: int) -> int:
    """Return nanoseconds since 1970, clamped to what every file system can store."""
    seconds, fraction = plain, 0
    if raw is not None:
        found = _DECIMAL.fullmatch(raw)
        if found is None:
            raise InvalidArchive(f"an entry has an invalid mtime: {raw[:40]!r}")
        seconds = int(found[1])
        fraction = int((found[2] or b"0").ljust(9, b"0"))
    return min(max(seconds, 0), (1 << 33) - 1) * 1_000_000_000 + fraction


# --- packing -----------------------------------------------------------------------


def header(info: tarfile.TarInfo) -> bytes:
    """Encode the header of an entry, preceded by an extended header where needed."""
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padded(size: int) -> bytes:
    """Return the padding of the last block of `size` bytes."""
    return bytes(-size % BLOCK)


def pack(
    top: int | str, name: str = "", *, layer: bool = False, owner: tuple[int, int] | None = None
) -> Iterator[bytes]:
    """Yield the pieces of a tar of a file or directory, open or at a path, under `name`.

    A directory without a name is packed as `.`, with its content below it. With `layer`, overlayfs
    whiteouts become the whiteouts of an image layer. `owner` replaces all owners. Raises
    `InvalidArchive` for files that `TarReader` and `extract` refuse: devices, reserved names, too
    many nested directories.
    """
    fd = os.dup(top) if isinstance(top, int) else os.open(top, os.O_PATH | os.O_CLOEXEC)
    yield from _Packer(layer=layer, owner=owner).entry(fd, name)
    yield END


class Chunks:
    """A file-like reader of an iterable of bytes."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = b""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = piece
        data, self._left = self._left[:size], self._left[size:]
        return data


class _Packer:
    """Packer of one directory or file: see `pack`."""

    def __init__(self, *, layer: bool, owner: tuple[int, int] | None) -> None:
        self._mark = whiteout.attribute() if layer else ""
        self._owner = owner
        self._links: dict[tuple[int, int], str] = {}

    def entry(self, fd: int, path: str) -> Iterator[bytes]:
        """Yield the pieces of the file or directory behind `fd`, and close it."""
        with closing(fd):
            status = os.fstat(fd)
            clean(path, "the path")
            info = tarfile.TarInfo(path or ".")
            info.mode = stat.S_IMODE(status.st_mode)
            info.uid, info.gid = self._owner or (status.st_uid, status.st_gid)
            info.mtime = int(status.st_mtime)
            inode = (status.st_dev, status.st_ino)
            match stat.S_IFMT(status.st_mode):
                case stat.S_IFDIR:
                    info.type = tarfile.DIRTYPE
                    yield header(info)
                    yield from self._directory(fd, path)
                case stat.S_IFREG if (
                    status.st_nlink > 1 and self._links.setdefault(inode, path) != path
                ):
                    info.type, info.linkname = tarfile.LNKTYPE, self._links[inode]
                    yield header(info)
                case stat.S_IFREG:
                    yield from _file(fd, info, status.st_size)
                case stat.S_IFLNK:
                    info.type, info.linkname = tarfile.SYMTYPE, os.readlink("", dir_fd=fd)
                    yield header(info)
                case stat.S_IFIFO:
                    info.type = tarfile.FIFOTYPE
                    yield header(info)
                case stat.S_IFSOCK:
                    return  # its listener is not in the archive
                case _ if self._mark and is_whiteout(status):
                    directory, _, name = path.rpartition("/")
                    yield _marker(directory, whiteout.PREFIX + name)
                case _:
                    raise InvalidArchive(
                        f"/{path} is a device, which mydocker does not archive",
                        cause="",
                        remedy="leave out its directory",
                    )

    def _directory(self, fd: int, path: str) -> Iterator[bytes]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        with closing(os.open(".", flags, dir_fd=fd)) as readable:
            if self._mark and path and whiteout.is_opaque(readable, self._mark):
                yield _marker(path, whiteout.OPAQUE)
            for name in sorted(os.listdir(readable)):
                inner = f"{path}/{name}" if path else name
                if self._mark and name.startswith(whiteout.PREFIX):
                    raise InvalidArchive(
                        f"/{inner} has the name of a whiteout, by which images delete files",
                        cause="",
                        remedy="rename the file, or use `mydocker export`",
                    )
                try:
                    found = os.open(name, _OPEN_ENTRY, dir_fd=readable)
                except FileNotFoundError:
                    continue  # removed meanwhile by a running container
                yield from self.entry(found, inner)


def _file(fd: int, info: tarfile.TarInfo, size: int) -> Iterator[bytes]:
    info.size = size
    try:
        value = os.getxattr(same_file(fd), CAPABILITIES)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise
    else:
        info.pax_headers = {_PAX_CAPABILITIES: value.decode(errors="surrogateescape")}
    yield header(info)
    with open(same_file(fd), "rb", buffering=0) as file:
        left = size
        while left:
            # zeros if it was truncated after its header had been sent
            data = file.read(min(CHUNK, left)) or bytes(min(CHUNK, left))
            left -= len(data)
            yield data
    yield padded(size)


def _marker(directory: str, name: str) -> bytes:
    return header(tarfile.TarInfo(f"{directory}/{name}" if directory else name))
