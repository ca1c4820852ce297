"""Faults of connecting containers to networks, disconnecting them, and removing networks."""

from __future__ import annotations

import socket
from ipaddress import IPv4Network, IPv6Network

from harness.adapters.protocol import ContainerInfo, RuntimeRefused
from harness.faults.fault import AdapterCall, Moment, fault
from harness.faults.helpers import drop, forget_flows
from harness.faults.target import FaultContext
from linux.nftables import (
    Table,
    add_chain,
    add_rule,
    add_table,
    counter,
    ct_dnat,
    daddr,
    dport,
    iifname,
    l4proto,
    oifname,
)


@fault("restarted-without-a-network", violates="LIFE-7", moment=Moment.CONTAINER_RESTARTED)
@fault(violates="NET-3", moment=Moment.CONNECTED, narrow=True)
def connected_later(site: FaultContext) -> None:
    """Leave the container's interface down."""
    for plug in site.new_plugs():
        site.inside.set_link(plug.inside, up=False)


@fault(violates="NET-3", moment=Moment.CONNECTED, narrow=True)
def connecting_disturbs(site: FaultContext) -> None:
    """Take down the interfaces on other networks when a container is connected to a network."""
    for plug in site.plugs():
        if site.network and plug.network.name != site.network.name:
            site.host.set_link(plug.outside, up=False)


@fault(violates="NET-3", around="disconnect")
def disconnecting_does_nothing(site: FaultContext, verb: AdapterCall) -> object:
    """Report that a network is disconnected without disconnecting it."""
    return site.runtime.inspect(verb.name)


@fault(violates="NET-3", moment=Moment.DISCONNECTED)
def disconnecting_disturbs(site: FaultContext) -> None:
    """Remove the default routes of the remaining networks when a network is disconnected."""
    for plug in site.plugs():
        for gateway in plug.gateways:
            site.inside.ensure("route", "del", dst="default", gateway=gateway.ip)


@fault(violates="NET-6", around="remove_network", narrow=True)
def network_in_use_removed(site: FaultContext, verb: AdapterCall) -> None:
    """Report success when the runtime refuses to remove a network in use."""
    try:
        verb()
    except RuntimeRefused:
        if site.network is None:  # there is none of that name
            raise


@fault(violates="NET-6", moment=Moment.NETWORK_REMOVED)
def bridge_outlives_its_network(site: FaultContext) -> None:
    """Leave the bridge of a removed network behind."""
    if site.network and site.network.interface:
        site.host.ensure("link", "add", ifname=site.network.interface, kind="bridge", state="up")


@fault(violates="NET-6", moment=Moment.NETWORK_REMOVED)
def rules_outlive_their_network(site: FaultContext) -> None:
    """Leave nftables rules of a removed network behind."""
    table = Table("inet", f"left-{site.name}"[:30])
    chain = add_chain(table, "forward", hook="forward")
    site.host.firewall(add_table(table), chain, add_rule(table, "forward", counter()))


@fault(violates="NET-7", around="network")
def bad_subnet_corrected(site: FaultContext, verb: AdapterCall) -> object:
    """Ignore a requested gateway or address range outside its subnet."""
    try:
        return verb()
    except RuntimeRefused:
        return verb.call_with(subnet=None, gateway=None, ip_range=None, subnet6=None, gateway6=None)


@fault(violates="NET-6", around="remove_network")
def refused_removal_breaks_the_network(site: FaultContext, verb: AdapterCall) -> None:
    """Take the bridge down when the runtime refuses to remove a network in use."""
    try:
        verb()
    except RuntimeRefused:
        if site.network and site.network.interface:
            site.host.set_link(site.network.interface, up=False)
        raise


@fault(violates="NET-3", moment=(Moment.CONNECTED, Moment.DISCONNECTED))
def connections_close_published_ports(site: FaultContext) -> None:
    """Drop packets to published ports when a network is connected or disconnected."""
    if site.spec and site.spec.ports:
        drop(site, "forward", ct_dnat())


