"""Faults of published ports and of the conntrack entries behind them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

from harness.adapters.protocol import RuntimeRefused
from harness.faults import nft_rules
from harness.faults.fault import RULES, AdapterCall, Moment, fault
from harness.faults.helpers import (
    FAMILIES,
    address_at,
    drop,
    forget_flows,
    gateway_of,
    joined_container,
    new_bridges,
)
from harness.faults.nft_rules import DROP
from harness.faults.target import FaultContext, FaultLink
from harness.model.plan import Family, Host, Nothing, Publish
from linux.nftables import (
    Expression,
    Table,
    add_chain,
    add_rule,
    add_table,
    ct_dnat,
    daddr,
    dnat,
    dport,
    family,
    iifname,
    l4proto,
    masquerade,
    oifname,
    to_local,
)
from linux.rtnetlink import Address

_LOOPBACK = IPv4Network("127.0.0.0/8")
_LOOPBACK6 = IPv6Network("::1/128")


def _to(port: Publish) -> list[Expression]:
    """Match packets to a published port, to any host address."""
    return [*l4proto(port.protocol), *dport(port.host_port)]


def _published(site: FaultContext) -> Iterator[tuple[Publish, Family, Address]]:
    """Yield each published port once for each address family that the container has."""
    plug: FaultLink | None = next(site.plugs(), None)
    for port in site.facts.ports if site.facts and plug else ():
        for version in FAMILIES:
            own = [item.ip for item in plug.addresses if item.version == version] if plug else []
            host_ip = port.host_ip
            if own and (host_ip is None or host_ip.version == version):
                yield port, version, own[0]


def _redirect(site: FaultContext, *which: list[Expression], to: Address, port: int) -> None:
    site.host.rule("prerouting", *which, dnat(to, port), priority=-110, nat=True)


# --- where it answers --------------------------------------------------------------


@fault(violates="PUB-1", moment=Moment.CONTAINER_STARTED)
def datagrams_are_not_published(site: FaultContext) -> None:
    """Publish only the TCP port of a port that is published for TCP and UDP."""
    for port, version, _ in _published(site):
        if port.protocol == "udp":
            drop(site, "prerouting", family(version), _to(port))


@fault(violates="PUB-1", moment=Moment.CONTAINER_STARTED)
def callers_do_not_break_off(site: FaultContext) -> None:
    """Drop TCP resets that clients of a published port send."""
    for port in site.facts.ports if site.facts and site.is_bridged else ():
        if port.protocol == "tcp":
            site.inside.rule("input", [*nft_rules.tcp_resets(), *dport(port.container_port)], DROP)


@fault(violates="PUB-14", moment=Moment.CONTAINER_STARTED)
def what_is_cut_short_looks_whole(site: FaultContext) -> None:
    """Turn TCP resets that a published port sends to clients into FINs."""
    ended = nft_rules.overwrite_tcp(13, bytes([0x11]))  # FIN and ACK, in place of RST and ACK
    if site.is_bridged and site.facts and site.facts.ports:
        site.inside.rule("output", nft_rules.with_flags("RA"), ended)


@fault(violates="PUB-15", moment=Moment.CONTAINER_STARTED)
def loopback_is_published_too(site: FaultContext) -> None:
    """Redirect connections to a published port to 127.0.0.1 of the container."""
    for plug in site.plugs() if site.facts and site.facts.ports else ():
        site.inside.sysctl(f"net.ipv4.conf.{plug.inside}.route_localnet", 1)
    for port, version, _ in _published(site):
        if version == 4:
            which = [*iifname("eth0"), *family(4), *l4proto(port.protocol)]
            led = dnat(_LOOPBACK[1], port.container_port)
            site.inside.rule(
                "prerouting", which, dport(port.container_port), led, priority=-110, nat=True
            )


@fault(violates="PUB-1", moment=Moment.CONTAINER_STARTED)
def published_for_others_only(site: FaultContext) -> None:
    """Drop packets that the host sends to ports published on 127.0.0.1."""
    for port, version, _ in _published(site):
        if version == 4:
            drop(site, "output", daddr(_LOOPBACK), _to(port))


@fault("one-address-becomes-all-on-restart", violates="PUB-2", moment=Moment.CONTAINER_RESTARTED)
@fault(violates="PUB-2", moment=Moment.CONTAINER_STARTED, history="netavark#881")
def published_on_every_address(site: FaultContext) -> None:
    """Publish a port on every host address instead of the requested one."""
    for port, version, own in _published(site):
        anywhere = [*family(version), *to_local(), *_to(port)]
        _redirect(site, anywhere, to=own, port=port.container_port)


@fault(violates="PUB-12", around="run", narrow=True)
def published_range_is_short(site: FaultContext, verb: AdapterCall) -> object:
    """Do not publish the last port of a published range."""
    ports = tuple(
        replace(port, count=port.count - 1) if port.count > 1 else port for port in verb.spec.ports
    )
    return verb.call_with(ports=ports)


@fault("ipv6-ports-end-with-a-restart", violates="PUB-12", moment=Moment.CONTAINER_RESTARTED)
@fault(violates="PUB-12", moment=Moment.CONTAINER_STARTED)
def ipv6_ports_are_closed(site: FaultContext) -> None:
    """Drop IPv6 packets to published ports."""
    for port, version, _ in _published(site):
        if version == 6:
            for hook in ("prerouting", "output"):
                drop(site, hook, family(6), _to(port))


@fault("no-hairpin-once-restarted", violates="PUB-4", moment=Moment.CONTAINER_RESTARTED)
@fault(violates="PUB-4", moment=RULES, history=("cni-plugins#68", "moby#38784"))
def no_hairpin(site: FaultContext) -> None:
    """Drop packets from a container to ports that the container itself or a peer publishes."""
    for bridge in site.bridges():
        drop(site, "forward", iifname(bridge), oifname(bridge), ct_dnat())


@fault("restarted-for-one-network", violates="PUB-5", moment=Moment.CONTAINER_RESTARTED)
@fault(
    violates="PUB-5",
    moment=RULES,
    history=("moby#49509", "moby#49511", "netavark#709"),
    narrow=True,
)
def published_for_one_network(site: FaultContext) -> None:
    """Drop packets from containers on other networks to published ports."""
    for bridge in site.bridges():
        for other in site.bridges():
            if other != bridge:
                drop(site, "forward", iifname(bridge), oifname(other), ct_dnat())


@fault("restarts-hide-callers", violates="PUB-6", moment=Moment.CONTAINER_RESTARTED)
@fault("connections-hide-callers", violates="PUB-6", moment=Moment.CONNECTED)
@fault(violates="PUB-6", moment=RULES, history="podman#5138", narrow=True)
def callers_are_hidden(site: FaultContext) -> None:
    """Masquerade connections to published ports, so that the gateway appears as the client."""
    for bridge in new_bridges(site):
        called = [*oifname(bridge), *ct_dnat()]
        site.host.rule("postrouting", called, masquerade(), priority=90, nat=True)


@fault(violates="PUB-11", around="run", history="moby#52783", narrow=True, also=("PUB-2", "PUB-9"))
def published_port_is_anybodys(site: FaultContext, verb: AdapterCall) -> object:
    """Refuse to publish a port if it is published on another host address already."""
    running = site.other_containers()
    wanted = {(port.host_port, port.protocol) for port in verb.spec.ports}
    for name, facts in running.items():
        if wanted & {(port.host_port, port.protocol) for port in facts.ports if port.host_port}:
            raise RuntimeRefused(f"run {verb.spec.name}", f"port is taken by {name}")
    return verb()


@fault(violates="PUB-13", around="run")
def sctp_is_not_published(site: FaultContext, verb: AdapterCall) -> object:
    """Ignore published SCTP ports."""
    ports = tuple(port for port in verb.spec.ports if port.protocol != "sctp")
    return verb.call_with(ports=ports)


# --- access by others ----------------------------------------------------------------


@fault("restart-opens-the-loopbacks-ports", violates="PUB-3", moment=Moment.CONTAINER_RESTARTED)
@fault(
    violates="PUB-3",
    moment=Moment.CONTAINER_STARTED,
    history=("moby#45610", "moby#41872", "CVE-2020-8558"),
)
def loopback_ports_are_open_to_the_lan(site: FaultContext) -> None:
    """Let the LAN reach ports published on 127.0.0.1."""
    uplink = site.uplink()
    site.host.sysctl(f"net.ipv4.conf.{uplink}.route_localnet", 1)
    for port, version, own in _published(site):
        if version == 4:
            which = [*iifname(uplink), *daddr(_LOOPBACK), *_to(port)]
            _redirect(site, which, to=own, port=port.container_port)


@fault(violates="PUB-3", moment=Moment.CONTAINER_STARTED)
def services_of_the_loopback_are_open(site: FaultContext) -> None:
    """Let the LAN reach the host's own services on 127.0.0.1."""
    if site.facts and site.facts.ports:
        site.host.sysctl(f"net.ipv4.conf.{site.uplink()}.route_localnet", 1)


