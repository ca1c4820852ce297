"""What several faults do, in words of one line: deaf interfaces, other addresses, lost rules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from harness.adapters.protocol import ContainerInfo, RuntimeRefused
from harness.faults.fault import AdapterCall, Moment
from harness.faults.nft_rules import DROP
from harness.faults.target import BRIDGE_TABLE, TABLE, FaultContext, FaultLink
from harness.model.plan import Family, Joined, Mode, Nothing
from harness.model.topology import Interface
from linux import rtnetlink
from linux.nftables import Expression, Hook

FAMILIES: Final[tuple[Family, ...]] = (4, 6)


def drop(
    site: FaultContext, hook: Hook, *parts: Iterable[Expression], priority: int = -150
) -> None:
    """Drop, in the host, what matches; the same rule is added once.

    By default flows are known by then, and no address has been translated yet. A flush may have
    taken it when the runtime is told to repair its rules.
    """
    key = repr((hook, [bytes(expression) for part in parts for expression in part]))
    done = site.memory.setdefault("dropped", set())
    if key not in done or site.moment == Moment.REPAIRED:
        done.add(key)
        site.host.rule(hook, *parts, DROP, priority=priority)


def new_bridges(site: FaultContext) -> Iterator[str]:
    """The runtime's bridges for which a fault's rules are to be made now.

    Each once; and all of them again when the runtime repairs its own, for what took those may have
    taken the fault's.
    """
    known = site.memory.setdefault("bridges", set())
    for bridge in site.bridges():
        if bridge not in known or site.moment == Moment.REPAIRED:
            known.add(bridge)
            yield bridge


def whom_it_joined(site: FaultContext) -> ContainerInfo | None:
    """The container whose network a joiner has, as long as that is there."""
    home = site.mode.container if isinstance(site.mode, Joined) else ""
    return site.other_containers().get(home)


def readdress(site: FaultContext, plug: FaultLink, address: Interface) -> None:
    """Give a container another address on a network in place of the one that it has there."""
    version = address.version
    gateway = next(item for item in plug.gateways if item.version == version)
    for old in plug.addresses:
        if old.version == version and old != address:
            site.inside.del_address(plug.inside, old)
    site.inside.add_address(plug.inside, address)
    if not any(r.destination is None for r in site.inside.place.routes() if r.family == version):
        site.inside.ensure(rtnetlink.add_route(None, via=gateway.ip))


def numbered(gateway: Interface, number: int) -> Interface:
    """An address of the gateway's subnet, by its number there."""
    value = int(gateway.network.network_address) + number
    made = (value, gateway.network.prefixlen)
    return IPv4Interface(made) if gateway.version == 4 else IPv6Interface(made)


def gateway_of(plug: FaultLink, version: Family = 4) -> Interface | None:
    """The host's address on the network in a family."""
    return next((item for item in plug.gateways if item.version == version), None)


def forget_drops(site: FaultContext, way: str, *, bridges: Iterable[str] = ()) -> None:
    """Take away the rules that keep something from coming in or going out by a bridge.

    Not the sabotage's own: what it drops in their stead it goes on to drop at the next moment.
    """
    wanted = {(way, name) for name in (bridges or site.bridges())}
    site.host.take_rules(
        lambda entry: (
            entry.refuses
            and entry.table not in (TABLE, BRIDGE_TABLE)
            and bool(wanted & set(entry.links))
        )
    )


def internal_bridges(site: FaultContext) -> Iterator[str]:
    """The interfaces in the host of the internal networks that there are."""
    return _bridges_of(site, "internal")


def bridges_without_icc(site: FaultContext) -> Iterator[str]:
    """Those of the networks without communication between containers."""
    return _bridges_of(site, "apart")


def _bridges_of(site: FaultContext, kind: str) -> Iterator[str]:
    for name in site.memory.get(kind, ()):
        with contextlib.suppress(RuntimeRefused):  # it has been removed
            if bridge := site.runtime.network_facts(name).interface:
                yield bridge


def leave_link(site: FaultContext) -> None:
    """Leave an interface behind in the host, one more each time."""
    count = site.memory["left"] = site.memory.get("left", 0) + 1
    site.host.rtnl(rtnetlink.add_veth(f"left{count}", f"left{count}p"))


def started_alone(site: FaultContext, verb: AdapterCall, mode: type[Mode]) -> ContainerInfo:
    """Start a stopped container; in place of one in such a mode one begins that has nothing."""
    spec = site.specs[verb.name]
    if not isinstance(spec.mode, mode):
        facts: ContainerInfo = verb()
        return facts
    site.runtime.remove(spec.name)
    return site.runtime.run(replace(spec, mode=Nothing()))
