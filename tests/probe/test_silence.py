"""Tests of missing replies: when they become final, and packets that are not replies."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_interface, ip_network
from itertools import product

import pytest

from harness.model.plan import FAMILIES, PROTOCOLS, Family, Observation, Outcome, Protocol
from harness.probe import prober
from harness.probe.prober import SendQueueFull
from harness.probe.quiescence import Quiet
from harness.probe.sockets import open_sockets
from linux import nftables, rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import write_sysctls
from tests.linux.star_topology import SHARED, Star
from tests.support.nft import add_rule
from tests.support.probing import observe_all, probe
from tests.world.pair import pair

EACH = pytest.mark.parametrize("family", FAMILIES)
PORT, RELAY = 61234, 5555
ROUTER: dict[Family, tuple[str, str]] = {
    4: ("192.0.2.1", "192.0.2.5"),
    6: ("2001:db8::1", "2001:db8:1::1"),
}
"""The router's addresses towards the client and towards the first target."""
NOBODY: dict[Family, str] = {4: "192.0.2.99", 6: "2001:db8::99"}
PATIENCE = 10.0
"""Time limit in seconds for an event that has to happen."""


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Record the result of each call of `Quiet.reached`.

    The prober repeats this call until missing replies are final. Each call is a round of control
    packets.
    """
    results: list[bool] = []

    class Counted(Quiet):
        def reached(self) -> bool:
            results.append(super().reached())
            return results[-1]

    monkeypatch.setattr(prober, "Quiet", Counted)
    return results


# --- duration -----------------------------------------------------------------------


def test_many_dropped_requests_need_few_control_packet_rounds(
    star: Star, rounds: list[bool]
) -> None:
    """Dropped requests need no timeout, only a few rounds of control packets for all cells.

    A round checks whether packets are in transit.
    """
    add_rule(star.router, "forward", nftables.verdict("drop"))
    requests = [
        probe(star.client, SHARED[family], star.first, protocol, number)
        for number in range(20)
        for protocol in PROTOCOLS
        for family in FAMILIES
    ]
    found = observe_all(requests, through=star.namespaces)
    assert set(found) == {Observation(Outcome.DROPPED)}
    assert rounds[-1]
    assert len(rounds) < 20


def test_matrix_with_all_replies_needs_no_quiescence_check(star: Star, rounds: list[bool]) -> None:
    """If every probe has its reply, the prober does not check whether packets are in transit."""
    requests = [probe(star.client, SHARED[family], star.first) for family in FAMILIES]
    assert {seen.outcome for seen in observe_all(requests, through=star.namespaces)} == {
        Outcome.REPLY
    }
    assert rounds == []


def test_request_to_missing_neighbour_is_dropped() -> None:
    """A request to an address without a neighbour is dropped.

    Its neighbour entry is removed, because a queued packet would keep the netns alive. With
    patience, the request is dropped when the kernel gives up.
    """
    with pair(["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"]) as (one, two):
        for family in ("ipv4", "ipv6"):
            write_sysctls(one, {f"net.{family}.neigh.eth0.retrans_time_ms": 10})
        requests = [
            probe(one, NOBODY[family], two, protocol)
            for protocol in PROTOCOLS
            for family in FAMILIES
        ]
        assert observe_all(requests) == [Observation(Outcome.DROPPED)] * 6
        with Netlink(one) as netlink:
            assert list(rtnetlink_dump.neighbours(netlink, state=rtnetlink.NUD_INCOMPLETE)) == []
        later = observe_all(requests, patience=PATIENCE)
    assert later == [Observation(Outcome.DROPPED)] * 6
    assert {seen.detail for seen in later} == {"the next hop did not resolve to a MAC address"}


def test_requests_to_unused_addresses_need_few_control_packet_rounds(rounds: list[bool]) -> None:
    """The prober does not wait for unresolved neighbours, because no reply can come late."""
    with pair(["10.0.0.1/16", "fd00::1/64"], ["10.0.0.2/16", "fd00::2/64"]) as (one, other):
        requests = [
            probe(one, address, other, protocol)
            for number in range(10, 30)
            for protocol in PROTOCOLS
            for address in (f"10.0.0.{number}", f"fd00::{number}")
        ]
        assert set(observe_all(requests)) == {Observation(Outcome.DROPPED)}
    assert rounds[-1]
    assert len(rounds) < 20


# --- late neighbours ----------------------------------------------------------------


def on_link(star: Star, address: str) -> None:
    """Route an address so that the client resolves it on its own link."""
    with Netlink(star.client) as netlink:
        netlink.send([rtnetlink.add_route(ip_network(address), oif=2)])


def proxy(star: Star, family: Family) -> None:
    """Make the router a neighbour proxy for the shared address on its first link."""
    if family == 4:
        write_sysctls(star.router, {"net.ipv4.conf.eth0.proxy_arp": 1})
    else:
        write_sysctls(star.router, {"net.ipv6.conf.eth0.proxy_ndp": 1})
        star.netlink.send([rtnetlink.add_proxy(10, ip_address(SHARED[6]))])


@EACH
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_prober_waits_for_delayed_proxy_neighbour(
    star: Star, family: Family, protocol: Protocol
) -> None:
    """The prober waits for a neighbour proxy, which delays its reply by up to 0.8 s."""
    on_link(star, SHARED[family])
    (lost,) = observe_all([probe(star.client, SHARED[family], star.first, protocol)])
    assert lost.outcome is Outcome.DROPPED
    proxy(star, family)
    requests = [probe(star.client, SHARED[family], star.first, protocol)]
    (seen,) = observe_all(requests, through=star.namespaces)
    assert seen.outcome is Outcome.REPLY


def test_prober_waits_for_delayed_anycast_neighbour(star: Star) -> None:
    """The prober waits for the delayed reply of an anycast address's owner (RFC 4861, 7.2.7)."""
    requests = [probe(star.client, "2001:db8::", star.router)]
    (seen,) = observe_all(requests, through=star.namespaces)
    assert seen.detail == f"the reply came from {ROUTER[6][0]}, not from 2001:db8::"


