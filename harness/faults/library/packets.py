"""Errors that nobody hears of, fragments and segments that do not arrive as they were sent."""

from __future__ import annotations

from typing import Final

from harness.faults import nft_rules
from harness.faults.fault import RULES, Moment, fault
from harness.faults.helpers import FAMILIES, drop, forget_drops, new_bridges
from harness.faults.nft_rules import DROP
from harness.faults.target import FaultContext
from linux.nftables import Hook, ct_dnat, ct_state, iifname, l4proto, oifname, reject

_UNREACHABLE = {4: 3, 6: 1}
_EXCEEDED = {4: 11, 6: 3}
_TOO_BIG = {4: (3, 4), 6: (2, 0)}

_OUTWARDS: Final[tuple[Hook, ...]] = ("output", "forward")


@fault("time-exceeded-in-silence", violates=("BR-19",), moment=RULES, narrow=True)
def time_exceeded_in_silence(site: FaultContext) -> None:
    """The host does not tell a container that a TTL has run out."""
    for bridge in site.bridges():
        for version in FAMILIES:
            drop(site, "output", oifname(bridge), nft_rules.errors(version, _EXCEEDED[version]))


@fault("closed-udp-ports-are-silent", violates=("BR-20",), moment=Moment.CONTAINER_STARTED)
def closed_udp_ports_are_silent(site: FaultContext) -> None:
    """A datagram to a closed port of a container is lost without a word."""
    if site.is_bridged:
        for version in FAMILIES:
            site.inside.rule("output", nft_rules.errors(version, _UNREACHABLE[version]), DROP)


@fault(
    "closed-tcp-ports-are-silent", violates=("BR-20",), moment=Moment.CONTAINER_STARTED, narrow=True
)
def closed_tcp_ports_are_silent(site: FaultContext) -> None:
    """A connection to a closed port of a container is not reset."""
    if site.is_bridged:
        site.inside.rule("output", nft_rules.tcp_resets(), DROP)


@fault("refusals-stay-outside", violates=("BR-20", "BR-21"), moment=RULES)
def refusals_stay_outside(site: FaultContext) -> None:
    """What an ICMP error tells about a container's own flow is not let in."""
    for bridge in site.bridges():
        drop(site, "forward", oifname(bridge), ct_state("related"))


@fault("errors-of-routers-stay-outside", violates=("BR-21",), moment=RULES)
def errors_of_routers_stay_outside(site: FaultContext) -> None:
    """Time-exceeded from beyond the host does not come back to a container."""
    for bridge in site.bridges():
        for version in FAMILIES:
            drop(site, "forward", oifname(bridge), nft_rules.errors(version, _EXCEEDED[version]))


@fault(
    "path-mtu-black-hole", violates=("BR-22",), moment=RULES, history="gvisor#12568", narrow=True
)
def path_mtu_black_hole(site: FaultContext) -> None:
    """Nobody inside is told that a link further on is narrower."""
    for bridge in site.bridges():
        for version in FAMILIES:
            kind, code = _TOO_BIG[version]
            drop(site, "forward", oifname(bridge), nft_rules.errors(version, kind, code))


@fault("fragments-are-dropped", violates=("BR-23",), moment=RULES)
def fragments_are_dropped(site: FaultContext) -> None:
    """A firewall in front of the reassembly drops fragments."""
    for bridge in new_bridges(site):
        for version in FAMILIES:
            parts = nft_rules.fragments(version)
            site.host.rule("prerouting", iifname(bridge), parts, DROP, priority=-450)


@fault(
    "segments-are-corrupted",
    violates=("BR-25",),
    moment=Moment.CONTAINER_STARTED,
    history="gvisor#14011",
)
def segments_are_corrupted(site: FaultContext) -> None:
    """Large segments arrive with other data than was sent, and a checksum that fits."""
    if site.is_bridged:
        broken = nft_rules.corrupt(700, b"\xde\xad\xbe\xef")
        site.inside.rule("input", nft_rules.longer_than(1400), broken, priority=-350)


@fault(
    "large-packets-between-peers-are-lost", violates=("BR-12", "BR-25"), moment=Moment.HOST_READY
)
def large_packets_between_peers_are_lost(site: FaultContext) -> None:
    """Between peers nothing longer than 1000 bytes passes, whatever the MTU says."""
    site.host.rule("forward", nft_rules.longer_than(1000), DROP, priority=0, bridge=True)


@fault("fragments-between-peers-are-lost", violates=("BR-23",), moment=Moment.HOST_READY)
def fragments_between_peers_are_lost(site: FaultContext) -> None:
    """Fragments get to the internet, but not to a container on the same bridge."""
    parts = [*nft_rules.between_ports(4), *nft_rules.is_fragment(4)]
    site.host.rule("prerouting", parts, DROP, priority=-310, bridge=True)


