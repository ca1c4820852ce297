"""How networks, addresses and ports are shown: in the shapes of Docker's Engine API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.net import ports
from runtime.records import Container, Endpoint, NetworkConfig, Publication


def settings(found: Container) -> dict[str, Any]:
    """`NetworkSettings` of `mydocker inspect`."""
    aliases = {item.network: item.aliases for item in found.connections}
    endpoints = found.state.endpoints
    return {
        **addresses(endpoints[0] if endpoints else None),
        "Ports": bindings(found.state.ports),
        "Networks": {
            item.network: {**addresses(item), "Aliases": aliases.get(item.network, [])}
            for item in endpoints
        },
    }


def addresses(endpoint: Endpoint | None) -> dict[str, Any]:
    """Where a container is on one network."""
    if endpoint is None:
        return {"IPAddress": "", "IPPrefixLen": 0, "Gateway": "", "MacAddress": ""}
    ip, _, prefix = endpoint.address.partition("/")
    ip6, _, prefix6 = endpoint.address6.partition("/")
    return {
        "IPAddress": ip,
        "IPPrefixLen": int(prefix),
        "Gateway": endpoint.gateway,
        "MacAddress": endpoint.mac,
        "GlobalIPv6Address": ip6,
        "GlobalIPv6PrefixLen": int(prefix6 or 0),
        "IPv6Gateway": endpoint.gateway6,
    }


def bindings(publications: Sequence[Publication]) -> dict[str, list[dict[str, str]]]:
    """Ports of a container, and those of the host that lead there."""
    found: dict[str, list[dict[str, str]]] = {}
    for item in publications:
        where = {"HostIp": item.address, "HostPort": str(item.host_port)}
        found.setdefault(f"{item.port}/{item.protocol}", []).append(where)
    return found


def asked_for(publish: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """`PortBindings` of `mydocker inspect`: what was asked for, started or not."""
    found: dict[str, list[dict[str, str]]] = {}
    for text in publish:
        for item in ports.parse("show a port", text):
            low, high = item.low or "", f"-{item.high}" if item.high != item.low else ""
            where = {"HostIp": item.address, "HostPort": f"{low}{high}"}
            found.setdefault(f"{item.port}/{item.protocol}", []).append(where)
    return found


def port_lines(publications: Sequence[Publication]) -> list[str]:
    """Each port as `mydocker ps` shows it: 0.0.0.0:8080->80/tcp."""
    return [
        f"{_end(item.address)}:{item.host_port}->{item.port}/{item.protocol}"
        for item in publications
    ]


def port_rows(publications: Sequence[Publication], wanted: str = "") -> list[str]:
    """Each port as `mydocker port` shows it; with `wanted` (`80`, `80/udp`) only the host's end."""
    port, slash, protocol = wanted.partition("/")
    asked = f"{port}/{protocol if slash else 'tcp'}"
    rows = []
    for item in publications:
        own = f"{item.port}/{item.protocol}"
        end = f"{_end(item.address)}:{item.host_port}"
        if not wanted:
            rows.append(f"{own} -> {end}")
        elif own == asked:
            rows.append(end)
    return rows


def _end(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def network(found: NetworkConfig, containers: Sequence[Container]) -> dict[str, Any]:
    """One entry of `mydocker network inspect`; `containers` are those that run."""
    pools = [{"Subnet": found.subnet, "Gateway": found.gateway, "IPRange": found.ip_range}]
    if found.subnet6:
        pools.append({"Subnet": found.subnet6, "Gateway": found.gateway6})
    if found.driver == "bridge":
        options = {
            "com.docker.network.bridge.name": found.bridge,
            "com.docker.network.bridge.enable_icc": str(found.icc).lower(),
        }
    else:
        options = {"parent": found.parent}
    return {
        "Name": found.name,
        "Id": found.id,
        "Created": found.created,
        "Scope": "local",
        "Driver": found.driver,
        "EnableIPv6": bool(found.subnet6),
        "IPAM": {"Driver": "default", "Config": pools},
        "Internal": found.internal,
        "Containers": {
            item.id: {
                "Name": item.name,
                "MacAddress": endpoint.mac,
                "IPv4Address": endpoint.address,
                "IPv6Address": endpoint.address6,
            }
            for item in containers
            for endpoint in item.state.endpoints
            if endpoint.network == found.name
        },
        "Options": {**options, "com.docker.network.driver.mtu": str(found.mtu)},
    }
