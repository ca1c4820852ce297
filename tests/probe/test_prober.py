"""Tests of every outcome, with real packets in a real world."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import NamedTuple

import pytest

from harness.model.plan import (
    ATTACKER,
    BR0,
    FAMILIES,
    HOST,
    INTERNET,
    NS1,
    NS2,
    PROTOCOLS,
    Cell,
    Family,
    Observation,
    Outcome,
    Protocol,
    cells,
)
from harness.model.topology import Address
from harness.probe import prober
from harness.probe.prober import observe
from harness.probe.reception import ProbeRequest
from harness.world.build import World
from linux import nftables
from linux.netns import NetNS
from linux.nftables import Rejection
from linux.rtnetlink import Network
from tests.probe.conftest import Put

EVERYBODY = (HOST, NS1, NS2, INTERNET, ATTACKER)
EACH = pytest.mark.parametrize("family", FAMILIES)
SPOKEN = pytest.mark.parametrize("protocol", PROTOCOLS)


def observed(
    world: World, wanted: Iterable[Cell], *, patience: float = 0.0
) -> dict[Cell, Observation]:
    """Return the observations of cells whose sources and targets are namespaces of the world."""
    owners = world.topology.owners()

    def witness(name: str) -> NetNS:
        return world.namespaces[HOST if name == BR0 else name]

    return observe(
        [
            ProbeRequest(
                cell,
                world.namespaces[cell.source],
                world.address(cell.target, cell.family),
                witness(cell.target),
            )
            for cell in wanted
        ],
        control=world.namespaces["lan"],
        watched=list(world.namespaces.values()),
        namer=lambda address, _: owners.get(address, str(address)),
        patience=patience,
    )


def one(world: World, source: str, target: str, protocol: Protocol, family: Family) -> Observation:
    """Return the observation of a single cell.

    The witnesses of all namespaces listen, so that a wrong peer is identified.
    """
    cell = Cell(source, target, protocol, family)
    others = [Cell(NS1, name, Protocol.ICMP, family) for name in EVERYBODY]
    return observed(world, [*others, cell])[cell]


# --- reply --------------------------------------------------------------------------

HOPS = {HOST: 0, NS1: 1, NS2: 1}
"""Routers between a namespace behind the host and the LAN."""


def between(source: str, target: str) -> int:
    """Return the number of routers between two namespaces of the world."""
    one, other = ("host" if name == BR0 else name for name in (source, target))
    inside = {HOST, NS1, NS2}
    if one == other or {one, other} <= inside:
        return 0
    outside = [name for name in (one, other) if name not in inside]
    routers = 3 * (INTERNET in outside)
    return routers + sum(HOPS.get(name, 0) for name in (one, other))


def test_reply_has_ttl_and_sender_at_both_ends(world: World) -> None:
    """A reply has the TTL and the sender's address that each end received.

    Each router on the path decrements the TTL, and no source address is rewritten.
    """
    wanted = list(cells(EVERYBODY, (*EVERYBODY, BR0)))
    found = observed(world, wanted)
    for cell in wanted:
        ttl = 64 - between(cell.source, cell.target)
        assert found[cell] == Observation(
            Outcome.REPLY,
            ttl=None if cell.protocol is Protocol.TCP else ttl,
            seen_ttl=ttl,
            seen_from=cell.source,
        ), cell
        rtt = found[cell].rtt
        assert rtt is not None
        assert 0 < rtt < 5


def test_observations_do_not_depend_on_slice_size(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Observations do not depend on the number of cells that are probed at once."""
    wanted = list(cells((HOST, NS1), (INTERNET, NS2)))
    whole = observed(world, wanted)
    monkeypatch.setattr(prober, "SLICE", 5)
    assert observed(world, wanted) == whole


# --- wrong peer ---------------------------------------------------------------------


class WrongPeer(NamedTuple):
    """A rule that redirects packets away from the target's witness, and the expected detail."""

    protocol: Protocol
    to: str
    port: int | None
    patience: float
    detail: str


