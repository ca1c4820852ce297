"""The commands about volumes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, Final

from runtime import shape
from runtime.console import each, say
from runtime.engine import Engine
from runtime.state import new_id
from runtime.volumes import Volume


def _create(engine: Engine, arguments: argparse.Namespace) -> int:
    say(engine.volumes.create(arguments.name or new_id()).name)
    return 0


def _ls(engine: Engine, arguments: argparse.Namespace) -> int:
    found = engine.volumes.all()
    if arguments.quiet:
        for item in found:
            say(item.name)
    else:
        shape.table(["DRIVER", "VOLUME NAME"], [["local", item.name] for item in found])
    return 0


def _rm(engine: Engine, arguments: argparse.Namespace) -> int:
    return each(arguments.volumes, engine.volumes.remove)


def _inspect(engine: Engine, arguments: argparse.Namespace) -> int:
    found = [_shown(engine.volumes.inspect(item)) for item in arguments.volumes]
    shape.documents(arguments.format, found)
    return 0


def _shown(found: Volume) -> dict[str, Any]:
    return {
        "CreatedAt": found.created,
        "Driver": "local",
        "Mountpoint": found.directory,
        "Name": found.name,
        "Scope": "local",
    }


def _prune(engine: Engine, _: argparse.Namespace) -> int:
    for item in engine.volumes.prune():
        say(item.name)
    return 0


ACTIONS: Final[Mapping[str, Callable[[Engine, argparse.Namespace], int]]] = {
    "volume_create": _create,
    "volume_ls": _ls,
    "volume_rm": _rm,
    "volume_inspect": _inspect,
    "volume_prune": _prune,
}
