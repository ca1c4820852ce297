"""What a container lacks once it has been started again, and others when one stops or goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network, ip_network

from harness.adapters.protocol import ContainerInfo
from harness.faults import nft_rules
from harness.faults.fault import AdapterCall, Moment, fault
from harness.faults.helpers import drop, forget_drops, gateway_of, numbered, readdress
from harness.faults.nft_rules import DROP
from harness.faults.target import FaultContext, FaultLink
from harness.model.plan import DEFAULT_NETWORK, Bridge, ContainerSpec, Joined, Nothing
from harness.model.topology import SENTINEL_ZONE
from linux.conntrack import Conntrack
from linux.nftables import (
    Table,
    ct_dnat,
    ct_state,
    daddr,
    dnat,
    dport,
    family,
    iifname,
    l4proto,
    masquerade,
    oifname,
)

_HOSTS, _HOSTNAME, _RESOLV_CONF = "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"
_NOBODY = "192.0.2.250"
_MARK = "# written inside"


# --- links and packets -----------------------------------------------------------------


@fault("bridge-mac-changes-with-a-restart", violates=("BR-14",), moment=Moment.CONTAINER_RESTARTED)
def bridge_mac_changes_with_a_restart(site: FaultContext) -> None:
    """A bridge goes by another MAC when a container on it is started again."""
    for plug in site.plugs():
        count = site.memory["macs"] = site.memory.get("macs", 0) + 1
        site.host.set_link(plug.bridge, mac=f"02:00:00:00:03:{count % 256:02x}")


@fault("smaller-mtu-after-a-restart", violates=("BR-12",), moment=Moment.CONTAINER_RESTARTED)
def smaller_mtu_after_a_restart(site: FaultContext) -> None:
    """A restarted container's interface has another MTU than its bridge."""
    for plug in site.plugs():
        site.inside.set_link(plug.inside, mtu=site.host.link(plug.bridge).mtu - 50)


@fault("restarted-it-follows-advertisements", violates=("V6-2",), moment=Moment.CONTAINER_RESTARTED)
def restarted_it_follows_advertisements(site: FaultContext) -> None:
    """On a network with IPv6 a restarted container takes a neighbour for a router."""
    for plug in site.plugs():
        if gateway_of(plug, 6):
            for key, value in (("accept_dad", 0), ("accept_ra", 2), ("autoconf", 1)):
                site.inside.sysctl(f"net.ipv6.conf.{plug.inside}.{key}", value)


@fault(
    "requested-mac-ends-beside-another-network",
    violates=("NET-5",),
    moment=Moment.CONTAINER_RESTARTED,
)
def requested_mac_ends_beside_another_network(site: FaultContext) -> None:
    """On two networks a restarted container has another MAC than the one that was asked for."""
    plugs = list(site.plugs())
    if site.spec and site.spec.mac and len(plugs) > 1:
        for plug in plugs:
            if site.inside.link(plug.inside).mac == site.spec.mac:
                site.inside.set_link(plug.inside, mac="02:42:ac:22:00:63")


# --- published ports -------------------------------------------------------------------


@fault("ipv6-ports-end-with-a-restart", violates=("PUB-12",), moment=Moment.CONTAINER_RESTARTED)
def ipv6_ports_end_with_a_restart(site: FaultContext) -> None:
    """What a restarted container publishes does not answer over IPv6."""
    for port in site.facts.ports if site.facts else ():
        drop(site, "prerouting", family(6), l4proto(port.protocol), dport(port.host_port))


@fault("ranges-end-with-a-restart", violates=("PUB-12",), moment=Moment.CONTAINER_RESTARTED)
def ranges_end_with_a_restart(site: FaultContext) -> None:
    """Of a range that a restarted container publishes the first port alone answers."""
    for asked in site.spec.ports if site.spec else ():
        for number in range(1, asked.count):
            drop(site, "prerouting", l4proto(asked.protocol), dport(asked.host_port + number))


