"""Features that networks, containers and plans need, compared with those that a runtime declares.

The adapter of a runtime declares (claims) the features that the runtime has. A test that needs an
unclaimed feature raises `Unclaimed`. The test is then *unsupported*, which is not a verdict on the
runtime. The module does no I/O.
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
    """A feature that a runtime may declare (claim).

    A test that needs an unclaimed feature is *unsupported*; it never counts as failed.
    """

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
    """Return the published ports of a container in mode bridge, none in other modes.

    In other modes the runtime ignores or refuses published ports.
    """
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
    """Return the message that names the features that a runtime does not declare."""
    return f"{runtime} does not declare {', '.join(sorted(lacking))}"


class Unclaimed(Exception):
    """A test needs a feature that the runtime does not claim."""

    def __init__(self, runtime: str, lacking: Collection[Feature]) -> None:
        super().__init__(sentence(runtime, lacking))
        self.lacking = frozenset(lacking)


def check(runtime: str, claimed: Collection[Feature], *asked: Feature) -> None:
    """Raise `Unclaimed` if a needed feature is not claimed."""
    if lacking := set(asked).difference(claimed):
        raise Unclaimed(runtime, lacking)


def of_network(spec: NetworkSpec) -> Iterator[Feature]:
    """Return the features that a network needs, or `NETWORKS` if it has no special option."""
    kinds = [feature for feature, asks in _OF_NETWORK.items() if asks(spec)]
    return iter(kinds or [Feature.NETWORKS])


def has_default_network(claimed: Collection[Feature]) -> bool:
    """Return whether a container that names no network is on a default network.

    A runtime that claims `bridge` has a default bridge in the host's netns. One of the networks of
    a runtime that claims `networks` is the default. With `user-mode` the container's tap counts as
    its default network.
    """
    return not {Feature.BRIDGE, Feature.NETWORKS, Feature.USER_MODE}.isdisjoint(claimed)


def of_container(spec: ContainerSpec, claimed: Collection[Feature]) -> Iterator[Feature]:
    """Return the features that a container needs, beginning with the feature of its mode.

    A container on the default network needs `BRIDGE` if the runtime has no such network. The
    features of user-defined networks come from `of_network`.
    """
    if mode := _MODES.get(type(spec.mode)):
        yield mode
    elif spec.mode == Bridge() and not has_default_network(claimed):
        yield Feature.BRIDGE
    yield from (feature for feature, asks in _OF_CONTAINER.items() if asks(spec))


def of_plan(plan: Plan, claimed: Collection[Feature]) -> Iterator[Feature]:
    """Return the features that a plan needs."""
    for network in plan.networks:
        yield from of_network(network)
    for container in plan.containers:
        yield from of_container(container, claimed)


def absent(plan: Plan, claimed: Collection[Feature]) -> dict[str, frozenset[Feature]]:
    """Return the containers of a plan that the runtime cannot run, each with the features it lacks.

    A joining container also lacks the features that the joined container lacks.
    """
    found: dict[str, frozenset[Feature]] = {}
    for spec in plan.containers:
        lacking = frozenset(of_container(spec, claimed)).difference(claimed)
        if isinstance(spec.mode, Joined):
            lacking |= found.get(spec.mode.container, frozenset())
        if lacking:
            found[spec.name] = lacking
    return found
