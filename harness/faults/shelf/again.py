"""What a container lacks once it has been started again, and others when one stops or goes."""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import IPv4Network, ip_network

from harness.adapters.protocol import Facts
from harness.faults.acts import drop, gateway_of
from harness.faults.catalogue import Moment, fault
from harness.faults.site import Site
from harness.faults.tricks import DROP
from harness.faults.verb import Verb
from harness.model import DEFAULT_NETWORK, Bridge, ContainerSpec, Joined, Nothing
from linux.nft import ct_dnat, daddr, dnat, dport, family, iifname, l4proto, masquerade, oifname

_HOSTS, _HOSTNAME, _RESOLV_CONF = "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"
_NOBODY = "192.0.2.250"
_MARK = "# written inside"


# --- links and packets -----------------------------------------------------------------


@fault("bridge-mac-changes-with-a-restart", violates=("BR-14",), moment=Moment.CONTAINER_RESTARTED)
def bridge_mac_changes_with_a_restart(site: Site) -> None:
    """A bridge goes by another MAC when a container on it is started again."""
    for plug in site.plugs():
        count = site.memory["macs"] = site.memory.get("macs", 0) + 1
        site.host.set_link(plug.bridge, mac=f"02:00:00:00:03:{count % 256:02x}")


@fault("smaller-mtu-after-a-restart", violates=("BR-12",), moment=Moment.CONTAINER_RESTARTED)
def smaller_mtu_after_a_restart(site: Site) -> None:
    """A restarted container's interface has another MTU than its bridge."""
    for plug in site.plugs():
        site.inside.set_link(plug.inside, mtu=site.host.link(plug.bridge).mtu - 50)


@fault("restarted-it-follows-advertisements", violates=("V6-2",), moment=Moment.CONTAINER_RESTARTED)
def restarted_it_follows_advertisements(site: Site) -> None:
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
def requested_mac_ends_beside_another_network(site: Site) -> None:
    """On two networks a restarted container has another MAC than the one that was asked for."""
    plugs = list(site.plugs())
    if site.spec and site.spec.mac and len(plugs) > 1:
        for plug in plugs:
            if site.inside.link(plug.inside).mac == site.spec.mac:
                site.inside.set_link(plug.inside, mac="02:42:ac:22:00:63")


# --- published ports -------------------------------------------------------------------


@fault("ipv6-ports-end-with-a-restart", violates=("PUB-12",), moment=Moment.CONTAINER_RESTARTED)
def ipv6_ports_end_with_a_restart(site: Site) -> None:
    """What a restarted container publishes does not answer over IPv6."""
    for port in site.facts.ports if site.facts else ():
        drop(site, "prerouting", family(6), l4proto(port.protocol), dport(port.host_port))


@fault("ranges-end-with-a-restart", violates=("PUB-12",), moment=Moment.CONTAINER_RESTARTED)
def ranges_end_with_a_restart(site: Site) -> None:
    """Of a range that a restarted container publishes the first port alone answers."""
    for asked in site.spec.ports if site.spec else ():
        for number in range(1, asked.count):
            drop(site, "prerouting", l4proto(asked.protocol), dport(asked.host_port + number))


@fault("restarts-hide-callers", violates=("PUB-6",), moment=Moment.CONTAINER_RESTARTED)
def restarts_hide_callers(site: Site) -> None:
    """Who calls a port of a restarted container is seen as the gateway."""
    for plug in site.plugs():
        called = [*oifname(plug.bridge), *ct_dnat()]
        site.host.rule("postrouting", called, masquerade(), priority=90, nat=True)


@fault("restarted-for-one-network", violates=("PUB-5",), moment=Moment.CONTAINER_RESTARTED)
def restarted_for_one_network(site: Site) -> None:
    """A container on another network does not reach what a restarted one publishes."""
    for plug in site.plugs():
        for other in site.bridges():
            if other != plug.bridge:
                drop(site, "forward", iifname(other), oifname(plug.bridge), ct_dnat())