@EACH
def test_new_owner_of_an_address_is_found_at_once(family: Family) -> None:
    """A probe reaches a new owner of an address, even right after a probe without an owner."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    own = {4: "192.0.2.1/24", 6: "2001:db8::1/64"}[family]
    late = ip_interface({4: "192.0.2.2/24", 6: "2001:db8::2/64"}[family])
    with pair([own], []) as (one, other), Netlink(other) as netlink:
        with one.socket(kind, socket.SOCK_DGRAM) as caller:
            caller.sendto(b"", (str(late.ip), PORT))
        netlink.send([rtnetlink.add_address(2, late)])
        requests = [probe(one, str(late.ip), other, protocol) for protocol in PROTOCOLS]
        assert {seen.outcome for seen in observe_all(requests)} == {Outcome.REPLY}


def test_missing_neighbours_do_not_block_other_requests() -> None:
    """Hundreds of packets that wait for missing neighbours do not delay other requests."""
    with pair(["10.0.0.1/16"], ["10.0.0.2/16"]) as (one, other):
        silent = [
            probe(one, f"10.0.{1 + number // 200}.{1 + number % 200}", other, protocol, number)
            for number in range(300)
            for protocol in (Protocol.ICMP, Protocol.UDP)
        ]
        replied = [
            probe(one, "10.0.0.2", other, protocol, 999)
            for protocol in (Protocol.ICMP, Protocol.UDP)
        ]
        found = observe_all([*silent, *replied])
    assert set(found[:-2]) == {Observation(Outcome.DROPPED)}
    assert [seen.outcome for seen in found[-2:]] == [Outcome.REPLY] * 2


def test_full_send_queue_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a socket's send queue is full, an error is raised, as the runtime is not the cause."""
    monkeypatch.setattr("harness.probe.sockets._BUFFER", 4096)
    with pair(["10.0.0.1/16"], ["10.0.0.2/16"]) as (one, other):
        requests = [
            probe(one, f"10.0.1.{1 + number}", other, Protocol.UDP, number) for number in range(30)
        ]
        with pytest.raises(SendQueueFull, match=r"cannot probe source → target-\d+ udp/4"):
            observe_all(requests)


