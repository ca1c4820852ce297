"""Faults that appear when a container restarts or reconnects, or when another one is removed."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Interface, ip_network

from harness.adapters.protocol import ContainerInfo
from harness.faults.fault import AdapterCall, Moment, fault
from harness.faults.helpers import (
    address_at,
    drop,
    drop_queries,
    forget_flows,
    gateway_of,
    joiners,
    readdress,
)
from harness.faults.target import FaultContext
from harness.model.plan import DEFAULT_NETWORK, Bridge, ContainerSpec, Joined
from linux.nftables import (
    ct_dnat,
    daddr,
    dport,
    l4proto,
)

_HOSTS, _HOSTNAME, _RESOLV_CONF = "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"
_NOBODY = "192.0.2.250"
_MARK = "# written inside"


# --- links and packets -----------------------------------------------------------------


@fault("connected-it-follows-advertisements", violates="V6-2", moment=Moment.CONNECTED)
@fault(violates="V6-2", moment=Moment.CONTAINER_RESTARTED)
def restarted_it_follows_advertisements(site: FaultContext) -> None:
    """Accept router advertisements on the container's interfaces on networks with IPv6."""
    for plug in site.new_plugs():
        if gateway_of(plug, 6):
            for key, value in (("accept_dad", 0), ("accept_ra", 2), ("autoconf", 1)):
                site.inside.sysctl(f"net.ipv6.conf.{plug.inside}.{key}", value)


@fault(violates="NET-5", moment=Moment.CONTAINER_RESTARTED)
def requested_mac_ends_beside_another_network(site: FaultContext) -> None:
    """Replace the requested MAC by another one when a container on two networks restarts."""
    plugs = list(site.plugs())
    if site.spec and site.spec.mac and len(plugs) > 1:
        for plug in plugs:
            if site.inside.link(plug.inside).mac == site.spec.mac:
                site.inside.set_link(plug.inside, mac="02:42:ac:22:00:63")


# --- published ports -------------------------------------------------------------------


@fault(violates="PUB-12", moment=Moment.CONTAINER_RESTARTED)
def ranges_end_with_a_restart(site: FaultContext) -> None:
    """Drop packets to all ports of a published range except the first after a restart."""
    for asked in site.spec.ports if site.spec else ():
        for number in range(1, asked.count):
            drop(site, "prerouting", l4proto(asked.protocol), dport(asked.host_port + number))


@fault(violates="PUB-11", moment=Moment.CONTAINER_RESTARTED)
def restart_closes_the_same_port_elsewhere(site: FaultContext) -> None:
    """Close, on restart, the same port that another container publishes on another address."""
    own = {(port.host_port, port.protocol) for port in (site.spec.ports if site.spec else ())}
    for facts in site.other_containers().values():
        for port in facts.ports:
            if (port.host_port, port.protocol) in own and port.host_ip:
                there = daddr(ip_network(port.host_ip))
                drop(site, "prerouting", there, l4proto(port.protocol), dport(port.host_port))


# --- names and files of a restarted container -------------------------------------------


@fault(violates="NET-4", around="start_container")
def second_aliases_end_with_a_restart(site: FaultContext, verb: AdapterCall) -> object:
    """Remove all aliases except the first on restart."""
    facts: ContainerInfo = verb()
    spec = site.specs[verb.name]
    return _renamed(site, spec, *spec.aliases[:1]) if spec.aliases[1:] else facts


def _renamed(site: FaultContext, spec: ContainerSpec, *aliases: str) -> ContainerInfo:
    """Connect a container again to the network of its mode, with only these aliases."""
    assert isinstance(spec.mode, Bridge)
    site.runtime.disconnect(spec.name, spec.mode.network)
    return site.runtime.connect(spec.name, spec.mode.network, aliases=aliases)


@fault("connections-end-the-resolver-asked-for", violates="DNS-1", moment=Moment.CONNECTED)
@fault(violates="DNS-1", moment=Moment.CONTAINER_RESTARTED)
def resolver_asked_for_ends_with_a_restart(site: FaultContext) -> None:
    """Replace the requested resolvers by the host's."""
    if site.is_bridged and site.spec and site.spec.dns:
        site.write(_RESOLV_CONF, f"nameserver {site.resolver()}\n")


