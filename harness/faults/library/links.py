"""Faults of interfaces, bridges, MTUs and neighbours."""

from __future__ import annotations

import os
import socket
import time
from ipaddress import ip_network

from harness.faults import nft_rules
from harness.faults.fault import PLUGGED, RULES, AdapterCall, Moment, fault
from harness.faults.helpers import gateway_of
from harness.faults.target import FaultContext
from harness.model.plan import DEFAULT_NETWORK, Nothing
from harness.testbench.attach import host_end
from linux.nftables import daddr
from linux.rtnetlink import NTF_MASTER, NTF_PROXY


@fault(violates="BR-1", moment=PLUGGED)
def second_interface(site: FaultContext) -> None:
    """Add a second interface to each container on a bridge network."""
    if site.is_bridged:
        site.inside.ensure("link", "add", ifname="extra0", kind="veth", peer="extra1", state="up")


@fault(violates="BR-1", moment=PLUGGED)
def loopback_down(site: FaultContext) -> None:
    """Leave the loopback interface of bridged containers down."""
    if site.is_bridged:
        site.inside.set_link("lo", up=False)


@fault(violates="BR-1", moment=PLUGGED, errors=True)
def interface_has_another_name(site: FaultContext) -> None:
    """Name the container's interface ens3 instead of eth0."""
    for plug in site.plugs():
        site.inside.set_link(plug.inside, up=False)
        site.inside.set_link(plug.inside, name="ens3")
        site.inside.set_link("ens3", up=True)


@fault(violates="BR-3", moment=PLUGGED)
def host_end_down(site: FaultContext) -> None:
    """Leave the host's end of the veth pair down."""
    for plug in site.plugs():
        site.host.set_link(plug.outside, up=False)


@fault(violates="BR-3", moment=PLUGGED)
def host_end_outside_the_bridge(site: FaultContext) -> None:
    """Detach the host's end of the veth pair from the bridge."""
    for plug in site.plugs():
        site.host.set_link(plug.outside, master=0)


@fault("smaller-mtu-after-a-restart", violates="BR-12", moment=Moment.CONTAINER_RESTARTED)
@fault("connected-later-mtu", violates="BR-12", moment=Moment.CONNECTED)
@fault(violates="BR-12", moment=PLUGGED, history="moby#22028")
def smaller_mtu_inside(site: FaultContext) -> None:
    """Give the container's interface a smaller MTU than the bridge."""
    for plug in site.new_plugs():
        site.inside.set_link(plug.inside, mtu=site.host.link(plug.bridge).mtu - 50)


@fault(violates="BR-12", moment=PLUGGED, history="netavark#1381")
def bridge_mtu_forgotten(site: FaultContext) -> None:
    """Give the bridge a smaller MTU than its ports."""
    for plug in site.plugs():
        site.host.set_link(plug.bridge, mtu=1400)


@fault(violates="BR-12", moment=PLUGGED)
def host_end_mtu(site: FaultContext) -> None:
    """Give the host's end of the veth pair a smaller MTU than the container's end."""
    for plug in site.plugs():
        site.host.set_link(plug.outside, mtu=1300)


@fault(violates="NET-8", around="network", narrow=True)
def network_mtu_ignored(site: FaultContext, verb: AdapterCall) -> object:
    """Ignore the MTU that is requested for a network."""
    return verb.call_with(mtu=None)


@fault("restarted-with-another-mtu", violates="NET-8", moment=Moment.CONTAINER_RESTARTED)
@fault(violates="NET-8", moment=PLUGGED, narrow=True)
def network_mtu_on_the_bridge_alone(site: FaultContext) -> None:
    """Give the container's interface an MTU of 1500 bytes, whatever the network's MTU is."""
    for plug in site.plugs():
        site.inside.set_link(plug.inside, mtu=1500)


