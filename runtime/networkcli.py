"""The commands about networks and ports."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Final, cast

from runtime import netshape, shape
from runtime.console import each, say
from runtime.engine import Engine
from runtime.errors import InvalidError, NotFoundError
from runtime.net.design import NetworkOptions
from runtime.optioncli import pairs
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
        shape.table(["NETWORK ID", "NAME", "DRIVER", "SCOPE"], rows)
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
    shape.documents(arguments.format, [netshape.network(item, running) for item in found])
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
    rows = netshape.port_rows(found.state.ports, arguments.port)
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
