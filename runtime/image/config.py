"""An image's configuration: the JSON whose SHA-256 is the image's id.

The OCI image specification ("OCI Image Configuration") and Docker agree on it.
What comes from outside is checked to the last string before anything is made of
it; the bytes themselves are kept as they came.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from runtime.image.base import ImageDefaults
from runtime.image.tar import InvalidArchive
from runtime.store import now

MAX_LAYERS: Final = 125
"""As many as Docker takes."""
MAX_JSON: Final = 4 << 20
"""Bytes of a JSON document that is still read."""

_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")


class ImageConfig(NamedTuple):
    """A configuration that was checked. `layers` are diff ids, the lowest first."""

    identity: str
    raw: bytes
    layers: tuple[str, ...]
    created: str
    architecture: str
    defaults: ImageDefaults


def architecture() -> str:
    """This machine's, as images name it (Go's GOARCH)."""
    machine = os.uname().machine
    return _MACHINES.get(machine, machine)


def sha256(raw: bytes) -> str:
    """The SHA-256, in hexadecimal digits."""
    return hashlib.sha256(raw).hexdigest()


def digest(text: object, what: str) -> str:
    """The hexadecimal digits of `sha256:…`; `InvalidArchive` for every other algorithm or form."""
    found = _DIGEST.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise InvalidArchive(f"{what} has the digest {str(text)[:80]!r}, which is not a SHA-256")
    return found[1]


def parse_json(raw: bytes, what: str) -> Any:
    """JSON from outside as data; `InvalidArchive` when it is none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidArchive(f"{what} is not JSON ({error})") from None


def mapping(value: object, what: str) -> dict[str, Any]:
    """A JSON object, or nothing; `InvalidArchive` when it is something else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArchive(f"{what} is not an object")
    strings(list(value), what)
    return value


def objects(value: object, what: str, *, most: int) -> list[dict[str, Any]]:
    """A list of at most so many JSON objects, or nothing; `InvalidArchive` else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidArchive(f"{what} is not a list")
    if len(value) > most:
        raise InvalidArchive(f"{what} has {len(value)} entries; {most} are taken")
    return [mapping(item, what) for item in value]


def strings(value: object, what: str) -> list[str]:
    """A list of strings that the kernel can take, or nothing; `InvalidArchive` else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidArchive(f"{what} is not a list")
    return [string(item, what) for item in value]


def string(value: object, what: str) -> str:
    """A string that the kernel can take, or nothing; `InvalidArchive` else."""
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value or _LONE_SURROGATE.search(value):
        raise InvalidArchive(f"{what} is not a string that a program could be given")
    return value


def parse(raw: bytes) -> ImageConfig:
    """Check a configuration; `InvalidArchive` tells what is wrong with it."""
    found = mapping(parse_json(raw, "its configuration"), "its configuration")
    system = string(found.get("os"), "its operating system")
    if system not in ("linux", ""):
        raise InvalidArchive(
            f"it is an image for {system}",
            cause="containers share the host's kernel, which is Linux",
            remedy="get the linux variant of it",
        )
    rootfs = mapping(found.get("rootfs"), "its rootfs")
    layers = [digest(item, "a layer") for item in strings(rootfs.get("diff_ids"), "its diff_ids")]
    if len(layers) > MAX_LAYERS:
        raise InvalidArchive(
            f"it has {len(layers)} layers; {MAX_LAYERS} can be laid over each other"
        )
    return ImageConfig(
        identity=sha256(raw),
        raw=raw,
        layers=tuple(layers),
        created=_time(found.get("created")),
        architecture=string(found.get("architecture"), "its architecture"),
        defaults=defaults(mapping(found.get("config"), "its config")),
    )


def defaults(config: Mapping[str, Any]) -> ImageDefaults:
    """The part of a configuration that is about containers."""
    labels = mapping(config.get("Labels"), "Labels")
    return ImageDefaults(
        env=[item if "=" in item else f"{item}=" for item in strings(config.get("Env"), "Env")],
        entrypoint=strings(config.get("Entrypoint"), "Entrypoint"),
        command=strings(config.get("Cmd"), "Cmd"),
        workdir=string(config.get("WorkingDir"), "WorkingDir"),
        user=string(config.get("User"), "User"),
        exposed=sorted(mapping(config.get("ExposedPorts"), "ExposedPorts")),
        stop_signal=string(config.get("StopSignal"), "StopSignal"),
        labels={key: string(value, "a label") for key, value in labels.items()},
    )


def compose(
    layers: Sequence[str],
    config: Mapping[str, Any],
    *,
    created: str = "",
    author: str = "",
    history: Sequence[Mapping[str, Any]] = (),
) -> ImageConfig:
    """A configuration of our own, for this machine. `config` is the part about containers."""
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
    return parse(json.dumps(made, sort_keys=True, separators=(",", ":")).encode())


def _time(value: object) -> str:
    """A time of RFC 3339 in UTC; the epoch when there is none."""
    text = string(value, "its time") or "1970-01-01T00:00:00Z"
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError):
        raise InvalidArchive(f"its time {text[:40]!r} cannot be") from None
