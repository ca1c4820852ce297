"""Tests of a built world: its addresses, its routers, dropped packets and removal."""

from __future__ import annotations

import errno
import gc
import socket
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from harness.model.plan import (
    ATTACKER,
    FAMILIES,
    HOST,
    INTERNET,
    NS1,
    NS2,
    PROTOCOLS,
    Family,
    Outcome,
)
from harness.model.topology import Interface, Topology
from harness.probe.reception import ProbeRequest
from harness.world.build import World, routers
from linux import netns, nftables, rtnetlink_dump
from linux.netlink import Netlink, NetlinkError
from tests.support.probing import observe_all, probe, settle
from tests.support.processes import family, network_namespaces

EACH = pytest.mark.parametrize("family", FAMILIES)
LENGTHS = (1, 3, 5)


@pytest.fixture(scope="module", params=LENGTHS, ids=lambda length: f"{length} routers")
def built(request: pytest.FixtureRequest) -> Iterator[World]:
    """Build a world with a chain of routers, once for each length of the chain."""
    with World.build(Topology(routers=request.param)) as world:
        yield world


def requests(world: World, source: str, target: str, *, to: str = "") -> list[ProbeRequest]:
    """Return probe requests from source to target, for every protocol and family.

    If the address `to` is given, all requests go to it.
    """
    spaces = world.namespaces
    addresses = [to] if to else [str(world.address(target, family)) for family in FAMILIES]
    return [
        probe(spaces[source], address, spaces[target], protocol)
        for address in addresses
        for protocol in PROTOCOLS
    ]


def outcomes(world: World, questions: list[ProbeRequest]) -> list[Outcome]:
    """Return the outcomes of these probe requests."""
    return [
        seen.outcome for seen in observe_all(questions, through=list(world.namespaces.values()))
    ]


# --- addresses and hops ------------------------------------------------------------------


def interfaces(world: World, name: str) -> dict[str, set[Interface]]:
    """Return the addresses of each link in a netns, except those that the kernel assigns."""
    with Netlink(world.namespaces[name]) as netlink:
        names = {link.ifindex: link.name for link in rtnetlink_dump.links(netlink)}
        found: dict[str, set[Interface]] = {}
        for item in rtnetlink_dump.addresses(netlink):
            if not item.address.is_loopback and not item.address.is_link_local:
                found.setdefault(names[item.ifindex], set()).add(item.address)
    return found


def test_namespaces_have_only_the_addresses_of_the_topology(built: World) -> None:
    """Each link has exactly the addresses of the topology, in both families."""
    topology, chain = built.topology, routers(built.topology)
    expected: dict[str, dict[str, set[Any]]] = {
        HOST: {"eth0": {*topology.host}, "br0": {*topology.br0}},
        "lan": {},
        ATTACKER: {"eth0": {*topology.attacker}},
        INTERNET: {"eth0": {*topology.internet, *topology.resolver}},
        NS1: {"eth0": {*topology.ns1}},
        NS2: {"eth0": {*topology.ns2}},
    }
    lower: tuple[Interface, ...] = topology.lan_gateway
    for number, name in enumerate(chain, 1):
        upper: tuple[Interface, ...]
        upper, following = topology.link(number)
        if name == chain[-1]:
            upper = topology.internet_gateway
        expected[name] = {"eth0": {*lower}, "eth1": {*upper}}
        lower = following
    assert {name: interfaces(built, name) for name in built.namespaces} == expected


def test_each_router_decrements_the_ttl(built: World) -> None:
    """A packet crosses the declared number of routers, each of which decrements the TTL.

    This holds for every protocol, family and direction.
    """
    length = built.topology.routers
    expected = {
        (HOST, INTERNET): length,
        (ATTACKER, INTERNET): length,
        (NS1, INTERNET): length + 1,
        (INTERNET, NS2): length + 1,
        (INTERNET, HOST): length,
        (NS1, ATTACKER): 1,
        (ATTACKER, NS1): 1,
        (HOST, NS1): 0,
        (NS1, NS2): 0,
    }
    for (source, target), hops in expected.items():
        found = observe_all(
            requests(built, source, target), through=list(built.namespaces.values())
        )
        assert {seen.outcome for seen in found} == {Outcome.REPLY}, (source, target)
        assert {seen.seen_ttl for seen in found} == {64 - hops}, (source, target)


