"""Packets that end in nftables: the story names place, table, chain and rule."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from harness.diagnosis.replay import Replay
from harness.model.plan import (
    CONTAINER01,
    CONTAINER02,
    HOST,
    INTERNET,
    NS1,
    Cell,
    Outcome,
    Promise,
    Protocol,
)
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from linux import nftables, rtnetlink_dump
from linux.netlink import Netlink, nest, text
from tests.diagnosis.conftest import Examine, Put, told
from tests.diagnosis.test_kernel_trace import carry_out, forgotten

PROTOCOLS = pytest.mark.parametrize("protocol", ["icmp", "udp", "tcp"])
NOTRACK = nest(1, text(1, "notrack"))
SECOND = 'rule 2 (handle 3), "on purpose"'


@PROTOCOLS
@pytest.mark.parametrize(
    ("hook", "source", "target"),
    [
        ("prerouting", CONTAINER01, INTERNET),
        ("forward", CONTAINER01, INTERNET),
        ("postrouting", CONTAINER01, INTERNET),
        ("input", CONTAINER01, HOST),
        ("output", HOST, CONTAINER01),
    ],
)
def test_a_rule_of_the_host_that_drops_is_named(  # noqa: PLR0917 # pytest passes by name
    host: NetnsView,
    rule: Put,
    examined: Examine,
    hook: nftables.Hook,
    source: str,
    target: str,
    protocol: str,
) -> None:
    """Whatever hook it sits at, the story says which rule dropped the request."""
    rule(host, hook, nftables.verdict("drop"))
    assert (
        f"dropped in host, table inet built, chain {hook}, {SECOND}"
        in examined(source, target, protocol).lines
    )


def test_without_the_rule_the_story_says_that_all_is_well(examined: Examine) -> None:
    """The control: what nobody drops is told to be as promised, all the way to the internet."""
    autopsy = examined(CONTAINER01, INTERNET, "udp")
    assert autopsy.lines[0].startswith("asked once more it was as promised")
    assert "dropped" not in told(autopsy)
    assert autopsy.places[0] == CONTAINER01
    assert autopsy.places[-1] == INTERNET


def test_a_policy_that_drops_is_named(host: NetnsView, rule: Put, examined: Examine) -> None:
    """Where no rule decides the chain's policy does, and the story says so."""
    rule(host, "forward", policy="drop")
    assert "dropped in host, table inet built, chain forward, its policy" in told(
        examined(CONTAINER01, INTERNET, "udp")
    )


def test_a_rule_inside_the_container_is_named(cast: Scene, rule: Put, examined: Examine) -> None:
    """The place is where the rule is, not where the packet came from."""
    rule(cast[CONTAINER02].net, "input", nftables.l4proto("udp"), nftables.verdict("drop"))
    assert f"dropped in {CONTAINER02}, table inet built, chain input, {SECOND}" in told(
        examined(CONTAINER01, CONTAINER02, "udp")
    )


def test_a_rule_of_the_bridge_is_named(host: NetnsView, rule: Put, examined: Examine) -> None:
    """What passes between ports of a bridge meets rules of its own family."""
    assert "as promised" in told(examined(CONTAINER01, CONTAINER02, "icmp"))
    rule(host, "forward", nftables.verdict("drop"), family="bridge")
    assert f"dropped in host, table bridge built, chain forward, {SECOND}" in told(
        examined(CONTAINER01, CONTAINER02, "icmp")
    )


@pytest.mark.parametrize(
    ("family", "hook", "place"), [("bridge", "forward", HOST), ("arp", "prerouting", CONTAINER02)]
)
def test_a_rule_against_arp_is_named(  # noqa: PLR0917 # pytest passes by name
    cast: Scene, rule: Put, examined: Examine, family: str, hook: nftables.Hook, place: str
) -> None:
    """Nobody answers for the neighbour because the question is dropped, and that is told."""
    net = cast[CONTAINER01].net
    address = cast[CONTAINER02].net.address(4)
    carry_out(net, *forgotten(net, str(address)))
    rule(cast.place(place), hook, nftables.verdict("drop"), family=family)
    autopsy = examined(CONTAINER01, CONTAINER02, "udp")
    said = f"dropped in {place}, table {family} built, chain {hook}, {SECOND}"
    assert said in autopsy.lines
    assert f"no neighbour answered for {address}, asked for at {CONTAINER01}/eth0" in told(autopsy)