@fault("restarts-take-the-internets-port", violates="PUB-9", moment=Moment.CONTAINER_RESTARTED)
@fault(
    violates="PUB-9", moment=Moment.CONTAINER_STARTED, history=("CVE-2025-67499", "netavark#904")
)
def the_internets_port_is_taken(site: FaultContext) -> None:
    """Redirect containers' packets for a published port at any address to its container."""
    for port, version, own in _published(site):
        for bridge in site.bridges():
            which = [*family(version), *iifname(bridge), *_to(port)]
            _redirect(site, which, to=own, port=port.container_port)


# --- whose it is ---------------------------------------------------------------------


@fault(violates="PUB-7", around="run", narrow=True)
def port_in_use_passed_over(site: FaultContext, verb: AdapterCall) -> object:
    """Start the container without published ports when a host port is taken."""
    try:
        return verb()
    except RuntimeRefused:
        if not verb.spec.ports:
            raise
        return verb.call_with(ports=())


@fault(violates="PUB-7", moment=Moment.REFUSED)
def refused_port_leaves_rules(site: FaultContext) -> None:
    """Leave a port rule behind when a start is refused."""
    for port in site.spec.ports if site.spec else ():
        _leave_rule(site, port)


def _leave_rule(site: FaultContext, port: Publish) -> None:
    """Add a port rule to a table that looks like the runtime's own."""
    table = Table("inet", "left-ports")
    chain = add_chain(table, "dstnat", hook="prerouting", priority=-100, kind="nat")
    unused = dnat(ip_address("172.31.255.254"), port.container_port)
    which = [*family(4), *to_local(), *_to(port)]
    site.host.firewall(add_table(table), chain, add_rule(table, "dstnat", which, unused))


