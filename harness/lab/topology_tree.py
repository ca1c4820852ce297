"""The topology of the lab as a tree, from the internet down to the containers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.markup import escape
from rich.tree import Tree

from harness.adapters.protocol import NetworkInfo
from harness.model.plan import Attached, Bridge, Host, Joined, Mode, Nothing
from harness.model.topology import WWW, Interface, Topology

_MANY: Final = 6
"""Greatest number of routers in a chain that is printed in full."""
_INDENT: Final = 4
_NAMES: Final = 30
"""Column of a container's details, counted from the host's branch."""


@dataclass(frozen=True, slots=True)
class ContainerView:
    """A container with its mode and the addresses in its namespace."""

    name: str
    mode: Mode
    addresses: tuple[Interface, ...] = ()


def draw(
    topology: Topology, bridge: NetworkInfo | None, containers: Sequence[ContainerView]
) -> Tree:
    """Return the tree as text. `bridge` is the default network, `None` if no container is on it."""
    top = Tree(
        f"{_name('internet')} {_ips(topology.internet)}  {_dim(WWW)}\n"
        f"         {_ips(topology.resolver)}  {_dim('the name server')}"
    )
    routers = top.add(f"{_name(_chain(topology.routers))}  {_dim(_ttl_note(topology.routers))}")
    lan = routers.add(f"{_name('LAN')} {_addresses(topology.lan_gateway[:1], network=True)}")
    lan.add(f"{_name('attacker')} {_ips(topology.attacker)}")
    host = lan.add(f"{_name('host')} {_ips(topology.host)}  {_dim('you are here')}")
    br0 = host.add(f"{_name('br0')} {_addresses(topology.br0)}")
    br0.add(f"{_name('ns1')} {_ips(topology.ns1)}")
    br0.add(f"{_name('ns2')} {_ips(topology.ns2)}")
    if bridge is not None:
        title = bridge.interface or "the default bridge"
        docker0 = host.add(f"{_name(title)} {_addresses(bridge.gateways)}")
    else:
        docker0 = host
    branches: dict[str, Tree] = {}
    for item in containers:
        indent = 0
        match item.mode:
            case Bridge() | Attached():
                parent, details = docker0, f"eth0 {_addresses(item.addresses)}"
                indent = _INDENT
            case Joined(container=other):
                parent, details = branches[other], _dim(f"{other}'s namespace")
                indent = 2 * _INDENT
            case Host():
                parent, details = host, _dim("the host's namespace")
            case Nothing():
                parent, details = host, _dim("lo only, on no bridge")
        branches[item.name] = parent.add(f"{_name(item.name.ljust(_NAMES - indent))} {details}")
    return top


def _chain(count: int) -> str:
    names = [f"r{number}" for number in range(count, 0, -1)]
    return " ── ".join(names if count <= _MANY else (names[0], "…", names[-1]))


def _ttl_note(count: int) -> str:
    if count == 1:
        return "a router: it takes 1 from every TTL"
    return f"{count} routers: each takes 1 from every TTL"


def _name(name: str) -> str:
    return f"[bold]{escape(name)}[/]"


def _dim(text: str) -> str:
    return f"[dim]{escape(text)}[/]"


def _ips(interfaces: Iterable[Interface]) -> str:
    return ", ".join(f"[cyan]{interface.ip}[/]" for interface in interfaces)


def _addresses(interfaces: Iterable[Interface], *, network: bool = False) -> str:
    shown = (interface.network if network else interface for interface in interfaces)
    return ", ".join(f"[cyan]{item}[/]" for item in shown)
