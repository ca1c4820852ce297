"""Faults of firewall rules: missing, too strict or too permissive ones."""

from __future__ import annotations

from ipaddress import ip_network

from harness.faults import nft_rules
from harness.faults.fault import PLUGGED, RULES, Moment, fault
from harness.faults.helpers import (
    FAMILIES,
    bridges_without_icc,
    drop,
    drop_between_peers,
    internal_bridges,
    new_bridges,
    remove_drops,
)
from harness.faults.target import FaultContext
from linux.nftables import (
    ct_dnat,
    ct_state,
    dport,
    family,
    iifname,
    l4proto,
    oifname,
    saddr,
    sport,
    verdict,
)

# --- translation -----------------------------------------------------------------


@fault(
    "no-masquerade-once-connected", violates="BR-7", moment=(Moment.CONNECTED, Moment.DISCONNECTED)
)
@fault(violates="BR-7", moment=RULES)
def no_masquerade(site: FaultContext) -> None:
    """Remove the masquerade rules."""
    site.host.take_rules(lambda entry: entry.does == "masq")


@fault(violates="BR-7", moment=PLUGGED)
def one_protocol_untranslated(site: FaultContext) -> None:
    """Masquerade all protocols except UDP."""
    for plug in site.plugs():
        for address in plug.addresses:
            mine = [*saddr(ip_network(address.ip)), *l4proto("udp")]
            out = oifname(plug.bridge, is_not=True)
            site.host.rule(
                "postrouting", mine, out, nft_rules.snat(address.ip), priority=90, nat=True
            )


@fault(violates="BR-7", moment=RULES)
def translated_to_another_address(site: FaultContext) -> None:
    """Masquerade with an address of the host that is not the uplink's."""
    other = next(item.ip for item in site.host.addresses("br0") if item.version == 4)
    out = oifname(site.uplink())
    for bridge in new_bridges(site):
        mine = [*family(4), *iifname(bridge)]
        site.host.rule("postrouting", mine, out, nft_rules.snat(other), priority=90, nat=True)


@fault(violates="V6-1", moment=PLUGGED)
def ipv6_untranslated(site: FaultContext) -> None:
    """Do not masquerade IPv6 packets."""
    for plug in site.plugs():
        for address in plug.addresses:
            if address.version == 6:
                mine, out = saddr(ip_network(address.ip)), oifname(plug.bridge, is_not=True)
                kept = nft_rules.snat(address.ip)
                site.host.rule("postrouting", mine, out, kept, priority=90, nat=True)


@fault(violates="BR-24", moment=Moment.HOST_READY)
def every_flow_has_one_port(site: FaultContext) -> None:
    """Masquerade every connection to the same source port."""
    out = oifname(site.uplink())
    for version in FAMILIES:
        for protocol in ("tcp", "udp"):
            which = [*family(version), *l4proto(protocol)]
            again = nft_rules.masquerade_as_port(40000)
            site.host.rule("postrouting", out, which, again, priority=90, nat=True)


# --- what is let in ----------------------------------------------------------------


@fault(
    "repair-forgets-who-is-outside",
    violates="BYS-3",
    moment=Moment.REPAIRED,
    history="CVE-2025-54388",
)
@fault(violates="BR-9", moment=RULES, history="moby#14041")
def direct_routing_open(site: FaultContext) -> None:
    """Remove the rules that drop packets which other hosts route directly to containers."""
    remove_drops(site, "out")


@fault("internal-network-is-open", violates="INT-1", moment=RULES)
@fault("connections-open-internal-networks", violates="INT-1", moment=Moment.CONNECTED)
@fault(
    "repair-forgets-isolation", violates="BYS-3", moment=Moment.REPAIRED, history="CVE-2025-54410"
)
@fault(violates="NET-2", moment=RULES, history="netavark#331")
def networks_are_not_isolated(site: FaultContext) -> None:
    """Remove the rules that drop packets between networks."""
    for way in ("in", "out"):
        remove_drops(site, way)


@fault(violates="NET-2", moment=RULES, history="netavark#1515")
def isolation_of_one_family(site: FaultContext) -> None:
    """Isolate networks from each other for IPv4 only."""
    remove_drops(site, "out")
    for bridge in site.bridges():
        strange = [*iifname(bridge, is_not=True), *oifname(bridge), *family(4)]
        drop(site, "forward", strange, ct_state("new"))