@EACH
def test_late_userspace_reply_counts_within_patience(
    star: Star, monkeypatch: pytest.MonkeyPatch, family: Family
) -> None:
    """A user-space process may reply after the kernel is quiet.

    Its reply counts if it comes within the patience.
    """
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    own, other = ROUTER[family]
    quiet = threading.Event()
    look = Quiet.reached

    def reached(self: Quiet) -> bool:
        found = look(self)
        if found:
            quiet.set()
        return found

    def relay() -> None:
        """Relay one datagram and its reply after the kernel has become quiet."""
        with star.router.socket(kind, socket.SOCK_DGRAM) as out:
            out.settimeout(PATIENCE)
            data, client = relay_socket.recvfrom(100)
            assert quiet.wait(PATIENCE)
            out.sendto(data, (SHARED[family], PORT))
            relay_socket.sendto(out.recv(100), client)

    monkeypatch.setattr(Quiet, "reached", reached)
    monkeypatch.setattr(prober, "open_sockets", lambda spaces, _: open_sockets(spaces, [PORT]))
    way = [nftables.iifname("eth0"), nftables.l4proto("udp"), nftables.family(family)]
    to = nftables.dnat(ip_address(own), RELAY)
    with (
        star.router.socket(kind, socket.SOCK_DGRAM) as relay_socket,
        ThreadPoolExecutor(1) as executor,
    ):
        add_rule(star.router, "prerouting", *way, to, kind="nat")
        relay_socket.bind((own, RELAY))
        relay_socket.settimeout(PATIENCE)
        relayed = executor.submit(relay)
        requests = [probe(star.client, SHARED[family], star.first, Protocol.UDP)]
        (seen,) = observe_all(requests, through=star.namespaces, patience=PATIENCE)
        relayed.result(PATIENCE)
    assert (seen.outcome, seen.seen_from) == (Outcome.REPLY, other)


# --- packets that are no reply ------------------------------------------------------


@EACH
def test_rejection_affects_only_its_own_request(star: Star, family: Family) -> None:
    """Each of hundreds of rejections among other requests is assigned to the right request."""
    add_rule(star.router, "forward", nftables.oifname("eth2"), nftables.reject())
    requests = [
        probe(star.client, str(star.address(to, family)), star.hosts[to], protocol, number)
        for number, (protocol, to) in enumerate(product(PROTOCOLS * 60, (1, 2)))
    ]
    found = observe_all(requests, through=star.namespaces)
    assert {seen.outcome for seen in found[::2]} == {Outcome.REPLY}
    assert set(found[1::2]) == {Observation(Outcome.REJECTED, code="port-unreachable")}


@EACH
@pytest.mark.parametrize("refused", [False, True])
def test_reply_delivered_to_another_namespace_does_not_count(
    star: Star, family: Family, *, refused: bool
) -> None:
    """A reply or an ICMP error is ignored if it is delivered to another netns than the sender's."""
    own = ip_interface(star.address(0, family))
    with Netlink(star.second) as netlink:
        netlink.send([rtnetlink.add_address(rtnetlink.LO, own)])
    star.netlink.send([rtnetlink.add_route(own.network, via=star.address(2, family))])
    if refused:
        add_rule(star.router, "forward", nftables.iifname("eth0"), nftables.reject())
    lost = [probe(star.client, SHARED[family], star.first, protocol) for protocol in PROTOCOLS]
    witnessed = probe(star.second, SHARED[family], star.second, number=1)
    *found, control = observe_all([*lost, witnessed], through=star.namespaces)
    assert control.outcome is Outcome.REPLY
    assert [seen.outcome for seen in found] == [Outcome.DROPPED] * 3
    assert {seen.seen_from for seen in found[:2]} == {None if refused else str(own.ip)}