def test_router_addresses_answer_from_both_ends(built: World) -> None:
    """Each address of each router replies to both ends of the chain of routers."""
    own = [
        (name, str(address.ip))
        for name in routers(built.topology)
        for addresses in interfaces(built, name).values()
        for address in addresses
    ]
    questions = [
        probe(built.namespaces[source], address, built.namespaces[name], number=number)
        for number, (source, (name, address)) in enumerate(product((HOST, INTERNET), own))
    ]
    assert set(outcomes(built, questions)) == {Outcome.REPLY}


def test_duplicate_address_detection_is_off_only_on_links_of_the_world(world: World) -> None:
    """Duplicate address detection is off on the world's links.

    A runtime's links keep the kernel's default.
    """
    host = world.namespaces[HOST]
    keys = [f"net.ipv6.conf.{link}.accept_dad" for link in ("eth0", "br0", "default")]
    assert list(netns.read_sysctls(host, keys).values()) == ["0", "0", "1"]


# --- unused addresses ----------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["192.88.99.77", "10.77.77.77", "3fff::77", "fd77::77", "172.31.255.77"]
)
@pytest.mark.parametrize("source", [HOST, NS1, ATTACKER])
def test_packet_to_unused_address_is_dropped(world: World, source: str, address: str) -> None:
    """A packet to an unused public or private address is always dropped."""
    questions = requests(world, source, INTERNET, to=address)
    assert set(outcomes(world, questions)) == {Outcome.DROPPED}


def forwarded_packets(world: World) -> int:
    """Return how many packets the routers have forwarded."""
    total = 0
    for name in routers(world.topology):
        with world.namespaces[name].entered():
            four, six = (Path("/proc/thread-self/net", file) for file in ("snmp", "snmp6"))
            lines = [line.split() for line in four.read_text().splitlines()]
            heads, numbers = (line for line in lines if line[0] == "Ip:")
            total += int(dict(zip(heads, numbers, strict=True))["ForwDatagrams"])
            total += int(dict(map(str.split, six.read_text().splitlines()))["Ip6OutForwDatagrams"])
    return total


