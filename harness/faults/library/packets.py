"""Faults of single packets: ICMP errors, fragments, TCP segments and header fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.faults import nft_rules
from harness.faults.fault import RULES, Moment, fault
from harness.faults.helpers import FAMILIES, drop, drop_between_peers, new_bridges, remove_drops
from harness.faults.nft_rules import DROP
from harness.faults.target import FaultContext
from linux.nftables import Expression, Hook, ct_dnat, ct_state, iifname, l4proto, oifname, reject

_UNREACHABLE = {4: (3,), 6: (1,)}
_EXCEEDED = {4: (11,), 6: (3,)}
_TOO_BIG = {4: (3, 4), 6: (2, 0)}
"""ICMP and ICMPv6 errors by family: the type, and the code if it matters."""

_OUTWARDS: Final[tuple[Hook, ...]] = ("output", "forward")


def _drop_errors(
    site: FaultContext, hook: Hook, which: list[Expression], kinds: Mapping[int, tuple[int, ...]]
) -> None:
    for version, kind in kinds.items():
        drop(site, hook, which, nft_rules.icmp_errors(version, *kind))


@fault("connected-it-is-told-of-no-ttl", violates="BR-19", moment=Moment.CONNECTED)
@fault(violates="BR-19", moment=RULES, narrow=True)
def time_exceeded_in_silence(site: FaultContext) -> None:
    """Drop ICMP time-exceeded messages from the host to containers."""
    for bridge in site.bridges():
        _drop_errors(site, "output", oifname(bridge), _EXCEEDED)


@fault("connected-it-refuses-in-silence", violates="BR-20", moment=Moment.CONNECTED)
@fault(violates="BR-20", moment=Moment.CONTAINER_STARTED)
def closed_udp_ports_are_silent(site: FaultContext) -> None:
    """Drop ICMP port-unreachable messages that the container sends."""
    if site.is_bridged:
        for version, kind in _UNREACHABLE.items():
            site.inside.rule("output", nft_rules.icmp_errors(version, *kind), DROP)


@fault(violates="BR-20", moment=Moment.CONTAINER_STARTED, narrow=True)
def closed_tcp_ports_are_silent(site: FaultContext) -> None:
    """Drop TCP resets that the container sends."""
    if site.is_bridged:
        site.inside.rule("output", nft_rules.tcp_resets(), DROP)


@fault("connected-it-hears-of-no-errors", violates="BR-21", moment=Moment.CONNECTED)
@fault(violates=("BR-20", "BR-21"), moment=RULES)
def refusals_stay_outside(site: FaultContext) -> None:
    """Drop ICMP errors about a container's connections (conntrack state related)."""
    for bridge in site.bridges():
        drop(site, "forward", oifname(bridge), ct_state("related"))


@fault(violates="BR-21", moment=RULES)
def errors_of_routers_stay_outside(site: FaultContext) -> None:
    """Drop ICMP time-exceeded messages from outside to containers."""
    for bridge in site.bridges():
        _drop_errors(site, "forward", oifname(bridge), _EXCEEDED)


@fault(violates="BR-22", moment=RULES, history="gvisor#12568", narrow=True)
def path_mtu_black_hole(site: FaultContext) -> None:
    """Drop ICMP fragmentation-needed and packet-too-big messages to containers."""
    for bridge in site.bridges():
        _drop_errors(site, "forward", oifname(bridge), _TOO_BIG)


@fault(violates="BR-23", moment=RULES)
def fragments_are_dropped(site: FaultContext) -> None:
    """Drop IP fragments from containers before reassembly."""
    for bridge in new_bridges(site):
        for version in FAMILIES:
            parts = nft_rules.fragments(version)
            site.host.rule("prerouting", iifname(bridge), parts, DROP, priority=-450)


@fault(violates="BR-25", moment=Moment.CONTAINER_STARTED, history="gvisor#14011")
def segments_are_corrupted(site: FaultContext) -> None:
    """Corrupt large TCP segments to the container, and give them a valid checksum."""
    if site.is_bridged:
        broken = nft_rules.overwrite_tcp(700, b"\xde\xad\xbe\xef")
        site.inside.rule("input", nft_rules.longer_than(1400), broken, priority=-350)


@fault(violates=("BR-12", "BR-25"), moment=Moment.HOST_READY)
def large_packets_between_peers_are_lost(site: FaultContext) -> None:
    """Drop packets longer than 1000 bytes between peers."""
    drop_between_peers(site, nft_rules.longer_than(1000))