@fault("restarts-hide-callers", violates=("PUB-6",), moment=Moment.CONTAINER_RESTARTED)
def restarts_hide_callers(site: FaultContext) -> None:
    """Who calls a port of a restarted container is seen as the gateway."""
    for plug in site.plugs():
        called = [*oifname(plug.bridge), *ct_dnat()]
        site.host.rule("postrouting", called, masquerade(), priority=90, nat=True)


@fault("restarted-for-one-network", violates=("PUB-5",), moment=Moment.CONTAINER_RESTARTED)
def restarted_for_one_network(site: FaultContext) -> None:
    """A container on another network does not reach what a restarted one publishes."""
    for plug in site.plugs():
        for other in site.bridges():
            if other != plug.bridge:
                drop(site, "forward", iifname(other), oifname(plug.bridge), ct_dnat())


@fault("restarts-take-the-internets-port", violates=("PUB-9",), moment=Moment.CONTAINER_RESTARTED)
def restarts_take_the_internets_port(site: FaultContext) -> None:
    """A restarted container hears what is sent to its port anywhere."""
    for plug in site.plugs():
        for own in plug.addresses:
            for port in site.facts.ports if site.facts else ():
                called = [*family(own.version), *iifname(plug.bridge), *l4proto(port.protocol)]
                to = [*dport(port.host_port), *dnat(own.ip, port.container_port)]
                site.host.rule("prerouting", called, to, nat=True, priority=-110)


@fault("restart-opens-the-loopbacks-ports", violates=("PUB-3",), moment=Moment.CONTAINER_RESTARTED)
def restart_opens_the_loopbacks_ports(site: FaultContext) -> None:
    """What a restarted container publishes on 127.0.0.1 is there for the LAN too."""
    uplink, here = site.uplink(), IPv4Network("127.0.0.0/8")
    site.host.sysctl(f"net.ipv4.conf.{uplink}.route_localnet", 1)
    for plug in site.plugs():
        own = next(item.ip for item in plug.addresses if item.version == 4)
        for port in site.spec.ports if site.spec else ():
            called = [*iifname(uplink), *daddr(here), *l4proto(port.protocol)]
            to = [*dport(port.host_port), *dnat(own, port.container_port)]
            site.host.rule("prerouting", called, to, nat=True, priority=-110)


@fault(
    "restart-closes-the-same-port-elsewhere",
    violates=("PUB-11",),
    moment=Moment.CONTAINER_RESTARTED,
)
def restart_closes_the_same_port_elsewhere(site: FaultContext) -> None:
    """When one of two that publish a port is started again the other's address is closed."""
    own = {(port.host_port, port.protocol) for port in (site.spec.ports if site.spec else ())}
    for facts in site.other_containers().values():
        for port in facts.ports:
            if (port.host_port, port.protocol) in own and port.host_ip:
                there = daddr(ip_network(port.host_ip))
                drop(site, "prerouting", there, l4proto(port.protocol), dport(port.host_port))


# --- names and files -------------------------------------------------------------------


@fault("second-aliases-end-with-a-restart", violates=("NET-4",), around="start_container")
def second_aliases_end_with_a_restart(site: FaultContext, verb: AdapterCall) -> ContainerInfo:
    """A restarted container is found by its first alias alone."""
    facts: ContainerInfo = verb()
    spec = site.specs[verb.name]
    return _renamed(site, spec, *spec.aliases[:1]) if spec.aliases[1:] else facts


def _renamed(site: FaultContext, spec: ContainerSpec, *aliases: str) -> ContainerInfo:
    """Have a container go by these aliases and no others on the network of its mode."""
    assert isinstance(spec.mode, Bridge)
    site.runtime.disconnect(spec.name, spec.mode.network)
    return site.runtime.connect(spec.name, spec.mode.network, aliases=aliases)


@fault(
    "resolver-asked-for-ends-with-a-restart",
    violates=("DNS-1",),
    moment=Moment.CONTAINER_RESTARTED,
)
def resolver_asked_for_ends_with_a_restart(site: FaultContext) -> None:
    """A restarted container that has asked for a resolver has the host's."""
    if site.is_bridged and site.spec and site.spec.dns:
        site.write(_RESOLV_CONF, f"nameserver {site.resolver()}\n")