@fault("connections-without-localhost", violates="FILE-1", moment=Moment.CONNECTED)
@fault(violates="FILE-1", moment=Moment.CONTAINER_RESTARTED)
def restarts_without_localhost(site: FaultContext) -> None:
    """Remove localhost from the container's hosts file."""
    if site.is_bridged:
        lines = site.read(_HOSTS).splitlines(keepends=True)
        site.write(_HOSTS, "".join(line for line in lines if "localhost" not in line))


@fault("connections-hide-the-files", violates="FILE-1", moment=Moment.CONNECTED)
@fault(violates="FILE-1", moment=Moment.CONTAINER_RESTARTED)
def restarts_hide_the_files(site: FaultContext) -> None:
    """Let only root read the hosts, hostname and resolv.conf files."""
    for path in (_HOSTS, _HOSTNAME, _RESOLV_CONF) if site.is_bridged else ():
        os.chmod(site.path(path), 0o600)


@fault(violates="FILE-1", around="exec")
def files_are_shared_on_own_networks(site: FaultContext, verb: AdapterCall) -> object:
    """Share one hosts file between the containers on user-defined networks."""
    done = verb()
    on_own = isinstance(site.mode, Bridge) and site.mode.network != DEFAULT_NETWORK
    if on_own and _MARK in site.read(_HOSTS):
        for facts in site.other_containers().values():
            with open(site.path(_HOSTS, facts), "a", encoding="utf-8") as file:
                file.write(f"{_MARK}\n")
    return done


@fault(violates="FILE-1", moment=Moment.CONTAINER_STARTED)
def joiners_file_says_another_name(site: FaultContext) -> None:
    """Write a wrong name into the /etc/hostname of a joining container."""
    if isinstance(site.mode, Joined):
        site.write(_HOSTNAME, "somebody\n")


@fault(violates="DNS-2", moment=Moment.CONTAINER_STARTED)
def joiners_joiner_has_no_name(site: FaultContext) -> None:
    """Resolve the name of a container to an unused address if it joins a joining container."""
    home = site.specs.get(getattr(site.mode, "container", ""))
    if home and isinstance(home.mode, Joined):
        name = site.read(_HOSTNAME).strip()
        site.write(_HOSTS, f"127.0.0.1 localhost\n::1 localhost\n{_NOBODY} {name}\n")


@fault(violates="DNS-1", moment=Moment.CONTAINER_RESTARTED)
def restarted_joiner_asks_nobody(site: FaultContext) -> None:
    """Write an unused address into a restarted joining container's resolv.conf as the resolver."""
    if isinstance(site.mode, Joined):
        site.write(_RESOLV_CONF, f"nameserver {_NOBODY}\noptions timeout:1 attempts:1\n")


# --- containers and networks that stay, when one stops or goes ------------------------------


@fault("networks-end-ways-to-the-loopback", violates="NET-6", moment=Moment.NETWORK_REMOVED)
@fault(violates="PUB-1", moment=Moment.CONTAINER_STOPPED)
def stops_end_ways_to_the_loopback(site: FaultContext) -> None:
    """Turn off route_localnet, so that ports published on 127.0.0.1 do not answer."""
    if site.moment == Moment.CONTAINER_STOPPED and not (site.spec and site.spec.ports):
        return
    for bridge in site.bridges():
        with suppress(OSError):  # the bridge has gone with its last container
            site.host.sysctl(f"net.ipv4.conf.{bridge}.route_localnet", 0)


@fault(violates="NET-6", moment=Moment.NETWORK_REMOVED)
def networks_take_others_ipv6(site: FaultContext) -> None:
    """Remove the IPv6 addresses of other networks' bridges when a network is removed."""
    for bridge in set(site.bridges()) & site.host.links().keys():
        for address in site.host.addresses(bridge):
            if address.version == 6:
                site.host.del_address(bridge, address)


@fault(violates="NET-4", moment=Moment.CONTAINER_REMOVED)
def shared_aliases_end_with_one(site: FaultContext) -> None:
    """Remove an alias from all containers that share it when one of them is removed."""
    own = set(site.spec.aliases) if site.spec else set()
    for name in site.other_containers():
        spec = site.specs[name]
        if own & set(spec.aliases):
            _renamed(site, spec, *(alias for alias in spec.aliases if alias not in own))


# --- addresses and requests ------------------------------------------------------------