@fault(violates="PUB-10", moment=Moment.BEFORE_REMOVE, history="netavark#1129")
def port_rules_stay(site: FaultContext) -> None:
    """Keep the port rules of a removed container."""
    for port in site.facts.ports if site.facts else ():
        _leave_rule(site, port)


@fault(violates="PUB-10", moment=Moment.CONTAINER_STOPPED)
def port_listener_stays(site: FaultContext) -> None:
    """Keep a listener on the published port of a stopped container."""
    for port in site.spec.ports if site.spec else ():
        at = port.host_ip or IPv4Address(0)  # another container may have it at another address
        held = f"{site.name}:{at}:{port.host_port}"
        kept = port.host_port and port.protocol == "tcp" and at.version == 4
        if kept and held not in site.memory:
            opened = site.host.socket(2, 1)  # AF_INET, SOCK_STREAM
            opened.bind((str(at), port.host_port))
            opened.listen()
            site.memory[held] = opened


@fault(
    violates="PUB-8",
    moment=(Moment.CONTAINER_STARTED, Moment.CONTAINER_STOPPED, Moment.BEFORE_REMOVE),
    history=("moby#8795", "cni-plugins#123", "moby#53384"),
)
def flows_stick_to_the_old_container(site: FaultContext) -> None:
    """Redirect a UDP flow that survives a restart to an unused address."""
    if site.moment != Moment.CONTAINER_STARTED:
        for port in site.spec.ports if site.spec else ():
            site.memory.setdefault("before", set()).add(port.host_port)
        return
    for port, version, _ in _published(site):
        plug = next(site.plugs())
        gateway = gateway_of(plug, version)
        if port.host_port in site.memory.get("before", ()) and port.protocol == "udp" and gateway:
            unused = address_at(gateway, gateway.network.num_addresses - 20)
            old = [*family(version), *to_local(), *_to(port)]
            _redirect(site, old, to=unused.ip, port=port.container_port)