@fault("forged-sources-pass-once-connected", violates="BR-26", moment=Moment.CONNECTED)
@fault("internal-network-ends-for-want-of-a-route", violates="INT-1", moment=RULES)
@fault(violates="BR-26", moment=RULES)
def forged_sources_pass(site: FaultContext) -> None:
    """Let packets leave the host whose source address is outside the network's subnet."""
    remove_drops(site, "in")


# --- what is kept out or in that should not be ------------------------------------------


@fault(violates="BR-5", moment=RULES)
def gateway_is_deaf_to_pings(site: FaultContext) -> None:
    """Drop echo requests from containers to the host."""
    for bridge in site.bridges():
        for protocol in ("icmp", "icmpv6"):
            drop(site, "input", iifname(bridge), nft_rules.echo_requests(protocol))


@fault(violates="BR-5", moment=RULES)
def host_is_out_of_reach(site: FaultContext) -> None:
    """Drop TCP packets from containers to the host."""
    for bridge in site.bridges():
        drop(site, "input", iifname(bridge), l4proto("tcp"))


@fault(violates="BR-6", moment=RULES)
def bystanders_are_out_of_reach(site: FaultContext) -> None:
    """Drop packets from containers to other networks behind the host."""
    for bridge in site.bridges():
        drop(site, "forward", iifname(bridge), oifname("br0"))


@fault(violates="BR-7", moment=RULES)
def internet_is_out_of_reach(site: FaultContext) -> None:
    """Drop packets from containers to the internet."""
    for bridge in site.bridges():
        drop(site, "forward", iifname(bridge), oifname(site.uplink()))


@fault(violates="BR-27", moment=RULES)
def host_cannot_reach_in(site: FaultContext) -> None:
    """Drop new connections from the host to containers."""
    for bridge in site.bridges():
        drop(site, "output", oifname(bridge), ct_state("new"))


@fault(violates="BR-4", moment=Moment.HOST_READY)
def peers_lose_datagrams(site: FaultContext) -> None:
    """Drop UDP packets between containers on one network."""
    drop_between_peers(site, l4proto("udp"))


@fault(violates="BR-4", moment=Moment.HOST_READY)
def peers_lose_connections(site: FaultContext) -> None:
    """Drop TCP packets between containers on one network."""
    drop_between_peers(site, l4proto("tcp"), families=[4])


@fault(violates="V6-1", moment=Moment.HOST_READY)
def ipv6_peers_are_deaf(site: FaultContext) -> None:
    """Drop IPv6 packets between containers on one network."""
    drop_between_peers(site, families=[6])


@fault(violates="V6-1", moment=RULES)
def icmpv6_is_dropped(site: FaultContext) -> None:
    """Drop ICMPv6 errors to containers."""
    for bridge in site.bridges():
        for kind in (1, 2, 3, 4):
            drop(site, "postrouting", oifname(bridge), nft_rules.icmp_errors(6, kind))


# --- half-open doors ----------------------------------------------------------------


@fault(violates="BR-9", moment=RULES)
def pings_from_outside_get_in(site: FaultContext) -> None:
    """Let echo requests from outside reach containers."""
    remove_drops(site, "out")
    for bridge in site.bridges():
        strange = [*iifname(bridge, is_not=True), *oifname(bridge)]
        for protocol in ("tcp", "udp"):
            drop(site, "forward", strange, l4proto(protocol), ct_state("new"))


@fault(violates="BR-9", moment=RULES)
def what_looks_like_an_answer_gets_in(site: FaultContext) -> None:
    """Let TCP segments with ACK from outside reach containers, as a stateless firewall does."""
    remove_drops(site, "out")
    for bridge in site.bridges():
        strange = [*iifname(bridge, is_not=True), *oifname(bridge), *ct_state("new")]
        drop(site, "forward", strange, l4proto("icmp"))
        drop(site, "forward", strange, l4proto("tcp"))


@fault(violates="NET-2", moment=RULES)
def networks_leak_one_way(site: FaultContext) -> None:
    """Let the default network reach the other networks."""
    first, *rest = site.bridges()
    remove_drops(site, "out", bridges=rest or ["-"])
    for bridge in rest:
        strange = [*iifname(first, is_not=True), *iifname(bridge, is_not=True), *oifname(bridge)]
        drop(site, "forward", strange, ct_state("new"))


