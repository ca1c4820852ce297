"""From a command line's words to what the library is asked for."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from runtime.errors import InvalidError
from runtime.records import DEFAULT_NETWORK

if TYPE_CHECKING:
    from runtime.options import Options  # brings what only `run` and `create` need

_SIZE: Final = r"(\d+(?:\.\d+)?)([bkmgt]?)(?:i?b)?"


def options(arguments: argparse.Namespace) -> Options:
    """The options of `run` and `create`; `InvalidError` for what contradicts itself."""
    from runtime.options import Options

    first, *more = arguments.networks or [DEFAULT_NETWORK]
    if more:
        raise InvalidError(
            f"be on {first} and {', '.join(more)}",
            "a container begins on one network",
            remedy=f"`mydocker network connect {more[0]} NAME` afterwards",
        )
    found = Options(
        name=arguments.name,
        network=first,
        env={**environment_files(arguments.env_file), **environment(arguments.env)},
        workdir=arguments.workdir,
        user=arguments.user,
        hostname=arguments.hostname,
        ip=arguments.ip,
        ip6=arguments.ip6,
        mac=arguments.mac,
        aliases=arguments.aliases,
        sysctls=pairs("--sysctl", arguments.sysctl),
        publish=arguments.publish,
        publish_all=arguments.publish_all,
        expose=arguments.expose,
        dns=arguments.dns,
        add_hosts=arguments.add_host,
        tty=arguments.tty,
        binds=[_from_here(text) for text in arguments.volume],
        read_only=arguments.read_only,
        cap_add=arguments.cap_add,
        cap_drop=arguments.cap_drop,
        memory=size("--memory", arguments.memory),
        cpus=arguments.cpus,
        pids_limit=max(arguments.pids_limit, 0),  # -1 is no limit, as with Docker
        auto_remove=arguments.rm,
    )
    if arguments.entrypoint is not None:
        found["entrypoint"] = [arguments.entrypoint] if arguments.entrypoint else []
    return found


def environment(entries: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE`, or `KEY` for the caller's own value, where it has one."""
    found = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not key:
            raise InvalidError(f"use -e {entry}", "it is not KEY=VALUE")
        if equals or key in os.environ:
            found[key] = value if equals else os.environ[key]
    return found


def environment_files(paths: Sequence[str]) -> dict[str, str]:
    """What is in files of such entries, one a line; empty lines and `# …` are left out."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.lstrip() for line in file.read().split("\n")]
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else ""
            raise InvalidError(f"use --env-file {path}", why or str(error)) from error
        entries = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#")]
        for entry in entries:
            name = entry.partition("=")[0]
            if not name or " " in name:
                raise InvalidError(f"use --env-file {path}", f"{entry!r} is not KEY=VALUE")
        found |= environment(entries)
    return found


def _from_here(bind: str) -> str:
    """A bind whose source may be written `./…`: below where the caller is."""
    source, colon, rest = bind.partition(":")
    if source.partition("/")[0] in (".", ".."):
        source = os.path.abspath(source)
    return f"{source}{colon}{rest}"


def pairs(option: str, entries: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` entries of an option; `InvalidError` for anything else."""
    found = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals:
            raise InvalidError(f"use {option} {entry}", "it is not KEY=VALUE")
        found[key] = value
    return found


def size(option: str, text: str) -> int:
    """Bytes, as Docker writes them: 64m, 1.5g, 1024; `""` is 0."""
    if not text:
        return 0
    found = re.fullmatch(_SIZE, text.lower())
    if found is None:
        raise InvalidError(f"use {option} {text}", "it is no size", remedy=f"{option} 64m")
    power = max(" kmgt".find(found[2] or " "), 0)
    return int(float(found[1]) * 1024**power)
