"""What images are called: `[registry/]repository[:tag]`, as Docker's users write it.

The grammar is the one of distribution/reference. Docker's own registry goes
without saying: `docker.io/library/alpine:latest` is `alpine`.
"""

from __future__ import annotations

import re
from typing import Final

from runtime.errors import InvalidError

DEFAULT_TAG: Final = "latest"

# Not compiled yet: a `run` would pay for it, and has no use for most of them.
_TAG: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_PART: Final = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_REPOSITORY: Final = rf"(?=.{{1,255}}$)(?:{_HOST}/)?{_PART}(?:/{_PART})*"
_IMPLIED: Final = r"^(?:(?:index\.)?docker\.io/)?(?:library/(?=[^/]+$))?"
_DIGITS: Final = r"[0-9a-f]{1,64}"


def parse(text: str) -> str:
    """A name in the form it is kept in, `repository:tag`; `InvalidError` when it cannot be one."""
    repository, tag = split(text)
    if not re.fullmatch(_REPOSITORY, repository) or not re.fullmatch(_TAG, tag):
        raise InvalidError(
            f"name an image {text!r}",
            "the name is malformed",
            remedy="small letters and digits, then :TAG, as in example/web:1.2",
        )
    shorter = re.sub(_IMPLIED, "", repository)
    return f"{shorter or repository}:{tag}"


def full(name: str) -> str:
    """A kept name with what goes without saying, as other tools want it."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def split(text: str) -> tuple[str, str]:
    """Repository and tag; the tag is `latest` when none is given."""
    head, colon, tag = text.rpartition(":")
    if colon and "/" not in tag:  # or the colon is that of a registry's port
        return head, tag
    return text, DEFAULT_TAG


def digits(text: str) -> str:
    """The hexadecimal digits of an id or of its beginning; `""` when it is none."""
    found = text.removeprefix("sha256:")
    return found if re.fullmatch(_DIGITS, found) else ""
