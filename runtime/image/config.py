"""Image names and image configurations.

A configuration is the JSON document whose SHA-256 is the image's id ("OCI Image
Configuration" of the OCI image specification, which Docker shares). Input is
checked to the last string; the bytes themselves are kept unchanged.

Every `run` imports this module, so `hashlib`, `datetime` and `shlex` are imported
where they are needed and regular expressions are compiled on first use.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from runtime.errors import InvalidError
from runtime.store import now

MAX_LAYERS: Final = 125
"""Docker's limit on the layers of an image."""
MAX_JSON: Final = 4 << 20
"""Largest accepted JSON document, in bytes."""
DEFAULT_TAG: Final = "latest"
INSTRUCTIONS: Final = (
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "LABEL",
    "STOPSIGNAL",
    "USER",
    "WORKDIR",
)
"""Dockerfile instructions that `--change` accepts."""

_GOARCH: Final = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
_TAG: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_PART: Final = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_REPOSITORY: Final = rf"(?=.{{1,255}}$)(?:{_HOST}/)?{_PART}(?:/{_PART})*"
_IMPLIED: Final = r"^(?:(?:index\.)?docker\.io/)?(?:library/(?=[^/]+$))?"
_PORT: Final = r"[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?"
_DAMAGED: Final = "the archive is damaged, or was made to do harm"
_FETCH_AGAIN: Final = "get it again from where it came from"


class InvalidArchive(Exception):
    """Reason why an archive is refused, without the archive's name: see `for_request`."""

    def __init__(self, happened: str, *, cause: str = _DAMAGED, remedy: str = _FETCH_AGAIN) -> None:
        super().__init__(happened)
        self.happened, self.cause, self.remedy = happened, cause, remedy

    def for_request(self, asked: str, *, kept: str) -> InvalidError:
        """Return the user's error for the request `asked`; `kept` says what is left on disk."""
        remedy = f"{_FETCH_AGAIN}; {kept}" if self.remedy == _FETCH_AGAIN else self.remedy
        return InvalidError(asked, self.happened, self.cause, remedy)


class ImageDefaults(NamedTuple):
    """Container options that an image sets; `""` and `[]` mean unset."""

    env: list[str] = []  # noqa: RUF012 - a named tuple's default is never changed
    entrypoint: list[str] = []  # noqa: RUF012
    command: list[str] = []  # noqa: RUF012
    workdir: str = ""
    user: str = ""
    exposed: list[str] = []  # noqa: RUF012
    stop_signal: str = ""
    labels: dict[str, str] = {}  # noqa: RUF012


class Image(NamedTuple):
    """One image: its name, its layers' directories (uppermost first) and its size in bytes.

    `id` is the SHA-256 of its configuration, in hexadecimal digits.
    """

    name: str
    layers: tuple[str, ...]
    size: int
    created: str
    id: str = ""
    defaults: ImageDefaults = ImageDefaults()


class ImageConfig(NamedTuple):
    """A checked configuration. `layers` are diff ids, the lowest first."""

    identity: str
    raw: bytes
    layers: tuple[str, ...]
    created: str
    architecture: str
    defaults: ImageDefaults


# --- names -------------------------------------------------------------------------


def parse_reference(text: str) -> str:
    """Return an image name in its stored form, `[registry/]repository:tag`.

    The grammar is that of distribution/reference. Docker's own registry is left
    out: `docker.io/library/alpine:latest` is stored as `alpine:latest`. Raises `InvalidError`.
    """
    repository, tag = split_reference(text)
    if not re.fullmatch(_REPOSITORY, repository) or not re.fullmatch(_TAG, tag):
        raise InvalidError(
            f"name an image {text!r}",
            "the name is malformed",
            remedy="small letters and digits, then :TAG, as in example/web:1.2",
        )
    return f"{re.sub(_IMPLIED, '', repository) or repository}:{tag}"


def qualified_reference(name: str) -> str:
    """Return a stored name with its registry, as other tools want it."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def split_reference(text: str) -> tuple[str, str]:
    """Return repository and tag; the tag defaults to `latest`."""
    head, colon, tag = text.rpartition(":")
    if colon and "/" not in tag:  # else the colon precedes a registry's port
        return head, tag
    return text, DEFAULT_TAG


def with_tag(text: str) -> str:
    """Return a name with its tag, `latest` by default; the name is not checked."""
    return ":".join(split_reference(text))


def id_prefix(text: str) -> str:
    """Return the hexadecimal digits of an id or of its beginning; `""` for anything else."""
    digits = text.removeprefix("sha256:")
    return digits if re.fullmatch(r"[0-9a-f]{1,64}", digits) else ""


# --- JSON from outside -------------------------------------------------------------


def sha256(raw: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    import hashlib

    return hashlib.sha256(raw).hexdigest()


def digest(text: object, what: str) -> str:
    """Return the hexadecimal digits of `sha256:…`; `InvalidArchive` for any other form."""
    found = re.fullmatch(r"sha256:([0-9a-f]{64})", text) if isinstance(text, str) else None
    if found is None:
        raise InvalidArchive(f"{what} has the digest {str(text)[:80]!r}, which is not a SHA-256")
    return found[1]


def parse_json(raw: bytes, what: str) -> Any:
    """Decode JSON; `InvalidArchive` when it is malformed."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidArchive(f"{what} is not JSON ({error})") from None


