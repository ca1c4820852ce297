"""Faults that affect bystanders: other hosts, and interfaces and rules of the operator."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from harness.faults.fault import AdapterCall, Moment, fault
from harness.faults.helpers import drop, remove_drops
from harness.faults.nft_rules import DROP, bridged, icmp_errors, longer_than, of_protocol, to_mac
from harness.faults.target import FaultContext
from harness.testbench.packets.offload import switch_off
from linux.nftables import (
    Nft,
    Table,
    add_chain,
    add_rule,
    ct_dnat,
    ct_state,
    del_table,
    dport,
    family,
    iifname,
    l4proto,
    oifname,
    verdict,
)

_EVER = (Moment.CONTAINER_STARTED, Moment.BEFORE_REMOVE)


@fault(
    violates="BYS-5",
    moment=Moment.NETWORK_CREATED,
    history=("moby#43466", "for-linux#844", "cni-plugins#21"),
)
def routers_are_not_listened_to(site: FaultContext) -> None:
    """Stop accepting router advertisements on the uplink when a network is created."""
    site.host.sysctl(f"net.ipv6.conf.{site.uplink()}.accept_ra", 0)


@fault(violates="BYS-1", moment=Moment.NETWORK_CREATED, history="moby#32639")
def bystanders_lose_ipv6(site: FaultContext) -> None:
    """Remove the IPv6 addresses of a bystander's bridge when a network is created."""
    for address in site.host.addresses("br0"):
        if address.version == 6:
            site.host.del_address("br0", address)


@fault(violates="BYS-1", moment=_EVER)
def uplink_gets_an_address(site: FaultContext) -> None:
    """Add an address to the uplink while a container runs."""
    address = IPv4Interface("198.51.100.207/32")
    if site.moment == Moment.CONTAINER_STARTED:
        site.host.add_address(site.uplink(), address)
    else:
        site.host.del_address(site.uplink(), address)


@fault(violates="BYS-1", moment=_EVER)
def bystanders_bridge_has_another_mtu(site: FaultContext) -> None:
    """Change the MTU of a bystander's bridge while a container runs."""
    started = site.moment == Moment.CONTAINER_STARTED
    site.host.set_link("br0", mtu=1400 if started else 1500)


@fault(violates="BYS-1", moment=Moment.NETWORK_CREATED)
def reverse_path_filter_is_changed(site: FaultContext) -> None:
    """Turn on rp_filter on a bystander's bridge when a network is created."""
    site.host.sysctl("net.ipv4.conf.br0.rp_filter", 1)


@fault("bystanders-stop-with-a-connection", violates="BYS-2", moment=Moment.CONNECTED)
@fault(
    violates="BYS-2",
    moment=Moment.CONTAINER_STARTED,
    history=("moby#39439", "moby#48365", "moby#49518"),
)
def forwarding_of_bystanders_stops(site: FaultContext) -> None:
    """Drop packets from bystanders that the host forwards to the uplink."""
    drop(site, "forward", iifname("br0"), oifname(site.uplink()))


@fault(violates="BYS-2", moment=Moment.CONTAINER_STARTED)
def bystanders_lose_connections(site: FaultContext) -> None:
    """Drop established TCP connections of bystanders when a container starts."""
    drop(site, "forward", iifname("br0"), l4proto("tcp"), ct_state("established"))


@fault(violates="BYS-2", moment=Moment.CONTAINER_STARTED)
def host_is_not_reached_from_the_lan(site: FaultContext) -> None:
    """Drop new connections from the LAN to the host when a container starts."""
    for protocol in ("icmp", "icmpv6", "udp"):
        drop(site, "input", iifname(site.uplink()), l4proto(protocol), ct_state("new"))


@fault(violates="BYS-3", moment=Moment.NETWORK_CREATED)
def operators_rules_are_flushed(site: FaultContext) -> None:
    """Delete the operator's nftables tables when a network is created."""
    with site.host.place.open() as space, Nft(space) as opened:
        others = [table for table in opened.tables() if "operator" in table.name]
    site.host.firewall(*(del_table(table) for table in others))