@fault(violates="BR-10", around="inspect")
def reports_one_network_aright(_: FaultContext, verb: AdapterCall) -> object:
    """Report wrong addresses for all networks of a container except the first."""
    facts: ContainerInfo = verb()
    first, others = facts.endpoints[:1], facts.endpoints[1:]
    wrong = (
        replace(item, address=IPv4Interface((item.address.ip + 1, item.address.network.prefixlen)))
        for item in others
        if item.address
    )
    return replace(facts, endpoints=(*first, *wrong))


@fault(violates="NET-5", moment=Moment.CONNECTED)
def connections_change_what_was_asked_for(site: FaultContext) -> None:
    """Replace the requested address by another one when another network is connected."""
    for plug in site.plugs() if site.spec and site.spec.ip else ():
        gateway = gateway_of(plug)
        if gateway and site.spec and plug.network.name == site.spec.networks[0]:
            readdress(site, plug, address_at(gateway, 99))


@fault(violates="NET-5", around="run", narrow=True)
def address_of_a_connection_is_given(site: FaultContext, verb: AdapterCall) -> object:
    """Ignore a requested address that another container got on a network connected later."""
    spec = verb.spec
    for name, other in site.other_containers().items():
        late = (end for end in other.endpoints if end.network not in site.specs[name].networks)
        if spec.ip in {item.address.ip for item in late if item.address}:
            spec = replace(spec, ip=None)
    return verb(spec=spec)


# --- published ports of a reconnected container -------------------------------------------


@fault(violates="NET-3", moment=(Moment.CONNECTED, Moment.DISCONNECTED))
def connections_forget_flows_from_outside(site: FaultContext) -> None:
    """Delete the conntrack entries of published ports on connect and disconnect."""
    own = {port.host_port for port in (site.spec.ports if site.spec else ())}
    forget_flows(site, lambda flow: flow.original.destination_port in own)


@fault(violates="NET-3", moment=(Moment.CONNECTED, Moment.DISCONNECTED))
def ports_do_not_come_back(site: FaultContext) -> None:
    """Drop packets to published ports when a container without networks is connected again."""
    left = site.memory.setdefault("left", set())
    if site.facts and not site.facts.endpoints:
        left.add(site.name)
    elif site.name in left and site.spec and site.spec.ports:
        drop(site, "forward", ct_dnat())


# --- names of a reconnected container -----------------------------------------------------


@fault(violates="NET-4", around="connect", narrow=True)
def connections_have_one_alias(_: FaultContext, verb: AdapterCall) -> object:
    """Ignore all aliases of a network attachment except the first."""
    return verb(aliases=verb.aliases[:1])


@fault(violates="NET-4", moment=(Moment.CONNECTED, Moment.DISCONNECTED))
def names_do_not_come_back(site: FaultContext) -> None:
    """Drop DNS queries when a container is connected again to a network that it left."""
    left = site.memory.setdefault("left", set())
    where = site.name, site.network.name if site.network else ""
    if site.moment == Moment.DISCONNECTED:
        left.add(where)
    elif where in left:
        drop_queries(site.inside)


@fault(violates="DNS-2", moment=(Moment.CONNECTED, Moment.DISCONNECTED))
def joiners_names_stay_behind(site: FaultContext) -> None:
    """Make a joining container resolve its own name to an unused address."""
    for facts in joiners(site):
        with open(site.path(_HOSTNAME, facts), encoding="utf-8") as file:
            name = file.read().strip()
        with open(site.path(_HOSTS, facts), "r+", encoding="utf-8") as file:
            told = file.read()
            file.seek(0)
            file.write(f"{_NOBODY} {name}\n{told}")


# --- other containers and the host -------------------------------------------------------


@fault(violates="BYS-4", moment=Moment.DISCONNECTED)
def forwarding_ends_with_a_connection(site: FaultContext) -> None:
    """Turn off the host's IPv6 forwarding when a network is disconnected."""
    site.host.sysctl("net.ipv6.conf.all.forwarding", 0)


@fault(violates="LIFE-6", moment=Moment.CRASHED)
def crash_ends_second_networks(site: FaultContext) -> None:
    """Take down eth1 of each container on two networks when the runtime is killed."""
    for facts in site.other_containers().values():
        if len(facts.endpoints) > 1:
            with suppress(KeyError):
                site.netns_of(facts).set_link("eth1", up=False)