@fault("restarted-it-hears-no-long-answers", violates=("DNS-4",), moment=Moment.CONTAINER_RESTARTED)
def restarted_it_hears_no_long_answers(site: FaultContext) -> None:
    """A resolver cannot be asked over TCP by a restarted container."""
    if site.is_bridged:
        site.inside.rule("output", l4proto("tcp"), dport(53), DROP)


@fault("restarts-without-localhost", violates=("FILE-1",), moment=Moment.CONTAINER_RESTARTED)
def restarts_without_localhost(site: FaultContext) -> None:
    """A restarted container does not know localhost any more."""
    if site.is_bridged:
        lines = site.read(_HOSTS).splitlines(keepends=True)
        site.write(_HOSTS, "".join(line for line in lines if "localhost" not in line))


@fault("restarts-hide-the-files", violates=("FILE-1",), moment=Moment.CONTAINER_RESTARTED)
def restarts_hide_the_files(site: FaultContext) -> None:
    """The files of a restarted container can be read by root alone."""
    for path in (_HOSTS, _HOSTNAME, _RESOLV_CONF) if site.is_bridged else ():
        os.chmod(site.path(path), 0o600)


@fault("files-are-shared-on-own-networks", violates=("FILE-1",), around="exec")
def files_are_shared_on_own_networks(site: FaultContext, verb: AdapterCall) -> object:
    """On a network of one's own what one writes into its hosts file others have in theirs."""
    done = verb()
    on_own = isinstance(site.mode, Bridge) and site.mode.network != DEFAULT_NETWORK
    if on_own and _MARK in site.read(_HOSTS):
        for facts in site.other_containers().values():
            path = f"{site.world_host.proc}/{facts.pid}/root{_HOSTS}"
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{_MARK}\n")
    return done


@fault("joiners-file-says-another-name", violates=("FILE-1",), moment=Moment.CONTAINER_STARTED)
def joiners_file_says_another_name(site: FaultContext) -> None:
    """The file /etc/hostname of who has joined says what nobody calls it."""
    if isinstance(site.mode, Joined):
        site.write(_HOSTNAME, "somebody\n")


@fault("joiners-joiner-has-no-name", violates=("DNS-2",), moment=Moment.CONTAINER_STARTED)
def joiners_joiner_has_no_name(site: FaultContext) -> None:
    """The own name of who has joined a joiner leads to nobody."""
    home = site.specs.get(getattr(site.mode, "container", ""))
    if home and isinstance(home.mode, Joined):
        name = site.read(_HOSTNAME).strip()
        site.write(_HOSTS, f"127.0.0.1 localhost\n::1 localhost\n{_NOBODY} {name}\n")


@fault("restarted-joiner-asks-nobody", violates=("DNS-1",), moment=Moment.CONTAINER_RESTARTED)
def restarted_joiner_asks_nobody(site: FaultContext) -> None:
    """A restarted joiner is told of a resolver at an address that nobody has."""
    if isinstance(site.mode, Joined):
        site.write(_RESOLV_CONF, f"nameserver {_NOBODY}\noptions timeout:1 attempts:1\n")


@fault(
    "none-restarted-without-ipv6-loopback",
    violates=("NONE-6",),
    moment=Moment.CONTAINER_RESTARTED,
)
def none_restarted_without_ipv6_loopback(site: FaultContext) -> None:
    """A restarted container without a network has no ::1."""
    if isinstance(site.mode, Nothing):
        site.inside.sysctl("net.ipv6.conf.lo.disable_ipv6", 1)


# --- others' when one stops or goes -------------------------------------------------------


@fault("stops-end-ways-to-the-loopback", violates=("PUB-1",), moment=Moment.CONTAINER_STOPPED)
def stops_end_ways_to_the_loopback(site: FaultContext) -> None:
    """When one that publishes stops nobody's port on 127.0.0.1 answers any more."""
    if site.spec and site.spec.ports:
        _end_ways_to_the_loopback(site)