@PROTOCOLS
def test_a_rule_that_rejects_is_told_from_one_that_drops(
    host: NetnsView, rule: Put, examined: Examine, protocol: str
) -> None:
    """The refusal is in the story, and the rule that it came from."""
    rule(host, "forward", nftables.reject("admin-prohibited"))
    autopsy = examined(CONTAINER01, INTERNET, protocol)
    assert autopsy.observed is not None
    assert autopsy.observed.outcome is Outcome.REJECTED
    assert "refusal (admin-prohibited)" in told(autopsy)
    assert f"rejected in host, table inet built, chain forward, {SECOND}" in autopsy.lines


@PROTOCOLS
def test_a_lost_reply_is_told_from_a_lost_request(
    host: NetnsView, rule: Put, examined: Examine, protocol: str
) -> None:
    """The request arrived; the reply was seen at the host's uplink and never behind it."""
    rule(host, "forward", nftables.iifname("eth0"), nftables.verdict("drop"))
    autopsy = examined(CONTAINER01, INTERNET, protocol)
    assert f"dropped in host, table inet built, chain forward, {SECOND}" in autopsy.lines
    assert f"the reply was seen at host/eth0, never at {CONTAINER01}" in autopsy.lines


def test_a_destination_that_was_rewritten_is_told(
    host: NetnsView, rule: Put, examined: Examine
) -> None:
    """A rule sends the request to somebody else: from what to what, and who answered."""
    meant = nftables.daddr(ip_network("203.0.113.10/32"))
    rule(
        host,
        "prerouting",
        nftables.l4proto("icmp"),
        meant,
        nftables.dnat(ip_address("192.168.2.10")),
        kind="nat",
    )
    autopsy = examined(CONTAINER01, INTERNET, "icmp")
    assert f"answered by the wrong peer: {NS1}, where {INTERNET} was meant" in told(autopsy)
    assert "destination rewritten in host: 203.0.113.10 → 192.168.2.10" in autopsy.lines


def test_what_arrives_and_should_not_is_told_by_its_way(cast: Scene) -> None:
    """Where silence was promised the story says by which links of the host the packet came."""
    cell = Cell(CONTAINER01, CONTAINER02, Protocol.UDP, 4)
    with Replay(cast, [cell]) as examination:
        autopsy = examination.of(cell, Promise(Outcome.DROPPED, requirement="NET-2"))
    port = _port(cast, CONTAINER01)
    assert f"it should not have arrived, and came by {CONTAINER01} → host → {CONTAINER02}" in told(
        autopsy
    )
    assert f"in the host by host/{port}" in told(autopsy)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_source_that_is_not_rewritten_is_named(
    host: NetnsView, rule: Put, examined: Examine, protocol: str
) -> None:
    """Connections that are not tracked are not masqueraded: which address stayed is told."""
    rule(host, "prerouting", nftables.iifname("docker0"), [NOTRACK], priority=-290)
    address = examined(CONTAINER01, INTERNET, protocol)
    assert "masquerade did not apply: source stayed 172.17.0." in told(address)


@pytest.mark.parametrize("protocol", ["icmp", "udp", "tcp"])
def test_over_ipv6_a_rule_of_a_router_is_named(
    cast: Scene, rule: Put, examined: Examine, protocol: str
) -> None:
    """The place can be any namespace on the way, and the family either."""
    rule(cast.places["r2"], "forward", nftables.family(6), nftables.verdict("drop"))
    autopsy = examined(HOST, INTERNET, protocol, 6)
    assert f"dropped in r2, table inet built, chain forward, {SECOND}" in autopsy.lines


def test_over_ipv6_a_rule_against_neighbour_discovery_is_named(
    cast: Scene, rule: Put, examined: Examine
) -> None:
    """The request is not even sent: nobody may ask ns1 for its address."""
    carry_out(cast.places[HOST], *forgotten(cast.places[HOST], "fd00:2::10"))
    rule(
        cast.places[NS1],
        "input",
        nftables.l4proto("icmpv6"),
        nftables.icmp_type(135),
        nftables.verdict("drop"),
    )
    autopsy = examined(HOST, NS1, "udp", 6)
    assert f"dropped in ns1, table inet built, chain input, {SECOND}" in autopsy.lines
    assert "no neighbour answered for fd00:2::10" in told(autopsy)


def _port(cast: Scene, name: str) -> str:
    """The host's end of a container's veth."""
    with cast[name].net.open() as space, Netlink(space) as netlink:
        peer = rtnetlink_dump.link(netlink, "eth0").peer
    links = cast.places[HOST].links().values()
    return next(link.name for link in links if link.ifindex == peer)