@fault("bridge-mac-changes-with-a-restart", violates="BR-14", moment=Moment.CONTAINER_RESTARTED)
@fault("bridge-mac-changes-with-a-connection", violates="BR-14", moment=Moment.CONNECTED)
@fault(violates="BR-14", moment=PLUGGED)
def bridge_takes_the_macs_of_ports(site: FaultContext) -> None:
    """Change the bridge's MAC with each container."""
    for plug in site.new_plugs():
        count = site.memory["macs"] = site.memory.get("macs", 0) + 1
        site.host.set_link(plug.bridge, mac=f"02:00:00:00:00:{count % 256:02x}")


@fault(violates="BR-13", moment=PLUGGED)
def bridge_is_a_hub(site: FaultContext) -> None:
    """Turn off MAC learning on the bridge, so that it floods every frame."""
    for plug in site.plugs():
        site.host.ip("link", "set", ifname=plug.bridge, kind="bridge", br_ageing_time=0)
        port = site.host.link(plug.outside).ifindex
        site.host.ip("brport", "set", index=port, learning=0)


@fault(violates="BR-17", moment=PLUGGED)
def groups_are_not_flooded(site: FaultContext) -> None:
    """Turn off multicast flooding on the bridge ports."""
    for plug in site.plugs():
        port = site.host.link(plug.outside).ifindex
        site.host.ip("brport", "set", index=port, mcast_flood=0)


@fault("later-ports-hear-no-broadcasts", violates="BR-17", moment=Moment.CONNECTED)
@fault(violates="BR-17", moment=PLUGGED)
def broadcasts_are_not_flooded(site: FaultContext) -> None:
    """Turn off broadcast flooding on the bridge ports."""
    for plug in site.new_plugs():
        port = site.host.link(plug.outside).ifindex
        site.host.ip("brport", "set", index=port, bcast_flood=0)


@fault(violates="BR-4", moment=PLUGGED)
def peers_are_isolated(site: FaultContext) -> None:
    """Isolate the bridge ports of containers on one network from each other."""
    for plug in site.plugs():
        site.host.ip("brport", "set", index=site.host.link(plug.outside).ifindex, isolated=1)


@fault(
    "raw-ethernet-once-connected", violates="ICC-1", moment=Moment.CONNECTED, history="moby#36355"
)
@fault(violates="ICC-1", moment=PLUGGED, history="moby#36355")
def raw_ethernet_without_icc(site: FaultContext) -> None:
    """Apply icc=false only to IP packets, so that other Ethernet frames pass."""
    for plug in site.plugs():
        port = site.host.link(plug.outside).ifindex
        site.host.ip("brport", "set", index=port, isolated=0)


@fault(violates="ICC-1", moment=PLUGGED, narrow=True)
def publishing_ends_isolation(site: FaultContext) -> None:
    """Let containers reach a peer that publishes a port in spite of icc=false."""
    for plug in site.plugs() if site.spec and site.spec.ports else ():
        port = site.host.link(plug.outside).ifindex
        site.host.ip("brport", "set", index=port, isolated=0)


@fault(violates="ICC-1", around="network", narrow=True)
def icc_option_ignored(site: FaultContext, verb: AdapterCall) -> object:
    """Ignore icc=false when a network is created."""
    return verb.call_with(icc=True)


@fault(violates=("BR-17", "L2-2"), moment=Moment.HOST_READY)
def networks_are_wired_together(site: FaultContext) -> None:
    """Connect the default bridge to a bystander's bridge with a veth pair."""
    links = site.host.links()
    site.host.ensure("link", "add", ifname="cross0", kind="veth", peer="cross1")
    for end, bridge in (("cross0", site.bridges()[0]), ("cross1", "br0")):
        site.host.set_link(end, master=links[bridge].ifindex, up=True)


@fault(
    "none-restarted-is-down",
    violates="NONE-2",
    moment=Moment.CONTAINER_RESTARTED,
    narrow=True,
    also=("ATT-5",),
)
@fault(violates=("NONE-2", "NONE-4"), moment=Moment.CONTAINER_STARTED)
def none_is_down(site: FaultContext) -> None:
    """Leave the loopback interface of a container in mode none down."""
    if isinstance(site.mode, Nothing):
        site.inside.set_link("lo", up=False)


