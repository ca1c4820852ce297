"""What a command line needs to find in the host: programs, directories, files, environment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.adapters.docker_cli.spec import PREFIX, CliSpec
from harness.adapters.protocol import HostHandle, RuntimeBroken
from harness.adapters.support import rootless as ordinary
from linux.syscalls import mount

_SYSTEM: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_DONE: Final = "/run/netmodes/furnished"


def search_path(prefix: str = "") -> str:
    """A PATH that also has what only root usually has on it, and a prefix before all."""
    own = _below(prefix) if prefix else []
    inherited = [item for item in os.environ.get("PATH", "").split(":") if item]
    return ":".join(dict.fromkeys([*own, *inherited, *_SYSTEM]))


def _below(prefix: str) -> list[str]:
    return [f"{prefix}{directory}" for directory in ("", *_SYSTEM)]


def brought(prefix: str, programs: Sequence[str]) -> dict[str, str]:
    """Those of the programs that a prefix has, each with where it is."""
    path = ":".join(_below(prefix))
    found = {name: shutil.which(name, path=path) for name in programs if "/" not in name}
    return {name: where for name, where in found.items() if where}


def lying(prefix: str, helpers: Sequence[str]) -> list[str]:
    """The names of those that lie in a prefix, each of which may do so at several paths."""
    found = [path for path in helpers if os.path.exists(f"{prefix}{path}")]
    return list(dict.fromkeys(path.rpartition("/")[2] for path in found))


def named(prefix: str, programs: Sequence[str]) -> list[str]:
    """The names of those that come from a prefix, those that were `located` there among them."""
    own = [name.rpartition("/")[2] for name in programs if name.startswith(f"{prefix}/")]
    return [*own, *brought(prefix, programs)] if prefix else []


def located(command: Sequence[str], found: Mapping[str, str]) -> tuple[str, ...]:
    """A command whose program is where it was found.

    By its path: one that cannot be executed would be passed over on a PATH, for the next.
    """
    return (found.get(command[0], command[0]), *command[1:])


def absent(prefix: str, programs: Sequence[str]) -> list[str]:
    """Those of the programs that are not on the PATH, nor in the prefix."""
    path = search_path(prefix)
    return [name for name in programs if shutil.which(name, path=path) is None]


def environment(spec: CliSpec) -> dict[str, str]:
    """What is added to the environment of every command and daemon."""
    path = search_path(spec.prefix)
    own = ordinary.environment(path) if spec.rootless else {"PATH": path}
    return {**own, **dict(spec.env)}


def furnish(host: HostHandle, spec: CliSpec) -> None:
    """Make the directories that are to be empty and the files that are to be there, once.

    What begins like a script can be executed. `RuntimeBroken` where they cannot be made.
    """
    files = [(path, content.replace(PREFIX, spec.prefix)) for path, content in spec.files]
    try:
        host.call(_furnish, spec.scratch, files, rootless=spec.rootless)
    except OSError as error:
        raise RuntimeBroken(
            f"what {spec.name} is to find in the host cannot be made: {error}\n"
            "`scratch` wants directories that the machine has; `files` can be written below them, "
            "and below /run, /tmp and /dev/shm."
        ) from None


def _furnish(scratch: Sequence[str], files: Sequence[tuple[str, str]], *, rootless: bool) -> None:
    if os.path.exists(_DONE):
        return
    for directory in scratch:
        owner = f",uid={ordinary.UID},gid={ordinary.UID}" if rootless else ""
        mount("tmpfs", directory, "tmpfs", 0, f"mode=755{owner}")
    if rootless:
        ordinary.furnish()
    for path, content in files:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content, encoding="utf-8")
        if content.startswith("#!"):
            Path(path).chmod(0o755)
    if rootless:
        ordinary.own()
    Path(_DONE).touch()
