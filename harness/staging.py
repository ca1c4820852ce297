"""Who is there while a matrix is measured, as plain data for the report's drawing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.adapters.protocol import Adapter
from harness.model import ATTACKER, BR0, HOST, INTERNET, NS1, NS2, Attached, Bridge, Joined
from harness.scene import Scene
from harness.topology import Interface, Topology


def staged(scene: Scene) -> dict[str, Any]:
    """The scene's networks and containers with the addresses that they came to have.

    The shape is that of `harness.report.schema.Stage`.
    """
    plan, topology = scene.plan, scene.world.topology
    networks = dict.fromkeys(name for item in plan.containers for name in item.networks)
    facts = {name: scene.runtime.network_facts(name) for name in networks}
    return {
        "routers": topology.routers,
        "world": _world(topology),
        "networks": [
            {
                "name": name,
                "interface": found.interface,
                "gateways": _words(found.gateways),
                "internal": plan.network(name).internal,
            }
            for name, found in facts.items()
        ],
        "containers": [
            {
                "name": item.name,
                "mode": str(item.mode),
                "networks": list(item.networks),
                "addresses": _addresses(scene, item.name)
                if isinstance(item.mode, Bridge | Attached)
                else [],
                "joined": item.mode.container if isinstance(item.mode, Joined) else None,
            }
            for item in plan.containers
        ],
    }


def _world(topology: Topology) -> dict[str, list[str]]:
    return {
        HOST: _words(topology.host),
        ATTACKER: _words(topology.attacker),
        INTERNET: _words(topology.internet),
        BR0: _words(topology.br0),
        NS1: _words(topology.ns1),
        NS2: _words(topology.ns2),
    }


def _addresses(scene: Scene, name: str) -> list[str]:
    return _words(item for item in scene[name].net.interfaces() if not item.ip.is_loopback)


def _words(interfaces: Iterable[Interface]) -> list[str]:
    return [str(item) for item in interfaces]


def introduced(runtime: Adapter) -> dict[str, Any]:
    """What a runtime says of itself, as plain data."""
    dialect = runtime.dialect
    return {
        "version": runtime.version,
        "features": sorted(runtime.features),
        "dialect": {name: _word(getattr(dialect, name)) for name in sorted(dialect.__slots__)},
    }


def _word(value: object) -> str:
    if isinstance(value, frozenset | tuple):
        return ", ".join(map(str, sorted(value)))
    return "none" if value is None else str(value).lower() if value in (True, False) else str(value)