@fault("restarts-take-the-internets-port", violates=("PUB-9",), moment=Moment.CONTAINER_RESTARTED)
def restarts_take_the_internets_port(site: Site) -> None:
    """A restarted container hears what is sent to its port anywhere."""
    for plug in site.plugs():
        for own in plug.addresses:
            for port in site.facts.ports if site.facts else ():
                called = [*family(own.version), *iifname(plug.bridge), *l4proto(port.protocol)]
                to = [*dport(port.host_port), *dnat(own.ip, port.container_port)]
                site.host.rule("prerouting", called, to, nat=True, priority=-110)


@fault("restart-opens-the-loopbacks-ports", violates=("PUB-3",), moment=Moment.CONTAINER_RESTARTED)
def restart_opens_the_loopbacks_ports(site: Site) -> None:
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
def restart_closes_the_same_port_elsewhere(site: Site) -> None:
    """When one of two that publish a port is started again the other's address is closed."""
    own = {(port.host_port, port.protocol) for port in (site.spec.ports if site.spec else ())}
    for facts in site.other_containers().values():
        for port in facts.ports:
            if (port.host_port, port.protocol) in own and port.host_ip:
                there = daddr(ip_network(port.host_ip))
                drop(site, "prerouting", there, l4proto(port.protocol), dport(port.host_port))


# --- names and files -------------------------------------------------------------------


@fault("second-aliases-end-with-a-restart", violates=("NET-4",), around="start_container")
def second_aliases_end_with_a_restart(site: Site, verb: Verb) -> Facts:
    """A restarted container is found by its first alias alone."""
    facts: Facts = verb()
    spec = site.specs[verb.name]
    return _renamed(site, spec, *spec.aliases[:1]) if spec.aliases[1:] else facts


def _renamed(site: Site, spec: ContainerSpec, *aliases: str) -> Facts:
    """Have a container go by these aliases and no others on the network of its mode."""
    assert isinstance(spec.mode, Bridge)
    site.runtime.disconnect(spec.name, spec.mode.network)
    return site.runtime.connect(spec.name, spec.mode.network, aliases=aliases)


@fault(
    "resolver-asked-for-ends-with-a-restart",
    violates=("DNS-1",),
    moment=Moment.CONTAINER_RESTARTED,
)
def resolver_asked_for_ends_with_a_restart(site: Site) -> None:
    """A restarted container that has asked for a resolver has the host's."""
    if site.is_bridged and site.spec and site.spec.dns:
        site.write(_RESOLV_CONF, f"nameserver {site.resolver()}\n")


@fault("restarted-it-hears-no-long-answers", violates=("DNS-4",), moment=Moment.CONTAINER_RESTARTED)
def restarted_it_hears_no_long_answers(site: Site) -> None:
    """A resolver cannot be asked over TCP by a restarted container."""
    if site.is_bridged:
        site.inside.rule("output", l4proto("tcp"), dport(53), DROP)


@fault("restarts-without-localhost", violates=("FILE-1",), moment=Moment.CONTAINER_RESTARTED)
def restarts_without_localhost(site: Site) -> None:
    """A restarted container does not know localhost any more."""
    if site.is_bridged:
        lines = site.read(_HOSTS).splitlines(keepends=True)
        site.write(_HOSTS, "".join(line for line in lines if "localhost" not in line))


@fault("restarts-hide-the-files", violates=("FILE-1",), moment=Moment.CONTAINER_RESTARTED)
def restarts_hide_the_files(site: Site) -> None:
    """The files of a restarted container can be read by root alone."""
    for path in (_HOSTS, _HOSTNAME, _RESOLV_CONF) if site.is_bridged else ():
        os.chmod(site.path(path), 0o600)


@fault("files-are-shared-on-own-networks", violates=("FILE-1",), around="exec")
def files_are_shared_on_own_networks(site: Site, verb: Verb) -> object:
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
def joiners_file_says_another_name(site: Site) -> None:
    """The file /etc/hostname of who has joined says what nobody calls it."""
    if isinstance(site.mode, Joined):
        site.write(_HOSTNAME, "somebody\n")


