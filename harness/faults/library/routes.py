"""Faults of routes, policy rules and TTLs in containers and on the host."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Final

from harness.faults import nft_rules
from harness.faults.fault import PLUGGED, RULES, Moment, fault
from harness.faults.helpers import (
    FAMILIES,
    address_at,
    gateway_of,
    gateways,
    joined_container,
    new_bridges,
)
from harness.faults.target import FaultContext, FaultLink
from harness.model.plan import DEFAULT_NETWORK, Nothing
from harness.probe.sockets import ADDRESS_FAMILIES
from linux.nftables import iifname, l4proto, oifname
from linux.rtnetlink import LO

_LINK_LOCAL: Final = IPv4Network("169.254.0.0/16")


@fault(violates="BR-2", moment=PLUGGED)
def no_default_route(site: FaultContext) -> None:
    """Remove the container's default routes."""
    for plug in site.plugs():
        for gateway in plug.gateways:
            site.inside.ensure("route", "del", dst="default", gateway=gateway.ip)


@fault(violates="BR-2", moment=PLUGGED)
def default_route_to_nobody(site: FaultContext) -> None:
    """Set the default route's gateway to an unused address."""
    for _, gateway in gateways(site):
        unused = address_at(gateway, gateway.network.num_addresses - 9)
        site.inside.ensure("route", "replace", dst="default", gateway=unused.ip)


@fault(violates="BR-2", moment=PLUGGED)
def route_too_many(site: FaultContext) -> None:
    """Add a route to the container that is not part of its network."""
    for _, gateway in gateways(site):
        site.inside.ensure("route", "add", dst="10.66.0.0/16", gateway=gateway.ip)


@fault(violates="V6-1", moment=PLUGGED)
def no_ipv6_default_route(site: FaultContext) -> None:
    """Remove the IPv6 default route."""
    for _, gateway in gateways(site, 6):
        site.inside.ensure("route", "del", dst="default", gateway=gateway.ip)


@fault(violates="NONE-3", moment=Moment.CONTAINER_STARTED, narrow=True)
def none_has_a_route(site: FaultContext) -> None:
    """Add a route to a container in mode none."""
    if isinstance(site.mode, Nothing):
        site.inside.ensure("route", "add", dst="10.66.0.0/16", oif=LO)


@fault(violates=("NONE-3", "NONE-4"), moment=Moment.CONTAINER_STARTED)
def none_swallows(site: FaultContext) -> None:
    """Route all packets of a container in mode none to its loopback interface."""
    if isinstance(site.mode, Nothing):
        for network in (IPv4Network("0.0.0.0/0"), IPv6Network("::/0")):
            site.inside.ensure("route", "add", dst=network, oif=LO)


@fault(violates="INT-1", moment=PLUGGED, narrow=True)
def internal_has_a_default_route(site: FaultContext) -> None:
    """Add a default route to a container on an internal network."""
    for plug in site.plugs():
        if site.is_internal:
            for gateway in plug.gateways:
                site.inside.ensure("route", "add", dst="default", gateway=gateway.ip)


@fault(violates=("BR-6", "BR-7", "BR-19"), moment=RULES)
def ttl_is_not_counted(site: FaultContext) -> None:
    """Forward containers' packets without decrementing the TTL."""
    for bridge in new_bridges(site):
        for version in FAMILIES:
            site.host.rule("prerouting", iifname(bridge), nft_rules.set_ttl(version, 65))


@fault(violates="BR-5", moment=RULES)
def answers_of_the_host_are_old(site: FaultContext) -> None:
    """Send the host's replies to containers with a TTL of 63."""
    for bridge in new_bridges(site):
        for version in FAMILIES:
            site.host.rule("output", oifname(bridge), nft_rules.set_ttl(version, 63), priority=300)


@fault(violates="BR-4", moment=Moment.HOST_READY)
def peers_are_a_router_apart(site: FaultContext) -> None:
    """Decrement the TTL of packets between containers on one network."""
    for version in FAMILIES:
        aged = nft_rules.set_ttl(version, 63, bridge=True)
        site.host.rule("forward", aged, priority=0, bridge=True)


@fault(violates="V6-1", moment=RULES)
def hop_limit_is_not_counted(site: FaultContext) -> None:
    """Forward containers' IPv6 packets without decrementing the hop limit."""
    for bridge in new_bridges(site):
        site.host.rule("prerouting", iifname(bridge), nft_rules.set_ttl(6, 65))


@fault(
    "stopped-joiner-takes-the-route-along",
    violates="CTR-9",
    moment=Moment.CONTAINER_STOPPED,
    narrow=True,
)
@fault(violates="CTR-9", moment=Moment.CONTAINER_REMOVED)
def joiner_takes_the_route_along(site: FaultContext) -> None:
    """Remove the joined container's default route when a joining container stops."""
    if facts := joined_container(site):
        for endpoint in facts.endpoints:
            for gateway in site.runtime.network_facts(endpoint.network).gateways:
                site.netns_of(facts).ensure("route", "del", dst="default", gateway=gateway.ip)


@fault(violates="BYS-1", moment=(Moment.CONTAINER_STARTED, Moment.BEFORE_REMOVE))
def host_gets_a_route_of_its_own(site: FaultContext) -> None:
    """Add a route through the host's uplink while a container runs."""
    _route_meanwhile(site, IPv4Network("10.88.0.0/16"))


