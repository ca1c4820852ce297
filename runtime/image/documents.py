"""JSON documents of images: configurations, and the manifests and indexes of archives.

A configuration is the document whose SHA-256 is the image's ID ("OCI Image Configuration" of the
OCI image specification, which Docker shares). Its bytes are kept unchanged. In a foreign document
a field that is `null` counts as missing, as in Go's encoding/json.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from runtime.errors import InvalidError
from runtime.image.config import ImageConfig, ImageDefaults, InvalidArchive
from runtime.store import now

MAX_LAYERS: Final = 125
"""Docker's limit on the layers of an image."""
MAX_IMAGES: Final = 256
"""Limit on the images of one archive."""
INSTRUCTIONS: Final = "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, WORKDIR"
"""Dockerfile instructions that `--change` accepts."""

_GOARCH: Final = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
_PORT: Final = r"[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?"
_Document = TypeVar("_Document")

Text = Annotated[str, Meta(pattern=r"\A[^\x00\ud800-\udfff]*\Z")]
"""A string that can be an argument of execve(2)."""
Digest = Annotated[str, Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]


class _Container(Struct, frozen=True, rename="pascal"):
    """The part of a configuration that is about containers."""

    env: list[Text] = []
    entrypoint: list[Text] = []
    cmd: list[Text] = []
    working_dir: Text = ""
    user: Text = ""
    exposed_ports: dict[Text, Any] = {}
    stop_signal: Text = ""
    labels: dict[Text, Text | None] = {}


class _RootFs(Struct, frozen=True):
    diff_ids: Annotated[list[Digest], Meta(max_length=MAX_LAYERS)] = []


class _Configuration(Struct, frozen=True):
    os: str = "linux"
    created: Annotated[datetime, Meta(tz=True)] = datetime.fromtimestamp(0, UTC)
    config: _Container = _Container()
    rootfs: _RootFs = _RootFs()


class DockerImage(Struct, frozen=True, rename="pascal"):
    """An image in Docker's manifest.json."""

    config: str
    layers: Annotated[list[str], Meta(max_length=MAX_LAYERS)] = []
    repo_tags: list[str] = []


DockerManifest = Annotated[list[DockerImage], Meta(max_length=MAX_IMAGES)]


class _Platform(Struct, frozen=True):
    os: str = ""
    architecture: str = ""


class Descriptor(Struct, frozen=True, rename="camel"):
    """A reference to another document or a layer."""

    digest: Digest
    media_type: str = ""
    platform: _Platform = _Platform()
    annotations: dict[str, str] = {}


class Index(Struct, frozen=True, rename="camel"):
    """A list of manifests, or of indexes."""

    media_type: str = ""
    manifests: Annotated[list[Descriptor], Meta(max_length=MAX_IMAGES)] = []


class Manifest(Struct, frozen=True):
    """The descriptors of an image's configuration and layers."""

    config: Descriptor
    layers: Annotated[list[Descriptor], Meta(max_length=MAX_LAYERS)] = []


