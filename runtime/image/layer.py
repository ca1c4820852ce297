"""A layer: the tar it came as, and the directory it becomes.

```
blob        the tar as it came, compressed or not, so that it can be saved again bit by bit
tree/       its files, a lower directory of overlays
layer.json  what is known about both
```
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Self

from runtime.image.tar import CHUNK, InvalidArchive, Readable, TarReader
from runtime.image.unpack import Tree
from runtime.store import read_json, write_json


class Layer(NamedTuple):
    """What is known about a layer. Digests are SHA-256, in hexadecimal digits.

    `diff_id` is the digest of the plain tar, which images name layers by;
    `digest` and `stored` (bytes) are those of the blob. `size` is what its files
    come to, in bytes.
    """

    diff_id: str
    digest: str
    stored: int
    gzip: bool
    size: int


def build(
    directory: str, source: Readable, budget: Budget, *, diff_id: str = "", digest: str = ""
) -> Layer:
    """Make a layer in a directory that is not there yet, from a tar.

    `InvalidArchive` when the tar is not right, goes beyond the budget, or does not have
    the digests that are given. What was made until then is the caller's to remove.
    """
    tree = f"{directory}/tree"
    os.mkdir(directory, 0o700)
    os.mkdir(tree)
    os.chmod(tree, 0o755)  # noqa: S103 - it becomes "/"
    with open(f"{directory}/blob", "xb") as blob:
        stored = HashingWriter(source, budget, blob.write)
        packed = buffered(stored)
        compressed = is_gzip(packed)
        plain = HashingWriter(gzip.GzipFile(fileobj=packed) if compressed else packed, budget)
        size = _unpack(tree, buffered(plain))
    layer = Layer(plain.digest, stored.digest, stored.size, compressed, size)
    for found, wanted in ((layer.digest, digest), (layer.diff_id, diff_id)):
        if wanted and found != wanted:
            raise InvalidArchive(
                f"a layer has the digest sha256:{found}, and should have sha256:{wanted}"
            )
    write_json(f"{directory}/layer.json", layer._asdict())
    return layer


def _unpack(path: str, source: Readable) -> int:
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = Tree(top, layer=True)
    size = 0
    try:
        reader = TarReader(source)
        for entry in reader:
            tree.add(entry, reader.copy)
            size += entry.size
        tree.finish()
        drain(source)
    finally:
        tree.close()
        os.close(top)
    return size


def read(directory: str) -> Layer:
    """What was written down when a layer was made."""
    return Layer(**read_json(f"{directory}/layer.json"))


MOST_BYTES: Final = 64 << 30
"""More than this is taken for a bomb, however large the disk is."""

_GZIP: Final = b"\x1f\x8b"
_OTHERS: Final = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Budget:
    """How many bytes may still be written; what goes beyond it is `InvalidArchive`."""

    def __init__(self, most: int) -> None:
        self._left = self._most = most

    @classmethod
    def of_disk(cls, path: str) -> Self:
        """Nine tenths of what is free where `path` lies, and no more than `MOST_BYTES`."""
        found = os.statvfs(path)
        return cls(min(MOST_BYTES, found.f_bavail * found.f_frsize * 9 // 10))

    def take(self, size: int) -> None:
        """Count bytes that are about to be written."""
        self._left -= size
        if self._left < 0:
            raise InvalidArchive(
                f"it unpacks to more than {self._most} bytes",
                cause=f"a bomb, or too little free space (nine tenths of it may be used, and"
                f" never more than {MOST_BYTES >> 30} GiB)",
                remedy="point MYDOCKER_ROOT at a larger disk if you trust the archive",
            )


class HashingWriter(io.RawIOBase):
    """Passes bytes on; knows how many there were and their SHA-256.

    Every byte counts against the budget and is given to `copy`, where that is given.
    """

    def __init__(
        self, source: Readable, budget: Budget, copy: Callable[[bytes], object] | None = None
    ) -> None:
        self._source, self._budget, self._copy = source, budget, copy
        self._hash = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what io passes
        """Part of `io.RawIOBase`."""
        try:
            data = self._source.read(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InvalidArchive(f"its compressed data is damaged ({error})") from None
        self._budget.take(len(data))
        self._hash.update(data)
        self.size += len(data)
        if self._copy is not None:
            self._copy(data)
        buffer[: len(data)] = data
        return len(data)

    @property
    def digest(self) -> str:
        """The SHA-256 of what has come by, in hexadecimal digits."""
        return self._hash.hexdigest()


class Chunks:
    """Pieces of bytes, to be read like a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = b""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = piece
        data, self._left = self._left[:size], self._left[size:]
        return data


def buffered(source: io.RawIOBase) -> io.BufferedReader:
    """Read in large pieces, whatever is asked for."""
    return io.BufferedReader(source, CHUNK)


def is_gzip(source: io.BufferedReader) -> bool:
    """Whether what comes is compressed by gzip; `InvalidArchive` for what only other programs unpack."""
    head = source.peek(8)
    for magic, program in _OTHERS.items():
        if head.startswith(magic):
            raise InvalidArchive(
                f"it is compressed by {program}",
                cause="mydocker unpacks gzip only",
                remedy=f"unpack it before: {program} -d",
            )
    return head.startswith(_GZIP)


def drain(source: Readable) -> None:
    """Read to the end."""
    while source.read(CHUNK):
        pass