@fault(violates="BR-23", moment=Moment.HOST_READY)
def fragments_between_peers_are_lost(site: FaultContext) -> None:
    """Drop IPv4 fragments between peers."""
    parts = [*nft_rules.bridged(4), *nft_rules.is_fragment(4)]
    site.host.rule("prerouting", parts, DROP, priority=-310, bridge=True)


@fault(violates="BR-20", moment=Moment.CONTAINER_STARTED)
def refused_with_another_code(site: FaultContext) -> None:
    """Reject UDP datagrams to closed ports with ICMP host-unreachable, not port-unreachable."""
    if site.is_bridged:
        refused = reject("host-unreachable")
        site.inside.rule("input", l4proto("udp"), refused, priority=0)


@fault(violates="BR-19", moment=RULES)
def pings_are_not_counted(site: FaultContext) -> None:
    """Forward containers' ICMP packets without decrementing the TTL."""
    for bridge in new_bridges(site):
        site.host.rule("prerouting", iifname(bridge), l4proto("icmp"), nft_rules.set_ttl(4, 65))


@fault(violates="BR-7", moment=RULES)
def one_router_too_many(site: FaultContext) -> None:
    """Decrement the TTL of packets to the internet twice."""
    if not site.memory.setdefault("aged", False):
        site.memory["aged"] = True
        out = oifname(site.uplink())
        for version in FAMILIES:
            site.host.rule("postrouting", out, nft_rules.set_ttl(version, 62), priority=300)


@fault(violates="BR-25", moment=Moment.CONTAINER_STARTED)
def sent_segments_are_corrupted(site: FaultContext) -> None:
    """Corrupt large TCP segments that the container sends."""
    if site.is_bridged:
        site.inside.rule(
            "output", nft_rules.longer_than(1000), nft_rules.overwrite_tcp(990, b"\0\0")
        )


@fault(violates="V6-1", moment=RULES)
def ipv6_errors_of_the_host_are_silent(site: FaultContext) -> None:
    """Drop ICMPv6 time-exceeded messages from the host to containers."""
    for bridge in site.bridges():
        drop(site, "output", oifname(bridge), nft_rules.icmp_errors(6, *_EXCEEDED[6]))


@fault(violates="BR-9", moment=RULES)
def other_protocols_get_in(site: FaultContext) -> None:
    """Let protocols other than TCP, UDP and ICMP in from outside."""
    remove_drops(site, "out")
    for bridge in site.bridges():
        strange = [*iifname(bridge, is_not=True), *oifname(bridge)]
        for protocol in ("tcp", "udp", "icmp", "icmpv6"):
            for state in ("new", "invalid"):
                drop(site, "forward", strange, l4proto(protocol), ct_state(state))


@fault(violates="BR-22", moment=Moment.HOST_READY)
def host_is_silent_about_its_own_mtu(site: FaultContext) -> None:
    """Drop the fragmentation-needed and packet-too-big messages that the host itself sends."""
    _drop_errors(site, "output", [], _TOO_BIG)


@fault(violates="BR-20", moment=Moment.NETWORK_CREATED)
def own_networks_swallow_refusals(site: FaultContext) -> None:
    """Drop ICMP port-unreachable messages to user-defined networks."""
    for bridge in site.bridges()[1:]:
        for hook in _OUTWARDS:
            drop(site, hook, oifname(bridge), nft_rules.icmp_errors(4, 3, 3))


@fault(violates="BR-19", moment=Moment.NETWORK_CREATED)
def own_networks_swallow_time_exceeded(site: FaultContext) -> None:
    """Drop ICMP time-exceeded messages to user-defined networks."""
    for bridge in site.bridges()[1:]:
        for hook in _OUTWARDS:
            drop(site, hook, oifname(bridge), nft_rules.icmp_errors(4, 11))


# --- by a published port ---------------------------------------------------------------


@fault(violates="BR-20", moment=RULES, narrow=True)
def published_ports_swallow_refusals(site: FaultContext) -> None:
    """Drop ICMP port-unreachable messages that published UDP ports send."""
    for bridge in site.bridges():
        _drop_errors(site, "forward", [*iifname(bridge), *ct_dnat()], _UNREACHABLE)


@fault(violates="BR-20", moment=RULES, narrow=True)
def published_ports_swallow_resets(site: FaultContext) -> None:
    """Drop TCP resets that published ports send."""
    for bridge in site.bridges():
        drop(site, "forward", iifname(bridge), ct_dnat(), nft_rules.tcp_resets())


