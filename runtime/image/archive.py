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
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from runtime.errors import InvalidError
from runtime.image import layer as layers
from runtime.image.config import (
    MAX_JSON,
    MAX_LAYERS,
    ImageConfig,
    InvalidArchive,
    architecture,
    digest,
    mapping,
    objects,
    parse_config,
    parse_json,
    parse_reference,
    qualified_reference,
    sha256,
    split_reference,
    string,
    strings,
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
_MAX_NESTING: Final = 4
_MAX_LINKS: Final = 8
_MAX_IMAGES: Final = 256


class Blob(NamedTuple):
    """A layer in an archive: its file name, and its digest where the archive gives one."""

    name: str
    digest: str = ""


class ArchivedImage(NamedTuple):
    """An image in an archive: its configuration, its layers (lowest first), its names."""

    config: ImageConfig
    blobs: tuple[Blob, ...]
    names: tuple[str, ...]


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
                raise InvalidArchive(f"it has {entry.path!r} twice")
            self._entries[entry.path] = entry

    def section(self, name: str) -> Readable:
        """Open a file of the archive; links between its files are followed."""
        entry = self._find(name)
        return _Section(self._fd, entry.offset, entry.size)

    def images(self) -> list[ArchivedImage]:
        """Return all images; of a multi-platform image the variant for this machine."""
        if "manifest.json" in self._entries:
            found = list(self._docker_images())
        elif "index.json" in self._entries:
            found = list(self._oci_images())
        else:
            raise InvalidArchive(
                "it is an archive of files, not of images",
                cause="it has neither manifest.json nor index.json",
                remedy="`mydocker import` makes an image of a root file system",
            )
        if not found:
            raise InvalidArchive("there is no image in it")
        return found

    def _find(self, name: str) -> TarEntry:
        path = clean(name, "the name")
        for _ in range(_MAX_LINKS):
            entry = self._entries.get(path)
            if entry is None:
                raise InvalidArchive(f"it does not have {path!r}, which it names")
            if entry.kind == "file":
                return entry
            if entry.kind == "link":
                path = entry.target
            elif entry.kind == "symlink":
                path = os.path.normpath(f"{os.path.dirname(path)}/{entry.target}").lstrip("/")
            else:
                break
        raise InvalidArchive(f"its {name!r} is not a file")

    def _document(self, name: str) -> bytes:
        entry = self._find(name)
        if entry.size > MAX_JSON:
            raise InvalidArchive(f"its {name!r} has {entry.size} bytes, too many for what it is")
        return _Section(self._fd, entry.offset, entry.size).read(entry.size)

    def _blob(self, descriptor: dict[str, Any]) -> bytes:
        expected = digest(descriptor.get("digest"), "a part of it")
        name = _blob_name(expected)
        raw = self._document(name)
        if sha256(raw) != expected:
            raise InvalidArchive(f"its {name!r} has another digest than sha256:{expected}")
        return raw

    def _docker_images(self) -> Iterator[ArchivedImage]:
        listed = parse_json(self._document("manifest.json"), "manifest.json")
        for item in objects(listed, "manifest.json", limit=_MAX_IMAGES):
            name = string(item.get("Config"), "Config")
            config = parse_config(self._document(name))
            if _digest_in_name(name) not in ("", config.identity):
                raise InvalidArchive(f"its configuration {name!r} has the digest {config.identity}")
            blobs = [Blob(at, _digest_in_name(at)) for at in strings(item.get("Layers"), "Layers")]
            yield _archived(config, blobs, strings(item.get("RepoTags"), "RepoTags"))

    def _oci_images(self) -> Iterator[ArchivedImage]:
        index = mapping(parse_json(self._document("index.json"), "index.json"), "index.json")
        for item in objects(index.get("manifests"), "manifests", limit=_MAX_IMAGES):
            manifest = self._manifest(item, _MAX_NESTING)
            config = parse_config(self._blob(mapping(manifest.get("config"), "config")))
            digests = [
                digest(layer.get("digest"), "a part of it")
                for layer in objects(manifest.get("layers"), "layers", limit=MAX_LAYERS)
            ]
            annotations = mapping(item.get("annotations"), "annotations")
            names = [string(annotations.get(key), key) for key in (_FULL_NAME, _REF_NAME)]
            blobs = [Blob(_blob_name(found), found) for found in digests]
            yield _archived(config, blobs, [name for name in names if name][:1])

    def _manifest(self, descriptor: dict[str, Any], nesting: int) -> dict[str, Any]:
        """Follow a descriptor to its manifest, through indexes of one per platform."""
        found = mapping(parse_json(self._blob(descriptor), "manifest"), "manifest")
        kind = found.get("mediaType") or descriptor.get("mediaType")
        if kind not in _INDEXES:
            return found
        if not nesting:
            raise InvalidArchive("its indexes lead to indexes without an end")
        manifests = objects(found.get("manifests"), "manifests", limit=_MAX_IMAGES)
        offered = {_platform(item): item for item in manifests}
        wanted = f"linux/{architecture()}"
        if wanted not in offered:
            raise InvalidArchive(
                f"it has no image for {wanted}",
                cause=f"it was made for {', '.join(sorted(offered)) or 'nothing'}",
                remedy="get the variant for this machine",
            )
        return self._manifest(offered[wanted], nesting - 1)


@contextmanager
def opened(file: Readable, scratch: str, budget: Budget) -> Iterator[Archive]:
    """Open an archive, plain or compressed by gzip, from a file or a pipe.

    A pipe, or a compressed archive, is first written to the directory `scratch`.
    """
    seekable = _seekable(file)
    source = io.BufferedReader(HashingReader(file, budget), CHUNK)
    compressed = layers.is_gzip(source)
    if not compressed and seekable is not None:
        yield Archive(seekable)
        return
    with open(f"{scratch}/archive", "x+b") as kept:
        plain = HashingReader(gzip.GzipFile(fileobj=source), budget) if compressed else source
        while data := plain.read(CHUNK):
            kept.write(data)
        kept.flush()
        yield Archive(kept.fileno())


def _seekable(file: Readable) -> int | None:
    """Return the descriptor of a seekable file, at its beginning; `None` for anything else."""
    try:
        fd: int = file.fileno()  # type: ignore[attr-defined]  # asked, not known
        os.lseek(fd, 0, os.SEEK_SET)
    except (AttributeError, OSError):
        return None
    return fd


def _digest_in_name(name: str) -> str:
    """Return the digest in a file name of Docker's layout, `""` if there is none."""
    found = _DIGEST_NAME.fullmatch(name)
    return found[1] or found[2] if found else ""


def _platform(descriptor: dict[str, Any]) -> str:
    found = mapping(descriptor.get("platform"), "platform")
    return f"{string(found.get('os'), 'os')}/{string(found.get('architecture'), 'architecture')}"


def _archived(config: ImageConfig, blobs: list[Blob], names: list[str]) -> ArchivedImage:
    if len(blobs) != len(config.layers):
        raise InvalidArchive(
            f"it has {len(blobs)} layers; its configuration says {len(config.layers)}"
        )
    try:
        return ArchivedImage(config, tuple(blobs), tuple(map(parse_reference, names)))
    except InvalidError as error:
        raise InvalidArchive(
            f"an image in it is called what no image can be: {error.asked}"
        ) from None


# --- writing -----------------------------------------------------------------------


def save(images: Sequence[NamedImage], directories: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the pieces of an archive; `directories` holds the layers by diff id.

    `InvalidArchive` when a layer on disk has changed since it was made.
    """
    known = {diff_id: layers.read(path) for diff_id, path in directories.items()}
    documents: dict[str, bytes] = {}
    descriptors, listed = [], []
    for config, names in images:
        documents[config.identity] = config.raw
        manifest = _encode(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor(_CONFIG, config.identity, len(config.raw)),
                "layers": [
                    _descriptor(
                        f"{_LAYER}+gzip" if layer.gzip else _LAYER, layer.digest, layer.stored
                    )
                    for layer in map(known.__getitem__, config.layers)
                ],
            }
        )
        documents[sha256(manifest)] = manifest
        described = _descriptor(_MANIFEST, sha256(manifest), len(manifest))
        annotated = [{**described, "annotations": _annotations(name)} for name in names]
        descriptors += annotated or [described]
        listed.append(
            {
                "Config": _blob_name(config.identity),
                "RepoTags": list(names),
                "Layers": [_blob_name(known[item].digest) for item in config.layers],
            }
        )
    blobs = {known[diff_id].digest: diff_id for diff_id in directories}
    yield _directory("blobs") + _directory("blobs/sha256")
    for found in sorted({*documents, *blobs}):
        if found in documents:
            yield _file(_blob_name(found), documents[found])
        else:
            yield from _stored(known[blobs[found]], directories[blobs[found]])
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": descriptors}
    yield _file("index.json", _encode(index))
    yield _file("manifest.json", _encode(listed))
    yield _file("oci-layout", _encode({"imageLayoutVersion": "1.0.0"}))
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
            f"the layer {layer.diff_id[:12]} on disk is not what was loaded",
            cause="a file of the state directory was changed or damaged",
            remedy="remove the image and load it again",
        )
    yield padded(layer.stored)


def _blob_name(identity: str) -> str:
    return f"blobs/sha256/{identity}"


def _encode(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


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