@fault("joiners-joiner-has-no-name", violates=("DNS-2",), moment=Moment.CONTAINER_STARTED)
def joiners_joiner_has_no_name(site: Site) -> None:
    """The own name of who has joined a joiner leads to nobody."""
    home = site.specs.get(getattr(site.mode, "container", ""))
    if home and isinstance(home.mode, Joined):
        name = site.read(_HOSTNAME).strip()
        site.write(_HOSTS, f"127.0.0.1 localhost\n::1 localhost\n{_NOBODY} {name}\n")


@fault("restarted-joiner-asks-nobody", violates=("DNS-1",), moment=Moment.CONTAINER_RESTARTED)
def restarted_joiner_asks_nobody(site: Site) -> None:
    """A restarted joiner is told of a resolver at an address that nobody has."""
    if isinstance(site.mode, Joined):
        site.write(_RESOLV_CONF, f"nameserver {_NOBODY}\noptions timeout:1 attempts:1\n")


@fault(
    "none-restarted-without-ipv6-loopback",
    violates=("NONE-6",),
    moment=Moment.CONTAINER_RESTARTED,
)
def none_restarted_without_ipv6_loopback(site: Site) -> None:
    """A restarted container without a network has no ::1."""
    if isinstance(site.mode, Nothing):
        site.inside.sysctl("net.ipv6.conf.lo.disable_ipv6", 1)


# --- others' when one stops or goes -------------------------------------------------------


@fault("stops-end-ways-to-the-loopback", violates=("PUB-1",), moment=Moment.CONTAINER_STOPPED)
def stops_end_ways_to_the_loopback(site: Site) -> None:
    """When one that publishes stops nobody's port on 127.0.0.1 answers any more."""
    if site.spec and site.spec.ports:
        _end_ways_to_the_loopback(site)


@fault("networks-end-ways-to-the-loopback", violates=("NET-6",), moment=Moment.NETWORK_REMOVED)
def networks_end_ways_to_the_loopback(site: Site) -> None:
    """When a network is removed nobody's port on 127.0.0.1 answers any more."""
    _end_ways_to_the_loopback(site)


def _end_ways_to_the_loopback(site: Site) -> None:
    for bridge in site.bridges():
        with suppress(OSError):  # it has gone with its last container
            site.host.sysctl(f"net.ipv4.conf.{bridge}.route_localnet", 0)


@fault("networks-take-others-ipv6", violates=("NET-6",), moment=Moment.NETWORK_REMOVED)
def networks_take_others_ipv6(site: Site) -> None:
    """When a network is removed the bridges of others lose their IPv6 addresses."""
    for bridge in set(site.bridges()) & site.host.links().keys():
        for address in site.host.addresses(bridge):
            if address.version == 6:
                site.host.del_address(bridge, address)


@fault("shared-aliases-end-with-one", violates=("NET-4",), moment=Moment.CONTAINER_REMOVED)
def shared_aliases_end_with_one(site: Site) -> None:
    """An alias that two have leads nowhere when one of them is removed."""
    own = set(site.spec.aliases) if site.spec else set()
    for name in site.other_containers():
        spec = site.specs[name]
        if own & set(spec.aliases):
            _renamed(site, spec, *(alias for alias in spec.aliases if alias not in own))


@fault("forwarding-ends-with-a-stop", violates=("BYS-4",), moment=Moment.CONTAINER_STOPPED)
def forwarding_ends_with_a_stop(site: Site) -> None:
    """When a container stops the host forwards nothing any more."""
    site.host.sysctl("net.ipv4.ip_forward", 0)


@fault("crash-closes-ports-of-ipv6", violates=("LIFE-6",), around="crash")
def crash_closes_ports_of_ipv6(site: Site, verb: Verb) -> None:
    """When the runtime is killed published ports answer over IPv4 alone."""
    verb()
    drop(site, "forward", family(6), ct_dnat())