@fault(violates="NONE-2", moment=Moment.CONTAINER_STARTED)
def none_has_an_interface(site: FaultContext) -> None:
    """Add an unconnected interface to a container in mode none."""
    if isinstance(site.mode, Nothing):
        site.inside.ensure("link", "add", ifname="extra0", kind="veth", peer="extra1", state="up")


@fault(violates="NONE-5", moment=Moment.CONTAINER_STARTED)
def none_has_a_cable_to_the_host(site: FaultContext) -> None:
    """Connect a container in mode none to the host with a veth pair."""
    if isinstance(site.mode, Nothing):
        with site.inside.place.open() as space:
            peer = {"ifname": "cable1", "net_ns_fd": space.fd}
            site.host.ensure("link", "add", ifname="cable0", kind="veth", peer=peer, state="up")
        site.inside.set_link("cable1", up=True)


@fault("none-restarted-without-ipv6-loopback", violates="NONE-6", moment=Moment.CONTAINER_RESTARTED)
@fault(
    violates="NONE-6",
    moment=Moment.CONTAINER_STARTED,
    history="moby#33099",
    narrow=True,
    also=("NONE-4", "ATT-3"),
)
def none_without_ipv6_loopback(site: FaultContext) -> None:
    """Remove ::1 from the loopback of a container in mode none."""
    if isinstance(site.mode, Nothing):
        site.inside.sysctl("net.ipv6.conf.lo.disable_ipv6", 1)


@fault(violates="ATT-4", moment=Moment.CONTAINER_REMOVED)
def attached_pair_outlives_its_container(site: FaultContext) -> None:
    """Leave the manually attached veth end on the bridge after its container is removed."""
    if isinstance(site.mode, Nothing):
        bridge = site.host.link(site.bridges()[0]).ifindex
        end = host_end(site.name)
        site.call(_await_no_link, end)
        site.host.ensure("link", "add", ifname=end, kind="veth", peer=f"{end}p", state="up")
        site.host.set_link(end, master=bridge)


def _await_no_link(name: str) -> None:
    """Wait until the kernel has removed an interface from the host."""
    deadline = time.monotonic() + 2
    while name in {item for _, item in socket.if_nameindex()} and time.monotonic() < deadline:
        os.sched_yield()


@fault(violates="BR-14", moment=Moment.CONTAINER_REMOVED)
def bridge_mac_changes_on_removal(site: FaultContext) -> None:
    """Change the bridge's MAC when a container is removed."""
    count = site.memory["macs"] = site.memory.get("macs", 0) + 1
    for bridge in site.bridges():
        site.host.set_link(bridge, mac=f"02:00:00:00:01:{count % 256:02x}")


@fault(violates="BR-1", moment=Moment.CONTAINER_STARTED)
def more_links_on_own_networks(site: FaultContext) -> None:
    """Add a second interface to each container on a user-defined network."""
    if site.facts and any(plug.network.name != DEFAULT_NETWORK for plug in site.plugs()):
        site.leave_inside(site.facts)


@fault(violates="BR-13", moment=PLUGGED, narrow=True)
def bridge_forgets_soon(site: FaultContext) -> None:
    """Set the bridge's ageing time to ten seconds, so that frames to idle peers are flooded."""
    for plug in site.plugs():
        site.host.ip("link", "set", ifname=plug.bridge, kind="bridge", br_ageing_time=1000)


@fault(violates="BR-17", moment=PLUGGED, narrow=True)
def broadcasts_are_not_sent(site: FaultContext) -> None:
    """Drop packets that the container sends to 255.255.255.255."""
    for _ in site.plugs():
        site.inside.rule("output", daddr(ip_network("255.255.255.255/32")), nft_rules.DROP)


@fault("later-ports-do-not-learn", violates="BR-13", moment=Moment.CONNECTED)
@fault(violates="BR-13", moment=Moment.CONTAINER_RESTARTED)
def restarted_ports_do_not_learn(site: FaultContext) -> None:
    """Turn off MAC learning on the container's bridge port."""
    for plug in site.new_plugs():
        port, mac = site.host.link(plug.outside).ifindex, site.inside.link(plug.inside).mac
        site.host.ip("brport", "set", index=port, learning=0)
        site.host.ensure("fdb", "del", ifindex=port, lladdr=mac, flags=NTF_MASTER)


