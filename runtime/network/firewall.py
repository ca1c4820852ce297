"""nft rules of the networks: isolation and masquerade. DNAT of ports is in `ports`.

All rules are in the table `inet mydocker`, which one transaction replaces as a whole. Rules match
only mydocker's bridges and the chains accept all other packets, so that foreign traffic, tables
and FORWARD policies stay untouched. Each rule's comment names its network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Network
from typing import Final

from linux.netlink import Request
from linux.nftables import (
    Expression,
    Nft,
    Table,
    add_chain,
    add_rule,
    add_table,
    ct_dnat,
    ct_state,
    daddr,
    del_table,
    family,
    icmp_type,
    iifname,
    l4proto,
    masquerade,
    oifname,
    saddr,
    verdict,
)
from runtime.records import NetworkConfig

TABLE: Final = Table("inet", "mydocker")
_FORWARD: Final = "forward"
_POSTROUTING: Final = "postrouting"
GUARD: Final = "guard"
_OUTPUT: Final = "output"
_SRCNAT: Final = 100
RAW: Final = -300
LOOPBACK: Final = IPv4Network("127.0.0.0/8")


def _rule(chain: str, network: NetworkConfig, what: str, *parts: Iterable[Expression]) -> Request:
    return add_rule(TABLE, chain, *parts, comment=f"{network.name}: {what}")


def _leaving(network: NetworkConfig) -> list[Request]:
    """Return the rules for packets from containers.

    They accept or drop packets to peers as `icc` says, and drop packets with a forged source
    address.
    """
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
    # A packet without a flow is never translated: it would leave with the container's address.
    stray = ct_state("invalid")
    rules.append(_rule(_FORWARD, network, "part of no flow", iifname(bridge), stray, drop))
    if not network.subnet6:
        rules.append(_rule(_FORWARD, network, "no IPv6 here", iifname(bridge), family(6), drop))
    return rules


def _entering(network: NetworkConfig) -> list[Request]:
    """Return the rules for packets to containers: only replies and redirected connections pass."""
    to = oifname(network.bridge)
    accept = verdict("accept")
    answers = ct_state("established", "related")
    return [
        _rule(_FORWARD, network, "answers", to, answers, accept),
        _rule(_FORWARD, network, "published", to, ct_dnat(), accept),
        _rule(_FORWARD, network, "nothing else comes in", to, verdict("drop")),
    ]


def ruleset(networks: Sequence[NetworkConfig]) -> list[Request]:
    """Return the whole table, as one transaction that replaces the current one."""
    requests = [
        add_table(TABLE),
        del_table(TABLE),
        add_table(TABLE),
        add_chain(TABLE, _FORWARD, hook="forward"),
        add_chain(TABLE, _POSTROUTING, hook="postrouting", priority=_SRCNAT, kind="nat"),
        add_chain(TABLE, GUARD, hook="prerouting", priority=RAW),
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
    """Yield the rules for 127.0.0.1: only the host may use it, and only towards the bridge."""
    yield loopback_guard(TABLE, network.bridge, f"{network.name}: loopback")
    called, to = saddr(LOOPBACK), oifname(network.bridge)
    yield _rule(_POSTROUTING, network, "from 127.0.0.1", called, to, masquerade())
    # A hairpin packet leaves by its incoming link. A router would redirect the sender (ICMP
    # redirect) past the translation.
    for version, protocol, number in ((4, "icmp", 5), (6, "icmpv6", 137)):
        redirect = [*family(version), *l4proto(protocol), *icmp_type(number)]
        yield _rule(_OUTPUT, network, "no redirects", to, redirect, verdict("drop"))


@contextmanager
def applied(networks: Sequence[NetworkConfig]) -> Iterator[None]:
    """Update the kernel's table to match `networks`; without a bridge there is no table.

    Use the body for other slow work. Closing a socket that has replaced rules takes an RCU grace
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
    """Return whether the table exists; it is then complete, as it only changes as a whole."""
    with Nft() as nft:
        return TABLE in nft.tables()


def loopback_guard(where: Table, bridge: str, comment: str) -> Request:
    """Return the rule that drops packets from a bridge to the host's loopback."""
    drop = verdict("drop")
    return add_rule(where, GUARD, iifname(bridge), daddr(LOOPBACK), drop, comment=comment)
