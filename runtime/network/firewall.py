"""The nft rules: allowed traffic between bridges and the rest, and its source address.

All rules are in mydocker's own table `inet mydocker`, which one transaction replaces as a whole.
Rules match mydocker's bridges only and the chains accept the rest, so that foreign traffic,
tables and FORWARD policies stay untouched. Each rule's comment names its network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from linux import rtnetlink, rtnetlink_dump
from linux.conntrack import PROTOCOLS, Flow, port_mark
from linux.netlink import Netlink, Request
from linux.nftables import (
    Expression,
    Hook,
    Nft,
    Table,
    add_chain,
    add_rule,
    add_table,
    ct_dnat,
    ct_state,
    daddr,
    del_table,
    dnat,
    dport,
    family,
    icmp_type,
    iifname,
    l4proto,
    masquerade,
    oifname,
    saddr,
    to_local,
    verdict,
)
from runtime.network import endpoint, sysctl
from runtime.records import Address, NetworkConfig, Publication

if TYPE_CHECKING:
    from linux.conntrack import FlowWatch


TABLE: Final = Table("inet", "mydocker")
_FORWARD: Final = "forward"
_POSTROUTING: Final = "postrouting"
_GUARD: Final = "guard"
_OUTPUT: Final = "output"
_SRCNAT: Final = 100
_RAW: Final = -300


def _rule(chain: str, network: NetworkConfig, what: str, *parts: Iterable[Expression]) -> Request:
    return add_rule(TABLE, chain, *parts, comment=f"{network.name}: {what}")


def _leaving(network: NetworkConfig) -> list[Request]:
    """Return the rules for packets from containers: peers by `icc`, no forged source address."""
    bridge = network.bridge
    peers = verdict("accept" if network.icc else "drop")
    within = [*iifname(bridge), *oifname(bridge)]
    rules = [
        _rule(_FORWARD, network, "published, to peers", within, ct_dnat(), verdict("accept")),
        _rule(_FORWARD, network, "peers", within, peers),
    ]
    if network.internal:
        return [*rules, _rule(_FORWARD, network, "internal", iifname(bridge), verdict("drop"))]
    drop = verdict("drop")
    for subnet in network.subnets:
        forged = saddr(subnet, is_not=True)
        rules.append(_rule(_FORWARD, network, "forged source", iifname(bridge), forged, drop))
    # A packet of no flow is never translated: it would leave with the container's address.
    stray = ct_state("invalid")
    rules.append(_rule(_FORWARD, network, "part of no flow", iifname(bridge), stray, drop))
    if not network.subnet6:
        rules.append(_rule(_FORWARD, network, "no IPv6 here", iifname(bridge), family(6), drop))
    return rules


def _entering(network: NetworkConfig) -> list[Request]:
    """Return the rules for packets to containers: replies and redirected connections pass."""
    to = oifname(network.bridge)
    accept = verdict("accept")
    answers = ct_state("established", "related")
    return [
        _rule(_FORWARD, network, "answers", to, answers, accept),
        _rule(_FORWARD, network, "published", to, ct_dnat(), accept),
        _rule(_FORWARD, network, "nothing else comes in", to, verdict("drop")),
    ]


def ruleset(networks: Sequence[NetworkConfig]) -> list[Request]:
    """Return the whole table, as one transaction that replaces the present one."""
    requests = [
        add_table(TABLE),
        del_table(TABLE),
        add_table(TABLE),
        add_chain(TABLE, _FORWARD, hook="forward"),
        add_chain(TABLE, _POSTROUTING, hook="postrouting", priority=_SRCNAT, kind="nat"),
        add_chain(TABLE, _GUARD, hook="prerouting", priority=_RAW),
        add_chain(TABLE, _OUTPUT, hook="output"),
    ]
    # First every drop on leaving, then every rule on entering: an accept of one
    # network must not overrule a drop of another.
    for network in networks:
        requests += _leaving(network)
    for network in networks:
        requests += _entering(network)
    for network in networks:
        requests += _translated(network)
        requests += _about_loopback(network)
    return requests


def _translated(network: NetworkConfig) -> Iterator[Request]:
    """Yield the masquerade rules: the host's address for all packets that leave the bridge.

    Hairpin connections are masqueraded too: a client on the same network that connects to a
    published port of the host must get the replies through the host.
    """
    to, outside = oifname(network.bridge), oifname(network.bridge, is_not=True)
    for subnet in [] if network.internal else network.subnets:
        own = saddr(subnet)
        yield _rule(_POSTROUTING, network, "masquerade", own, outside, masquerade())
        yield _rule(_POSTROUTING, network, "hairpin", own, to, ct_dnat(), masquerade())


def _about_loopback(network: NetworkConfig) -> Iterator[Request]:
    """Yield the rules for 127.0.0.1: from the host to the bridge, nothing the other way."""
    yield loopback_guard(TABLE, _GUARD, network.bridge, f"{network.name}: loopback")
    called, to = saddr(LOOPBACK), oifname(network.bridge)
    yield _rule(_POSTROUTING, network, "from 127.0.0.1", called, to, masquerade())
    # A hairpin leaves by its incoming link. A router would tell the sender to go
    # directly (ICMP redirect): past the translation.
    for version, protocol, number in ((4, "icmp", 5), (6, "icmpv6", 137)):
        redirect = [*family(version), *l4proto(protocol), *icmp_type(number)]
        yield _rule(_OUTPUT, network, "no redirects", to, redirect, verdict("drop"))


@contextmanager
def applied(networks: Sequence[NetworkConfig]) -> Iterator[None]:
    """Update the kernel's table to match `networks`; without a bridge there is no table.

    The body is for other slow work: closing a socket that has replaced rules takes an RCU grace
    period, tens of milliseconds after the replacement.
    """
    bridges = [network for network in networks if network.driver == "bridge"]
    bridges.sort(key=lambda network: network.name)  # independent of creation order
    with Nft() as nft:
        if bridges:
            nft.apply(ruleset(bridges))
        else:
            nft.apply([add_table(TABLE), del_table(TABLE)])
        yield


def present() -> bool:
    """Return whether the table is there; it is then complete, as it only changes as a whole."""
    with Nft() as nft:
        return TABLE in nft.tables()


LOOPBACK: Final = IPv4Network("127.0.0.0/8")
_LOOPBACK6: Final = ip_network("::1/128")
_PUBLISH_RAW, _DSTNAT = -300, -100
_HOOKS: Final[tuple[Hook, ...]] = ("prerouting", "output")


_PREFIX: Final = "mydocker-"
"""Name of the chain whose rules name the bridges on which a container publishes ports."""


class PortTarget(NamedTuple):
    """Target of a family's published ports: the container's address, bridge and bridge port."""

    address: Address
    bridge: str
    veth: str


Targets = Mapping[Literal[4, 6], PortTarget]


def table(identity: str) -> Table:
    """Return the table of one container."""
    return Table("inet", f"{_PREFIX}{identity[:12]}")


def rules(
    identity: str, name: str, publications: Iterable[Publication], targets: Targets
) -> list[Request]:
    """Return a container's whole table, as one transaction that replaces the present one."""
    own = table(identity)
    requests = [add_table(own, owned=True), del_table(own), add_table(own, owned=True)]
    requests += [add_chain(own, hook, hook=hook, priority=_DSTNAT, kind="nat") for hook in _HOOKS]
    for item in publications:
        target = targets.get(4 if ip_address(item.address).version == 4 else 6)
        if target is None:
            continue
        comment = f"{name}: {item.address} {item.host_port}/{item.protocol}"
        to = dnat(target.address, item.port)
        for hook in _HOOKS:
            for wanted in _addressed(item, hook):
                to_port = [*l4proto(item.protocol), *dport(item.host_port)]
                requests.append(add_rule(own, hook, wanted, to_port, to, comment=comment))
    requests.append(add_chain(own, _GUARD, hook="prerouting", priority=_PUBLISH_RAW))
    for bridge in {target.bridge for target in targets.values()}:
        requests.append(loopback_guard(own, _GUARD, bridge, f"{bridge}: loopback"))
    return requests