@fault(violates="NET-8", moment=(Moment.CONTAINER_STOPPED, Moment.CONTAINER_REMOVED), narrow=True)
def emptied_bridge_forgets_its_mtu(site: FaultContext) -> None:
    """Reset a bridge's MTU to 1500 bytes when the bridge loses its last port."""
    links = site.host.links()
    ports = {link.master for link in links.values()}
    for bridge in site.bridges():
        if bridge in links and links[bridge].ifindex not in ports:
            site.host.set_link(bridge, mtu=1500)


@fault(violates="BR-17", moment=PLUGGED, narrow=True)
def broadcasts_of_the_subnet_are_not_sent(site: FaultContext) -> None:
    """Drop packets that the container sends to its subnet's broadcast address."""
    for plug in site.plugs():
        for own in plug.addresses:
            if own.version == 4:
                broadcast = daddr(ip_network(own.network.broadcast_address))
                site.inside.rule("output", broadcast, nft_rules.DROP)


_WRONG = "02:00:5e:10:00:66"


@fault(violates="BR-18", moment=RULES, narrow=True)
def bridge_proxies_arp(site: FaultContext) -> None:
    """Turn on proxy ARP on the bridge."""
    for bridge in site.bridges():
        site.host.sysctl(f"net.ipv4.conf.{bridge}.proxy_arp", 1)
        site.host.sysctl(f"net.ipv4.neigh.{bridge}.proxy_delay", 0)


@fault(violates="BR-18", moment=RULES)
def bridge_answers_for_the_loopback(site: FaultContext) -> None:
    """Answer ARP requests for 127.0.0.1 on the bridge (arp_ignore=0, route_localnet=1)."""
    for bridge in site.bridges():
        site.host.sysctl(f"net.ipv4.conf.{bridge}.arp_ignore", 0)
        site.host.sysctl(f"net.ipv4.conf.{bridge}.route_localnet", 1)


@fault(violates="BR-18", moment=PLUGGED)
def ports_answer_for_others(site: FaultContext) -> None:
    """Turn on proxy ARP on the bridge ports."""
    for plug in site.plugs():
        index = site.host.link(plug.outside).ifindex
        site.host.ip("brport", "set", index=index, proxyarp=1)


@fault("connected-it-answers-for-everybody", violates="BR-18", moment=Moment.CONNECTED)
@fault(violates="BR-18", moment=PLUGGED)
def container_answers_for_everybody(site: FaultContext) -> None:
    """Make the container answer ARP requests for addresses that it does not have."""
    for plug in site.new_plugs():
        site.inside.sysctl("net.ipv4.ip_forward", 1)
        site.inside.sysctl(f"net.ipv4.conf.{plug.inside}.proxy_arp_pvlan", 1)
        site.inside.sysctl(f"net.ipv4.neigh.{plug.inside}.proxy_delay", 0)


@fault(violates="V6-1", moment=PLUGGED)
def ndp_proxy(site: FaultContext) -> None:
    """Answer neighbour solicitations on the bridge for addresses of another network."""
    for plug in site.plugs():
        if gateway_of(plug, 6):
            site.host.sysctl(f"net.ipv6.conf.{plug.bridge}.proxy_ndp", 1)
            site.host.sysctl(f"net.ipv6.neigh.{plug.bridge}.proxy_delay", 0)
            index = site.host.link(plug.bridge).ifindex
            for address in site.host.addresses("br0"):
                if address.version == 6:
                    for other in (address.ip + 9, address.ip + 15):  # ns1's is ::10
                        site.host.ensure("neigh", "add", ifindex=index, dst=other, flags=NTF_PROXY)


