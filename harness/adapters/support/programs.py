"""Search for a runtime's programs, on the PATH or in a folder with an unpacked package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

PREFIX: Final = "{prefix}"
"""Placeholder in a description's files for the folder in which programs are searched first."""
VERSION: Final = r"\d+(?:\.\d+)+"
"""Pattern of a version number in a program's output."""
_VERSION_BOUND: Final = 10.0
"""Time limit for a version query, in seconds."""
_SYSTEM: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def search_path(prefix: str = "") -> str:
    """Return a PATH that begins with the prefix and ends with the directories of root's PATH."""
    own = _directories(prefix) if prefix else []
    inherited = [item for item in os.environ.get("PATH", "").split(":") if item]
    return ":".join(dict.fromkeys([*own, *inherited, *_SYSTEM]))


def _directories(prefix: str) -> list[str]:
    return [f"{prefix}{directory}" for directory in ("", *_SYSTEM)]


def found_in(prefix: str, programs: Sequence[str]) -> dict[str, str]:
    """Return the paths of the programs that exist below a prefix, by name."""
    path = ":".join(_directories(prefix))
    found = {name: shutil.which(name, path=path) for name in programs if "/" not in name}
    return {name: where for name, where in found.items() if where}


def existing_helpers(prefix: str, helpers: Sequence[str]) -> list[str]:
    """Return the names of the helpers that exist below a prefix, at any of their paths."""
    found = [path for path in helpers if os.path.exists(f"{prefix}{path}")]
    return list(dict.fromkeys(path.rpartition("/")[2] for path in found))


def names_from(prefix: str, programs: Sequence[str]) -> list[str]:
    """Return the names of the programs that come from a prefix; these may be paths below it."""
    own = [name.rpartition("/")[2] for name in programs if name.startswith(f"{prefix}/")]
    return [*own, *found_in(prefix, programs)] if prefix else []


def resolved(command: Sequence[str], found: Mapping[str, str]) -> tuple[str, ...]:
    """Return a command with the full path of its program if `found` has that program.

    A search along PATH would skip a file that is not executable and use a later program.
    """
    return (found.get(command[0], command[0]), *command[1:])


def missing(prefix: str, programs: Sequence[str]) -> list[str]:
    """Return the programs that are neither on the PATH nor in the prefix."""
    path = search_path(prefix)
    return [name for name in programs if shutil.which(name, path=path) is None]


def installed_version(argv: Sequence[str], prefix: str, pattern: str = VERSION) -> str:
    """Return the first version in the output of a version query, or an empty text."""
    path = search_path(prefix)
    if shutil.which(argv[0], path=path) is None:
        return ""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=_VERSION_BOUND,
            env={"PATH": path},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(pattern, done.stdout)
    return found[0] if found else ""


def provenance(
    prefix: str, from_prefix: Sequence[str], wanted: Sequence[str], absent: Sequence[str]
) -> str:
    """Return a text: which wanted programs come from a prefix, and which are the installed ones."""
    if not prefix:
        return ""
    apart = {*from_prefix, *absent}
    others = [name for name in wanted if name.rpartition("/")[2] not in apart]
    text = f"from {prefix}: {', '.join(from_prefix)}"
    return f"{text}; as installed: {', '.join(others)}" if others else text
