"""Tests of packets that nftables drops.

The explanation names the namespace, table, chain and rule.
"""

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
    Family,
    Outcome,
    Promise,
    Protocol,
)
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from linux import nftables
from linux.netlink import nest, text
from tests.diagnosis.conftest import Diagnose, Put, host_end_of, story_text
from tests.diagnosis.test_kernel_trace import carry_out, delete_neighbour

PROTOCOLS = pytest.mark.parametrize("protocol", ["icmp", "udp", "tcp"])
NOTRACK = nest(1, text(1, "notrack"))
SECOND = 'rule 2 (handle 3), "on purpose"'


@PROTOCOLS
@pytest.mark.parametrize(
    ("place", "table", "hook", "source", "target", "version"),
    [
        (HOST, "inet", "prerouting", CONTAINER01, INTERNET, 4),
        (HOST, "inet", "forward", CONTAINER01, INTERNET, 4),
        (HOST, "inet", "postrouting", CONTAINER01, INTERNET, 4),
        (HOST, "inet", "input", CONTAINER01, HOST, 4),
        (HOST, "inet", "output", HOST, CONTAINER01, 4),
        (HOST, "bridge", "forward", CONTAINER01, CONTAINER02, 4),
        (CONTAINER02, "inet", "input", CONTAINER01, CONTAINER02, 4),
        ("r2", "inet", "forward", HOST, INTERNET, 6),
    ],
)
def test_explanation_names_the_dropping_rule(  # noqa: PLR0917 # pytest passes by name
    cast: Scene,
    rule: Put,
    diagnosed: Diagnose,
    place: str,
    table: str,
    hook: nftables.Hook,
    source: str,
    target: str,
    version: Family,
    protocol: str,
) -> None:
    """The explanation names the rule that drops a packet, in any namespace on its path.

    The rule may be at any hook and in either family.
    """
    rule(cast.netns(place), hook, nftables.verdict("drop"), family=table)
    autopsy = diagnosed(source, target, protocol, version)
    assert f"dropped in {place}, table {table} built, chain {hook}, {SECOND}" in autopsy.lines


def test_explanation_without_rule_says_that_the_packet_arrives(diagnosed: Diagnose) -> None:
    """Without a rule, the explanation says that the packet arrives at its target.

    This is the positive control for the other tests.
    """
    assert "as promised" in story_text(diagnosed(CONTAINER01, CONTAINER02, "icmp"))
    autopsy = diagnosed(CONTAINER01, INTERNET, "udp")
    assert autopsy.lines[0].startswith("the replay was as promised")
    assert "dropped" not in story_text(autopsy)
    assert autopsy.namespaces[0] == CONTAINER01
    assert autopsy.namespaces[-1] == INTERNET


def test_explanation_names_the_drop_policy(host: NetnsView, rule: Put, diagnosed: Diagnose) -> None:
    """If no rule matches, the explanation names the drop policy of the chain."""
    rule(host, "forward", policy="drop")
    assert "dropped in host, table inet built, chain forward, its policy" in story_text(
        diagnosed(CONTAINER01, INTERNET, "udp")
    )


@pytest.mark.parametrize(
    ("family", "hook", "place"), [("bridge", "forward", HOST), ("arp", "prerouting", CONTAINER02)]
)
def test_explanation_names_a_rule_that_drops_arp(  # noqa: PLR0917 # pytest passes by name
    cast: Scene, rule: Put, diagnosed: Diagnose, family: str, hook: nftables.Hook, place: str
) -> None:
    """The explanation names a rule that drops ARP requests, so that a neighbour is silent."""
    net = cast[CONTAINER01].net
    address = cast[CONTAINER02].net.address(4)
    carry_out(net, *delete_neighbour(net, str(address)))
    rule(cast.netns(place), hook, nftables.verdict("drop"), family=family)
    autopsy = diagnosed(CONTAINER01, CONTAINER02, "udp")
    assert f"dropped in {place}, table {family} built, chain {hook}, {SECOND}" in autopsy.lines
    assert f"no neighbour replied for {address}, solicited at {CONTAINER01}/eth0" in story_text(
        autopsy
    )


