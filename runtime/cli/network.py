"""The `mydocker network` commands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final, cast

from runtime.cli import output
from runtime.cli.base import (
    CONTAINER,
    FORMAT,
    QUIET,
    REFERENCE,
    Group,
    command,
    flag,
    for_each,
    option,
    pairs,
    print_line,
    repeated,
)
from runtime.errors import InvalidError

if TYPE_CHECKING:
    from runtime.engine import Engine
    from runtime.network.config import NetworkOptions

_MTU_KEYS: Final = ("mtu", "com.docker.network.driver.mtu")
_ICC_KEYS: Final = ("icc", "com.docker.network.bridge.enable_icc")
_NETWORK: Final = option("network", metavar="NETWORK", help=REFERENCE)
_NETWORKS: Final = option("networks", nargs="+", metavar="NETWORK", help=REFERENCE)
_FORCE: Final = flag(
    "-f", "--force", help="ignored, for compatibility: there is no confirmation prompt"
)


@command(
    "create",
    option(
        *("-d", "--driver"),
        default="bridge",
        choices=("bridge", "macvlan"),
        help="network driver (default: bridge)",
    ),
    repeated("--subnet", help="IPv4 subnet; repeat for an IPv6 subnet"),
    repeated("--gateway", help="address of the bridge, the gateway of containers"),
    option("--ip-range", default="", help="part of the subnet to assign container addresses from"),
    flag("--ipv6", help="enable IPv6"),
    flag("--internal", help="do not route packets out of the network"),
    repeated(
        *("-o", "--opt"),
        metavar="KEY=VALUE",
        help="mtu=BYTES, icc=false (isolate containers from each other) or parent=INTERFACE",
    ),
    option("name", help="name of the new network"),
)
def create(engine: Engine, arguments: argparse.Namespace) -> int:
    """Create a network.

    On a bridge network the host is the router. A macvlan network connects containers to the
    network of a host interface (--opt parent=).
    """
    wanted: dict[str, Any] = {
        key: getattr(arguments, key) for key in ("driver", "ip_range", "ipv6", "internal")
    }
    for name in ("subnet", "gateway"):
        for address in getattr(arguments, name):
            key = f"{name}6" if ":" in address else name
            if key in wanted:
                asked = f"use --{name} {' '.join(getattr(arguments, name))}"
                raise InvalidError(
                    asked, f"a network has at most one {name} for each address family"
                )
            wanted[key] = address
    for key, value in pairs("--opt", arguments.opt).items():
        if key in _MTU_KEYS and value.isdigit():
            wanted["mtu"] = int(value)
        elif key in _ICC_KEYS and value in ("true", "false"):
            wanted["icc"] = value == "true"
        elif key == "parent":
            wanted["parent"] = value
        else:
            asked = f"use --opt {key}={value}"
            raise InvalidError(asked, "unknown option or value", remedy="mtu=1400")
    options = cast("NetworkOptions", wanted)
    print_line(engine.network_create(arguments.name, **options).id)
    return 0


@command("ls", QUIET)
def ls(engine: Engine, arguments: argparse.Namespace) -> int:
    """List networks."""
    rows = [[item.id[:12], item.name, item.driver, "local"] for item in engine.networks()]
    if arguments.quiet:
        for row in rows:
            print_line(row[0])
    else:
        # Modes rather than networks, but valid values of `--network`.
        rows += [["-", name, name, "local"] for name in ("host", "none")]
        output.table(["NETWORK ID", "NAME", "DRIVER", "SCOPE"], rows)
    return 0


@command("rm", _NETWORKS)
def rm(engine: Engine, arguments: argparse.Namespace) -> int:
    """Remove networks."""
    return for_each(arguments.networks, engine.network_remove)


@command("inspect", FORMAT, _NETWORKS)
def inspect(engine: Engine, arguments: argparse.Namespace) -> int:
    """Show details of networks as JSON."""
    running = engine.containers(everything=False)
    found = [engine.network_inspect(item) for item in arguments.networks]
    output.documents(arguments.format, [output.network(item, running) for item in found])
    return 0


@command("prune", _FORCE)
def prune(engine: Engine, _: argparse.Namespace) -> int:
    """Remove the networks that no running container is connected to."""
    removed = engine.network_prune()
    if removed:
        print_line("Deleted Networks:")
        for item in removed:
            print_line(item.name)
    return 0


@command(
    "connect",
    option("--ip", default="", help="IPv4 address on the network"),
    option("--ip6", default="", help="IPv6 address on the network"),
    option(
        "--mac-address",
        dest="mac",
        default="",
        help="MAC address (default: derived from the IP address)",
    ),
    repeated("--alias", metavar="NAME", help="additional DNS name on the network"),
    _NETWORK,
    CONTAINER,
)
def connect(engine: Engine, arguments: argparse.Namespace) -> int:
    """Connect a container to a further network.

    A running container is connected at once, any other when it starts. The default route
    leads through the first network by name that has a route out.
    """
    engine.network_connect(
        arguments.network,
        arguments.container,
        ip=arguments.ip,
        ip6=arguments.ip6,
        mac=arguments.mac,
        aliases=arguments.alias,
    )
    return 0


@command("disconnect", _FORCE, _NETWORK, CONTAINER)
def disconnect(engine: Engine, arguments: argparse.Namespace) -> int:
    """Disconnect a container from a network."""
    engine.network_disconnect(arguments.network, arguments.container)
    return 0


NETWORK: Final = Group(
    "network",
    "manage networks",
    "Manage networks. Containers on the same user-defined network resolve each other's names.",
    (create, ls, rm, inspect, prune, connect, disconnect),
)
