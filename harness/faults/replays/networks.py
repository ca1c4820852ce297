"""Replays of upstream bugs of networks and addresses; suites/upstream describes the bugs."""

from __future__ import annotations

from ipaddress import ip_network

from harness.adapters.protocol import RuntimeRefused
from harness.faults.fault import PLUGGED, AdapterCall, Moment, replay
from harness.faults.helpers import gateway_of, gateways, leave_link
from harness.faults.nft_rules import DROP
from harness.faults.target import FaultContext
from harness.model.plan import Bridge
from linux.nftables import daddr


@replay("moby#47646", "moby#48971", violates="HOST-5", around="run")
def interface_sysctl_refused(_: FaultContext, verb: AdapterCall) -> object:
    """Refuse to start a container if a sysctl of its own interface is requested."""
    if any(".eth" in key for key, _ in verb.spec.sysctls):
        raise RuntimeRefused("run", "no such file: the interface does not exist yet")
    return verb()


@replay("CVE-2024-32473", violates="V6-3", moment=PLUGGED)
def ipv6_stays_on_without_ipv6(site: FaultContext) -> None:
    """Leave IPv6 on at the container's interface on a network without IPv6."""
    for plug in site.plugs():
        if gateway_of(plug, 6) is None:
            site.inside.sysctl(f"net.ipv6.conf.{plug.inside}.accept_ra", 1)
            site.inside.sysctl(f"net.ipv6.conf.{plug.inside}.disable_ipv6", 0)


@replay("moby#51147", violates="NET-8", around="network")
def failed_network_leaves_a_bridge(site: FaultContext, verb: AdapterCall) -> object:
    """Leave a link behind when the creation of a network fails."""
    try:
        return verb()
    except RuntimeRefused:
        leave_link(site)
        raise


@replay("moby#47356", violates="INT-1", moment=Moment.CONTAINER_STARTED)
def internal_bridge_has_no_address(site: FaultContext) -> None:
    """Remove the address of an internal network's bridge."""
    for plug in site.plugs():
        if plug.network.name in site.memory.get("internal", ()):
            for gateway in plug.gateways:
                site.host.del_address(plug.bridge, gateway)


@replay("moby#47303", violates="INT-1", moment=Moment.CONTAINER_STARTED)
def internal_peers_do_not_talk(site: FaultContext) -> None:
    """Drop packets between the containers of an internal network."""
    for plug, gateway in gateways(site):
        if plug.network.name in site.memory.get("internal", ()):
            peers = daddr(gateway.network)
            others = daddr(ip_network(gateway.ip), is_not=True)
            site.inside.rule("output", peers, others, DROP)


@replay("moby#47304", "moby#47171", violates="BR-11", moment=Moment.CONTAINER_RESTARTED)
def restart_brings_a_peers_mac(site: FaultContext) -> None:
    """Give a restarted container the MAC of another container on its network."""
    for plug in site.plugs():
        for facts in site.other_containers().values():
            for endpoint in facts.endpoints:
                if endpoint.network == plug.network.name and endpoint.mac:
                    site.inside.set_link(plug.inside, mac=endpoint.mac)


@replay("moby#49736", violates="NET-6", around=("disconnect", "remove_network"))
def disconnected_network_stays_in_use(site: FaultContext, verb: AdapterCall) -> object:
    """Refuse to remove a network from which a container was disconnected."""
    left = site.memory.setdefault("left-networks", set())
    if verb.called == "disconnect":
        left.add(verb.network)
    elif verb.name in left:
        raise RuntimeRefused(f"remove {verb.name}", "the network has active endpoints")
    return verb()


@replay("moby#49092", violates="NET-8", around="network")
def impossible_mtu_is_passed_over(_: FaultContext, verb: AdapterCall) -> object:
    """Create a network with another MTU if the kernel refuses the requested one."""
    try:
        return verb()
    except RuntimeRefused:
        return verb.call_with(mtu=None)


@replay("moby#47132", violates="NET-5", around=("network", "run"))
def address_outside_the_range_refused(site: FaultContext, verb: AdapterCall) -> object:
    """Refuse an address in the subnet but outside the range for automatic addresses."""
    ranges = site.memory.setdefault("ranges", {})
    if verb.called == "network":
        ranges[verb.spec.name] = verb.spec.ip_range
        return verb()
    mode = verb.spec.mode
    pool = ranges.get(mode.network) if isinstance(mode, Bridge) else None
    if pool and verb.spec.ip and verb.spec.ip not in pool:
        raise RuntimeRefused("run", "the address is outside the range of the network")
    return verb()
