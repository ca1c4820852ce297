"""Links of the containers and namespaces of a plan, and the link that two of them use (pure).

A container can be on several networks. Two containers that share a network use it.
Otherwise a packet leaves by the network of the sender's default route, and its
destination is the target's address on the first of the target's networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.model import plan as model
from harness.model.dialect import Dialect
from harness.model.plan import (
    ATTACKER,
    BR0,
    FAMILIES,
    HOST,
    INTERNET,
    NS1,
    NS2,
    Attached,
    Bridge,
    ContainerSpec,
    Family,
    NetworkSpec,
    Plan,
    PlanError,
)
from harness.model.plan import Host as HostMode
from harness.model.topology import PRIVATE

LAN: Final = "the LAN"


@dataclass(frozen=True, slots=True)
class Attachment:
    """One link of a network namespace of the world.

    `name` is the owner of its addresses. `link` is `None` for a container without
    one; the host is on every link but the internet's. `network` is the runtime's
    network, for containers that are on one.
    """

    name: str
    link: str | None
    families: tuple[Family, ...] = FAMILIES
    network: NetworkSpec | None = None
    tap: str = ""
    """User-space process (`pasta`, …) behind the container's tap; empty if it has a network."""

    @property
    def internal(self) -> bool:
        """Whether the attachment is to a network without a way out."""
        return self.network is not None and self.network.internal


Whereabouts = Mapping[str, tuple[Attachment, ...]]
"""Attachments by name. The host and each namespace outside it have one."""

_AT_HOST: Final = Attachment(HOST, LAN)
_OUTSIDE: Final = (
    _AT_HOST,
    Attachment(NS1, BR0),
    Attachment(NS2, BR0),
    Attachment(INTERNET, INTERNET),
    Attachment(ATTACKER, LAN),
)


def whereabouts(plan: Plan, dialect: Dialect) -> Whereabouts:
    """Return all attachments of a plan; a joiner has those of its joined container.

    Raises `PlanError` if a subnet lies outside the ranges that the world routes.
    """
    found: dict[str, tuple[Attachment, ...]] = {place.name: (place,) for place in _OUTSIDE}
    for container in plan.containers:
        home = plan.home(container.name)
        if isinstance(home.mode, HostMode):
            found[container.name] = (_AT_HOST,)
        else:
            found[container.name] = _of(plan, dialect, home)
    return found


def _of(plan: Plan, dialect: Dialect, home: ContainerSpec) -> tuple[Attachment, ...]:
    if not isinstance(home.mode, Bridge | Attached):
        return (Attachment(home.name, link=None, families=()),)
    found = []
    for name in home.networks:
        if name == model.DEFAULT_NETWORK and dialect.default_network != "bridge":
            tap = dialect.default_network
            found.append(Attachment(home.name, f"tap of {home.name}", tap=tap))
            continue
        network = plan.network(name)
        families = network.families
        if name == model.DEFAULT_NETWORK and dialect.bridge_address6:
            families = FAMILIES
        _check_routed(network)
        found.append(Attachment(home.name, f"network {name}", families, network))
    return tuple(found)


def _check_routed(network: NetworkSpec) -> None:
    for subnet in (network.subnet, network.subnet6):
        if subnet and not any(
            private.supernet_of(subnet)  # type: ignore[arg-type] # versions were compared
            for private in PRIVATE
            if private.version == subnet.version
        ):
            raise PlanError(
                f"network {network.name!r}: the world has no route to {subnet}; "
                f"choose one within {', '.join(map(str, PRIVATE))}"
            )


def meeting(
    sources: Sequence[Attachment], targets: Sequence[Attachment], family: Family
) -> tuple[Attachment, Attachment]:
    """Return the links that a source and a target use over a family."""
    if sources == targets:
        own = _first(targets, family)
        return own, own
    for source in sources:
        for target in targets:
            shared = source.link == target.link and source.link is not None
            if shared and family in source.families and family in target.families:
                return source, target
    return _way_out(sources, family), _first(targets, family)


def _first(places: Sequence[Attachment], family: Family) -> Attachment:
    return next((item for item in places if family in item.families), places[0])


def _way_out(places: Sequence[Attachment], family: Family) -> Attachment:
    """Return a network that has a way out; every way out leads through the host."""
    leading = [item for item in places if not item.internal] or list(places)
    return _first(leading, family)