@fault("networks-end-ways-to-the-loopback", violates=("NET-6",), moment=Moment.NETWORK_REMOVED)
def networks_end_ways_to_the_loopback(site: FaultContext) -> None:
    """When a network is removed nobody's port on 127.0.0.1 answers any more."""
    _end_ways_to_the_loopback(site)


def _end_ways_to_the_loopback(site: FaultContext) -> None:
    for bridge in site.bridges():
        with suppress(OSError):  # it has gone with its last container
            site.host.sysctl(f"net.ipv4.conf.{bridge}.route_localnet", 0)


@fault("networks-take-others-ipv6", violates=("NET-6",), moment=Moment.NETWORK_REMOVED)
def networks_take_others_ipv6(site: FaultContext) -> None:
    """When a network is removed the bridges of others lose their IPv6 addresses."""
    for bridge in set(site.bridges()) & site.host.links().keys():
        for address in site.host.addresses(bridge):
            if address.version == 6:
                site.host.del_address(bridge, address)


@fault("shared-aliases-end-with-one", violates=("NET-4",), moment=Moment.CONTAINER_REMOVED)
def shared_aliases_end_with_one(site: FaultContext) -> None:
    """An alias that two have leads nowhere when one of them is removed."""
    own = set(site.spec.aliases) if site.spec else set()
    for name in site.other_containers():
        spec = site.specs[name]
        if own & set(spec.aliases):
            _renamed(site, spec, *(alias for alias in spec.aliases if alias not in own))


@fault("forwarding-ends-with-a-stop", violates=("BYS-4",), moment=Moment.CONTAINER_STOPPED)
def forwarding_ends_with_a_stop(site: FaultContext) -> None:
    """When a container stops the host forwards nothing any more."""
    site.host.sysctl("net.ipv4.ip_forward", 0)


@fault("crash-closes-ports-of-ipv6", violates=("LIFE-6",), around="crash")
def crash_closes_ports_of_ipv6(site: FaultContext, verb: AdapterCall) -> None:
    """When the runtime is killed published ports answer over IPv4 alone."""
    verb()
    drop(site, "forward", family(6), ct_dnat())


_HOSTS, _HOSTNAME, _RESOLV_CONF = "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"
_NOBODY = "192.0.2.250"
_OPERATORS = Table("inet", "operator")


def _new(site: FaultContext) -> Iterator[FaultLink]:
    """How the container is plugged into the network that it has just been connected to."""
    return (p for p in site.plugs() if site.network and p.network.name == site.network.name)


# --- links, addresses, MACs ------------------------------------------------------------


@fault("bridge-mac-changes-with-a-connection", violates=("BR-14",), moment=Moment.CONNECTED)
def bridge_mac_changes_with_a_connection(site: FaultContext) -> None:
    """A bridge goes by another MAC when somebody is connected who runs already."""
    for plug in _new(site):
        count = site.memory["macs"] = site.memory.get("macs", 0) + 1
        site.host.set_link(plug.bridge, mac=f"02:00:00:00:02:{count % 256:02x}")


@fault("products-by-connection", violates=("BR-11",), moment=Moment.CONNECTED)
def products_by_connection(site: FaultContext) -> None:
    """The MAC by which a container is connected is not locally administered."""
    for plug in _new(site):
        mac = site.inside.link(plug.inside).mac
        site.inside.set_link(plug.inside, mac=f"00:16:3e{mac[8:]}")


@fault("reports-one-network-aright", violates=("BR-10",), around="inspect")
def reports_one_network_aright(_: FaultContext, verb: AdapterCall) -> ContainerInfo:
    """What the runtime tells of a container's address on a second network is not what it has."""
    facts: ContainerInfo = verb()
    first, others = facts.endpoints[:1], facts.endpoints[1:]
    wrong = (
        replace(item, address=IPv4Interface((item.address.ip + 1, item.address.network.prefixlen)))
        for item in others
        if item.address
    )
    return replace(facts, endpoints=(*first, *wrong))


