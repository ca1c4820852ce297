"""The grammar of the commands about networks, and of the options about ports."""

from __future__ import annotations

import argparse

from runtime.commands import add_command, add_format


def ports(command: argparse.ArgumentParser) -> None:
    """Add the options that publish ports."""
    command.add_argument(
        "-p",
        "--publish",
        action="append",
        default=[],
        metavar="[ADDRESS:][PORT:]PORT[/PROTOCOL]",
        help="have a port of the host lead to one of the container; ranges: 8000-8009:80-89; "
        "an IPv6 address in brackets; tcp (the default), udp or sctp",
    )
    command.add_argument(
        "-P", "--publish-all", action="store_true", help="every exposed port, on free ones"
    )
    command.add_argument(
        "--expose", action="append", default=[], metavar="PORT[/PROTOCOL]", help="for -P"
    )


def networks(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands about networks, and `port`."""
    port = add_command(commands, "port", "list the published ports of a container")
    port.add_argument("container", help="name, id or prefix")
    port.add_argument(
        "port", nargs="?", default="", metavar="PORT[/PROTOCOL]", help="where this one is published"
    )
    group = commands.add_parser(
        "network",
        help="networks of your own",
        description="Networks that containers are plugged into, several if need be. On those of "
        "your own they find one another by name.",
    ).add_subparsers(dest="action", required=True, metavar="COMMAND")
    _create(group)
    ls = add_command(group, "ls", "list networks", "network_ls")
    ls.add_argument("-q", "--quiet", action="store_true", help="ids only")
    for name, text in (("rm", "remove networks"), ("inspect", "everything about networks")):
        command = add_command(group, name, text, f"network_{name}")
        command.add_argument("networks", nargs="+", metavar="NETWORK", help="name, id or prefix")
        if name == "inspect":
            add_format(command)
    prune = add_command(
        group, "prune", "remove every network that no running container is on", "network_prune"
    )
    prune.add_argument("-f", "--force", action="store_true", help="it never asks; for habit's sake")
    _connect(group)


def _create(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    create = add_command(
        group,
        "create",
        "make a network",
        "network_create",
        more="A bridge has the host for a router. A macvlan puts containers onto the network "
        "that an interface of the host (--opt parent=) is on, as stations of their own.",
    )
    create.add_argument(
        "-d", "--driver", default="bridge", choices=("bridge", "macvlan"), help="bridge, else"
    )
    create.add_argument("--subnet", action="append", default=[], help="IPv4, and again for IPv6")
    create.add_argument("--gateway", action="append", default=[], help="the bridge's address")
    create.add_argument("--ip-range", default="", help="the part that addresses are taken from")
    create.add_argument("--ipv6", action="store_true", help="also with IPv6")
    create.add_argument("--internal", action="store_true", help="without a way out")
    create.add_argument(
        "-o",
        "--opt",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="mtu=BYTES; icc=false keeps its containers apart; parent=INTERFACE",
    )
    create.add_argument("name", help="what it is to be called")


def _connect(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    connect = add_command(
        group,
        "connect",
        "connect a container to one network more",
        "network_connect",
        more="At once when it runs, else from its next start on. Its default route is by the "
        "first of its networks in the alphabet that leads out.",
    )
    connect.add_argument("--ip", default="", help="an IPv4 address of the network")
    connect.add_argument("--ip6", default="", help="an IPv6 address of the network")
    connect.add_argument("--mac-address", dest="mac", default="", help="else one from its address")
    connect.add_argument(
        "--alias", action="append", default=[], metavar="NAME", help="one name more there"
    )
    disconnect = add_command(
        group, "disconnect", "take a container off a network", "network_disconnect"
    )
    disconnect.add_argument(
        "-f", "--force", action="store_true", help="it never asks; for habit's sake"
    )
    for command in (connect, disconnect):
        command.add_argument("network", help="name, id or prefix")
        command.add_argument("container", help="name, id or prefix")