def _route_meanwhile(site: FaultContext, network: IPv4Network) -> None:
    """Route a network through the host's uplink while the container runs."""
    command = "del" if site.moment == Moment.BEFORE_REMOVE else "add"
    site.host.ensure("route", command, dst=network, oif=site.host.link(site.uplink()).ifindex)


@fault(violates="BYS-1", moment=Moment.CONTAINER_STARTED)
def policy_rule_for_the_host(site: FaultContext) -> None:
    """Add a policy rule for the host's uplink with each container."""
    count = site.memory["rules"] = site.memory.get("rules", 3000) + 1
    site.host.ensure("rule", "add", iifname=site.uplink(), table=254, priority=count)


@fault(violates="BR-2", moment=PLUGGED)
def second_default_route(site: FaultContext) -> None:
    """Add a second default route with a higher metric to the container."""
    for _, gateway in gateways(site):
        site.inside.ensure("route", "add", dst="default", gateway=gateway.ip, priority=500)


@fault(violates="INT-1", moment=PLUGGED)
def internal_reaches_the_host(site: FaultContext) -> None:
    """Add a route to the host's uplink address to a container on an internal network."""
    for plug in site.plugs():
        gateway = gateway_of(plug)
        if site.is_internal and gateway:
            for address in site.host.addresses(site.uplink()):
                if address.version == 4:
                    there = IPv4Network(address.ip)
                    site.inside.ensure("route", "add", dst=there, gateway=gateway.ip)


@fault(violates="BR-2", moment=PLUGGED)
def route_too_many_on_own_networks(site: FaultContext) -> None:
    """Add a route to 10.0.0.0/8 to containers on user-defined networks."""
    for plug in site.plugs():
        gateway = gateway_of(plug)
        if plug.network.name != DEFAULT_NETWORK and gateway and not site.is_internal:
            site.inside.ensure("route", "add", dst="10.0.0.0/8", gateway=gateway.ip)


@fault(violates="INT-1", moment=Moment.CONTAINER_RESTARTED)
def internal_opens_with_a_restart(site: FaultContext) -> None:
    """Add a default route to a container on an internal network on restart."""
    for plug in site.plugs():
        gateway = gateway_of(plug)
        if gateway and plug.network.name in site.memory.get("internal", ()):
            site.inside.ensure("route", "add", dst="default", gateway=gateway.ip)


@fault(violates="BR-2", moment=PLUGGED, narrow=True)
def rule_leads_to_another_table(site: FaultContext) -> None:
    """Add a policy rule to the container that selects a second routing table."""
    for plug in site.plugs():
        _lead_away(site, plug, IPv4Network("198.18.0.0/15"))


@fault(violates="BR-5", moment=RULES, narrow=True)
def host_answers_calls_as_from_afar(site: FaultContext) -> None:
    """Send the host's TCP replies to containers with a TTL of 63."""
    for bridge in new_bridges(site):
        for version in FAMILIES:
            aged = [*l4proto("tcp"), *nft_rules.set_ttl(version, 63)]
            site.host.rule("output", oifname(bridge), aged, priority=300)


@fault(violates="BR-7", moment=RULES)
def answers_from_beyond_are_new(site: FaultContext) -> None:
    """Reset the TTL of TCP replies from the internet to 64."""
    for bridge in new_bridges(site):
        for version in FAMILIES:
            new = [*l4proto("tcp"), *nft_rules.set_ttl(version, 64)]
            site.host.rule("forward", oifname(bridge), new, priority=300)


@fault(violates="BR-2", moment=PLUGGED, narrow=True)
def link_local_is_swallowed(site: FaultContext) -> None:
    """Add a blackhole route for 169.254.0.0/16, which has clouds' metadata, to the container."""
    for _ in site.plugs():
        site.inside.ensure("route", "add", dst=_LINK_LOCAL, type="blackhole")


@fault(violates="BYS-1", moment=(Moment.CONTAINER_STARTED, Moment.BEFORE_REMOVE))
def host_gets_a_link_local_route(site: FaultContext) -> None:
    """Add a route to 169.254.0.0/16 through the host's uplink while a container runs."""
    _route_meanwhile(site, _LINK_LOCAL)


@fault(violates="BR-2", moment=PLUGGED, narrow=True)
def rule_leads_to_another_table_on_own_networks(site: FaultContext) -> None:
    """Add a policy rule that selects a second routing table, on user-defined networks."""
    for plug in site.plugs():
        if plug.network.name != DEFAULT_NETWORK:
            _lead_away(site, plug, IPv4Network("198.18.0.0/15"))


@fault(violates="V6-1", moment=PLUGGED, narrow=True)
def rule_of_ipv6_leads_to_another_table(site: FaultContext) -> None:
    """Add an IPv6 policy rule that selects a second routing table, on networks with IPv6."""
    for plug in site.plugs():
        if gateway_of(plug, 6):
            _lead_away(site, plug, IPv6Network("2001:db8:ffff::/48"))


def _lead_away(site: FaultContext, plug: FaultLink, network: IPv4Network | IPv6Network) -> None:
    """Make the container use a second routing table, which has one route."""
    index = site.inside.link(plug.inside).ifindex
    family = ADDRESS_FAMILIES[network.version]
    site.inside.ensure("rule", "add", family=family, iifname="lo", table=100, priority=50)
    site.inside.ensure("route", "add", dst=network, oif=index, table=100)