def loopback_guard(where: Table, chain: str, bridge: str, comment: str) -> Request:
    """Return the rule that drops packets from a bridge to the host's loopback."""
    drop = verdict("drop")
    return add_rule(where, chain, iifname(bridge), daddr(LOOPBACK), drop, comment=comment)


def _addressed(item: Publication, hook: Hook) -> list[list[Expression]]:
    """Return the destination matches that a hook redirects, if any."""
    address = ip_address(item.address)
    if not address.is_unspecified:
        # Only the host may use the loopback, whatever is on the wire; ::1 is relayed.
        here = hook == "output" and address.version == 4
        return [daddr(ip_network(address))] if here or not address.is_loopback else []
    every = [*family(address.version), *to_local()]
    if address.version == 6:
        return [[*daddr(_LOOPBACK6, is_not=True), *every]]
    return [every if hook == "output" else [*daddr(LOOPBACK, is_not=True), *every]]


def install(
    nft: Nft,
    identity: str,
    name: str,
    publications: Sequence[Publication],
    targets: Targets,
    *,
    flows: FlowWatch | None = None,
) -> None:
    """Redirect published ports to a container from now on, existing flows included.

    `nft` is the socket that owns the table, `flows` as for an `Engine`.
    """
    for target in targets.values():
        sysctl.write(f"net.ipv4.conf.{target.bridge}.route_localnet", "1")
        with Netlink() as host:
            # With br_netfilter a hairpin to itself returns by the bridge port it came from.
            host.send([rtnetlink.hairpin_port(rtnetlink_dump.link(host, target.veth).ifindex)])
    nft.apply(rules(identity, name, publications, targets))
    with Netlink() as host:
        own = {item.address.ip for item in rtnetlink_dump.addresses(host)}
    found = endpoint.marked(flows, *{port_mark(item.host_port) for item in publications})
    endpoint.drop([flow for flow in found if _is_stale(flow, publications, own, targets)])


def withdraw(bridges: Iterable[str]) -> None:
    """Undo the settings of bridges on which no container publishes a port any more."""
    with Nft() as nft:
        own = [item for item in nft.tables() if item.name.startswith(_PREFIX)]
        rules = [rule for item in own for rule in nft.rules(item) if rule.chain == _GUARD]
    used = {rule.comment.partition(":")[0] for rule in rules}
    for bridge in set(bridges) - used:
        with suppress(FileNotFoundError):
            sysctl.write(f"net.ipv4.conf.{bridge}.route_localnet", "0")


def _is_stale(
    flow: Flow, publications: Iterable[Publication], own: set[Address], targets: Targets
) -> bool:
    """Return whether a flow to a published port has another target: a removed container."""
    asked = flow.original.destination
    version: Literal[4, 6] = 4 if asked.version == 4 else 6
    if version in targets and flow.reply.source == targets[version].address:
        return False
    for item in publications:
        address = ip_address(item.address)
        port = (PROTOCOLS[item.protocol], item.host_port)
        if (flow.original.protocol, flow.original.destination_port) != port:
            continue
        for_host = address.version == version and (asked in own or asked.is_loopback)
        if for_host if address.is_unspecified else asked == address:
            return True
    return False