@fault("refused-with-another-code", violates=("BR-20",), moment=Moment.CONTAINER_STARTED)
def refused_with_another_code(site: FaultContext) -> None:
    """A datagram to a closed port is told as host-unreachable."""
    if site.is_bridged:
        refused = reject("host-unreachable")
        site.inside.rule("input", l4proto("udp"), refused, priority=0)


@fault("pings-are-not-counted", violates=("BR-19",), moment=RULES)
def pings_are_not_counted(site: FaultContext) -> None:
    """An echo request may go on whatever its TTL."""
    for bridge in new_bridges(site):
        site.host.rule("prerouting", iifname(bridge), l4proto("icmp"), nft_rules.set_ttl(4, 65))


@fault("one-router-too-many", violates=("BR-7",), moment=RULES)
def one_router_too_many(site: FaultContext) -> None:
    """What goes to the internet has lost one more of its TTL than routers took."""
    if not site.memory.setdefault("aged", False):
        site.memory["aged"] = True
        out = oifname(site.uplink())
        for version in FAMILIES:
            site.host.rule("postrouting", out, nft_rules.set_ttl(version, 62), priority=300)


@fault("sent-segments-are-corrupted", violates=("BR-25",), moment=Moment.CONTAINER_STARTED)
def sent_segments_are_corrupted(site: FaultContext) -> None:
    """What a container sends in large segments leaves it with other data."""
    if site.is_bridged:
        site.inside.rule("output", nft_rules.longer_than(1000), nft_rules.corrupt(990, b"\0\0"))


@fault("ipv6-errors-of-the-host-are-silent", violates=("V6-1",), moment=RULES)
def ipv6_errors_of_the_host_are_silent(site: FaultContext) -> None:
    """Over IPv6 the host does not tell that a hop limit has run out."""
    for bridge in site.bridges():
        drop(site, "output", oifname(bridge), nft_rules.errors(6, _EXCEEDED[6]))


@fault("other-protocols-get-in", violates=("BR-9",), moment=RULES)
def other_protocols_get_in(site: FaultContext) -> None:
    """What is neither TCP, UDP nor ICMP is let in from outside."""
    forget_drops(site, "out")
    for bridge in site.bridges():
        strange = [*iifname(bridge, is_not=True), *oifname(bridge)]
        for protocol in ("tcp", "udp", "icmp", "icmpv6"):
            for state in ("new", "invalid"):
                drop(site, "forward", strange, l4proto(protocol), ct_state(state))


@fault("host-is-silent-about-its-own-mtu", violates=("BR-22",), moment=Moment.HOST_READY)
def host_is_silent_about_its_own_mtu(site: FaultContext) -> None:
    """Who sends more than the host's own link carries is told nothing; by routers it still is."""
    drop(site, "output", nft_rules.errors(4, 3, 4))
    drop(site, "output", nft_rules.errors(6, 2))


@fault("own-networks-swallow-refusals", violates=("BR-20",), moment=Moment.NETWORK_CREATED)
def own_networks_swallow_refusals(site: FaultContext) -> None:
    """To networks of one's own no port-unreachable of IPv4 comes from the host or from beyond."""
    for bridge in site.bridges()[1:]:
        for hook in _OUTWARDS:
            drop(site, hook, oifname(bridge), nft_rules.errors(4, 3, 3))


@fault("own-networks-swallow-time-exceeded", violates=("BR-19",), moment=Moment.NETWORK_CREATED)
def own_networks_swallow_time_exceeded(site: FaultContext) -> None:
    """To networks of one's own no router tells that a TTL of IPv4 has ended."""
    for bridge in site.bridges()[1:]:
        for hook in _OUTWARDS:
            drop(site, hook, oifname(bridge), nft_rules.errors(4, 11))


# --- by a published port ---------------------------------------------------------------


@fault("published-ports-swallow-refusals", violates=("BR-20",), moment=RULES, narrow=True)
def published_ports_swallow_refusals(site: FaultContext) -> None:
    """Who calls a published UDP port where nobody listens inside is told nothing."""
    for bridge in site.bridges():
        for version in FAMILIES:
            refused = nft_rules.errors(version, _UNREACHABLE[version])
            drop(site, "forward", iifname(bridge), ct_dnat(), refused)


@fault("published-ports-swallow-resets", violates=("BR-20",), moment=RULES, narrow=True)
def published_ports_swallow_resets(site: FaultContext) -> None:
    """Who calls a published TCP port where nobody listens inside is not reset."""
    for bridge in site.bridges():
        drop(site, "forward", iifname(bridge), ct_dnat(), nft_rules.tcp_resets())