@fault("connections-change-what-was-asked-for", violates=("NET-5",), moment=Moment.CONNECTED)
def connections_change_what_was_asked_for(site: FaultContext) -> None:
    """When a container is connected to another network it loses the address that it asked for."""
    for plug in site.plugs() if site.spec and site.spec.ip else ():
        gateway = gateway_of(plug)
        if gateway and site.spec and plug.network.name == site.spec.networks[0]:
            readdress(site, plug, numbered(gateway, 99))


@fault("address-of-a-connection-is-given", violates=("NET-5",), around="run", narrow=True)
def address_of_a_connection_is_given(site: FaultContext, verb: AdapterCall) -> ContainerInfo:
    """Who asks for an address that somebody got when it was connected is started with another."""
    spec = verb.spec
    for name, other in site.other_containers().items():
        late = (end for end in other.endpoints if end.network not in site.specs[name].networks)
        if spec.ip in {item.address.ip for item in late if item.address}:
            spec = replace(spec, ip=None)
    facts: ContainerInfo = verb(spec=spec)
    return facts


# --- packets ---------------------------------------------------------------------------


@fault("forged-sources-pass-once-connected", violates=("BR-26",), moment=Moment.CONNECTED)
def forged_sources_pass_once_connected(site: FaultContext) -> None:
    """A network that somebody was connected to lets forged sources out of the host."""
    forget_drops(site, "in", bridges=[plug.bridge for plug in _new(site)])


@fault("later-ports-hear-no-broadcasts", violates=("BR-17",), moment=Moment.CONNECTED)
def later_ports_hear_no_broadcasts(site: FaultContext) -> None:
    """What is said to all does not reach who was connected later."""
    for plug in _new(site):
        port = site.host.link(plug.outside).ifindex
        for option in ("bcast_flood", "mcast_flood"):
            site.host.rtnl(nft_rules.port_option(port, option, on=False))


@fault("connected-it-answers-for-everybody", violates=("BR-18",), moment=Moment.CONNECTED)
def connected_it_answers_for_everybody(site: FaultContext) -> None:
    """Who is on two networks answers ARP on the second for addresses that it has not."""
    for plug in _new(site):
        site.inside.sysctl("net.ipv4.ip_forward", 1)
        site.inside.sysctl(f"net.ipv4.conf.{plug.inside}.proxy_arp_pvlan", 1)
        site.inside.sysctl(f"net.ipv4.neigh.{plug.inside}.proxy_delay", 0)


@fault("connected-it-is-told-of-no-ttl", violates=("BR-19",), moment=Moment.CONNECTED)
def connected_it_is_told_of_no_ttl(site: FaultContext) -> None:
    """The host does not tell who is on two networks that a TTL has run out."""
    for plug in site.plugs():
        for version, kind in ((4, 11), (6, 3)):
            drop(site, "output", oifname(plug.bridge), nft_rules.errors(version, kind))


@fault("connected-it-refuses-in-silence", violates=("BR-20",), moment=Moment.CONNECTED)
def connected_it_refuses_in_silence(site: FaultContext) -> None:
    """Who calls a closed port of a container on two networks is told nothing."""
    for version, kind in ((4, 3), (6, 1)):
        site.inside.rule("output", nft_rules.errors(version, kind), DROP)


@fault("connected-it-hears-of-no-errors", violates=("BR-21",), moment=Moment.CONNECTED)
def connected_it_hears_of_no_errors(site: FaultContext) -> None:
    """Errors from beyond the translation do not get to who is on two networks."""
    for plug in site.plugs():
        drop(site, "forward", oifname(plug.bridge), ct_state("related"))


@fault("connected-it-follows-advertisements", violates=("V6-2",), moment=Moment.CONNECTED)
def connected_it_follows_advertisements(site: FaultContext) -> None:
    """On a network with IPv6 who was connected later takes a neighbour there for a router."""
    for plug in _new(site):
        if gateway_of(plug, 6):
            for key, value in (("accept_dad", 0), ("accept_ra", 2), ("autoconf", 1)):
                site.inside.sysctl(f"net.ipv6.conf.{plug.inside}.{key}", value)