@fault(violates="BR-15", moment=Moment.BEFORE_REMOVE)
def peers_remember_the_old_mac(site: FaultContext) -> None:
    """Keep a removed container's MAC in the neighbour tables of its peers."""
    for plug in site.plugs():
        mac = site.inside.link(plug.inside).mac
        for facts in site.other_containers().values():
            netns = site.netns_of(facts)
            if any(item.network == plug.network.name for item in facts.endpoints):
                index = netns.link("eth0").ifindex
                for item in plug.addresses:
                    netns.ensure("neigh", "replace", ifindex=index, dst=item.ip, lladdr=mac)


@fault(violates="LIFE-7", moment=Moment.CONTAINER_RESTARTED)
def host_remembers_a_wrong_mac(site: FaultContext) -> None:
    """Put a wrong MAC of the restarted container into the host's neighbour table."""
    for plug in site.plugs():
        index = site.host.link(plug.bridge).ifindex
        for item in plug.addresses:
            site.host.ensure("neigh", "replace", ifindex=index, dst=item.ip, lladdr=_WRONG)


@fault(violates="L2-1", moment=PLUGGED, history="CVE-2021-32575")
def claims_are_contained_for_once(site: FaultContext) -> None:
    """Add permanent neighbour entries for peers to the container, contrary to the dialect."""
    for plug in site.plugs():
        for facts in site.other_containers().values():
            for item in facts.endpoints:
                if item.network != plug.network.name or not item.mac:
                    continue
                index = site.inside.link(plug.inside).ifindex
                for address in (item.address, item.address6):
                    if address:
                        site.inside.ensure(
                            "neigh", "replace", ifindex=index, dst=address.ip, lladdr=item.mac
                        )


@fault(violates="V6-2", moment=RULES, history="CVE-2020-13401")
def bridge_follows_advertisements(site: FaultContext) -> None:
    """Accept router advertisements on the host's bridges."""
    for bridge in site.bridges():
        for key, value in (("disable_ipv6", 0), ("accept_ra", 2), ("autoconf", 1)):
            site.host.sysctl(f"net.ipv6.conf.{bridge}.{key}", value)


@fault(violates=("V6-2", "V6-3"), moment=PLUGGED)
def containers_follow_advertisements(site: FaultContext) -> None:
    """Accept router advertisements inside containers."""
    for plug in site.plugs():
        for key, value in (("accept_dad", 0), ("accept_ra", 2), ("autoconf", 1)):
            site.inside.sysctl(f"net.ipv6.conf.{plug.inside}.{key}", value)
        site.inside.sysctl(f"net.ipv6.conf.{plug.inside}.disable_ipv6", 0)


@fault(violates="V6-2", moment=PLUGGED)
def hop_limits_of_advertisements_are_believed(site: FaultContext) -> None:
    """Accept only the hop limit from router advertisements inside containers."""
    for plug in site.plugs():
        if gateway_of(plug, 6):
            head = f"net.ipv6.conf.{plug.inside}"
            for key in ("accept_ra_defrtr", "accept_ra_pinfo", "autoconf"):
                site.inside.sysctl(f"{head}.{key}", 0)
            site.inside.sysctl(f"{head}.accept_ra", 2)


@fault(violates="V6-3", moment=Moment.CONNECTED)
def late_connections_follow_advertisements(site: FaultContext) -> None:
    """Accept router advertisements on the interface of a network without IPv6 connected later."""
    for plug in site.new_plugs():
        if not gateway_of(plug, 6):
            for key, value in (("accept_dad", 0), ("accept_ra", 2), ("disable_ipv6", 0)):
                site.inside.sysctl(f"net.ipv6.conf.{plug.inside}.{key}", value)


@fault(violates="BR-15", moment=Moment.CONNECTED)
def peers_remember_the_old_mac_of_a_connection(site: FaultContext) -> None:
    """Put a wrong MAC of a newly connected container into the neighbour tables of its peers."""
    for plug in site.new_plugs():
        own = {item.ip for item in plug.addresses}
        for facts in site.other_containers().values():
            netns = site.netns_of(facts)
            for item in netns.place.neighbours():
                if item.address in own:
                    entry = {"ifindex": item.ifindex, "dst": item.address}
                    netns.ensure("neigh", "replace", lladdr=_WRONG, **entry)
