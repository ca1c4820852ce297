"""The grammar of the commands about volumes."""

from __future__ import annotations

import argparse

from runtime.commands import add_command, add_format


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
