"""An archive of images, as `docker save`, `podman save` or `skopeo copy` make one.

Two layouts, told apart by what is in them:

- Docker's: `manifest.json` names, for each image, its configuration, its layers
  and its names. The layers are `<id>/layer.tar`, some of them links to others, or
  since Docker 25 `blobs/sha256/<digest>`.
- OCI's (image layout specification): `index.json` leads to manifests, those to
  the configuration and the layers, each by the digest that it must have.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from runtime.errors import InvalidError
from runtime.image import config as imageconfig
from runtime.image import layer as layers
from runtime.image import layer as streams
from runtime.image import references
from runtime.image.config import ImageConfig, mapping, string, strings
from runtime.image.layer import Budget, HashingWriter, Layer
from runtime.image.tar import (
    CHUNK,
    END,
    InvalidArchive,
    Readable,
    TarEntry,
    TarReader,
    clean,
    header,
    padded,
)

_INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_DIGEST_NAME: Final = re.compile(r"blobs/sha256/([0-9a-f]{64})|([0-9a-f]{64})\.json")
_MAX_NESTING: Final = 4
_MAX_LINKS: Final = 8
_MAX_IMAGES: Final = 256
_NAMES: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Blob(NamedTuple):
    """A layer in an archive: under which name, and with which digest, where one is promised."""

    name: str
    digest: str = ""


class ArchivedImage(NamedTuple):
    """An image in an archive: its configuration, its layers (lowest first), its names."""

    config: ImageConfig
    blobs: tuple[Blob, ...]
    names: tuple[str, ...]


class _Section:
    """A part of a file, to be read in order."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd, self._offset, self._left = fd, offset, size

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._fd, min(size, self._left), self._offset)
        self._offset += len(data)
        self._left -= len(data)
        return data


class Archive:
    """An archive in an open file, which stays the caller's. Everything raises `InvalidArchive`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._entries: dict[str, TarEntry] = {}
        for entry in TarReader(_Section(fd, 0, os.fstat(fd).st_size)):
            if entry.kind == "directory":
                continue
            if entry.path in self._entries:
                raise InvalidArchive(f"it has {entry.path!r} twice")
            self._entries[entry.path] = entry

    # --- its parts -----------------------------------------------------------

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

    def section(self, name: str) -> Readable:
        """A file of the archive, to be read in order; links between its files are followed."""
        entry = self._find(name)
        return _Section(self._fd, entry.offset, entry.size)

    def _document(self, name: str, *, digest: str = "") -> bytes:
        entry = self._find(name)
        if entry.size > imageconfig.MAX_JSON:
            raise InvalidArchive(f"its {name!r} has {entry.size} bytes, too many for what it is")
        raw = _Section(self._fd, entry.offset, entry.size).read(entry.size)
        if digest and imageconfig.sha256(raw) != digest:
            raise InvalidArchive(f"its {name!r} has another digest than sha256:{digest}")
        return raw

    # --- its images ----------------------------------------------------------

    def images(self) -> list[ArchivedImage]:
        """All images that are in it, for this machine where there is a choice."""
        if "manifest.json" in self._entries:
            found = list(self._docker())
        elif "index.json" in self._entries:
            found = list(self._layout())
        else:
            raise InvalidArchive(
                "it is an archive of files, not of images",
                cause="it has neither manifest.json nor index.json",
                remedy="`mydocker import` makes an image of a root file system",
            )
        if not found:
            raise InvalidArchive("there is no image in it")
        return found

    def _docker(self) -> Iterator[ArchivedImage]:
        listed = imageconfig.parse_json(self._document("manifest.json"), "manifest.json")
        for item in imageconfig.objects(listed, "manifest.json", most=_MAX_IMAGES):
            name = string(item.get("Config"), "Config")
            config = imageconfig.parse(self._document(name))
            if _stated(name) not in ("", config.identity):
                raise InvalidArchive(f"its configuration {name!r} has the digest {config.identity}")
            blobs = [Blob(at, _stated(at)) for at in strings(item.get("Layers"), "Layers")]
            yield _offered(config, blobs, strings(item.get("RepoTags"), "RepoTags"))

    def _layout(self) -> Iterator[ArchivedImage]:
        index = mapping(
            imageconfig.parse_json(self._document("index.json"), "index.json"), "index.json"
        )
        manifests = index.get("manifests")
        for item in imageconfig.objects(manifests, "manifests", most=_MAX_IMAGES):
            manifest = self._manifest(item, _MAX_NESTING)
            config = mapping(manifest.get("config"), "config")
            annotations = mapping(item.get("annotations"), "annotations")
            given = [string(annotations.get(key), key) for key in _NAMES]
            layers = manifest.get("layers")
            blobs = [
                Blob(_path(digest := _digest(layer)), digest)
                for layer in imageconfig.objects(layers, "layers", most=imageconfig.MAX_LAYERS)
            ]
            raw = self._described(config)
            yield _offered(imageconfig.parse(raw), blobs, [name for name in given if name][:1])

    def _described(self, descriptor: dict[str, Any]) -> bytes:
        digest = _digest(descriptor)
        return self._document(_path(digest), digest=digest)

    def _manifest(self, descriptor: dict[str, Any], nesting: int) -> dict[str, Any]:
        """The manifest that a descriptor leads to, through indexes of one per machine."""
        found = mapping(imageconfig.parse_json(self._described(descriptor), "manifest"), "manifest")
        kind = found.get("mediaType") or descriptor.get("mediaType")
        if kind not in _INDEXES:
            return found
        if not nesting:
            raise InvalidArchive("its indexes lead to indexes without an end")
        manifests = imageconfig.objects(found.get("manifests"), "manifests", most=_MAX_IMAGES)
        offered = {_platform(item): item for item in manifests}
        wanted = f"linux/{imageconfig.architecture()}"
        if wanted not in offered:
            raise InvalidArchive(
                f"it has no image for {wanted}",
                cause=f"it was made for {', '.join(sorted(offered)) or 'nothing'}",
                remedy="get the variant for this machine",
            )
        return self._manifest(offered[wanted], nesting - 1)


@contextmanager
def opened(file: Readable, scratch: str, budget: Budget) -> Iterator[Archive]:
    """Read an archive, plain or compressed by gzip, from a file or from a pipe.

    What cannot be read twice is written to the directory `scratch` first.
    """
    regular = _regular(file)
    source = streams.buffered(HashingWriter(file, budget))
    compressed = streams.is_gzip(source)
    if not compressed and regular is not None:
        yield Archive(regular)
        return
    with open(f"{scratch}/archive", "x+b") as kept:
        plain = HashingWriter(gzip.GzipFile(fileobj=source), budget) if compressed else source
        while data := plain.read(CHUNK):
            kept.write(data)
        kept.flush()
        yield Archive(kept.fileno())


def _regular(file: Readable) -> int | None:
    """The descriptor of a file that can be read anywhere; `None` of a pipe, or of none."""
    try:
        fd: int = file.fileno()  # type: ignore[attr-defined]  # asked, not known
        os.lseek(fd, 0, os.SEEK_SET)
    except (AttributeError, OSError):
        return None
    return fd


def _digest(descriptor: dict[str, Any]) -> str:
    return imageconfig.digest(descriptor.get("digest"), "a part of it")


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest}"


def _stated(name: str) -> str:
    """The digest that a file of Docker's layout has for its name, if it has one."""
    found = _DIGEST_NAME.fullmatch(name)
    return found[1] or found[2] if found else ""


