"""What of a runtime's claims something asks for, and who of a plan asks for too much (pure).

Whatever a scene is asked for that its runtime does not claim is `Unclaimed`: no verdict about the
runtime, the test is *unsupported*.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from enum import StrEnum
from typing import Final

from harness.model.plan import (
    Attached,
    Bridge,
    ContainerSpec,
    Host,
    Joined,
    Mode,
    NetworkSpec,
    Nothing,
    Plan,
    Publish,
)


class Feature(StrEnum):
    """What a runtime claims to have. What it does not claim is *unsupported*, never failed."""

    BRIDGE = "bridge"
    HOST = "host"
    NONE = "none"
    CONTAINER = "container"
    NETWORKS = "networks"
    INTERNAL = "internal"
    ICC = "icc"
    IPV6 = "ipv6"
    PUBLISH = "publish"
    SCTP = "sctp"
    DNS = "dns"
    STATIC_ADDRESS = "static-address"
    CONNECT = "connect"
    RESTART = "restart"
    SYSCTL = "sysctl"
    MACVLAN = "macvlan"
    USER_MODE = "user-mode"


_MODES: Final[dict[type[Mode], Feature]] = {
    Host: Feature.HOST,
    Nothing: Feature.NONE,
    Attached: Feature.NONE,
    Joined: Feature.CONTAINER,
}
_OF_NETWORK: Final[dict[Feature, Callable[[NetworkSpec], object]]] = {
    Feature.IPV6: lambda spec: 6 in spec.families,
    Feature.INTERNAL: lambda spec: spec.internal,
    Feature.ICC: lambda spec: not spec.icc,
}


def _published(spec: ContainerSpec) -> tuple[Publish, ...]:
    """Nothing in other modes, whatever is said of ports: that is discarded, or refused."""
    return spec.ports if isinstance(spec.mode, Bridge) else ()


_OF_CONTAINER: Final[dict[Feature, Callable[[ContainerSpec], object]]] = {
    Feature.NETWORKS: lambda spec: spec.also,
    Feature.IPV6: lambda spec: spec.ip6,
    Feature.STATIC_ADDRESS: lambda spec: spec.ip or spec.ip6 or spec.mac,
    Feature.DNS: lambda spec: spec.aliases,
    Feature.PUBLISH: _published,
    Feature.SCTP: lambda spec: any(port.protocol == "sctp" for port in _published(spec)),
    Feature.SYSCTL: lambda spec: spec.sysctls,
}


def sentence(runtime: str, lacking: Collection[str]) -> str:
    """What is said of what is not claimed."""
    return f"{runtime} does not declare {', '.join(sorted(lacking))}"


class Unclaimed(Exception):
    """Something is asked of a runtime that it does not claim to have."""

    def __init__(self, runtime: str, lacking: Collection[Feature]) -> None:
        super().__init__(sentence(runtime, lacking))
        self.lacking = frozenset(lacking)


def check(runtime: str, claimed: Collection[Feature], *asked: Feature) -> None:
    """Raise `Unclaimed` where something is asked for that is not claimed."""
    if lacking := set(asked).difference(claimed):
        raise Unclaimed(runtime, lacking)


def of_network(spec: NetworkSpec) -> Iterator[Feature]:
    """What a network asks for: its kind. One of no kind is about having networks at all."""
    kinds = [feature for feature, asks in _OF_NETWORK.items() if asks(spec)]
    return iter(kinds or [Feature.NETWORKS])


def has_default_network(claimed: Collection[Feature]) -> bool:
    """Whether who asks for no network is on one.

    A tap of its own is one, and who has networks has it among them: `bridge` are the promises
    about one whose bridge is the host's.
    """
    return not {Feature.BRIDGE, Feature.NETWORKS, Feature.USER_MODE}.isdisjoint(claimed)


def of_container(spec: ContainerSpec, claimed: Collection[Feature]) -> Iterator[Feature]:
    """What a container asks for: its mode, what it is given; of networks the default one."""
    if mode := _MODES.get(type(spec.mode)):
        yield mode
    elif spec.mode == Bridge() and not has_default_network(claimed):
        yield Feature.BRIDGE
    yield from (feature for feature, asks in _OF_CONTAINER.items() if asks(spec))


def of_plan(plan: Plan, claimed: Collection[Feature]) -> Iterator[Feature]:
    """What a plan asks for."""
    for network in plan.networks:
        yield from of_network(network)
    for container in plan.containers:
        yield from of_container(container, claimed)


def absent(plan: Plan, claimed: Collection[Feature]) -> dict[str, frozenset[Feature]]:
    """Who of a plan cannot be there, by name, and what is not claimed for that.

    Who joins somebody that cannot be there lacks what that one lacks.
    """
    found: dict[str, frozenset[Feature]] = {}
    for spec in plan.containers:
        lacking = frozenset(of_container(spec, claimed)).difference(claimed)
        if isinstance(spec.mode, Joined):
            lacking |= found.get(spec.mode.container, frozenset())
        if lacking:
            found[spec.name] = lacking
    return found
