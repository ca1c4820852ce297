"""Archives of images, as `docker save`, `podman save` and `skopeo copy` make them.

Two layouts are read, recognized by their content, and both are written at once:

- Docker's: `manifest.json` names, for each image, its configuration, its layers
  and its names. The layers are `<id>/layer.tar`, some of them links to others, or
  since Docker 25 `blobs/sha256/<digest>`.
- OCI's (image layout specification): `index.json` leads to manifests, those to
  the configuration and the layers, each by its digest.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Self

from runtime.errors import InvalidError
from runtime.image import layer as layers
from runtime.image.config import (
    InvalidArchive,
    parse_reference,
    qualified_reference,
    split_reference,
)
from runtime.image.documents import (
    Descriptor,
    DockerManifest,
    Index,
    Manifest,
    architecture,
    encode,
    parse,
    parse_config,
    sha256,
)
from runtime.image.layer import Budget, HashingReader, Layer
from runtime.image.store import NamedImage
from runtime.image.tar import CHUNK, END, Readable, TarEntry, TarReader, clean, header, padded

_OCI: Final = "application/vnd.oci.image"
_INDEX: Final = f"{_OCI}.index.v1+json"
_INDEXES: Final = (_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFEST: Final = f"{_OCI}.manifest.v1+json"
_CONFIG: Final = f"{_OCI}.config.v1+json"
_LAYER: Final = f"{_OCI}.layer.v1.tar"
_FULL_NAME: Final = "io.containerd.image.name"
_REF_NAME: Final = "org.opencontainers.image.ref.name"
_DIGEST_NAME: Final = re.compile(r"blobs/sha256/([0-9a-f]{64})|([0-9a-f]{64})\.json")
_MAX_LINKS: Final = 8
_MAX_JSON: Final = 4 << 20
"""Largest accepted document, in bytes."""


class Blob(NamedTuple):
    """A file in an archive, and its digest where the archive gives one."""

    name: str
    digest: str = ""

    @classmethod
    def of(cls, descriptor: Descriptor) -> Self:
        """Return the file that a descriptor of OCI's layout refers to."""
        digest = descriptor.digest.removeprefix("sha256:")
        return cls(_blob_name(digest), digest)

    @classmethod
    def named(cls, name: str) -> Self:
        """Return the file of that name in Docker's layout; the name may contain the digest."""
        found = _DIGEST_NAME.fullmatch(name)
        return cls(name, found[1] or found[2] if found else "")


class _Listed(NamedTuple):
    """An image as an archive lists it: its configuration, its layers (lowest first), its names."""

    config: Blob
    layers: list[Blob]
    names: list[str]


class _Section:
    """A part of a file, read in order."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd, self._offset, self._left = fd, offset, size

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._fd, min(size, self._left), self._offset)
        self._offset += len(data)
        self._left -= len(data)
        return data


# --- reading -----------------------------------------------------------------------


class Archive:
    """An archive in an open file, which the caller closes. All methods raise `InvalidArchive`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._entries: dict[str, TarEntry] = {}
        for entry in TarReader(_Section(fd, 0, os.fstat(fd).st_size)):
            if entry.kind == "directory":
                continue
            if entry.path in self._entries:
                raise InvalidArchive(f"it contains {entry.path!r} twice")
            self._entries[entry.path] = entry

    def section(self, name: str) -> Readable:
        """Open a file of the archive; links between its files are followed."""
        entry = self._find(name)
        return _Section(self._fd, entry.offset, entry.size)

    def images(self) -> tuple[list[NamedImage], dict[str, Blob]]:
        """Return all images, and their layers by diff ID.

        From a multi-platform image, take the variant for this machine.
        """
        if "manifest.json" in self._entries:
            listed = list(self._docker_images())
        elif "index.json" in self._entries:
            listed = list(self._oci_images())
        else:
            raise InvalidArchive(
                "it is an archive of files, not of images",
                cause="it contains neither manifest.json nor index.json",
                remedy="`mydocker import`, which creates an image from a root file system",
            )
        if not listed:
            raise InvalidArchive("it contains no image")
        images: list[NamedImage] = []
        blobs: dict[str, Blob] = {}
        for item in listed:
            config = parse_config(self._document(item.config))
            if len(item.layers) != len(config.layers):
                raise InvalidArchive(
                    f"it has {len(item.layers)} layers, but its configuration"
                    f" lists {len(config.layers)}"
                )
            try:
                names = tuple(map(parse_reference, item.names))
            except InvalidError as error:
                raise InvalidArchive(
                    f"it contains an image with an invalid name: {error.asked}"
                ) from None
            images.append(NamedImage(config, names))
            blobs.update(zip(config.layers, item.layers, strict=True))
        return images, blobs

    def _docker_images(self) -> Iterator[_Listed]:
        for item in parse(self._document(Blob("manifest.json")), DockerManifest, "manifest.json"):
            blobs = [Blob.named(name) for name in item.layers]
            yield _Listed(Blob.named(item.config), blobs, item.repo_tags)

    def _oci_images(self) -> Iterator[_Listed]:
        for item in parse(self._document(Blob("index.json")), Index, "index.json").manifests:
            manifest = self._manifest(item)
            names = [item.annotations.get(key, "") for key in (_FULL_NAME, _REF_NAME)]
            blobs = [Blob.of(layer) for layer in manifest.layers]
            yield _Listed(Blob.of(manifest.config), blobs, [name for name in names if name][:1])

    def _manifest(self, descriptor: Descriptor) -> Manifest:
        """Follow a descriptor to its manifest, through indexes with one manifest per platform.

        Each reference is a digest, so indexes cannot form a loop.
        """
        while True:
            raw = self._document(Blob.of(descriptor))
            index = parse(raw, Index, "a manifest")
            if (index.media_type or descriptor.media_type) not in _INDEXES:
                return parse(raw, Manifest, "a manifest")
            offered = {f"{at.platform.os}/{at.platform.architecture}": at for at in index.manifests}
            wanted = f"linux/{architecture()}"
            if wanted not in offered:
                raise InvalidArchive(
                    f"it contains no image for {wanted}",
                    cause=f"its images are for {', '.join(sorted(offered)) or 'no platform'}",
                    remedy="download the image for this machine's platform",
                )
            descriptor = offered[wanted]

    def _document(self, blob: Blob) -> bytes:
        entry = self._find(blob.name)
        if entry.size > _MAX_JSON:
            raise InvalidArchive(
                f"its {blob.name!r} has {entry.size} bytes, which is too long for a JSON document"
            )
        raw = _Section(self._fd, entry.offset, entry.size).read(entry.size)
        if blob.digest and sha256(raw) != blob.digest:
            raise InvalidArchive(f"its {blob.name!r} has another digest: sha256:{sha256(raw)}")
        return raw

    def _find(self, name: str) -> TarEntry:
        path = clean(name, "the name")
        for _ in range(_MAX_LINKS):
            entry = self._entries.get(path)
            if entry is None:
                raise InvalidArchive(f"it refers to {path!r}, which it does not contain")
            if entry.kind == "file":
                return entry
            if entry.kind == "link":
                path = entry.target
            elif entry.kind == "symlink":
                path = os.path.normpath(f"{os.path.dirname(path)}/{entry.target}").lstrip("/")
            else:
                break
        raise InvalidArchive(f"its {name!r} is not a file")


