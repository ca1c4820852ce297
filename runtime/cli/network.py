"""The commands about networks and ports."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Final, cast

from runtime.cli import output
from runtime.cli.base import add_command, add_format, each, pairs, say
from runtime.engine import Engine
from runtime.errors import InvalidError, NotFoundError
from runtime.network.config import NetworkOptions
from runtime.records import Driver

_MTU_KEYS: Final = ("mtu", "com.docker.network.driver.mtu")
_ICC_KEYS: Final = ("icc", "com.docker.network.bridge.enable_icc")


def create(engine: Engine, arguments: argparse.Namespace) -> int:
    """Make a network; its id."""
    wanted = NetworkOptions(
        driver=cast("Driver", arguments.driver),
        ip_range=arguments.ip_range,
        ipv6=arguments.ipv6,
        internal=arguments.internal,
    )
    for option in ("subnet", "gateway"):
        given = getattr(arguments, option)
        of_six = [text for text in given if ":" in text]
        if len(of_six) > 1 or len(given) - len(of_six) > 1:
            asked = f"use --{option} {' '.join(given)}"
            raise InvalidError(asked, f"a network has one {option} of each family")
    for subnet in arguments.subnet:
        wanted["subnet6" if ":" in subnet else "subnet"] = subnet
    for gateway in arguments.gateway:
        wanted["gateway6" if ":" in gateway else "gateway"] = gateway
    for key, value in pairs("--opt", arguments.opt).items():
        if key in _MTU_KEYS and value.isdigit():
            wanted["mtu"] = int(value)
        elif key in _ICC_KEYS and value in ("true", "false"):
            wanted["icc"] = value == "true"
        elif key == "parent":
            wanted["parent"] = value
        else:
            asked = f"use --opt {key}={value}"
            raise InvalidError(asked, "there is no such option or value", remedy="mtu=1400")
    say(engine.network_create(arguments.name, **wanted).id)
    return 0


def ls(engine: Engine, arguments: argparse.Namespace) -> int:
    """List networks."""
    rows = [[item.id[:12], item.name, item.driver, "local"] for item in engine.networks()]
    if arguments.quiet:
        for row in rows:
            say(row[0])
    else:
        # Modes rather than networks, shown because `--net` takes them too.
        rows += [["-", name, name, "local"] for name in ("host", "none")]
        output.table(["NETWORK ID", "NAME", "DRIVER", "SCOPE"], rows)
    return 0


def rm(engine: Engine, arguments: argparse.Namespace) -> int:
    """Remove networks."""
    return each(arguments.networks, engine.network_remove)


def prune(engine: Engine, _: argparse.Namespace) -> int:
    """Remove unused networks and name them."""
    removed = engine.network_prune()
    if removed:
        say("Deleted Networks:")
        for item in removed:
            say(item.name)
    return 0


def inspect(engine: Engine, arguments: argparse.Namespace) -> int:
    """Print networks as JSON, or through a template."""
    running = engine.containers(everything=False)
    found = [engine.network_inspect(item) for item in arguments.networks]
    output.documents(arguments.format, [output.network(item, running) for item in found])
    return 0


def connect(engine: Engine, arguments: argparse.Namespace) -> int:
    """Connect a container to a network."""
    engine.network_connect(
        arguments.network,
        arguments.container,
        ip=arguments.ip,
        ip6=arguments.ip6,
        mac=arguments.mac,
        aliases=arguments.alias,
    )
    return 0


def disconnect(engine: Engine, arguments: argparse.Namespace) -> int:
    """Take a container off a network."""
    engine.network_disconnect(arguments.network, arguments.container)
    return 0


def port(engine: Engine, arguments: argparse.Namespace) -> int:
    """List published ports, or where one is published."""
    found = engine.inspect(arguments.container)
    rows = output.port_rows(found.state.ports, arguments.port)
    if arguments.port and not rows:
        raise NotFoundError(
            f"show port {arguments.port} of container {found.name!r}", "it is not published"
        )
    for row in rows:
        say(row)
    return 0


ACTIONS: Final[Mapping[str, Callable[[Engine, argparse.Namespace], int]]] = {
    "network_create": create,
    "network_ls": ls,
    "network_rm": rm,
    "network_prune": prune,
    "network_inspect": inspect,
    "network_connect": connect,
    "network_disconnect": disconnect,
    "port": port,
}


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