def _platform(descriptor: dict[str, Any]) -> str:
    found = mapping(descriptor.get("platform"), "platform")
    return f"{string(found.get('os'), 'os')}/{string(found.get('architecture'), 'architecture')}"


def _offered(config: ImageConfig, blobs: list[Blob], names: list[str]) -> ArchivedImage:
    if len(blobs) != len(config.layers):
        raise InvalidArchive(
            f"it has {len(blobs)} layers; its configuration says {len(config.layers)}"
        )
    try:
        return ArchivedImage(config, tuple(blobs), tuple(references.parse(name) for name in names))
    except InvalidError as error:
        raise InvalidArchive(
            f"an image in it is called what no image can be: {error.asked}"
        ) from None


_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"


class ImageToSave(NamedTuple):
    """An image to save, and the names to save it under."""

    config: ImageConfig
    names: tuple[str, ...]


def save(images: Sequence[ImageToSave], directories: Mapping[str, str]) -> Iterator[bytes]:
    """The pieces of the archive. `directories` are those of the layers, by diff id.

    `InvalidArchive` when a layer on disk is no longer what it was.
    """
    known = {diff_id: layers.read(path) for diff_id, path in directories.items()}
    documents: dict[str, bytes] = {}
    descriptors, listed = [], []
    for image in images:
        documents[image.config.identity] = image.config.raw
        manifest = _manifest(image.config, known)
        documents[imageconfig.sha256(manifest)] = manifest
        descriptors += [
            _described(_MANIFEST, manifest, **names) for names in _annotated(image.names)
        ]
        listed.append(
            {
                "Config": _blob(image.config.identity),
                "RepoTags": list(image.names),
                "Layers": [_blob(known[item].digest) for item in image.config.layers],
            }
        )
    blobs = {known[diff_id].digest: diff_id for diff_id in directories}
    yield _directory("blobs") + _directory("blobs/sha256")
    for digest in sorted({*documents, *blobs}):
        if digest in documents:
            yield _file(_blob(digest), documents[digest])
        else:
            yield from _stored(known[blobs[digest]], directories[blobs[digest]])
    yield _file(
        "index.json", _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": descriptors})
    )
    yield _file("manifest.json", _json(listed))
    yield _file("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    yield END


def _manifest(config: ImageConfig, known: Mapping[str, Layer]) -> bytes:
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _described(_CONFIG, config.raw),
            "layers": [
                {
                    "mediaType": _LAYER + ("+gzip" if known[item].gzip else ""),
                    "digest": f"sha256:{known[item].digest}",
                    "size": known[item].stored,
                }
                for item in config.layers
            ],
        }
    )


def _annotated(names: Sequence[str]) -> list[dict[str, Any]]:
    """What a descriptor says about each name; one without a name when there is none."""
    return [
        {
            "annotations": {
                "io.containerd.image.name": references.full(name),
                "org.opencontainers.image.ref.name": references.split(name)[1],
            }
        }
        for name in names
    ] or [{}]


def _described(kind: str, raw: bytes, **more: Any) -> dict[str, Any]:
    digest = f"sha256:{imageconfig.sha256(raw)}"
    return {"mediaType": kind, "digest": digest, "size": len(raw), **more}


def _stored(layer: Layer, directory: str) -> Iterator[bytes]:
    yield _header(_blob(layer.digest), layer.stored)
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


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest}"


def _json(data: Any) -> bytes:
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
