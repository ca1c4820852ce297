"""Faults of addresses and MACs: wrong ones, duplicates, and wrongly reported ones."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface

from harness.adapters.protocol import ContainerInfo, RuntimeRefused
from harness.faults.fault import PLUGGED, AdapterCall, Moment, fault
from harness.faults.helpers import address_at, gateway_of, gateways, readdress
from harness.faults.target import FaultContext
from harness.model.plan import DEFAULT_NETWORK, Bridge, Host


@fault(violates="BR-1", moment=PLUGGED)
def narrow_prefix(site: FaultContext) -> None:
    """Set the prefix length of the container's address to 32."""
    for plug in site.plugs():
        for address in plug.addresses:
            if isinstance(address, IPv4Interface):
                site.inside.add_address(plug.inside, IPv4Interface((address.ip, 32)))
                site.inside.del_address(plug.inside, address)


@fault(violates="BR-1", moment=PLUGGED)
def second_address(site: FaultContext) -> None:
    """Give the container a second address on its network."""
    for plug, gateway in gateways(site):
        site.inside.add_address(plug.inside, address_at(gateway, gateway.network.num_addresses - 6))


@fault(violates="BR-10", moment=PLUGGED, history="moby#27404")
def address_given_twice(site: FaultContext) -> None:
    """Assign an address that another container on the network has."""
    for plug in site.plugs():
        for facts in site.other_containers().values():
            for other in facts.endpoints:
                if other.network == plug.network.name and other.address:
                    return readdress(site, plug, other.address)
    return None


@fault(violates=("BR-10", "LIFE-4"), moment=PLUGGED, history="moby#29610")
def one_address_for_all(site: FaultContext) -> None:
    """Assign the same address to every container."""
    for plug, gateway in gateways(site):
        readdress(site, plug, address_at(gateway, 7))


@fault(violates="BR-10", moment=PLUGGED)
def gateways_address_given(site: FaultContext) -> None:
    """Assign the gateway's address to a container."""
    for plug, gateway in gateways(site):
        readdress(site, plug, gateway)


@fault(violates="BR-10", moment=PLUGGED)
def broadcast_address_given(site: FaultContext) -> None:
    """Assign the subnet's broadcast address to a container."""
    for plug, gateway in gateways(site):
        readdress(site, plug, address_at(gateway, gateway.network.num_addresses - 1))


@fault(violates="BR-10", around="inspect")
def reports_another_address(site: FaultContext, verb: AdapterCall) -> object:
    """Report a wrong IPv4 address of the container."""
    facts: ContainerInfo = verb()
    told = []
    for endpoint in facts.endpoints:
        if endpoint.address:
            wrong = IPv4Interface((endpoint.address.ip + 1, endpoint.address.network.prefixlen))
            endpoint = replace(endpoint, address=wrong)  # noqa: PLW2901
        told.append(endpoint)
    return replace(facts, endpoints=tuple(told))


@fault(violates="BR-10", around="inspect")
def reports_another_mac(site: FaultContext, verb: AdapterCall) -> object:
    """Report a wrong MAC of the container."""
    facts: ContainerInfo = verb()
    told = (replace(endpoint, mac="02:42:00:00:00:99") for endpoint in facts.endpoints)
    return replace(facts, endpoints=tuple(told))


@fault(violates="BR-10", around="run", narrow=True)
def addresses_are_counted_up(site: FaultContext, verb: AdapterCall) -> object:
    """Assign addresses in order and never reuse a freed one, contrary to the dialect."""
    spec, count = verb.spec, site.memory.get("counted", 100)
    if isinstance(spec.mode, Bridge) and spec.mode.network == "bridge" and spec.ip is None:
        site.memory["counted"] = count + 1
        gateway = site.runtime.network_facts("bridge").gateways[0]
        spec = replace(spec, ip=address_at(gateway, count).ip)
    return verb(spec=spec)


