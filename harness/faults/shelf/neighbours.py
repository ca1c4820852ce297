"""Who answers for whom on a link, and what neighbours remember of an address."""

from __future__ import annotations

from harness.faults import tricks
from harness.faults.acts import gateway_of
from harness.faults.catalogue import PLUGGED, RULES, Moment, fault
from harness.faults.site import Site
from linux import rtnl

_WRONG = "02:00:5e:10:00:66"


@fault("bridge-proxies-arp", violates=("BR-18",), moment=RULES, narrow=True)
def bridge_proxies_arp(site: Site) -> None:
    """The bridge answers ARP for whatever lies beyond it."""
    for bridge in site.bridges():
        site.host.sysctl(f"net.ipv4.conf.{bridge}.proxy_arp", 1)
        site.host.sysctl(f"net.ipv4.neigh.{bridge}.proxy_delay", 0)


@fault("bridge-answers-for-the-loopback", violates=("BR-18",), moment=RULES)
def bridge_answers_for_the_loopback(site: Site) -> None:
    """What lets the host's own calls to 127.0.0.1 out has it tell everybody that it has that."""
    for bridge in site.bridges():
        site.host.sysctl(f"net.ipv4.conf.{bridge}.arp_ignore", 0)
        site.host.sysctl(f"net.ipv4.conf.{bridge}.route_localnet", 1)


@fault("ports-answer-for-others", violates=("BR-18",), moment=PLUGGED)
def ports_answer_for_others(site: Site) -> None:
    """A bridge that knows a container's MAC answers ARP in its place."""
    for plug in site.plugs():
        index = site.host.link(plug.outside).ifindex
        site.host.rtnl(tricks.port_option(index, "proxyarp", on=True))


@fault("container-answers-for-everybody", violates=("BR-18",), moment=PLUGGED)
def container_answers_for_everybody(site: Site) -> None:
    """A container that forwards answers ARP for addresses that are not its own."""
    for plug in site.plugs():
        site.inside.sysctl("net.ipv4.ip_forward", 1)
        site.inside.sysctl(f"net.ipv4.conf.{plug.inside}.proxy_arp_pvlan", 1)
        site.inside.sysctl(f"net.ipv4.neigh.{plug.inside}.proxy_delay", 0)


@fault("ndp-proxy", violates=("V6-1",), moment=PLUGGED)
def ndp_proxy(site: Site) -> None:
    """The bridge answers neighbour discovery for an address of somebody beyond it."""
    for plug in site.plugs():
        if gateway_of(plug, 6):
            site.host.sysctl(f"net.ipv6.conf.{plug.bridge}.proxy_ndp", 1)
            site.host.sysctl(f"net.ipv6.neigh.{plug.bridge}.proxy_delay", 0)
            index = site.host.link(plug.bridge).ifindex
            for address in site.host.addresses("br0"):
                if address.version == 6:
                    for other in (address.ip + 9, address.ip + 15):  # ns1's is ::10
                        site.host.ensure(tricks.proxy(index, other))


@fault("peers-remember-the-old-mac", violates=("BR-15",), moment=Moment.BEFORE_REMOVE)
def peers_remember_the_old_mac(site: Site) -> None:
    """Whoever takes over an address is not reached by peers that knew its last owner."""
    for plug in site.plugs():
        mac = site.inside.link(plug.inside).mac
        for facts in site.other_containers().values():
            ground = site.ground(facts)
            if any(item.network == plug.network.name for item in facts.endpoints):
                index = ground.link("eth0").ifindex
                known = (rtnl.add_neighbour(index, item.ip, mac) for item in plug.addresses)
                ground.ensure(*known)


@fault("host-remembers-a-wrong-mac", violates=("LIFE-7",), moment=Moment.CONTAINER_RESTARTED)
def host_remembers_a_wrong_mac(site: Site) -> None:
    """A restarted container is not reached by the host, which has the way to it wrong."""
    for plug in site.plugs():
        index = site.host.link(plug.bridge).ifindex
        known = (rtnl.add_neighbour(index, item.ip, _WRONG) for item in plug.addresses)
        site.host.ensure(*known)