WRONG_PEERS = {
    "another witness, icmp": WrongPeer(Protocol.ICMP, NS2, None, 0, "net:[{}] replied instead"),
    "another witness, udp": WrongPeer(Protocol.UDP, NS2, None, 0, "net:[{}] replied instead"),
    "another witness, tcp": WrongPeer(Protocol.TCP, NS2, None, 0, "net:[{}] replied instead"),
    "no witness": WrongPeer(
        Protocol.ICMP, "lan_gateway", None, 0, "{} replied, but no witness received the request"
    ),
    "tcp echo": WrongPeer(
        Protocol.TCP, INTERNET, 7, 5.0, "the connection was accepted, and its greeting was b'{{"
    ),
    "udp echo": WrongPeer(Protocol.UDP, INTERNET, 7, 5.0, "the reply was b'{{"),
    "discard": WrongPeer(
        Protocol.TCP, INTERNET, 9, 0, "a process accepted the connection and sent nothing"
    ),
}


@EACH
@pytest.mark.parametrize("peer", WRONG_PEERS)
def test_reply_of_another_peer_is_detected(
    world: World, rule: Put, family: Family, peer: str
) -> None:
    """A reply of a peer other than the target is detected.

    The peer is another witness, a host without one, or a service that is silent or sends something
    else.
    """
    protocol, to, port, patience, detail = WRONG_PEERS[peer]
    rule(
        HOST,
        "prerouting",
        nftables.iifname("br0"),
        nftables.daddr(_only(world.address(ATTACKER, family))),
        nftables.l4proto("icmpv6" if protocol is Protocol.ICMP and family == 6 else protocol.value),
        nftables.dnat(world.address(to, family), port),
        kind="nat",
    )
    # Without a witness on the probe port the target's kernel would reject.
    others = [Cell(NS1, to, Protocol.ICMP, family)] if to == NS2 else []
    cell = Cell(NS1, ATTACKER, protocol, family)
    seen = observed(world, [cell, *others], patience=patience)[cell]
    assert seen.outcome is Outcome.WRONG_PEER
    owner = world.namespaces[NS2].id[1] if to == NS2 else world.address(ATTACKER, family)
    assert seen.detail.startswith(detail.format(owner))


def _only(address: Address) -> Network:
    return ip_network(address)


# --- rejected -----------------------------------------------------------------------

REJECTIONS: tuple[tuple[Rejection, str], ...] = (
    ("no-route", "net-unreachable"),
    ("port-unreachable", "port-unreachable"),
    ("host-unreachable", "host-unreachable"),
    ("admin-prohibited", "admin-prohibited"),
)


@EACH
@pytest.mark.parametrize(("how", "code"), REJECTIONS)
def test_rejection_has_the_code_of_its_icmp_error(
    world: World, rule: Put, family: Family, how: Rejection, code: str
) -> None:
    """A rejected request has the code of the router's ICMP error, for every protocol."""
    rule("r2", "forward", nftables.oifname("eth1"), nftables.reject(how))
    for protocol in PROTOCOLS:
        seen = one(world, NS1, INTERNET, protocol, family)
        assert seen == Observation(Outcome.REJECTED, code=code)


@EACH
def test_tcp_reset_has_the_outcome_rejected(world: World, rule: Put, family: Family) -> None:
    """A TCP connection that is reset is rejected with the code `rst`."""
    rule("r2", "forward", nftables.l4proto("tcp"), nftables.reject("tcp-reset"))
    seen = one(world, NS1, INTERNET, Protocol.TCP, family)
    assert seen == Observation(Outcome.REJECTED, code="rst")
    assert one(world, NS1, INTERNET, Protocol.UDP, family).outcome is Outcome.REPLY


