"""The `mydocker volume` commands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from runtime.cli import output
from runtime.cli.base import FORMAT, Group, command, flag, for_each, option, print_line
from runtime.store import new_id

if TYPE_CHECKING:
    from runtime.engine import Engine

_VOLUMES: Final = option("volumes", nargs="+", metavar="VOLUME", help="name of a volume")


@command(
    "create", option("name", nargs="?", default="", help="name of the new volume (default: random)")
)
def create(engine: Engine, arguments: argparse.Namespace) -> int:
    """Create a volume."""
    print_line(engine.volumes.create(arguments.name or new_id()).name)
    return 0


@command("ls", flag("-q", "--quiet", help="print only names"))
def ls(engine: Engine, arguments: argparse.Namespace) -> int:
    """List volumes."""
    found = engine.volumes.all()
    if arguments.quiet:
        for item in found:
            print_line(item.name)
    else:
        output.table(["DRIVER", "VOLUME NAME"], [["local", item.name] for item in found])
    return 0


@command("rm", _VOLUMES)
def rm(engine: Engine, arguments: argparse.Namespace) -> int:
    """Remove volumes."""
    return for_each(arguments.volumes, engine.volumes.remove)


@command("inspect", FORMAT, _VOLUMES)
def inspect(engine: Engine, arguments: argparse.Namespace) -> int:
    """Show details of volumes as JSON."""
    found = [
        {
            "CreatedAt": item.created,
            "Driver": "local",
            "Mountpoint": item.directory,
            "Name": item.name,
            "Scope": "local",
        }
        for item in map(engine.volumes.inspect, arguments.volumes)
    ]
    output.documents(arguments.format, found)
    return 0


@command("prune")
def prune(engine: Engine, _: argparse.Namespace) -> int:
    """Remove all volumes that no container uses."""
    for item in engine.volumes.prune():
        print_line(item.name)
    return 0


VOLUME: Final = Group(
    "volume",
    "manage volumes",
    "Manage directories that outlive the containers that mount them.",
    (create, ls, rm, inspect, prune),
)