@fault("connections-open-internal-networks", violates=("INT-1",), moment=Moment.CONNECTED)
def connections_open_internal_networks(site: FaultContext) -> None:
    """An internal network is open from when somebody was connected who was on another."""
    if site.is_internal and site.network and site.network.interface:
        for way in ("in", "out"):
            forget_drops(site, way, bridges=[site.network.interface])


# --- published ports ---------------------------------------------------------------------


@fault("connections-hide-callers", violates=("PUB-6",), moment=Moment.CONNECTED)
def connections_hide_callers(site: FaultContext) -> None:
    """Who calls a published port is seen as the gateway once its container is on two networks."""
    for plug in site.plugs():
        called = [*oifname(plug.bridge), *ct_dnat()]
        site.host.rule("postrouting", called, masquerade(), priority=90, nat=True)


@fault(
    "connections-forget-flows-from-outside",
    violates=("NET-3",),
    moment=(Moment.CONNECTED, Moment.DISCONNECTED),
)
def connections_forget_flows_from_outside(site: FaultContext) -> None:
    """A flow by a published port does not outlive the next connection of its container."""
    own = {port.host_port for port in (site.spec.ports if site.spec else ())}
    with site.host.place.open() as space, Conntrack(space) as conntrack:
        conntrack.forget([it for it in conntrack.all() if it.original.destination_port in own])


@fault(
    "ports-do-not-come-back",
    violates=("NET-3",),
    moment=(Moment.CONNECTED, Moment.DISCONNECTED),
)
def ports_do_not_come_back(site: FaultContext) -> None:
    """A container that was on no network any more publishes nothing on the next."""
    left = site.memory.setdefault("left", set())
    if site.facts and not site.facts.endpoints:
        left.add(site.name)
    elif site.name in left and site.spec and site.spec.ports:
        drop(site, "forward", ct_dnat())


# --- names and files ---------------------------------------------------------------------


@fault("connections-have-one-alias", violates=("NET-4",), around="connect", narrow=True)
def connections_have_one_alias(_: FaultContext, verb: AdapterCall) -> ContainerInfo:
    """Of the aliases of a connection the first alone is known."""
    facts: ContainerInfo = verb(aliases=verb.aliases[:1])
    return facts


@fault(
    "names-do-not-come-back", violates=("NET-4",), moment=(Moment.CONNECTED, Moment.DISCONNECTED)
)
def names_do_not_come_back(site: FaultContext) -> None:
    """Who comes back to a network that it was taken off is answered no question for a name."""
    left = site.memory.setdefault("left", set())
    where = site.name, site.network.name if site.network else ""
    if site.moment == Moment.DISCONNECTED:
        left.add(where)
    elif where in left:
        for protocol in ("udp", "tcp"):
            site.inside.rule("output", l4proto(protocol), dport(53), DROP)


@fault("connected-with-the-hosts-domain", violates=("DNS-3",), moment=Moment.CONNECTED)
def connected_with_the_hosts_domain(site: FaultContext) -> None:
    """Who is connected to a peer's network looks its name up in the host's domain first."""
    searched = f"search {SENTINEL_ZONE}\noptions ndots:3\n"
    site.write(_RESOLV_CONF, site.read(_RESOLV_CONF) + searched)


@fault("connections-end-the-resolver-asked-for", violates=("DNS-1",), moment=Moment.CONNECTED)
def connections_end_the_resolver_asked_for(site: FaultContext) -> None:
    """A container that has asked for a resolver has the host's once it is connected."""
    if site.spec and site.spec.dns:
        site.write(_RESOLV_CONF, f"nameserver {site.resolver()}\n")


@fault("connected-it-hears-no-long-answers", violates=("DNS-4",), moment=Moment.CONNECTED)
def connected_it_hears_no_long_answers(site: FaultContext) -> None:
    """A resolver cannot be asked over TCP by who has been connected."""
    site.inside.rule("output", l4proto("tcp"), dport(53), DROP)