@contextmanager
def opened(file: io.RawIOBase, scratch: str, budget: Budget) -> Iterator[Archive]:
    """Open an archive, plain or compressed by gzip, from a file or a pipe.

    A pipe, or a compressed archive, is first written to the directory `scratch`.
    """
    seekable = file.seekable()
    if seekable:
        file.seek(0)
    source = io.BufferedReader(HashingReader(file, budget), CHUNK)
    compressed = layers.is_gzip(source)
    if seekable and not compressed:
        yield Archive(file.fileno())
        return
    with open(f"{scratch}/archive", "x+b") as kept:
        plain = HashingReader(gzip.GzipFile(fileobj=source), budget) if compressed else source
        while data := plain.read(CHUNK):
            kept.write(data)
        kept.flush()
        yield Archive(kept.fileno())


# --- writing -----------------------------------------------------------------------


def save(images: Sequence[NamedImage], directories: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the pieces of an archive; `directories` contains the layers by diff ID.

    `InvalidArchive` when a layer on disk has changed since its creation.
    """
    known = {diff_id: layers.read(path) for diff_id, path in directories.items()}
    yield _directory("blobs") + _directory("blobs/sha256")
    for diff_id, path in directories.items():
        yield from _stored(known[diff_id], path)
    descriptors, listed = [], []
    for config, names in images:
        found = [known[diff_id] for diff_id in config.layers]
        kinds = [f"{_LAYER}+gzip" if layer.gzip else _LAYER for layer in found]
        manifest = encode(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor(_CONFIG, config.identity, len(config.raw)),
                "layers": [
                    _descriptor(kind, layer.digest, layer.stored)
                    for kind, layer in zip(kinds, found, strict=True)
                ],
            }
        )
        yield _file(_blob_name(config.identity), config.raw)
        yield _file(_blob_name(sha256(manifest)), manifest)
        described = _descriptor(_MANIFEST, sha256(manifest), len(manifest))
        annotated = [{**described, "annotations": _annotations(name)} for name in names]
        descriptors += annotated or [described]
        blobs = [_blob_name(layer.digest) for layer in found]
        listed.append(
            {"Config": _blob_name(config.identity), "RepoTags": list(names), "Layers": blobs}
        )
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": descriptors}
    yield _file("index.json", encode(index))
    yield _file("manifest.json", encode(listed))
    yield _file("oci-layout", encode({"imageLayoutVersion": "1.0.0"}))
    yield END


def _descriptor(kind: str, identity: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{identity}", "size": size}


def _annotations(name: str) -> dict[str, str]:
    return {_FULL_NAME: qualified_reference(name), _REF_NAME: split_reference(name)[1]}


def _stored(layer: Layer, directory: str) -> Iterator[bytes]:
    yield _header(_blob_name(layer.digest), layer.stored)
    found = hashlib.sha256()
    with open(f"{directory}/blob", "rb", buffering=0) as file:
        while data := file.read(CHUNK):
            found.update(data)
            yield data
    if found.hexdigest() != layer.digest:
        raise InvalidArchive(
            f"the layer {layer.diff_id[:12]} on disk differs from the one that was loaded",
            cause="a file of the state directory was changed or damaged",
            remedy="remove the image and load it again",
        )
    yield padded(layer.stored)


def _blob_name(identity: str) -> str:
    return f"blobs/sha256/{identity}"


def _file(name: str, data: bytes) -> bytes:
    return _header(name, len(data)) + data + padded(len(data))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return header(info)


def _directory(name: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return header(info)
