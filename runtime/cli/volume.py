"""The commands about volumes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, Final

from runtime.cli import output
from runtime.cli.base import add_command, add_format, each, say
from runtime.container.volumes import Volume
from runtime.engine import Engine
from runtime.store import new_id


def _create(engine: Engine, arguments: argparse.Namespace) -> int:
    say(engine.volumes.create(arguments.name or new_id()).name)
    return 0


def _ls(engine: Engine, arguments: argparse.Namespace) -> int:
    found = engine.volumes.all()
    if arguments.quiet:
        for item in found:
            say(item.name)
    else:
        output.table(["DRIVER", "VOLUME NAME"], [["local", item.name] for item in found])
    return 0


def _rm(engine: Engine, arguments: argparse.Namespace) -> int:
    return each(arguments.volumes, engine.volumes.remove)


def _inspect(engine: Engine, arguments: argparse.Namespace) -> int:
    found = [_shown(engine.volumes.inspect(item)) for item in arguments.volumes]
    output.documents(arguments.format, found)
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


def volumes(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `volume` and its subcommands."""
    group = commands.add_parser(
        "volume", help="named volumes", description="Directories that outlive their containers."
    ).add_subparsers(dest="action", required=True, metavar="COMMAND")
    create = add_command(group, "create", "make a volume", "volume_create")
    create.add_argument("name", nargs="?", default="", help="else one is made up")
    ls = add_command(group, "ls", "list volumes", "volume_ls")
    ls.add_argument("-q", "--quiet", action="store_true", help="names only")
    for name, text in (("rm", "remove volumes"), ("inspect", "everything about volumes")):
        command = add_command(group, name, text, f"volume_{name}")
        command.add_argument("volumes", nargs="+", metavar="VOLUME", help="its name")
        if name == "inspect":
            add_format(command)
    add_command(group, "prune", "remove the volumes that no container names", "volume_prune")