@fault(violates="BR-27", moment=RULES)
def host_cannot_connect_in(site: FaultContext) -> None:
    """Drop new TCP connections from the host to containers."""
    for bridge in site.bridges():
        drop(site, "output", oifname(bridge), l4proto("tcp"), ct_state("new"))


# --- one port of all ------------------------------------------------------------------


@fault(violates="BR-4", moment=Moment.HOST_READY)
def peers_lose_the_web(site: FaultContext) -> None:
    """Drop packets to TCP port 80 between containers on one network."""
    drop_between_peers(site, l4proto("tcp"), dport(80), families=[4])


@fault(violates="BR-7", moment=RULES)
def the_internets_web_is_filtered(site: FaultContext) -> None:
    """Drop packets to TCP port 443 from containers to the internet."""
    for bridge in site.bridges():
        web = [*l4proto("tcp"), *dport(443)]
        drop(site, "forward", iifname(bridge), oifname(site.uplink()), web)


@fault(violates="BR-5", moment=RULES)
def a_service_of_the_host_is_closed(site: FaultContext) -> None:
    """Drop packets to TCP port 22 from containers to the host."""
    for bridge in site.bridges():
        drop(site, "input", iifname(bridge), l4proto("tcp"), dport(22))


# --- holes for some ----------------------------------------------------------------


@fault(violates="NET-2", moment=RULES)
def questions_pass_between_networks(site: FaultContext) -> None:
    """Let packets to port 53 pass between networks."""
    remove_drops(site, "out")
    for bridge in site.bridges():
        others = [*iifname(bridge, is_not=True), *oifname(bridge)]
        for protocol in ("tcp", "udp"):
            site.host.rule("forward", others, l4proto(protocol), dport(53), verdict("accept"))
        drop(site, "forward", others, ct_state("new", "invalid"), priority=-350)


@fault(violates="BR-9", moment=RULES)
def ipv6_answers_nobody_asked_for_get_in(site: FaultContext) -> None:
    """Let unsolicited IPv6 datagrams from port 53 reach containers."""
    remove_drops(site, "out")
    for bridge in site.bridges():
        others = [*iifname(bridge, is_not=True), *oifname(bridge)]
        answer = [*family(6), *l4proto("udp"), *sport(53)]
        site.host.rule("forward", others, answer, verdict("accept"))
        drop(site, "forward", others, ct_state("new", "invalid"), priority=-350)


@fault(violates="INT-1", moment=RULES)
def internal_network_is_open_to_other_protocols(site: FaultContext) -> None:
    """Let protocols other than TCP, UDP and ICMP leave internal networks."""
    for bridge in internal_bridges(site):
        remove_drops(site, "in", bridges=[bridge])
        out = [*iifname(bridge), *oifname(bridge, is_not=True)]
        for protocol in ("tcp", "udp", "icmp", "icmpv6"):
            drop(site, "forward", out, l4proto(protocol))


@fault(violates="BR-27", moment=RULES)
def host_cannot_log_in(site: FaultContext) -> None:
    """Drop packets to TCP port 22 from the host to containers."""
    for bridge in site.bridges():
        drop(site, "output", oifname(bridge), l4proto("tcp"), dport(22))


@fault(violates="BR-26", moment=RULES)
def forged_sources_pass_without_icc(site: FaultContext) -> None:
    """Let packets with forged source addresses leave networks with icc=false."""
    if bridges := list(bridges_without_icc(site)):
        remove_drops(site, "in", bridges=bridges)


@fault(violates="INT-1", moment=RULES)
def internal_network_reaches_published_ports(site: FaultContext) -> None:
    """Let containers on internal networks reach published ports of other containers."""
    for bridge in internal_bridges(site):
        remove_drops(site, "in", bridges=[bridge])
        site.host.rule("forward", iifname(bridge), ct_dnat(), verdict("accept"))
        drop(site, "forward", iifname(bridge), oifname(bridge, is_not=True), priority=-350)


@fault(violates="BR-7", moment=RULES, narrow=True)
def databases_are_out_of_reach(site: FaultContext) -> None:
    """Drop packets to TCP port 5432 from containers to the internet."""
    for bridge in site.bridges():
        drop(site, "forward", iifname(bridge), oifname(site.uplink()), l4proto("tcp"), dport(5432))
