"""Features, and values of options, that mydocker and Docker-compatible commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from harness.model.features import Feature
from harness.model.plan import Attached, Bridge, Host, Joined, Mode, Nothing, Publish
from linux.proc import protocol_available

# A published port takes a socket of its protocol, and not every kernel has SCTP.
FEATURES: Final = (
    frozenset(Feature)
    - {Feature.MACVLAN, Feature.USER_MODE}
    - (set() if protocol_available("SCTP") else {Feature.SCTP})
)
"""The features of an engine like Docker on this kernel."""


def network(
    mode: Mode,
    network_name: Callable[[str], str] = str,
    container_name: Callable[[str], str] = str,
) -> str:
    """Return the value of `--network`; the given functions map a plan's names to the runtime's."""
    match mode:
        case Bridge(network=name):
            return network_name(name)
        case Host():
            return "host"
        case Joined(container=name):
            return f"container:{container_name(name)}"
        case Nothing() | Attached():
            return "none"


def published(port: Publish) -> str:
    """Return the value of `-p`: `[ADDRESS:][HOST PORT:]PORT/PROTOCOL`, ranges with a dash.

    https://docs.docker.com/reference/cli/docker/container/run/#publish.
    """
    own = f"{_range(port.container_port, port.count)}/{port.protocol}"
    host = _range(port.host_port, port.count) if port.host_port else ""
    if port.host_ip is None:
        return f"{host}:{own}" if host else own
    address = f"[{port.host_ip}]" if port.host_ip.version == 6 else str(port.host_ip)
    return f"{address}:{host}:{own}"


def _range(first: int, count: int) -> str:
    return f"{first}-{first + count - 1}" if count > 1 else str(first)