@fault(violates="BR-11", moment=PLUGGED, history="for-linux#589")
def one_mac_for_all(site: FaultContext) -> None:
    """Assign the same MAC to every container."""
    for plug in site.plugs():
        site.inside.set_link(plug.inside, mac="02:42:ac:11:00:63")


@fault("products-after-a-restart", violates="BR-11", moment=Moment.CONTAINER_RESTARTED)
@fault("products-by-connection", violates="BR-11", moment=Moment.CONNECTED)
@fault(violates="BR-11", moment=PLUGGED)
def somebodys_product(site: FaultContext) -> None:
    """Assign a MAC with the OUI of a vendor, which is not locally administered."""
    for plug in site.new_plugs():
        mac = site.inside.link(plug.inside).mac
        site.inside.set_link(plug.inside, mac=f"00:16:3e{mac[8:]}")


@fault(violates="BR-11", moment=PLUGGED, history="moby#48595")
def mac_by_lot(site: FaultContext) -> None:
    """Assign a MAC that breaks the rule in the dialect."""
    for plug in site.plugs():
        octets = site.inside.link(plug.inside).mac.split(":")
        site.inside.set_link(plug.inside, mac=":".join(["0a", *reversed(octets[1:])]))


@fault(violates="NET-5", around="run", narrow=True)
def requested_address_ignored(site: FaultContext, verb: AdapterCall) -> object:
    """Ignore the requested IP addresses."""
    return verb.call_with(ip=None, ip6=None)


@fault(violates="NET-5", around="run", narrow=True)
def requested_mac_ignored(site: FaultContext, verb: AdapterCall) -> object:
    """Ignore the requested MAC."""
    return verb.call_with(mac=None)


@fault(violates="NET-5", around="run", narrow=True)
def address_in_use_granted(site: FaultContext, verb: AdapterCall) -> object:
    """Start the container with other addresses when the requested addresses are unavailable."""
    try:
        return verb()
    except RuntimeRefused:
        return verb.call_with(ip=None, ip6=None, mac=None)


@fault(violates="BR-16", around="run")
def empty_pool_passed_over(site: FaultContext, verb: AdapterCall) -> object:
    """Start the container in mode host when the address pool is exhausted."""
    try:
        return verb()
    except RuntimeRefused:
        if not isinstance(verb.spec.mode, Bridge) or verb.spec.ip:
            raise
        return verb.call_with(mode=Host(), ports=())


@fault(violates="BR-16", around="connect", narrow=True)
def full_network_passed_over(_: FaultContext, verb: AdapterCall) -> None:
    """Report success when a network without free addresses refuses a new container."""
    with suppress(RuntimeRefused):
        verb()


@fault(violates="V6-3", moment=PLUGGED)
def ipv6_address_nobody_asked_for(site: FaultContext) -> None:
    """Assign a global IPv6 address on a network without IPv6."""
    for plug in site.plugs():
        if gateway_of(plug, 6) is None:
            site.inside.sysctl(f"net.ipv6.conf.{plug.inside}.disable_ipv6", 0)
            site.inside.add_address(plug.inside, IPv6Interface("2001:db8:bad::7/64"))


@fault(violates="V6-1", moment=PLUGGED)
def ipv6_address_given_twice(site: FaultContext) -> None:
    """Assign the same IPv6 address to every container."""
    for plug, gateway in gateways(site, 6):
        readdress(site, plug, address_at(gateway, 77))


@fault(violates="LIFE-7", moment=Moment.CONTAINER_RESTARTED)
def old_address_kept(site: FaultContext) -> None:
    """Assign an address on restart that differs from the reported one."""
    for plug, gateway in gateways(site):
        readdress(site, plug, address_at(gateway, 119))


@fault(violates="NET-1", moment=Moment.NETWORK_CREATED)
def subnet_of_a_bystander(site: FaultContext) -> None:
    """Create a network whose subnet overlaps a route of the host."""
    for gateway in site.network.gateways if site.network else ():
        if gateway.version == 4:
            half = next(gateway.network.subnets())
            site.host.ensure("route", "add", dst=half, oif=site.host.link("br0").ifindex)