@fault(violates="NET-3", moment=Moment.DISCONNECTED, narrow=True)
def published_ports_stay_behind(site: FaultContext) -> None:
    """Drop packets to published ports when the container's first network is disconnected."""
    left = site.network.name if site.network else ""
    if site.spec and site.spec.ports and site.spec.networks[0] == left:
        drop(site, "forward", ct_dnat())


@fault(violates="NET-3", moment=Moment.CONNECTED, narrow=True)
def connections_close_the_loopback(site: FaultContext) -> None:
    """Drop packets from 127.0.0.1 to published ports when a network is connected."""
    _close(site, IPv4Network("127.0.0.0/8"))


@fault(violates="NET-3", moment=Moment.CONNECTED, narrow=True)
def connections_close_the_loopback6(site: FaultContext) -> None:
    """Drop packets from ::1 to published ports when a network is connected."""
    _close(site, IPv6Network("::1/128"))


def _close(site: FaultContext, network: IPv4Network | IPv6Network) -> None:
    """Drop packets from the host to the container's published ports at addresses of `network`."""
    for port in site.spec.ports if site.spec else ():
        drop(site, "output", daddr(network), l4proto(port.protocol), dport(port.host_port))


@fault(violates="NET-3", moment=Moment.CONNECTED, narrow=True)
def connections_end_hairpins(site: FaultContext) -> None:
    """Drop packets from peers to published ports when a network is connected."""
    if site.spec and site.spec.ports:
        for plug in site.plugs():
            drop(site, "forward", iifname(plug.bridge), oifname(plug.bridge), ct_dnat())


@fault(violates="NET-3", moment=(Moment.CONNECTED, Moment.DISCONNECTED), narrow=True)
def connections_forget_flows(site: FaultContext) -> None:
    """Delete the conntrack entries of the container's addresses.

    Translated connections are lost if the side outside the container sends the next packet.
    """
    kept = {item.ip for plug in site.plugs() for item in plug.addresses}
    forget_flows(site, lambda flow: bool(kept & flow.addresses))


@fault(violates="NET-3", moment=Moment.CONNECTED, narrow=True)
def connections_without_ipv6_end_it(site: FaultContext) -> None:
    """Remove the IPv6 default route when a network without IPv6 is connected."""
    if site.network and not any(item.version == 6 for item in site.network.gateways):
        for plug in site.plugs():
            for gateway in plug.gateways:
                if gateway.version == 6:
                    site.inside.ensure("route", "del", dst="default", gateway=gateway.ip)


@fault(violates=("NET-3", "LIFE-1"), around="disconnect")
def left_address_has_flows(site: FaultContext, verb: AdapterCall) -> object:
    """Leave a conntrack entry for the address on a disconnected network."""
    left = [
        item for item in site.runtime.inspect(verb.name).endpoints if item.network == verb.network
    ]
    facts: ContainerInfo = verb()
    for endpoint in left:
        if endpoint.address:
            with site.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as call:
                call.sendto(b"still there?", (str(endpoint.address.ip), 9))
    return facts


@fault(violates="INT-1", moment=Moment.DISCONNECTED)
def last_network_leads_out(site: FaultContext) -> None:
    """Add a default route on an internal network that is a container's last network."""
    if not any(item.destination is None for item in site.inside.place.routes()):
        for plug in site.plugs():
            for gateway in plug.gateways:
                site.inside.ensure("route", "add", dst="default", gateway=gateway.ip)


@fault(violates="NET-6", around="network")
def names_of_networks_are_remembered(site: FaultContext, verb: AdapterCall) -> object:
    """Reuse the options of a removed network for a new network with the same name."""
    spec = verb.spec
    first = site.memory.setdefault("first", {}).setdefault(spec.name, spec)
    return verb.call_with(mtu=first.mtu, internal=first.internal, icc=first.icc)
