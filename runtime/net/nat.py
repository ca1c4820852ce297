"""The rules: who may pass between bridges and the rest, and under which address.

Everything lives in one table of mydocker's own, `inet mydocker`, replaced as a
whole in one transaction. Rules match mydocker's bridges only and the chains
accept the rest, so that nobody else's traffic, table or FORWARD policy is
touched. Each rule's comment names the network it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from linux.netlink import Request
from linux.nft import (
    Expression,
    Nft,
    Table,
    add_chain,
    add_rule,
    add_table,
    ct_dnat,
    ct_state,
    del_table,
    family,
    iifname,
    masquerade,
    oifname,
    saddr,
    verdict,
)
from runtime.records import NetworkConfig

TABLE: Final = Table("inet", "mydocker")
_FORWARD: Final = "forward"
_POSTROUTING: Final = "postrouting"
_SRCNAT: Final = 100


def _rule(chain: str, network: NetworkConfig, what: str, *parts: Iterable[Expression]) -> Request:
    return add_rule(TABLE, chain, *parts, comment=f"{network.name}: {what}")


def _leaving(network: NetworkConfig) -> list[Request]:
    """What a container may send: to its peers as `icc` has it, outwards under its own address."""
    bridge = network.bridge
    peers = verdict("accept" if network.icc else "drop")
    rules = [_rule(_FORWARD, network, "peers", iifname(bridge), oifname(bridge), peers)]
    if network.internal:
        return [*rules, _rule(_FORWARD, network, "internal", iifname(bridge), verdict("drop"))]
    drop = verdict("drop")
    for subnet in network.subnets:
        forged = saddr(subnet, is_not=True)
        rules.append(_rule(_FORWARD, network, "forged source", iifname(bridge), forged, drop))
    # What belongs to no flow is never translated: it would leave with the container's address.
    stray = ct_state("invalid")
    rules.append(_rule(_FORWARD, network, "part of no flow", iifname(bridge), stray, drop))
    if not network.subnet6:
        rules.append(_rule(_FORWARD, network, "no IPv6 here", iifname(bridge), family(6), drop))
    return rules


def _entering(network: NetworkConfig) -> list[Request]:
    """What may reach a container: answers, and what was redirected to it on purpose."""
    to = oifname(network.bridge)
    accept = verdict("accept")
    answers = ct_state("established", "related")
    return [
        _rule(_FORWARD, network, "answers", to, answers, accept),
        _rule(_FORWARD, network, "published", to, ct_dnat(), accept),
        _rule(_FORWARD, network, "nothing else comes in", to, verdict("drop")),
    ]


def ruleset(networks: Sequence[NetworkConfig]) -> list[Request]:
    """The whole table, as one transaction that replaces what is there."""
    requests = [
        add_table(TABLE),
        del_table(TABLE),
        add_table(TABLE),
        add_chain(TABLE, _FORWARD, hook="forward"),
        add_chain(TABLE, _POSTROUTING, hook="postrouting", priority=_SRCNAT, kind="nat"),
    ]
    # First every "may not leave", then every "may enter": an accept of one
    # network must not overrule a drop of another.
    for network in networks:
        requests += _leaving(network)
    for network in networks:
        requests += _entering(network)
    for network in networks:
        for subnet in [] if network.internal else network.subnets:
            outside = oifname(network.bridge, is_not=True)
            requests.append(
                _rule(_POSTROUTING, network, "masquerade", saddr(subnet), outside, masquerade())
            )
    return requests


def apply(networks: Sequence[NetworkConfig]) -> None:
    """Bring the kernel's table in line with `networks`; without a bridge there is no table."""
    bridges = [network for network in networks if network.driver == "bridge"]
    with Nft() as nft:
        if bridges:
            nft.apply(ruleset(bridges))
        else:
            nft.apply([add_table(TABLE), del_table(TABLE)])


def present() -> bool:
    """Whether the table is there. It is complete then: it only ever changes as a whole."""
    with Nft() as nft:
        return TABLE in nft.tables()
