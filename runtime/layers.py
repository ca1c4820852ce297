"""A layer: the tar it came as, and the directory it becomes.

```
blob        the tar as it came, compressed or not, so that it can be saved again bit by bit
tree/       its files, a lower directory of overlays
layer.json  what is known about both
```
"""

from __future__ import annotations

import gzip
import os
from typing import NamedTuple

from runtime import streams
from runtime.state import read_json, write_json
from runtime.streams import Budget, Measured
from runtime.tarball import Readable, Refused, TarReader
from runtime.unpack import Tree


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

    `Refused` when the tar is not right, goes beyond the budget, or does not have
    the digests that are given. What was made until then is the caller's to remove.
    """
    tree = f"{directory}/tree"
    os.mkdir(directory, 0o700)
    os.mkdir(tree)
    os.chmod(tree, 0o755)  # noqa: S103 - it becomes "/"
    with open(f"{directory}/blob", "xb") as blob:
        stored = Measured(source, budget, blob.write)
        packed = streams.buffered(stored)
        compressed = streams.is_gzip(packed)
        plain = Measured(gzip.GzipFile(fileobj=packed) if compressed else packed, budget)
        size = _unpack(tree, streams.buffered(plain))
    layer = Layer(plain.digest, stored.digest, stored.size, compressed, size)
    for found, wanted in ((layer.digest, digest), (layer.diff_id, diff_id)):
        if wanted and found != wanted:
            raise Refused(f"a layer has the digest sha256:{found}, and should have sha256:{wanted}")
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
        streams.drain(source)
    finally:
        tree.close()
        os.close(top)
    return size


def read(directory: str) -> Layer:
    """What was written down when a layer was made."""
    return Layer(**read_json(f"{directory}/layer.json"))
