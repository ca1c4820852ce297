"""A layer: its tar as it was received, and the directory unpacked from it.

```
blob        the tar, compressed or not, so that `save` returns it bit for bit
tree/       its files, a lower directory of overlays
layer.json  digests and sizes
```
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Self

from runtime.image.config import InvalidArchive
from runtime.image.tar import CHUNK, Readable, closing
from runtime.image.unpack import extract
from runtime.store import read_json, write_json

MOST_BYTES: Final = 64 << 30
"""Limit on the bytes of an archive, for any disk size: a larger one is treated as a bomb."""

_GZIP: Final = b"\x1f\x8b"
_OTHERS: Final = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Layer(NamedTuple):
    """Digests (SHA-256, in hexadecimal digits) and sizes of a layer.

    `diff_id` is the digest of the plain tar, by which configurations name layers;
    `digest` and `stored` (bytes) are those of the blob. `size` is the sum of the
    files' sizes in bytes.
    """

    diff_id: str
    digest: str
    stored: int
    gzip: bool
    size: int


def build(
    directory: str, source: Readable, budget: Budget, *, diff_id: str = "", digest: str = ""
) -> Layer:
    """Create a layer from a tar, in a directory that does not exist yet.

    `InvalidArchive` when the tar is invalid, exceeds the budget, or does not have the given
    digests. The caller then removes the incomplete layer.
    """
    tree = f"{directory}/tree"
    os.mkdir(directory, 0o700)
    os.mkdir(tree)
    os.chmod(tree, 0o755)  # noqa: S103 - it becomes "/"
    with open(f"{directory}/blob", "xb") as blob:
        stored = HashingReader(source, budget, blob.write)
        packed = io.BufferedReader(stored, CHUNK)
        compressed = is_gzip(packed)
        plain = HashingReader(gzip.GzipFile(fileobj=packed) if compressed else packed, budget)
        buffered = io.BufferedReader(plain, CHUNK)
        with closing(os.open(tree, os.O_PATH | os.O_CLOEXEC)) as top:
            size = extract(buffered, top, layer=True)
        while buffered.read(CHUNK):  # the digest covers the bytes after the last entry too
            pass
    layer = Layer(plain.digest, stored.digest, stored.size, compressed, size)
    for found, wanted in ((layer.digest, digest), (layer.diff_id, diff_id)):
        if wanted and found != wanted:
            raise InvalidArchive(
                f"a layer has the digest sha256:{found}, instead of sha256:{wanted}"
            )
    write_json(f"{directory}/layer.json", layer._asdict())
    return layer


def read(directory: str) -> Layer:
    """Read the digests and sizes of a layer from its directory."""
    return Layer(**read_json(f"{directory}/layer.json"))


class Budget:
    """Limit on the bytes that may still be written; exceeding it raises `InvalidArchive`."""

    def __init__(self, most: int) -> None:
        self._left = self._most = most

    @classmethod
    def of_disk(cls, path: str) -> Self:
        """Allow nine tenths of the free space at `path`, but no more than `MOST_BYTES`."""
        found = os.statvfs(path)
        return cls(min(MOST_BYTES, found.f_bavail * found.f_frsize * 9 // 10))

    def take(self, size: int) -> None:
        """Count bytes that are about to be written."""
        self._left -= size
        if self._left < 0:
            raise InvalidArchive(
                f"it unpacks to more than {self._most} bytes",
                cause="the archive is malicious, or too little space is free (the limit is nine"
                f" tenths of it, and at most {MOST_BYTES >> 30} GiB)",
                remedy="point MYDOCKER_ROOT at a larger disk if you trust the archive",
            )


class HashingReader(io.RawIOBase):
    """A stream that counts and hashes the bytes that it passes on.

    Each byte counts against the budget and is given to `copy`, if there is one.
    """

    def __init__(
        self, source: Readable, budget: Budget, copy: Callable[[bytes], object] | None = None
    ) -> None:
        self._source, self._budget, self._copy = source, budget, copy
        self._hash = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        """Return True, as `io.BufferedReader` requires."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what io passes
        """Implement `io.RawIOBase`."""
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
        """The SHA-256 of the bytes so far, in hexadecimal digits."""
        return self._hash.hexdigest()


def is_gzip(source: io.BufferedReader[Any]) -> bool:
    """Return True if the stream is gzip; `InvalidArchive` for other compressions."""
    head = source.peek(8)
    for magic, program in _OTHERS.items():
        if head.startswith(magic):
            raise InvalidArchive(
                f"it is compressed by {program}",
                cause="mydocker unpacks only gzip",
                remedy=f"decompress the layer first with `{program} -d`",
            )
    return head.startswith(_GZIP)