@EACH
def test_packet_dropped_by_output_rule_is_local_policy(
    world: World, rule: Put, family: Family
) -> None:
    """A packet that a rule at the source's output hook drops is rejected as `local-policy`."""
    rule(NS1, "output", nftables.verdict("drop"))
    for protocol in (Protocol.ICMP, Protocol.UDP):
        seen = one(world, NS1, INTERNET, protocol, family)
        assert seen == Observation(Outcome.REJECTED, code="local-policy")
        assert seen.detail == "EPERM"
    # A SYN that may not be sent counts as lost on the way, for TCP itself too.
    assert one(world, NS1, INTERNET, Protocol.TCP, family).outcome is Outcome.DROPPED


# --- no route, dropped --------------------------------------------------------------


@EACH
@SPOKEN
def test_namespace_with_only_loopback_has_no_route(
    world: World, protocol: Protocol, family: Family
) -> None:
    """A namespace with only `lo` has no route to the internet."""
    cell = Cell("isolated", INTERNET, protocol, family)
    with NetNS.new() as isolated:
        question = ProbeRequest(
            cell, isolated, world.address(INTERNET, family), world.namespaces[INTERNET]
        )
        seen = observe(
            [question],
            control=world.namespaces["lan"],
            watched=list(world.namespaces.values()),
            namer=lambda address, _: str(address),
        )[cell]
    assert seen == Observation(Outcome.NO_ROUTE)
    assert seen.detail in ("ENETUNREACH", "EADDRNOTAVAIL")


@EACH
@SPOKEN
def test_request_dropped_by_a_router_is_dropped(
    world: World, rule: Put, protocol: Protocol, family: Family
) -> None:
    """A request that a router drops is dropped, and no witness receives it."""
    rule("r2", "forward", nftables.oifname("eth1"), nftables.verdict("drop"))
    seen = one(world, NS1, INTERNET, protocol, family)
    assert (seen, seen.detail) == (
        Observation(Outcome.DROPPED),
        "the request reached no witness",
    )


@EACH
@SPOKEN
def test_lost_reply_is_dropped_with_sender_and_ttl_of_the_request(
    world: World, rule: Put, protocol: Protocol, family: Family
) -> None:
    """If a reply is lost, the outcome is dropped.

    The observation has the request's sender and TTL, which the witness received.
    """
    rule("r2", "forward", nftables.iifname("eth1"), nftables.verdict("drop"))
    seen = one(world, NS1, INTERNET, protocol, family)
    assert seen == Observation(Outcome.DROPPED, seen_ttl=60, seen_from=NS1)
    internet = world.namespaces[INTERNET].id[1]
    assert seen.detail == f"the request arrived at net:[{internet}], no reply came back"


LEAKS = {
    "refused by the target": (INTERNET, "output", nftables.oifname("eth0")),
    "lost in the host": (HOST, "forward", nftables.oifname("br0")),
}
"""Rules that drop a SYN-ACK: namespace, hook and match."""


@EACH
@pytest.mark.parametrize("where", LEAKS)
def test_lost_syn_ack_is_dropped_with_sender_of_the_syn(
    world: World, rule: Put, family: Family, where: str
) -> None:
    """If a SYN-ACK is lost, the outcome is dropped, with the sender of the SYN that arrived."""
    name, hook, match = LEAKS[where]
    rule(name, hook, match, nftables.l4proto("tcp"), nftables.verdict("drop"))
    seen = one(world, NS1, INTERNET, Protocol.TCP, family)
    assert seen == Observation(Outcome.DROPPED, seen_ttl=60, seen_from=NS1)
    assert one(world, NS1, INTERNET, Protocol.UDP, family).outcome is Outcome.REPLY


@EACH
def test_syn_dropped_at_the_target_is_not_seen_by_the_witness(
    world: World, rule: Put, family: Family
) -> None:
    """A SYN that the target's own rules drop is not seen by the witness, just like a datagram."""
    rule(INTERNET, "input", nftables.l4proto("tcp"), nftables.verdict("drop"))
    seen = one(world, NS1, INTERNET, Protocol.TCP, family)
    assert (seen, seen.detail) == (
        Observation(Outcome.DROPPED),
        "the request reached no witness",
    )