@fault(
    "connections-empty-operators-chains",
    violates="BYS-3",
    moment=(Moment.CONNECTED, Moment.DISCONNECTED),
)
@fault(violates="BYS-3", moment=Moment.CONTAINER_STARTED)
def operators_chains_are_emptied(site: FaultContext) -> None:
    """Delete the drop rules of the operator's table."""
    site.host.take_rules(lambda entry: entry.table == _OPERATORS and entry.refuses)


_OPERATORS = Table("inet", "operator")


@fault(violates="BYS-3", around="repair", history="netavark#230", narrow=True)
def repair_does_nothing(site: FaultContext, verb: AdapterCall) -> None:
    """Skip the repair after a flush of the host's firewall."""


@fault("forwarding-ends-with-a-stop", violates="BYS-4", moment=Moment.CONTAINER_STOPPED)
@fault("forwarding-is-not-turned-on", violates="BYS-4", moment=Moment.CONTAINER_STARTED)
@fault(violates="BYS-4", moment=(Moment.CONTAINER_REMOVED, Moment.NETWORK_REMOVED))
def forwarding_ends_with_the_last_container(site: FaultContext) -> None:
    """Turn off the host's IPv4 forwarding."""
    site.host.sysctl("net.ipv4.ip_forward", 0)


@fault(violates="BYS-4", moment=Moment.HOST_READY)
def ipv6_forwarding_without_ipv6(site: FaultContext) -> None:
    """Turn on IPv6 forwarding on a host without IPv6 networks."""
    site.host.sysctl("net.ipv6.conf.all.forwarding", 1)


@fault(violates="BYS-1", moment=Moment.CONTAINER_REMOVED)
def sysctl_of_the_host_stays(site: FaultContext) -> None:
    """Change a sysctl of the host when a container is removed."""
    count = site.memory["counted"] = site.memory.get("counted", 1) + 1
    site.host.sysctl("net.ipv4.conf.all.log_martians", count)


@fault(violates="BYS-1", moment=Moment.CONTAINER_STARTED)
def neighbour_of_a_bystander(site: FaultContext) -> None:
    """Add a neighbour entry to a bystander's bridge with each container."""
    count = site.memory["counted"] = site.memory.get("counted", 100) + 1
    address = IPv4Address("192.168.2.0") + count % 256
    index = site.host.link("br0").ifindex
    site.host.ensure("neigh", "replace", ifindex=index, dst=address, lladdr="02:00:00:00:00:01")


@fault(violates="BYS-2", moment=Moment.CONTAINER_STARTED)
def bystanders_lose_their_way_over_ipv6(site: FaultContext) -> None:
    """Drop IPv6 packets that the host forwards for bystanders once a container has run."""
    drop(site, "forward", iifname("br0"), oifname(site.uplink()), family(6))


@fault(violates="BYS-3", moment=Moment.CONTAINER_STARTED)
def operators_policy_is_tightened(site: FaultContext) -> None:
    """Set the policy of the operator's chain to drop when a container starts."""
    if any(entry.table == _OPERATORS for entry in site.host.rules()):
        chain = add_chain(_OPERATORS, "forward", hook="forward", priority=-5, policy="drop")
        site.host.firewall(chain, add_rule(_OPERATORS, "forward", verdict("accept")))


@fault(violates="BYS-1", moment=Moment.CONTAINER_STARTED)
def promiscuous_bridge(site: FaultContext) -> None:
    """Toggle promiscuous mode on a bystander's bridge with each container."""
    count = site.memory["counted"] = site.memory.get("counted", 0) + 1
    site.host.ip("link", "set", ifname="br0", flags=_PROMISC * (count % 2), change=_PROMISC)


_PROMISC = 0x100
"""IFF_PROMISC (linux/if.h)."""