# In what follows `null` is an empty value, as in Go's encoding/json.


def mapping(value: object, what: str) -> dict[str, Any]:
    """Check that a value is a JSON object."""
    if not isinstance(value, dict | None):
        raise InvalidArchive(f"{what} is not an object")
    for key in value or {}:
        string(key, what)
    return value or {}


def objects(value: object, what: str, *, limit: int) -> list[dict[str, Any]]:
    """Check that a value is a list of at most `limit` JSON objects."""
    found = _list(value, what)
    if len(found) > limit:
        raise InvalidArchive(f"{what} has {len(found)} entries; {limit} are taken")
    return [mapping(item, what) for item in found]


def strings(value: object, what: str) -> list[str]:
    """Check that a value is a list of strings as `string` accepts them."""
    return [string(item, what) for item in _list(value, what)]


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list | None):
        raise InvalidArchive(f"{what} is not a list")
    return value or []


def string(value: object, what: str) -> str:
    """Check that a value is a string that can be an argument of execve(2)."""
    if value is None:
        return ""
    if not isinstance(value, str) or re.search("[\0\ud800-\udfff]", value):
        raise InvalidArchive(f"{what} is not a string that a program could be given")
    return value


# --- configurations ----------------------------------------------------------------


def architecture() -> str:
    """Return this machine's architecture as images name it (Go's GOARCH)."""
    machine = os.uname().machine
    return _GOARCH.get(machine, machine)


def parse_config(raw: bytes) -> ImageConfig:
    """Check a configuration; `InvalidArchive` names the offending part."""
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
        created=_utc(string(found.get("created"), "its time") or "1970-01-01T00:00:00Z"),
        architecture=string(found.get("architecture"), "its architecture"),
        defaults=_defaults(mapping(found.get("config"), "its config")),
    )


def _defaults(config: Mapping[str, Any]) -> ImageDefaults:
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


def _utc(text: str) -> str:
    """Convert a time of RFC 3339 to UTC."""
    from datetime import UTC, datetime

    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError):
        raise InvalidArchive(f"its time {text[:40]!r} cannot be") from None


def compose(
    layers: Sequence[str],
    config: Mapping[str, Any],
    *,
    created: str = "",
    author: str = "",
    history: Sequence[Mapping[str, Any]] = (),
) -> ImageConfig:
    """Make a configuration for this machine; `config` is the part about containers."""
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
    return parse_config(json.dumps(made, sort_keys=True, separators=(",", ":")).encode())


# --- `--change` --------------------------------------------------------------------


def apply_changes(config: Mapping[str, Any], lines: Sequence[str]) -> dict[str, Any]:
    """Apply Dockerfile instructions to the part of a configuration that is about containers.

    `InvalidError` for a malformed line and for an instruction not in `INSTRUCTIONS`.
    """
    changed = dict(config)
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if word.upper() not in INSTRUCTIONS:
            known = ", ".join(INSTRUCTIONS)
            raise InvalidError(f"apply {line!r}", "there is no such instruction", remedy=known)
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
            changed["Cmd"] = []  # it was meant for another entrypoint
        case "ENV":
            before = dict(item.split("=", 1) for item in config.get("Env") or [])
            changed["Env"] = [f"{key}={value}" for key, value in (before | _pairs(text)).items()]
        case "LABEL":
            changed["Labels"] = (config.get("Labels") or {}) | _pairs(text)
        case "EXPOSE":
            ports = text.split()
            if not ports or not all(re.fullmatch(_PORT, port) for port in ports):
                raise ValueError("a port is 80, 53/udp or 8000-8010")
            named: dict[str, Any] = {port if "/" in port else f"{port}/tcp": {} for port in ports}
            changed["ExposedPorts"] = (config.get("ExposedPorts") or {}) | named
        case "WORKDIR":
            if not text.startswith("/"):
                raise ValueError("the directory is not absolute")
            changed["WorkingDir"] = text
        case _:
            changed[{"USER": "User", "STOPSIGNAL": "StopSignal"}[instruction]] = text
    return changed


def _command(text: str) -> list[str]:
    """Decode the JSON form of a command; the shell form runs under a shell."""
    if not text.startswith("["):
        return ["/bin/sh", "-c", text] if text else []
    found = json.loads(text)
    if not all(isinstance(item, str) for item in found):
        raise ValueError("it is not a list of strings")
    return list(found)


def _pairs(text: str) -> dict[str, str]:
    """Parse `KEY=VALUE …`, or the old form `KEY VALUE`."""
    import shlex

    words = shlex.split(text)
    if words and "=" not in words[0]:
        words = [f"{words[0]}={' '.join(words[1:])}"]
    if not words or any(not word.partition("=")[0] or "=" not in word for word in words):
        raise ValueError("it is not KEY=VALUE")
    return dict(word.split("=", 1) for word in words)
