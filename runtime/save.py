"""Images as an archive that Docker, podman, containerd and skopeo take.

One tar in both layouts at once, as Docker 25 writes it: the blobs are OCI's, and
`manifest.json` names the same files to whoever knows only Docker's. The same
images give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from runtime import imageconfig, layers, references
from runtime.imageconfig import ImageConfig
from runtime.layers import Layer
from runtime.pack import END, header, padded
from runtime.tarball import CHUNK, Refused

_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"


class Saved(NamedTuple):
    """An image to save, and the names to save it under."""

    config: ImageConfig
    names: tuple[str, ...]


def save(images: Sequence[Saved], directories: Mapping[str, str]) -> Iterator[bytes]:
    """The pieces of the archive. `directories` are those of the layers, by diff id.

    `Refused` when a layer on disk is no longer what it was.
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
        raise Refused(
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
