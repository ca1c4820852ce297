"""Archives made with `tarfile` and `json`, without mydocker's code."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Tree = Mapping[str, bytes]
"""The files of an archive, by name."""

MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class Item(NamedTuple):
    """One entry of a tar. `target` is where a link points; `pax` are extended headers."""

    name: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    target: str = ""
    pax: Mapping[str, str] = {}
    mtime: int = 1_000_000_000

    def encoded(self) -> bytes:
        """Encode header and data."""
        info = tarfile.TarInfo(self.name)
        info.size, info.type, info.mode = len(self.data), self.type, self.mode
        info.uid, info.gid, info.linkname = self.uid, self.gid, self.target
        info.mtime, info.pax_headers = self.mtime, dict(self.pax)
        head = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        return head + self.data + bytes(-len(self.data) % 512)


def directory(name: str, mode: int = 0o755) -> Item:
    """Return a directory entry."""
    return Item(name, type=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> Item:
    """Return a symbolic link."""
    return Item(name, type=tarfile.SYMTYPE, target=target)


def link(name: str, target: str) -> Item:
    """Return a hard link."""
    return Item(name, type=tarfile.LNKTYPE, target=target)


def tar(*items: Item) -> bytes:
    """Encode a complete tar."""
    return b"".join(item.encoded() for item in items) + bytes(1024)


def packed(files: Tree) -> bytes:
    """Encode a tar of plain files."""
    return tar(*(Item(name, data) for name, data in files.items()))


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def plain(layer: bytes) -> bytes:
    """Return a layer without its compression."""
    return gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer


def config(layers: Sequence[bytes], **defaults: Any) -> bytes:
    """Encode an image's configuration; `defaults` is the part about containers."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2020-02-02T02:02:02.5Z",
            "config": defaults,
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{sha256(plain(layer))}" for layer in layers],
            },
        }
    ).encode()


def old_docker(layers: Sequence[bytes], made: bytes, names: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the files of `docker save` until version 24."""
    paths = [f"{sha256(str(number).encode())}/layer.tar" for number in range(len(layers))]
    return _docker(f"{sha256(made)}.json", made, paths, layers, names)


def new_docker(layers: Sequence[bytes], made: bytes, names: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the files of `docker save` since version 25, without those for OCI's tools."""
    config, *paths = (f"blobs/sha256/{sha256(data)}" for data in (made, *layers))
    return _docker(config, made, paths, layers, names)


def _docker(
    config: str, made: bytes, paths: Sequence[str], layers: Sequence[bytes], names: Sequence[str]
) -> dict[str, bytes]:
    manifest = json.dumps([{"Config": config, "RepoTags": list(names), "Layers": list(paths)}])
    files = dict(zip(paths, layers, strict=True))
    return {**files, config: made, "manifest.json": manifest.encode()}


def merged(*archives: Tree) -> bytes:
    """Encode one archive of several in Docker's layout."""
    listed = [item for files in archives for item in json.loads(files["manifest.json"])]
    files = {name: data for each in archives for name, data in each.items()}
    return packed({**files, "manifest.json": json.dumps(listed).encode()})


def descriptor(data: bytes, kind: str = "", **more: Any) -> dict[str, Any]:
    """Return a descriptor, by which OCI documents refer to each other."""
    return {"mediaType": kind, "digest": f"sha256:{sha256(data)}", "size": len(data), **more}


def oci(layers: Sequence[bytes], made: bytes, names: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the files of an OCI image layout."""
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": descriptor(made, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(layer) for layer in layers],
        }
    ).encode()
    annotated: list[dict[str, Any]] = [
        {"annotations": {"org.opencontainers.image.ref.name": name}} for name in names
    ]
    index = {
        "schemaVersion": 2,
        "manifests": [descriptor(manifest, **more) for more in annotated or [{}]],
    }
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **{f"blobs/sha256/{sha256(data)}": data for data in (*layers, made, manifest)},
    }


def unpacked(archive: bytes) -> dict[str, bytes]:
    """Return the plain files of a tar, read by `tarfile`."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {
            item.name: file.read()
            for item in opened
            if item.isreg() and (file := opened.extractfile(item)) is not None
        }