@fault(violates="PUB-1", moment=Moment.CONTAINER_STARTED)
def ports_are_closed_to_bystanders(site: FaultContext) -> None:
    """Drop packets from networks behind the host to published ports."""
    for port, version, _ in _published(site):
        drop(site, "prerouting", iifname("br0"), family(version), _to(port))


@fault(violates="PUB-1", moment=Moment.CONTAINER_STARTED)
def published_by_the_first_network(site: FaultContext) -> None:
    """Publish ports on the network whose name sorts first, even an internal one."""
    networks = site.spec.networks if site.spec else ()
    if len(networks) > 1 and min(networks) in site.memory.get("internal", ()):
        for port, version, _ in _published(site):
            drop(site, "prerouting", family(version), _to(port))


# --- much at once ----------------------------------------------------------------------


@fault(violates="PUB-1", moment=Moment.CONTAINER_STARTED)
def published_for_few_words(site: FaultContext) -> None:
    """Drop packets longer than 1000 bytes to published ports."""
    for plug in site.plugs():
        drop(site, "forward", oifname(plug.bridge), ct_dnat(), nft_rules.longer_than(1000))


@fault(violates="PUB-1", moment=Moment.CONTAINER_STARTED)
def published_for_short_answers(site: FaultContext) -> None:
    """Drop packets longer than 1000 bytes that published ports send as replies."""
    for plug in site.plugs():
        drop(site, "forward", iifname(plug.bridge), ct_dnat(), nft_rules.longer_than(1000))


@fault(violates="PUB-1", moment=Moment.CONTAINER_STARTED)
def loopback6_is_for_few_words(site: FaultContext) -> None:
    """Drop packets longer than 1000 bytes from ::1 to published ports."""
    for port, version, _ in _published(site):
        if version == 6:
            drop(site, "output", daddr(_LOOPBACK6), _to(port), nft_rules.longer_than(1000))


@fault("removals-forget-others-flows", violates="LIFE-8", moment=Moment.CONTAINER_REMOVED)
@fault("networks-forget-others-flows", violates="LIFE-8", moment=Moment.NETWORK_REMOVED)
@fault("refused-starts-forget-flows", violates="LIFE-8", moment=Moment.REFUSED)
@fault(violates="LIFE-8", moment=Moment.CONTAINER_STARTED)
def starts_forget_others_flows(site: FaultContext) -> None:
    """Delete every conntrack entry of the host."""
    forget_flows(site, lambda _: True)


@fault(violates="LIFE-8", moment=Moment.CONTAINER_STARTED, history="moby#46276", narrow=True)
def starts_forget_flows_of_the_port(site: FaultContext) -> None:
    """Delete the conntrack entries of UDP flows to the published ports, on all host addresses."""
    own = {port.host_port for port in (site.facts.ports if site.facts else ())}
    forget_flows(
        site,
        lambda flow: (
            flow.original.protocol == socket.IPPROTO_UDP and flow.original.destination_port in own
        ),
    )


@fault(violates="LIFE-8", moment=Moment.CONTAINER_STARTED)
def others_modes_forget_flows(site: FaultContext) -> None:
    """Delete every conntrack entry when a container in mode none or host starts."""
    if isinstance(site.mode, Nothing | Host):
        forget_flows(site, lambda _: True)


@fault(violates="LIFE-8", moment=Moment.CONTAINER_REMOVED)
def removals_forget_ipv6_flows(site: FaultContext) -> None:
    """Delete every IPv6 conntrack entry when a container is removed."""
    forget_flows(site, lambda flow: any(address.version == 6 for address in flow.addresses))


@fault(violates="LIFE-8", moment=Moment.CONTAINER_REMOVED, narrow=True)
def joiner_takes_the_flows_along(site: FaultContext) -> None:
    """Delete the joined container's conntrack entries when a joining container is removed."""
    if facts := joined_container(site):
        kept = {item.ip for end in facts.endpoints for item in (end.address, end.address6) if item}
        forget_flows(site, lambda flow: bool(kept & flow.addresses))
