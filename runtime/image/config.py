"""Images and their names.

Every `run` imports this module, so regular expressions are compiled on first use.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from runtime.errors import InvalidError

_TAG: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_PART: Final = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_REPOSITORY: Final = rf"(?=.{{1,255}}$)(?:{_HOST}/)?{_PART}(?:/{_PART})*"
_IMPLIED: Final = r"^(?:(?:index\.)?docker\.io/)?(?:library/(?=[^/]+$))?"
_DAMAGED: Final = "the archive is damaged or malicious"
FETCH_AGAIN: Final = "download the archive again"


class InvalidArchive(Exception):
    """Reason why an archive is refused, without the archive's name."""

    def __init__(self, happened: str, *, cause: str = _DAMAGED, remedy: str = FETCH_AGAIN) -> None:
        super().__init__(happened)
        self.happened, self.cause, self.remedy = happened, cause, remedy


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
    defaults: ImageDefaults


# --- names -------------------------------------------------------------------------


def parse_reference(text: str) -> str:
    """Return an image name in its stored form, `[registry/]repository:tag`.

    The grammar is that of distribution/reference. Docker's registry is left out:
    `docker.io/library/alpine:latest` is stored as `alpine:latest`. Raises `InvalidError`.
    """
    repository, tag = split_reference(text)
    if not re.fullmatch(_REPOSITORY, repository) or not re.fullmatch(_TAG, tag):
        raise InvalidError(
            f"name an image {text!r}",
            "the name is malformed",
            remedy="lower-case letters and digits, then :TAG, such as example/web:1.2",
        )
    return f"{re.sub(_IMPLIED, '', repository) or repository}:{tag}"


def qualified_reference(name: str) -> str:
    """Return a stored name with its registry, as other tools expect it."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def split_reference(text: str) -> tuple[str, str]:
    """Return repository and tag; the tag defaults to `latest`."""
    head, colon, tag = text.rpartition(":")
    if colon and "/" not in tag:  # else the colon precedes a registry's port
        return head, tag
    return text, "latest"


def with_tag(text: str) -> str:
    """Return a name with its tag, `latest` by default; the name is not checked."""
    return ":".join(split_reference(text))


def id_prefix(text: str) -> str:
    """Return the hexadecimal digits of an ID or of its beginning; `""` for any other text."""
    digits = text.removeprefix("sha256:")
    return digits if re.fullmatch(r"[0-9a-f]{1,64}", digits) else ""
