"""Replays of upstream bugs of networks and addresses; suites/upstream describes the bugs."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_network

from harness.adapters.protocol import RuntimeRefused
from harness.faults.fault import PLUGGED, AdapterCall, Moment, replay
from harness.faults.helpers import gateway_of, gateways, leave_link
from harness.faults.nft_rules import DROP
from harness.faults.target import FaultContext
from harness.model.plan import Bridge, Host, Joined
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


@replay("podman#18027", violates="CTR-8", around="run")
def host_mode_cannot_be_joined(site: FaultContext, verb: AdapterCall) -> object:
    """Refuse to join a container in mode host."""
    mode = verb.spec.mode
    if isinstance(mode, Joined) and isinstance(site.specs[mode.container].mode, Host):
        raise RuntimeRefused("run", "the joined container has no network namespace")
    return verb()


@replay("podman#11032", violates="V6-1", around="network")
def ipv6_network_without_ipv4_subnet_refused(_: FaultContext, verb: AdapterCall) -> object:
    """Refuse a network with a requested IPv6 subnet and no requested IPv4 subnet."""
    if verb.spec.subnet6 and not verb.spec.subnet:
        raise RuntimeRefused("network", "there is no IPv4 subnet")
    return verb()


@replay("podman#9496", violates="NET-3", around="connect")
def host_mode_container_is_connected(site: FaultContext, verb: AdapterCall) -> object:
    """Report success when a container in mode host is connected to a network."""
    if isinstance(site.specs[verb.name].mode, Host):
        return site.runtime.inspect(verb.name)
    return verb()


@replay("podman#9632", violates="NET-6", around="remove_network")
def network_in_use_is_not_refused(_: FaultContext, verb: AdapterCall) -> None:
    """Report success when the removal of a network in use is refused."""
    with suppress(RuntimeRefused):
        verb()


@replay("netavark v1.9.0", violates="BR-14", moment=Moment.CONTAINER_STARTED)
def bridge_mac_follows_its_ports(site: FaultContext) -> None:
    """Give the bridge the MAC of the port that was attached last."""
    for plug in site.plugs():
        site.host.set_link(plug.bridge, mac=site.host.link(plug.outside).mac)


@replay("netavark v1.2.0", violates="BR-3", moment=Moment.CONTAINER_STARTED)
def bridge_goes_with_one_container(site: FaultContext) -> None:
    """Detach the container from its bridge."""
    for plug in site.plugs():
        site.host.set_link(plug.outside, master=0)


@replay("nerdctl@31a40e9b", violates="V6-1", around="network")
def gateway_of_one_family_refused(_: FaultContext, verb: AdapterCall) -> object:
    """Refuse a network with IPv6 and the requested gateway of one family only."""
    spec = verb.spec
    if 6 in spec.families and bool(spec.gateway) != bool(spec.gateway6):
        raise RuntimeRefused("network", "no matching subnet")
    return verb()


@replay("incus@ba91f0d202", violates="NET-5", around="run")
def gateways_address_is_granted(site: FaultContext, verb: AdapterCall) -> object:
    """Accept a request for the address of the gateway."""
    mode = verb.spec.mode
    if isinstance(mode, Bridge) and verb.spec.ip:
        gateways_ = site.runtime.network_facts(mode.network).gateways
        if verb.spec.ip in {gateway.ip for gateway in gateways_}:
            return verb.call_with(ip=None)
    return verb()


@replay("runc@2a94c3651", violates="HOST-5", around="run")
def net_sysctls_are_refused(_: FaultContext, verb: AdapterCall) -> object:
    """Refuse all sysctls of the network."""
    if any(key.startswith("net.") for key, _ in verb.spec.sysctls):
        raise RuntimeRefused("run", "the sysctl is not in a separate kernel namespace")
    return verb()


@replay("runc@f7d1401a6", violates="HOST-5", around="run")
def host_mode_sysctl_is_accepted(_: FaultContext, verb: AdapterCall) -> object:
    """Start a container in mode host although a sysctl of the network is requested."""
    return verb.call_with(sysctls=()) if isinstance(verb.spec.mode, Host) else verb()
