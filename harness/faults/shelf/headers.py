"""What a header says that is no reason to drop a packet, and does so nevertheless."""

from __future__ import annotations

from typing import Final

from harness.faults import tricks
from harness.faults.acts import FAMILIES, drop, new_bridges
from harness.faults.catalogue import RULES, Moment, fault
from harness.faults.site import Site
from harness.faults.tricks import DROP
from linux.nft import ct_dnat, iifname, oifname

_ENDED: Final = 1
"""The mark of a flow whose caller has said all."""


@fault("ends-between-peers-are-lost", violates=("BR-4",), moment=Moment.HOST_READY)
def ends_between_peers_are_lost(site: Site) -> None:
    """That a peer has said all it has to say is not told."""
    for version in FAMILIES:
        ends = [*tricks.between_ports(version), *tricks.with_flags("F")]
        site.host.rule("forward", ends, DROP, priority=0, bridge=True)


@fault("ends-do-not-get-out", violates=("BR-7",), moment=RULES)
def ends_do_not_get_out(site: Site) -> None:
    """That a container has said all it has to say is not told beyond the host."""
    for bridge in site.bridges():
        drop(site, "forward", iifname(bridge), tricks.with_flags("F"))


@fault("published-ports-close-both-halves", violates=("PUB-1",), moment=RULES)
def published_ports_close_both_halves(site: Site) -> None:
    """Who has said all it has to say to a published port does not hear the answer."""
    for bridge in site.bridges():
        drop(
            site,
            "forward",
            iifname(bridge),
            ct_dnat(),
            tricks.of_marked_flow(_ENDED),
            tricks.with_flags("P"),
        )
    for bridge in new_bridges(site):
        ends = [*oifname(bridge), *ct_dnat(), *tricks.with_flags("F")]
        site.host.rule("forward", ends, tricks.mark_flow(_ENDED), priority=-150)


@fault("congestion-is-not-to-be-asked-about", violates=("BR-4",), moment=Moment.HOST_READY)
def congestion_is_not_to_be_asked_about(site: Site) -> None:
    """Between peers a connection that offers to mind congestion (ECN) is not begun."""
    for version in FAMILIES:
        offer = [*tricks.between_ports(version), *tricks.with_flags("SEC")]
        site.host.rule("forward", offer, DROP, priority=0, bridge=True)


@fault("marked-packets-do-not-get-out", violates=("BR-7",), moment=RULES, narrow=True)
def marked_packets_do_not_get_out(site: Site) -> None:
    """What a container has marked for urgency does not leave the host."""
    for bridge in site.bridges():
        drop(site, "forward", iifname(bridge), tricks.marked_for_urgency())


@fault("nothing-is-no-datagram", violates=("BR-4",), moment=Moment.HOST_READY, narrow=True)
def nothing_is_no_datagram(site: Site) -> None:
    """Between peers a datagram with nothing in it is lost."""
    for version in FAMILIES:
        empty = [*tricks.between_ports(version), *tricks.empty_datagrams()]
        site.host.rule("forward", empty, DROP, priority=0, bridge=True)


@fault("no-checksum-is-a-wrong-one", violates=("BR-4",), moment=Moment.HOST_READY, narrow=True)
def no_checksum_is_a_wrong_one(site: Site) -> None:
    """Between peers a datagram without a checksum is lost, which IPv4 allows for."""
    bare = [*tricks.between_ports(4), *tricks.datagrams_without_checksum()]
    site.host.rule("forward", bare, DROP, priority=0, bridge=True)


@fault("urgency-is-forgotten", violates=("BR-28",), moment=RULES, narrow=True)
def urgency_is_forgotten(site: Site) -> None:
    """What a container has said of urgency and congestion is not said any more beyond the host."""
    for bridge in new_bridges(site):
        for version in FAMILIES:
            site.host.rule("forward", iifname(bridge), tricks.set_class(version, 0), priority=-150)