@fault("crash-closes-published-ports", violates="LIFE-6", moment=Moment.CRASHED)
@fault(violates="BYS-3", moment=Moment.REPAIRED)
def repair_forgets_published_ports(site: FaultContext) -> None:
    """Drop packets to published ports."""
    drop(site, "forward", ct_dnat())


@fault(violates="BYS-2", moment=Moment.CONTAINER_STARTED)
def bystanders_lose_the_web(site: FaultContext) -> None:
    """Drop forwarded packets from bystanders to TCP port 443 once a container has run."""
    drop(site, "forward", iifname("br0"), l4proto("tcp"), dport(443))


@fault(violates="BYS-2", moment=Moment.CONTAINER_STARTED)
def bystanders_lose_a_service_of_each_other(site: FaultContext) -> None:
    """Drop packets to TCP port 80 between the ports of a bridge once a container has run."""
    site.host.rule("forward", l4proto("tcp"), dport(80), DROP, bridge=True)


@fault("crash-closes-ports-of-ipv6", violates="LIFE-6", moment=Moment.CRASHED)
@fault(violates="BYS-3", moment=Moment.REPAIRED)
def repair_forgets_ports_of_ipv6(site: FaultContext) -> None:
    """Drop IPv6 packets to published ports."""
    drop(site, "forward", family(6), ct_dnat())


@fault(violates="BYS-2", moment=Moment.CONTAINER_STARTED, narrow=True)
def bystanders_lose_long_packets(site: FaultContext) -> None:
    """Drop forwarded packets of bystanders that are longer than 1400 bytes."""
    drop(site, "forward", iifname("br0"), longer_than(1400))


@fault(violates="BYS-2", moment=Moment.CONTAINER_STARTED, narrow=True)
def bystanders_are_told_of_no_error(site: FaultContext) -> None:
    """Drop ICMP errors to bystanders, so that their connections time out."""
    for version, kinds in ((4, (3, 11)), (6, (1, 2, 3))):
        for kind in kinds:
            drop(
                site, "forward", iifname(site.uplink()), oifname("br0"), icmp_errors(version, kind)
            )


@fault(violates="BYS-2", moment=Moment.CONTAINER_STARTED, narrow=True)
def bystanders_lose_a_protocol(site: FaultContext) -> None:
    """Drop forwarded GRE packets of bystanders."""
    drop(site, "forward", iifname("br0"), of_protocol(_GRE))


_GRE = 47


@fault(violates="BYS-3", moment=Moment.REPAIRED, narrow=True)
def repair_forgets_hairpins(site: FaultContext) -> None:
    """Remove the hairpin masquerade rules of user-defined networks after a repair.

    Peers then reach published ports with their own source address instead of the gateway's.
    """
    ways = {("out", bridge) for bridge in site.bridges()[1:]}
    site.host.take_rules(
        lambda entry: entry.does == "masq" and "ct" in entry.kinds and bool(ways & set(entry.links))
    )


@fault(violates="BYS-3", moment=Moment.REPAIRED, narrow=True)
def repair_forgets_forged_sources(site: FaultContext) -> None:
    """Let packets with forged sources leave user-defined networks after a repair."""
    remove_drops(site, "in", bridges=site.bridges()[1:] or ["-"])


@fault(violates="BYS-1", moment=Moment.CONTAINER_STARTED, narrow=True)
def uplink_computes_no_checksums(site: FaultContext) -> None:
    """Turn off checksum and segmentation offload on the uplink."""
    switch_off(site.host.place, site.uplink())


@fault(violates="BYS-2", moment=Moment.CONTAINER_STARTED)
def bystanders_lose_broadcasts(site: FaultContext) -> None:
    """Drop Ethernet broadcasts, such as those of DHCP, between the ports of a bridge."""
    if not site.memory.setdefault("silenced", False):
        site.memory["silenced"] = True
        everybody = [*bridged(4), *to_mac("ff:ff:ff:ff:ff:ff")]
        site.host.rule("forward", everybody, DROP, priority=0, bridge=True)