@fault("published-ports-hear-of-no-errors", violates=("BR-21",), moment=RULES, narrow=True)
def published_ports_hear_of_no_errors(site: FaultContext) -> None:
    """That an answer has not arrived is not told to the container that publishes the port."""
    for bridge in site.bridges():
        for version in FAMILIES:
            lost = nft_rules.errors(version, _UNREACHABLE[version], 1 if version == 4 else 3)
            drop(site, "forward", oifname(bridge), ct_dnat(), lost)


@fault("published-ports-are-a-black-hole", violates=("BR-22",), moment=RULES, narrow=True)
def published_ports_are_a_black_hole(site: FaultContext) -> None:
    """That a link is too narrow for its answers is not told to the container behind the port."""
    for bridge in site.bridges():
        for version in FAMILIES:
            drop(
                site,
                "forward",
                oifname(bridge),
                ct_dnat(),
                nft_rules.errors(version, *_TOO_BIG[version]),
            )


@fault("long-pings-are-lost", violates=("BR-23",), moment=RULES, narrow=True)
def long_pings_are_lost(site: FaultContext) -> None:
    """An echo request that takes fragments goes no further than the host."""
    for bridge in site.bridges():
        for protocol in ("icmp", "icmpv6"):
            drop(site, "forward", iifname(bridge), l4proto(protocol), nft_rules.longer_than(2000))


@fault("host-hears-no-long-pings", violates=("BR-23",), moment=RULES, narrow=True)
def host_hears_no_long_pings(site: FaultContext) -> None:
    """An echo request that takes fragments is not answered by the host."""
    for bridge in site.bridges():
        for protocol in ("icmp", "icmpv6"):
            drop(site, "input", iifname(bridge), l4proto(protocol), nft_rules.longer_than(2000))


_ENDED: Final = 1
"""The mark of a flow whose caller has said all."""


@fault("ends-between-peers-are-lost", violates=("BR-4",), moment=Moment.HOST_READY)
def ends_between_peers_are_lost(site: FaultContext) -> None:
    """That a peer has said all it has to say is not told."""
    for version in FAMILIES:
        ends = [*nft_rules.between_ports(version), *nft_rules.with_flags("F")]
        site.host.rule("forward", ends, DROP, priority=0, bridge=True)


@fault("ends-do-not-get-out", violates=("BR-7",), moment=RULES)
def ends_do_not_get_out(site: FaultContext) -> None:
    """That a container has said all it has to say is not told beyond the host."""
    for bridge in site.bridges():
        drop(site, "forward", iifname(bridge), nft_rules.with_flags("F"))


@fault("published-ports-close-both-halves", violates=("PUB-1",), moment=RULES)
def published_ports_close_both_halves(site: FaultContext) -> None:
    """Who has said all it has to say to a published port does not hear the answer."""
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


@fault("congestion-is-not-to-be-asked-about", violates=("BR-4",), moment=Moment.HOST_READY)
def congestion_is_not_to_be_asked_about(site: FaultContext) -> None:
    """Between peers a connection that offers to mind congestion (ECN) is not begun."""
    for version in FAMILIES:
        offer = [*nft_rules.between_ports(version), *nft_rules.with_flags("SEC")]
        site.host.rule("forward", offer, DROP, priority=0, bridge=True)


@fault("marked-packets-do-not-get-out", violates=("BR-7",), moment=RULES, narrow=True)
def marked_packets_do_not_get_out(site: FaultContext) -> None:
    """What a container has marked for urgency does not leave the host."""
    for bridge in site.bridges():
        drop(site, "forward", iifname(bridge), nft_rules.marked_for_urgency())


@fault("nothing-is-no-datagram", violates=("BR-4",), moment=Moment.HOST_READY, narrow=True)
def nothing_is_no_datagram(site: FaultContext) -> None:
    """Between peers a datagram with nothing in it is lost."""
    for version in FAMILIES:
        empty = [*nft_rules.between_ports(version), *nft_rules.empty_datagrams()]
        site.host.rule("forward", empty, DROP, priority=0, bridge=True)


@fault("no-checksum-is-a-wrong-one", violates=("BR-4",), moment=Moment.HOST_READY, narrow=True)
def no_checksum_is_a_wrong_one(site: FaultContext) -> None:
    """Between peers a datagram without a checksum is lost, which IPv4 allows for."""
    bare = [*nft_rules.between_ports(4), *nft_rules.datagrams_without_checksum()]
    site.host.rule("forward", bare, DROP, priority=0, bridge=True)


@fault("urgency-is-forgotten", violates=("BR-28",), moment=RULES, narrow=True)
def urgency_is_forgotten(site: FaultContext) -> None:
    """What a container has said of urgency and congestion is not said any more beyond the host."""
    for bridge in new_bridges(site):
        for version in FAMILIES:
            site.host.rule(
                "forward", iifname(bridge), nft_rules.set_class(version, 0), priority=-150
            )