@pytest.mark.parametrize("address", ["10.77.77.77", "fd77::77"])
def test_packet_to_unused_private_address_does_not_loop(world: World, address: str) -> None:
    """A host's packet to an unused private address does not loop between router and host."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    spaces = list(world.namespaces.values())
    settle(*spaces)
    before = forwarded_packets(world)
    with world.namespaces[HOST].socket(kind, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"!", (address, 9))
        settle(*spaces)
    assert forwarded_packets(world) - before <= len(routers(world.topology))


@EACH
def test_icmp_errors_of_a_router_are_not_rate_limited(world: World, family: Family) -> None:
    """A router sends an ICMP error for each of hundreds of rejected packets, without a limit."""
    table = nftables.Table("inet", "refuse")
    with nftables.Nft(world.namespaces["r1"]) as rules:
        chain = nftables.add_chain(table, "forward", hook="forward")
        rule = nftables.add_rule(table, "forward", nftables.reject())
        rules.apply([nftables.add_table(table), chain, rule])
        try:
            questions = [
                probe(
                    world.namespaces[source],
                    str(world.address(INTERNET, family)),
                    world.namespaces[INTERNET],
                    protocol,
                    number,
                )
                for number, (source, protocol) in enumerate(
                    [(source, protocol) for source in (HOST, NS1) for protocol in PROTOCOLS] * 50
                )
            ]
            assert set(outcomes(world, questions)) == {Outcome.REJECTED}
        finally:
            rules.apply([nftables.del_table(table)])


def test_host_without_forwarding_drops_transit_packets() -> None:
    """A host without forwarding drops transit packets, but still replies to its own."""
    with World.build(Topology(routers=1, forwarding=False)) as world:
        assert set(outcomes(world, requests(world, NS1, HOST))) == {Outcome.REPLY}
        assert set(outcomes(world, requests(world, HOST, INTERNET))) == {Outcome.REPLY}
        assert set(outcomes(world, requests(world, NS1, INTERNET))) == {Outcome.DROPPED}


# --- the narrow link ----------------------------------------------------------------

NARROW = 1400
HEADERS: dict[Family, int] = {4: 28, 6: 48}
"""Bytes of the IP and UDP headers, by family."""
MTU = {4: (socket.IPPROTO_IP, 14), 6: (socket.IPPROTO_IPV6, 24)}  # IP_MTU, IPV6_MTU
DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}  # …_MTU_DISCOVER
DO = 2  # IP_PMTUDISC_DO: never fragment here


@pytest.fixture(scope="module", params=[1, 3], ids=lambda length: f"{length} routers")
def narrow(request: pytest.FixtureRequest) -> Iterator[World]:
    """Build a world with one narrow link."""
    with World.build(Topology(routers=request.param, narrow_mtu=NARROW)) as world:
        yield world


@EACH
@pytest.mark.parametrize(("source", "target"), [(HOST, INTERNET), (INTERNET, HOST)])
def test_sender_learns_the_path_mtu_of_a_narrow_link(
    narrow: World, family: Family, source: str, target: str
) -> None:
    """A link with a small MTU drops a packet one byte too long, and the sender learns the MTU.

    A packet of exactly the MTU arrives.
    """
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    # A sender at the end of the narrow link knows the link's MTU without an ICMP error.
    told = NARROW if narrow.topology.routers > 1 or source == HOST else None
    spaces = list(narrow.namespaces.values())
    with (
        narrow.namespaces[source].socket(kind, socket.SOCK_DGRAM) as sender,
        narrow.namespaces[target].socket(kind, socket.SOCK_DGRAM) as listener,
    ):
        listener.bind(("", 4242))
        listener.setblocking(False)
        sender.setsockopt(*DISCOVER[family], DO)
        sender.connect((str(narrow.address(target, family)), 4242))
        if told:
            assert sender.getsockopt(*MTU[family]) == 1500
            sender.send(bytes(NARROW - HEADERS[family] + 1))
            settle(*spaces)
            with pytest.raises(BlockingIOError):
                listener.recv(2000)
            assert sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE
        assert sender.getsockopt(*MTU[family]) == NARROW
        sender.send(bytes(NARROW - HEADERS[family]))
        settle(*spaces)
        assert len(listener.recv(2000)) == NARROW - HEADERS[family]


# --- the end ------------------------------------------------------------------------


def existing_namespaces() -> tuple[set[str], set[int]]:
    """Return all network namespaces that exist, and all processes of this test."""
    return network_namespaces(), family()


def nothing_new(before: tuple[set[str], set[int]]) -> bool:
    """Return whether no namespace and no process was added."""
    spaces, processes = existing_namespaces()
    return spaces <= before[0] and processes <= before[1]


def test_closed_world_leaves_no_namespace_or_process() -> None:
    """A world has namespaces and processes until it is closed, and none afterwards."""
    gc.collect()  # earlier tests' namespaces must not be released meanwhile
    before = existing_namespaces()
    world = World.build(Topology())
    spaces, processes = existing_namespaces()
    assert len(spaces - before[0]) == len(world.namespaces) == 9
    assert len(processes - before[1]) == 3  # the host's init and server, and the services
    world.close()
    assert nothing_new(before)
    world.close()


def test_failed_world_build_leaves_no_namespace_or_process() -> None:
    """If a step of building the world is refused, no namespace or process is left.

    The error names the step.
    """
    twice = replace(Topology(), resolver=Topology().internet)
    gc.collect()  # earlier tests' namespaces must not be released meanwhile
    before = existing_namespaces()
    with pytest.raises(NetlinkError, match=r"add address 203\.0\.113\.10/24 .* File exists"):
        World.build(twice)
    assert nothing_new(before)


def test_two_worlds_with_equal_names_are_isolated(world: World) -> None:
    """A rule in one world has no effect in another world that uses the same names."""
    table = nftables.Table("inet", "closed")
    with World.build(Topology()) as other:
        with nftables.Nft(other.namespaces[HOST]) as rules:
            chain = nftables.add_chain(table, "forward", hook="forward", policy="drop")
            rules.apply([nftables.add_table(table), chain])
        assert set(outcomes(other, requests(other, NS1, INTERNET))) == {Outcome.DROPPED}
        assert set(outcomes(world, requests(world, NS1, INTERNET))) == {Outcome.REPLY}
        assert not set(world.namespaces.values()) & set(other.namespaces.values())
        assert world.host.run(["true"]).returncode == other.host.run(["true"]).returncode == 0
    assert set(outcomes(world, requests(world, NS1, INTERNET))) == {Outcome.REPLY}
