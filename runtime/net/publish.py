"""Published ports: what comes to a port of the host is led to a container.

Each container that publishes has a table of its own in nft, which belongs to a socket
that its pid 1 holds: the rules end with the container, by the kernel's hand, and no
flush of the ruleset takes them away before. The masquerade behind them, and the
permission to enter, are per network and stand in `runtime.net.nat`.

Only what goes to the host's own addresses is redirected. 127.0.0.0/8 counts as such
for the host itself alone: what comes from elsewhere is not, whatever it says. So that
the host's own calls to 127.0.0.1 can leave by the bridge, that link (no other) gets
`route_localnet`, and what containers send there to 127.0.0.0/8 is dropped. Who asks there
by ARP for such an address is not answered either (`runtime.net.bridge`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from linux import netstate, rtnl
from linux.conntrack import PROTOCOLS, Flow, to_port
from linux.netlink import Netlink, Request
from linux.nft import (
    Expression,
    Hook,
    Nft,
    Table,
    add_chain,
    add_rule,
    add_table,
    daddr,
    del_table,
    dnat,
    dport,
    family,
    iifname,
    l4proto,
    to_local,
    verdict,
)
from runtime.net import sysctl, traces
from runtime.records import Address, Publication

if TYPE_CHECKING:
    from linux.flowwatch import FlowWatch

LOOPBACK: Final = IPv4Network("127.0.0.0/8")
_LOOPBACK6: Final = ip_network("::1/128")
_RAW, _DSTNAT = -300, -100
_HOOKS: Final[tuple[Hook, ...]] = ("prerouting", "output")


_PREFIX: Final = "mydocker-"
_GUARD: Final = "guard"
"""The chain whose rules name the bridges that a container publishes on."""


class Target(NamedTuple):
    """Where a family's ports lead: the container's address, its bridge, its bridge port."""

    address: Address
    bridge: str
    veth: str


Targets = Mapping[Literal[4, 6], Target]


def table(identity: str) -> Table:
    """The table of one container."""
    return Table("inet", f"{_PREFIX}{identity[:12]}")


def rules(
    identity: str, name: str, publications: Iterable[Publication], targets: Targets
) -> list[Request]:
    """A container's whole table, as one transaction that replaces what is there."""
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
    requests.append(add_chain(own, _GUARD, hook="prerouting", priority=_RAW))
    for bridge in {target.bridge for target in targets.values()}:
        requests.append(loopback_guard(own, _GUARD, bridge, f"{bridge}: loopback"))
    return requests


def loopback_guard(where: Table, chain: str, bridge: str, comment: str) -> Request:
    """Nothing that comes in by a bridge is for the host's loopback."""
    drop = verdict("drop")
    return add_rule(where, chain, iifname(bridge), daddr(LOOPBACK), drop, comment=comment)


def _addressed(item: Publication, hook: Hook) -> list[list[Expression]]:
    """Which destinations a hook redirects, if any."""
    address = ip_address(item.address)
    if not address.is_unspecified:
        # Whatever is on the wire, the loopback is for the host alone; ::1 is relayed.
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
    """Have ports lead to a container from now on, for flows that go on too.

    `nft` is the socket that the table belongs to, `flows` as for an `Engine`.
    """
    for target in targets.values():
        sysctl.write(f"net.ipv4.conf.{target.bridge}.route_localnet", "1")
        with Netlink() as host:
            # With br_netfilter a call to itself comes back by the very port it came from.
            host.send([rtnl.hairpin_port(netstate.link(host, target.veth).ifindex)])
    nft.apply(rules(identity, name, publications, targets))
    with Netlink() as host:
        own = {item.address.ip for item in netstate.addresses(host)}
    found = traces.marked(flows, *{to_port(item.host_port) for item in publications})
    traces.drop([flow for flow in found if _is_stale(flow, publications, own, targets)])


def withdraw(bridges: Iterable[str]) -> None:
    """Take back what bridges were given for published ports, where nobody publishes any more."""
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
    """Whether a flow to a published port leads somewhere else: to a container that is gone."""
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