@fault("restarted-without-a-network", violates=("LIFE-7",), moment=Moment.CONTAINER_RESTARTED)
def restarted_without_a_network(site: Site) -> None:
    """A restarted container's interface stays down."""
    for plug in site.plugs():
        site.inside.set_link(plug.inside, up=False)


@fault(
    "claims-are-contained-for-once",
    violates=("L2-1",),
    moment=PLUGGED,
    history="CVE-2021-32575",
)
def claims_are_contained_for_once(site: Site) -> None:
    """What a container claims is answered otherwise than the runtime declares."""
    for plug in site.plugs():
        for facts in site.other_containers().values():
            for item in facts.endpoints:
                if item.network != plug.network.name or not item.mac:
                    continue
                index = site.inside.link(plug.inside).ifindex
                for address in (item.address, item.address6):
                    if address:
                        site.inside.ensure(rtnl.add_neighbour(index, address.ip, item.mac))


@fault(
    "bridge-follows-advertisements",
    violates=("V6-2",),
    moment=RULES,
    history="CVE-2020-13401",
)
def bridge_follows_advertisements(site: Site) -> None:
    """The host takes a container for its router if that says so."""
    for bridge in site.bridges():
        for key, value in (("disable_ipv6", 0), ("accept_ra", 2), ("autoconf", 1)):
            site.host.sysctl(f"net.ipv6.conf.{bridge}.{key}", value)


@fault("containers-follow-advertisements", violates=("V6-2", "V6-3"), moment=PLUGGED)
def containers_follow_advertisements(site: Site) -> None:
    """A container takes its neighbour for a router if that says so."""
    for plug in site.plugs():
        for key, value in (("accept_dad", 0), ("accept_ra", 2), ("autoconf", 1)):
            site.inside.sysctl(f"net.ipv6.conf.{plug.inside}.{key}", value)
        site.inside.sysctl(f"net.ipv6.conf.{plug.inside}.disable_ipv6", 0)


@fault("hop-limits-of-advertisements-are-believed", violates=("V6-2",), moment=PLUGGED)
def hop_limits_of_advertisements_are_believed(site: Site) -> None:
    """Of what a rogue router says a container believes only the hop limit."""
    for plug in site.plugs():
        if gateway_of(plug, 6):
            head = f"net.ipv6.conf.{plug.inside}"
            for key in ("accept_ra_defrtr", "accept_ra_pinfo", "autoconf"):
                site.inside.sysctl(f"{head}.{key}", 0)
            site.inside.sysctl(f"{head}.accept_ra", 2)


@fault("late-connections-follow-advertisements", violates=("V6-3",), moment=Moment.CONNECTED)
def late_connections_follow_advertisements(site: Site) -> None:
    """Connected later to a network without IPv6, a container takes a neighbour there for a router.

    By the interface that it gets then alone.
    """
    for plug in site.plugs():
        is_new = site.network and plug.network.name == site.network.name
        if is_new and not gateway_of(plug, 6):
            for key, value in (("accept_dad", 0), ("accept_ra", 2), ("disable_ipv6", 0)):
                site.inside.sysctl(f"net.ipv6.conf.{plug.inside}.{key}", value)


@fault("peers-remember-the-old-mac-of-a-connection", violates=("BR-15",), moment=Moment.CONNECTED)
def peers_remember_the_old_mac_of_a_connection(site: Site) -> None:
    """Whoever is connected while it runs is not reached by peers that knew its address before."""
    for plug in site.plugs():
        if site.network and plug.network.name == site.network.name:
            own = {item.ip for item in plug.addresses}
            for facts in site.other_containers().values():
                ground = site.ground(facts)
                known = [item for item in ground.place.neighbours() if item.address in own]
                ground.ensure(
                    *(rtnl.add_neighbour(item.ifindex, item.address, _WRONG) for item in known)
                )