def sha256(raw: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(raw).hexdigest()


def encode(data: Any) -> bytes:
    """Encode JSON; equal data gives equal bytes."""
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def parse(raw: bytes, kind: type[_Document], name: str) -> _Document:
    """Decode and check a document; `InvalidArchive` names the document and the invalid part."""
    try:
        return msgspec.convert(_without_null(json.loads(raw)), kind)
    except (ValueError, RecursionError) as error:
        raise InvalidArchive(f"{name} is malformed: {error}") from None


_MAPS: Final = frozenset({"ExposedPorts", "Labels"})
"""Fields whose keys are data: an entry that is `null` stays."""


def _without_null(found: Any) -> Any:
    match found:
        case dict():
            return {
                key: value if key in _MAPS else _without_null(value)
                for key, value in found.items()
                if value is not None
            }
        case list():
            return list(map(_without_null, found))
    return found


# --- configurations ----------------------------------------------------------------


def architecture() -> str:
    """Return this machine's architecture as images name it (Go's GOARCH)."""
    machine = os.uname().machine
    return _GOARCH.get(machine, machine)


def parse_config(raw: bytes) -> ImageConfig:
    """Check a configuration; `InvalidArchive` names the offending part."""
    found = parse(raw, _Configuration, "its configuration")
    if found.os not in ("linux", ""):
        raise InvalidArchive(
            f"the image is for {found.os}",
            cause="containers share the host's kernel, which is Linux",
            remedy="download the linux variant of the image",
        )
    try:
        created = found.created.astimezone(UTC).replace(tzinfo=None)
    except OverflowError as error:
        raise InvalidArchive(f"its creation time is out of range ({error})") from None
    config = found.config
    return ImageConfig(
        identity=sha256(raw),
        raw=raw,
        layers=tuple(item.removeprefix("sha256:") for item in found.rootfs.diff_ids),
        created=f"{created.isoformat(timespec='seconds')}Z",
        defaults=ImageDefaults(
            env=[item if "=" in item else f"{item}=" for item in config.env],
            entrypoint=config.entrypoint,
            command=config.cmd,
            workdir=config.working_dir,
            user=config.user,
            exposed=sorted(config.exposed_ports),
            stop_signal=config.stop_signal,
            labels={key: value or "" for key, value in config.labels.items()},
        ),
    )


def compose(
    layers: Sequence[str],
    config: Mapping[str, Any],
    *,
    created: str = "",
    author: str = "",
    history: Sequence[Mapping[str, Any]] = (),
) -> ImageConfig:
    """Create a configuration for this machine; `config` is the part about containers."""
    made: dict[str, Any] = {
        "architecture": architecture(),
        "os": "linux",
        "created": created or now(),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{item}" for item in layers]},
        "history": list(history),
    }
    if author:
        made["author"] = author
    return parse_config(encode(made))


# --- `--change` --------------------------------------------------------------------


def apply_changes(config: Mapping[str, Any], lines: Sequence[str]) -> dict[str, Any]:
    """Apply Dockerfile instructions to the part of a configuration that is about containers.

    `InvalidError` for a malformed line and for an instruction not in `INSTRUCTIONS`.
    """
    changed = dict(config)
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        try:
            changed |= _change(word.upper(), rest.strip(), changed)
        except ValueError as error:
            raise InvalidError(f"apply {line!r}", str(error)) from None
    return changed


def _change(instruction: str, text: str, config: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    match instruction:
        case "CMD":
            changed["Cmd"] = _command(text)
        case "ENTRYPOINT":
            changed["Entrypoint"] = _command(text)
            changed["Cmd"] = []  # it belonged to another entrypoint
        case "ENV":
            before = dict(item.split("=", 1) for item in config.get("Env") or [])
            changed["Env"] = [f"{key}={value}" for key, value in (before | _pairs(text)).items()]
        case "LABEL":
            changed["Labels"] = (config.get("Labels") or {}) | _pairs(text)
        case "EXPOSE":
            ports = text.split()
            if not ports or not all(re.fullmatch(_PORT, port) for port in ports):
                raise ValueError("a port is written as 80, 53/udp or 8000-8010")
            named: dict[str, Any] = {port if "/" in port else f"{port}/tcp": {} for port in ports}
            changed["ExposedPorts"] = (config.get("ExposedPorts") or {}) | named
        case "WORKDIR":
            if not text.startswith("/"):
                raise ValueError("the directory is not absolute")
            changed["WorkingDir"] = text
        case "USER":
            changed["User"] = text
        case "STOPSIGNAL":
            changed["StopSignal"] = text
        case _:
            raise ValueError(f"unknown instruction; the known ones are {INSTRUCTIONS}")
    return changed


def _command(text: str) -> list[str]:
    """Decode the JSON form of a command; the shell form runs under a shell."""
    if not text.startswith("["):
        return ["/bin/sh", "-c", text] if text else []
    found = json.loads(text)
    if not all(isinstance(item, str) for item in found):
        raise ValueError("the value is not a list of strings")
    return list(found)


def _pairs(text: str) -> dict[str, str]:
    """Parse `KEY=VALUE …`, or the old form `KEY VALUE`."""
    words = shlex.split(text)
    if words and "=" not in words[0]:
        words = [f"{words[0]}={' '.join(words[1:])}"]
    if not words or any(not word.partition("=")[0] or "=" not in word for word in words):
        raise ValueError("the value is not KEY=VALUE")
    return dict(word.split("=", 1) for word in words)
