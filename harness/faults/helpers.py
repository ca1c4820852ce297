"""Helper functions that several faults share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from harness.adapters.protocol import ContainerInfo, RuntimeRefused
from harness.faults.fault import AdapterCall, Moment
from harness.faults.nft_rules import DROP, bridged
from harness.faults.target import BRIDGE_TABLE, TABLE, FaultContext, FaultLink, NetnsEditor
from harness.model.plan import Family, Joined, Mode, Nothing
from harness.model.topology import Interface
from linux.conntrack import Conntrack, Flow
from linux.nftables import Expression, Hook, dport, l4proto

FAMILIES: Final[tuple[Family, ...]] = (4, 6)


def drop(
    site: FaultContext, hook: Hook, *parts: Iterable[Expression], priority: int = -150
) -> None:
    """Add a rule to the host that drops matching packets, unless the rule exists.

    By default the priority of the rule is after conntrack and before NAT. At the moment `REPAIRED`
    the rule is added again, because a flush may have removed it.
    """
    key = repr((hook, [bytes(expression) for part in parts for expression in part]))
    done = site.memory.setdefault("dropped", set())
    if key not in done or site.moment == Moment.REPAIRED:
        done.add(key)
        site.host.rule(hook, *parts, DROP, priority=priority)


def drop_between_peers(
    site: FaultContext, *parts: Iterable[Expression], families: Iterable[Family] = FAMILIES
) -> None:
    """Drop matching packets between the containers of one network, which the bridge forwards."""
    for version in families:
        site.host.rule("forward", bridged(version), *parts, DROP, priority=0, bridge=True)


def drop_queries(netns: NetnsEditor) -> None:
    """Drop the DNS queries that a container sends."""
    for protocol in ("udp", "tcp"):
        netns.rule("output", l4proto(protocol), dport(53), DROP)


def forget_flows(site: FaultContext, which: Callable[[Flow], bool]) -> None:
    """Delete the selected conntrack entries of the host."""
    with site.host.place.open() as space, Conntrack(space) as conntrack:
        conntrack.forget([flow for flow in conntrack.all() if which(flow)])


def new_bridges(site: FaultContext) -> Iterator[str]:
    """Yield the runtime's bridges that have no rules of the fault yet.

    At the moment `REPAIRED` all bridges are yielded again, because a flush may have removed the
    rules.
    """
    known = site.memory.setdefault("bridges", set())
    for bridge in site.bridges():
        if bridge not in known or site.moment == Moment.REPAIRED:
            known.add(bridge)
            yield bridge


def joined_container(site: FaultContext) -> ContainerInfo | None:
    """Return the container that the site's container has joined, if it runs."""
    home = site.mode.container if isinstance(site.mode, Joined) else ""
    return site.other_containers().get(home)


def joiners(site: FaultContext) -> Iterator[ContainerInfo]:
    """Yield the running containers that have joined the site's container."""
    for name, facts in site.other_containers().items():
        mode = site.specs[name].mode
        if isinstance(mode, Joined) and mode.container == site.name:
            yield facts


def readdress(site: FaultContext, plug: FaultLink, address: Interface) -> None:
    """Replace the container's address on a network."""
    version = address.version
    gateway = next(item for item in plug.gateways if item.version == version)
    for old in plug.addresses:
        if old.version == version and old != address:
            site.inside.del_address(plug.inside, old)
    site.inside.add_address(plug.inside, address)
    if not any(r.destination is None for r in site.inside.place.routes() if r.family == version):
        site.inside.ensure("route", "add", dst="default", gateway=gateway.ip)


def address_at(gateway: Interface, number: int) -> Interface:
    """Return the address with this host number in the gateway's subnet."""
    value = int(gateway.network.network_address) + number
    made = (value, gateway.network.prefixlen)
    return IPv4Interface(made) if gateway.version == 4 else IPv6Interface(made)


def gateways(site: FaultContext, version: Family = 4) -> Iterator[tuple[FaultLink, Interface]]:
    """Yield each link of the container that has a gateway of this family, with the gateway."""
    for plug in site.plugs():
        if gateway := gateway_of(plug, version):
            yield plug, gateway


def gateway_of(plug: FaultLink, version: Family = 4) -> Interface | None:
    """Return the gateway of an address family, or `None` if the link has none."""
    return next((item for item in plug.gateways if item.version == version), None)


def remove_drops(site: FaultContext, way: str, *, bridges: Iterable[str] = ()) -> None:
    """Remove the rules that drop or reject packets entering or leaving by a bridge.

    `way` is `in` or `out`. Rules in the fault's own tables stay.
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
    """Yield the bridges of internal networks."""
    return _bridges_of(site, "internal")


def bridges_without_icc(site: FaultContext) -> Iterator[str]:
    """Yield the bridges of networks with icc=false."""
    return _bridges_of(site, "apart")


def _bridges_of(site: FaultContext, kind: str) -> Iterator[str]:
    for name in site.memory.get(kind, ()):
        with contextlib.suppress(RuntimeRefused):  # the network has been removed
            if bridge := site.runtime.network_facts(name).interface:
                yield bridge


def leave_link(site: FaultContext) -> None:
    """Add a veth pair to the host that is never removed."""
    count = site.memory["left"] = site.memory.get("left", 0) + 1
    peer = f"left{count}p"
    site.host.ip("link", "add", ifname=f"left{count}", kind="veth", peer=peer, state="up")


def restart_without_network(site: FaultContext, verb: AdapterCall, mode: type[Mode]) -> object:
    """Restart a container; replace a container of this mode by a container in mode none."""
    spec = site.specs[verb.name]
    if not isinstance(spec.mode, mode):
        return verb()
    site.runtime.remove(spec.name)
    return site.runtime.run(replace(spec, mode=Nothing()))