@PROTOCOLS
def test_explanation_distinguishes_reject_from_drop(
    host: NetnsView, rule: Put, diagnosed: Diagnose, protocol: str
) -> None:
    """The explanation of a rejected packet names the ICMP error and the rule that sent it."""
    rule(host, "forward", nftables.reject("admin-prohibited"))
    autopsy = diagnosed(CONTAINER01, INTERNET, protocol)
    assert autopsy.observed is not None
    assert autopsy.observed.outcome is Outcome.REJECTED
    assert "reject (admin-prohibited)" in story_text(autopsy)
    assert f"rejected in host, table inet built, chain forward, {SECOND}" in autopsy.lines


@PROTOCOLS
def test_explanation_distinguishes_lost_reply_from_lost_request(
    host: NetnsView, rule: Put, diagnosed: Diagnose, protocol: str
) -> None:
    """The explanation says that the reply is lost, which was last seen at the host's uplink."""
    rule(host, "forward", nftables.iifname("eth0"), nftables.verdict("drop"))
    autopsy = diagnosed(CONTAINER01, INTERNET, protocol)
    assert f"dropped in host, table inet built, chain forward, {SECOND}" in autopsy.lines
    assert f"the reply was last seen at host/eth0 and never reached {CONTAINER01}" in autopsy.lines


def test_explanation_names_the_dnat(host: NetnsView, rule: Put, diagnosed: Diagnose) -> None:
    """The explanation of a dnat names both destinations and the host that replied."""
    meant = nftables.daddr(ip_network("203.0.113.10/32"))
    rule(
        host,
        "prerouting",
        nftables.l4proto("icmp"),
        meant,
        nftables.dnat(ip_address("192.168.2.10")),
        kind="nat",
    )
    autopsy = diagnosed(CONTAINER01, INTERNET, "icmp")
    assert f"the reply came from the wrong peer: {NS1} instead of {INTERNET}" in story_text(autopsy)
    assert "destination rewritten in host: 203.0.113.10 → 192.168.2.10" in autopsy.lines


def test_explanation_of_unwanted_arrival_has_its_path(cast: Scene) -> None:
    """If a packet arrives against its promise, the explanation has the host's links on its path."""
    cell = Cell(CONTAINER01, CONTAINER02, Protocol.UDP, 4)
    with Replay(cast, [cell]) as examination:
        autopsy = examination.of(cell, Promise(Outcome.DROPPED, requirement="NET-2"))
    assert (
        f"the request arrived, against the promise, by {CONTAINER01} → host → {CONTAINER02}"
        in story_text(autopsy)
    )
    assert f"through host/{host_end_of(cast, CONTAINER01).name}" in story_text(autopsy)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_explanation_names_a_missing_masquerade(
    host: NetnsView, rule: Put, diagnosed: Diagnose, protocol: str
) -> None:
    """If a packet is not masqueraded, the explanation has its unchanged source address.

    Untracked connections are not masqueraded.
    """
    rule(host, "prerouting", nftables.iifname("docker0"), [NOTRACK], priority=-290)
    address = diagnosed(CONTAINER01, INTERNET, protocol)
    assert "the host did not masquerade the source 172.17.0." in story_text(address)


def test_explanation_names_a_rule_against_neighbour_discovery(
    cast: Scene, rule: Put, diagnosed: Diagnose
) -> None:
    """The explanation names the rule that drops the neighbour solicitation for ns1.

    The request is therefore never sent.
    """
    carry_out(cast.world_netns[HOST], *delete_neighbour(cast.world_netns[HOST], "fd00:2::10"))
    rule(
        cast.world_netns[NS1],
        "input",
        nftables.l4proto("icmpv6"),
        nftables.icmp_type(135),
        nftables.verdict("drop"),
    )
    autopsy = diagnosed(HOST, NS1, "udp", 6)
    assert f"dropped in ns1, table inet built, chain input, {SECOND}" in autopsy.lines
    assert "no neighbour replied for fd00:2::10" in story_text(autopsy)