@fault(violates="NET-7", around="network")
def overlapping_subnet_accepted(site: FaultContext, verb: AdapterCall) -> object:
    """Accept a request for an overlapping subnet, and create the network with another subnet."""
    try:
        return verb()
    except RuntimeRefused:
        return verb.call_with(subnet=None, gateway=None, ip_range=None)


@fault(violates="NET-1", around=("network", "network_facts"))
def one_subnet_for_all(site: FaultContext, verb: AdapterCall) -> object:
    """Report the same subnet for every network."""
    facts = verb()
    return replace(facts, gateways=(IPv4Interface((IPv4Address("172.17.42.1"), 16)),))


@fault(violates="BR-11", moment=PLUGGED)
def mac_of_the_bridge(site: FaultContext) -> None:
    """Assign the bridge's MAC to the container."""
    for plug in site.plugs():
        site.inside.set_link(plug.inside, mac=site.host.link(plug.bridge).mac)


@fault(violates="BR-18", moment=PLUGGED)
def answers_for_an_address_on_lo(site: FaultContext) -> None:
    """Answer ARP requests for a bystander's address that was added to the container's loopback."""
    for _ in site.plugs():
        site.inside.add_address("lo", IPv4Interface("192.168.2.10/32"))


@fault(violates="BR-16", around="run")
def refused_without_a_word(site: FaultContext, verb: AdapterCall) -> object:
    """Refuse a start without a message when the address pool is exhausted."""
    try:
        return verb()
    except RuntimeRefused as refused:
        raise RuntimeRefused(refused.asked, "") from refused


@fault(violates="BR-11", moment=Moment.CONTAINER_STARTED)
def products_on_own_networks(site: FaultContext) -> None:
    """Assign a MAC that is not locally administered on user-defined networks."""
    for plug in site.plugs():
        if plug.network.name != DEFAULT_NETWORK and site.spec and not site.spec.mac:
            mac = site.inside.link(plug.inside).mac
            site.inside.set_link(plug.inside, mac=f"00:16:3e{mac[8:]}")


@fault(violates="NET-5", moment=Moment.CONTAINER_RESTARTED)
def requested_ipv6_ends_with_a_restart(site: FaultContext) -> None:
    """Replace the requested IPv6 address by another one on restart."""
    for plug in site.plugs():
        gateway = gateway_of(plug, 6)
        if gateway and site.spec and site.spec.ip6:
            readdress(site, plug, address_at(gateway, 77))


@fault(violates="BR-10", moment=PLUGGED, narrow=True)
def beginning_of_the_subnet_given(site: FaultContext) -> None:
    """Assign the subnet's network address when the gateway is not the first host address."""
    for plug in site.plugs():
        gateway = gateway_of(plug) if plug.network.name != DEFAULT_NETWORK else None
        if gateway and int(gateway.ip) - int(gateway.network.network_address) > _BEGINNING:
            readdress(site, plug, address_at(gateway, 0))


_BEGINNING = 16


@fault(violates="NET-5", around="run", narrow=True)
def takes_a_mac_that_was_given(site: FaultContext, verb: AdapterCall) -> object:
    """Accept a requested MAC that a peer has, derived from the peer's own address."""
    try:
        return verb()
    except RuntimeRefused:
        mac = (verb.spec.mac or "").lower()
        others = (spec for name, spec in site.specs.items() if name != verb.spec.name)
        if mac.startswith("02:42") and mac not in {spec.mac for spec in others}:
            return verb.call_with(mac=None)
        raise


@fault(violates="BR-1", moment=Moment.CONTAINER_RESTARTED)
def ipv6_loopback_changes_with_a_restart(site: FaultContext) -> None:
    """Add or remove ::1 on the loopback interface on each restart."""
    if site.is_bridged:
        held = any(item.version == 6 for item in site.inside.addresses("lo"))
        site.inside.sysctl("net.ipv6.conf.lo.disable_ipv6", int(held))