@fault(violates="BR-21", moment=RULES, narrow=True)
def published_ports_hear_of_no_errors(site: FaultContext) -> None:
    """Drop ICMP unreachable messages about replies that published ports send."""
    for bridge in site.bridges():
        _drop_errors(site, "forward", [*oifname(bridge), *ct_dnat()], {4: (3, 1), 6: (1, 3)})


@fault(violates="BR-22", moment=RULES, narrow=True)
def published_ports_are_a_black_hole(site: FaultContext) -> None:
    """Drop fragmentation-needed and packet-too-big messages about replies of published ports."""
    for bridge in site.bridges():
        _drop_errors(site, "forward", [*oifname(bridge), *ct_dnat()], _TOO_BIG)


@fault(violates="BR-23", moment=RULES, narrow=True)
def long_pings_are_lost(site: FaultContext) -> None:
    """Drop fragmented echo requests that containers send to targets beyond the host."""
    for bridge in site.bridges():
        for protocol in ("icmp", "icmpv6"):
            drop(site, "forward", iifname(bridge), l4proto(protocol), nft_rules.longer_than(2000))


@fault(violates="BR-23", moment=RULES, narrow=True)
def host_hears_no_long_pings(site: FaultContext) -> None:
    """Drop fragmented echo requests from containers to the host."""
    for bridge in site.bridges():
        for protocol in ("icmp", "icmpv6"):
            drop(site, "input", iifname(bridge), l4proto(protocol), nft_rules.longer_than(2000))


_ENDED: Final = 1
"""Conntrack mark of a flow whose client has sent FIN."""


@fault(violates="BR-4", moment=Moment.HOST_READY)
def ends_between_peers_are_lost(site: FaultContext) -> None:
    """Drop TCP FIN segments between peers."""
    drop_between_peers(site, nft_rules.with_flags("F"))


@fault(violates="BR-7", moment=RULES)
def ends_do_not_get_out(site: FaultContext) -> None:
    """Drop TCP FIN segments from containers to outside."""
    for bridge in site.bridges():
        drop(site, "forward", iifname(bridge), nft_rules.with_flags("F"))


@fault(violates="PUB-1", moment=RULES)
def published_ports_close_both_halves(site: FaultContext) -> None:
    """Close both directions of a published port's connection when the client half-closes it."""
    for bridge in site.bridges():
        drop(
            site,
            "forward",
            iifname(bridge),
            ct_dnat(),
            nft_rules.of_marked_flow(_ENDED),
            nft_rules.with_flags("P"),
        )
    for bridge in new_bridges(site):
        ends = [*oifname(bridge), *ct_dnat(), *nft_rules.with_flags("F")]
        site.host.rule("forward", ends, nft_rules.mark_flow(_ENDED), priority=-150)


@fault(violates="BR-4", moment=Moment.HOST_READY)
def congestion_is_not_to_be_asked_about(site: FaultContext) -> None:
    """Drop TCP SYN segments between peers that offer ECN."""
    drop_between_peers(site, nft_rules.with_flags("SEC"))


@fault(violates="BR-7", moment=RULES, narrow=True)
def marked_packets_do_not_get_out(site: FaultContext) -> None:
    """Drop packets with a DSCP value other than 0 that containers send to outside."""
    for bridge in site.bridges():
        drop(site, "forward", iifname(bridge), nft_rules.with_dscp())


@fault(violates="BR-4", moment=Moment.HOST_READY, narrow=True)
def nothing_is_no_datagram(site: FaultContext) -> None:
    """Drop empty UDP datagrams between peers."""
    drop_between_peers(site, nft_rules.empty_datagrams())


@fault(violates="BR-4", moment=Moment.HOST_READY, narrow=True)
def no_checksum_is_a_wrong_one(site: FaultContext) -> None:
    """Drop UDP datagrams without a checksum between peers, although IPv4 allows them."""
    drop_between_peers(site, nft_rules.datagrams_without_checksum(), families=[4])


@fault(violates="BR-28", moment=RULES, narrow=True)
def urgency_is_forgotten(site: FaultContext) -> None:
    """Clear the DSCP and ECN bits of packets that containers send to outside."""
    for bridge in new_bridges(site):
        for version in FAMILIES:
            site.host.rule(
                "forward", iifname(bridge), nft_rules.set_class(version, 0), priority=-150
            )
