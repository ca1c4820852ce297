"""Parser of `inspect` and `network inspect` output (pure).

The parser knows two formats. One is that of Docker's Engine API, which `inspect` of every such
runtime prints. The other is podman's format of `network inspect`. Any other output raises
`UnreadableOutput`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from typing import Any, Literal, cast

from harness.adapters.docker_cli.arguments import plan_name
from harness.adapters.docker_cli.spec import CliSpec
from harness.adapters.protocol import ContainerInfo, Endpoint, NetworkInfo
from harness.model.plan import Publish

_BRIDGE_NAME = "com.docker.network.bridge.name"
_SHORT = 12
"""The length of a short id: docker's bridges are named br- and a short id."""


class UnreadableOutput(ValueError):
    """Unexpected output of a runtime; the message says what is missing."""


def single_object(text: str) -> Mapping[str, Any]:
    """Return the only object of a JSON list, the output format of `inspect`."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UnreadableOutput(f"not JSON: {error}") from None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        raise UnreadableOutput("not a list of one object")
    return found


def container(cli: CliSpec, text: str) -> ContainerInfo:
    """Return the facts about a container."""
    fields = single_object(text)
    try:
        state, settings = fields["State"], fields.get("NetworkSettings") or {}
        running = bool(state["Running"])
        return ContainerInfo(
            id=fields["Id"],
            name=fields["Name"].removeprefix("/"),
            pid=int(state["Pid"]) if running else 0,
            running=running,
            endpoints=tuple(_endpoints(cli, settings.get("Networks") or {})),
            exit_code=None if running else int(state["ExitCode"]),
            ports=tuple(_ports(settings.get("Ports") or {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableOutput(f"not the description of a container: {_why(error)}") from None


def _why(error: Exception) -> str:
    absent = isinstance(error, KeyError)
    return f"{error} is missing" if absent else f"{type(error).__name__}: {error}"


def _endpoints(cli: CliSpec, networks: Mapping[str, Mapping[str, Any]]) -> Iterator[Endpoint]:
    for name, fields in networks.items():
        address, address6 = fields.get("IPAddress"), fields.get("GlobalIPv6Address")
        if not (address or address6):
            continue  # a mode reported as a network, or a stopped container
        yield Endpoint(
            network=plan_name(cli, name),
            address=IPv4Interface(f"{address}/{fields['IPPrefixLen']}") if address else None,
            gateway=fields.get("Gateway") or None,
            address6=(
                IPv6Interface(f"{address6}/{fields['GlobalIPv6PrefixLen']}") if address6 else None
            ),
            gateway6=fields.get("IPv6Gateway") or None,
            mac=fields.get("MacAddress") or None,
        )


def _ports(ports: Mapping[str, list[Mapping[str, str]] | None]) -> Iterator[Publish]:
    for own, bindings in ports.items():
        number, _, protocol = own.partition("/")
        for binding in bindings or ():
            address = binding.get("HostIp")
            yield Publish(
                int(binding["HostPort"]),
                int(number),
                cast("Literal['tcp', 'udp', 'sctp']", protocol or "tcp"),
                ip_address(address) if address else None,
            )


def network(cli: CliSpec, text: str) -> tuple[NetworkInfo, list[str]]:
    """Return the facts about a network and its subnets; unreported gateways are left out."""
    fields = single_object(text)
    try:
        if "network_interface" in fields:
            pools = [(item["subnet"], item.get("gateway")) for item in fields.get("subnets") or ()]
            name, identity, interface = fields["name"], fields["id"], fields["network_interface"]
        else:
            config = fields["IPAM"]["Config"] or ()
            pools = [(item["Subnet"], item.get("Gateway")) for item in config]
            name, identity = fields["Name"], fields["Id"]
            default = f"br-{identity[:_SHORT]}" if fields["Driver"] == "bridge" else None
            interface = (fields.get("Options") or {}).get(_BRIDGE_NAME, default)
        gateways = tuple(_gateway(*pool) for pool in pools if pool[1])
        found = NetworkInfo(plan_name(cli, name), identity, interface, gateways)
        return found, [subnet for subnet, _ in pools]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableOutput(f"not the description of a network: {_why(error)}") from None


def _gateway(subnet: str, gateway: str) -> IPv4Interface | IPv6Interface:
    address = gateway.partition("/")[0]  # docker prints an IPv6 gateway with its prefix
    return ip_interface(f"{address}/{ip_network(subnet).prefixlen}")