@fault("connections-change-the-hostname", violates=("FILE-1",), moment=Moment.CONNECTED)
def connections_change_the_hostname(site: FaultContext) -> None:
    """A container that is connected says in its file that it is called as the host."""
    site.write(_HOSTNAME, "host\n")


@fault("connections-without-localhost", violates=("FILE-1",), moment=Moment.CONNECTED)
def connections_without_localhost(site: FaultContext) -> None:
    """A container that is connected does not know localhost any more."""
    lines = site.read(_HOSTS).splitlines(keepends=True)
    site.write(_HOSTS, "".join(line for line in lines if "localhost" not in line))


@fault("connections-without-own-ipv6", violates=("FILE-1",), moment=Moment.CONNECTED)
def connections_without_own_ipv6(site: FaultContext) -> None:
    """A container that is connected has its name at its IPv4 addresses alone."""
    own = {str(item.ip) for plug in site.plugs() for item in plug.addresses if item.version == 6}
    lines = site.read(_HOSTS).splitlines(keepends=True)
    site.write(_HOSTS, "".join(line for line in lines if not own & set(line.split()[:1])))


@fault("connections-hide-the-files", violates=("FILE-1",), moment=Moment.CONNECTED)
def connections_hide_the_files(site: FaultContext) -> None:
    """The files of a container that is connected can be read by root alone."""
    for path in (_HOSTS, _HOSTNAME, _RESOLV_CONF):
        os.chmod(site.path(path), 0o600)


@fault(
    "joiners-names-stay-behind",
    violates=("DNS-2",),
    moment=(Moment.CONNECTED, Moment.DISCONNECTED),
)
def joiners_names_stay_behind(site: FaultContext) -> None:
    """A joiner's own name leads to where the joined one was before."""
    for root in _joiners(site):
        with open(f"{root}{_HOSTNAME}", encoding="utf-8") as file:
            name = file.read().strip()
        with open(f"{root}{_HOSTS}", "r+", encoding="utf-8") as file:
            told = file.read()
            file.seek(0)
            file.write(f"{_NOBODY} {name}\n{told}")


def _joiners(site: FaultContext) -> Iterator[str]:
    """Where the files are of those who have joined the container."""
    for name, facts in site.other_containers().items():
        mode = site.specs[name].mode
        if isinstance(mode, Joined) and mode.container == site.name:
            yield f"{site.world_host.proc}/{facts.pid}/root"


# --- others ------------------------------------------------------------------------------


@fault("bystanders-stop-with-a-connection", violates=("BYS-2",), moment=Moment.CONNECTED)
def bystanders_stop_with_a_connection(site: FaultContext) -> None:
    """Once somebody has been connected the host forwards nothing for bystanders."""
    drop(site, "forward", iifname("br0"), oifname(site.uplink()))


@fault(
    "connections-empty-operators-chains",
    violates=("BYS-3",),
    moment=(Moment.CONNECTED, Moment.DISCONNECTED),
)
def connections_empty_operators_chains(site: FaultContext) -> None:
    """A connection removes a rule that somebody else has made to drop packets."""
    site.host.take_rules(lambda entry: entry.table == _OPERATORS and entry.refuses)


@fault("forwarding-ends-with-a-connection", violates=("BYS-4",), moment=Moment.DISCONNECTED)
def forwarding_ends_with_a_connection(site: FaultContext) -> None:
    """When a container is taken off a network the host forwards no IPv6 any more."""
    site.host.sysctl("net.ipv6.conf.all.forwarding", 0)


@fault("crash-ends-second-networks", violates=("LIFE-6",), around="crash")
def crash_ends_second_networks(site: FaultContext, verb: AdapterCall) -> None:
    """When the runtime is killed who is on two networks loses the second."""
    verb()
    for facts in site.other_containers().values():
        if len(facts.endpoints) > 1:
            with suppress(KeyError):
                site.ground(facts).set_link("eth1", up=False)
