"""The rules: who may pass between bridges and the rest, and under which address.

Everything lives in one table of mydocker's own, `inet mydocker`, replaced as a
whole in one transaction. Rules match mydocker's bridges only and the chains
accept the rest, so that nobody else's traffic, table or FORWARD policy is
touched. Each rule's comment names the network it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
    icmp_type,
    iifname,
    l4proto,
    masquerade,
    oifname,
    saddr,
    verdict,
)
from runtime.net.publish import LOOPBACK, loopback_guard
from runtime.records import NetworkConfig

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
    """What a container may send: to its peers as `icc` has it, outwards under its own address."""
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
        add_chain(TABLE, _GUARD, hook="prerouting", priority=_RAW),
        add_chain(TABLE, _OUTPUT, hook="output"),
    ]
    # First every "may not leave", then every "may enter": an accept of one
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
    """Under whose address packets go on: the host's, for all that leaves the bridge.

    And for what comes back to it: whoever called a published port of the host's from
    the same network must be answered by way of the host.
    """
    to, outside = oifname(network.bridge), oifname(network.bridge, is_not=True)
    for subnet in [] if network.internal else network.subnets:
        own = saddr(subnet)
        yield _rule(_POSTROUTING, network, "masquerade", own, outside, masquerade())
        yield _rule(_POSTROUTING, network, "hairpin", own, to, ct_dnat(), masquerade())


def _about_loopback(network: NetworkConfig) -> Iterator[Request]:
    """What the host calls on 127.0.0.1 may lead to the bridge, and nothing the other way."""
    yield loopback_guard(TABLE, _GUARD, network.bridge, f"{network.name}: loopback")
    called, to = saddr(LOOPBACK), oifname(network.bridge)
    yield _rule(_POSTROUTING, network, "from 127.0.0.1", called, to, masquerade())
    # A hairpin leaves by the link it came in by. A router would tell the sender to go
    # directly: past the translation.
    for version, protocol, number in ((4, "icmp", 5), (6, "icmpv6", 137)):
        redirect = [*family(version), *l4proto(protocol), *icmp_type(number)]
        yield _rule(_OUTPUT, network, "no redirects", to, redirect, verdict("drop"))


@contextmanager
def applied(networks: Sequence[NetworkConfig]) -> Iterator[None]:
    """Bring the kernel's table in line with `networks`; without a bridge there is no table.

    The body is for what else takes time: to close a socket that has replaced rules takes until
    nobody can be looking at the old ones any more, tens of milliseconds after it has.
    """
    bridges = [network for network in networks if network.driver == "bridge"]
    bridges.sort(key=lambda network: network.name)  # so that the table tells nothing of its past
    with Nft() as nft:
        if bridges:
            nft.apply(ruleset(bridges))
        else:
            nft.apply([add_table(TABLE), del_table(TABLE)])
        yield


def present() -> bool:
    """Whether the table is there. It is complete then: it only ever changes as a whole."""
    with Nft() as nft:
        return TABLE in nft.tables()
