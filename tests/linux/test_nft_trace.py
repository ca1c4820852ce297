"""What nftables tells of single packets: whose, by which rule, and nothing when it is over."""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest

from linux import nftables
from linux.netns import NetNS
from linux.nft_trace import Tracer, TraceStep, port_from, transport
from linux.nftables import Nft, Table

TABLE = Table("inet", "checked")
MARKED = [[*nftables.l4proto("udp"), *transport(8, b"marked")]]


def send(space: NetNS, payload: bytes, port: int = 9) -> None:
    """A datagram to the namespace's own loopback; it is dealt with when this returns."""
    with space.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        try:
            opened.sendto(payload, ("127.0.0.1", port))
        except PermissionError:
            return  # that is what a drop at output looks like from here


def drops(steps: list[TraceStep]) -> list[tuple[str, str, str]]:
    """Where packets were dropped: table, chain, and by what."""
    return [(step.table, step.chain, step.kind) for step in steps if step.verdict == "drop"]


def put(
    rules: Nft, hook: nftables.Hook, *parts: list[nftables.Expression], policy: str = "accept"
) -> None:
    """A chain with one rule, or none."""
    chain = nftables.add_chain(TABLE, hook, hook=hook, policy=policy)  # type: ignore[arg-type] # a literal
    made = [nftables.add_rule(TABLE, hook, *parts)] if parts else []
    rules.apply([nftables.add_table(TABLE), chain, *made])


@pytest.mark.parametrize("hook", ["output", "input"])
def test_the_rule_that_drops_a_packet_is_told(
    space: NetNS, rules: Nft, hook: nftables.Hook
) -> None:
    """By table, chain and the handle that the ruleset has it under."""
    put(rules, hook, nftables.daddr(ip_network("127.0.0.1/32")), nftables.verdict("drop"))
    with Tracer(space, MARKED, name="tracing") as tracer:
        send(space, b"marked")
        found = [step for step in tracer.steps() if step.verdict == "drop"]
    (rule,) = rules.rules(TABLE)
    assert [(step.table, step.chain, step.handle) for step in found] == [
        ("checked", hook, rule.handle)
    ]


def test_a_policy_that_drops_is_told(space: NetNS, rules: Nft) -> None:
    """A chain without a rule that matches ends with its policy."""
    put(rules, "input", policy="drop")
    with Tracer(space, MARKED, name="tracing") as tracer:
        send(space, b"marked")
        assert drops(tracer.steps()) == [("checked", "input", "policy")]


def test_only_packets_that_match_are_told(space: NetNS, rules: Nft) -> None:
    """Others are dropped just so, and nobody hears of it."""
    put(rules, "input", nftables.verdict("drop"))
    with Tracer(space, MARKED, name="tracing") as tracer:
        send(space, b"another")
        assert tracer.steps() == []
        send(space, b"marked")
        assert drops(tracer.steps()) == [("checked", "input", "rule")]


def test_ports_from_a_number_on_match(space: NetNS, rules: Nft) -> None:
    """The first port is one of them, the one before is not."""
    put(rules, "input", nftables.verdict("drop"))
    flow = [[*nftables.l4proto("udp"), *port_from(61000, 2)]]
    with Tracer(space, flow, name="tracing") as tracer:
        send(space, b"", port=60999)
        assert tracer.steps() == []
        send(space, b"", port=61000)
        assert drops(tracer.steps()) == [("checked", "input", "rule")]


def test_the_packet_itself_is_told(space: NetNS, rules: Nft) -> None:
    """Its headers come with the first step of a chain, so that one knows which it was."""
    put(rules, "input", nftables.verdict("accept"))
    with Tracer(space, MARKED, name="tracing") as tracer:
        send(space, b"marked", port=4242)
        head = next(step.head for step in tracer.steps() if step.head)
    assert head[12:20] == bytes([127, 0, 0, 1] * 2)
    assert int.from_bytes(head[22:24], "big") == 4242


def test_nothing_of_a_tracer_is_left(space: NetNS, rules: Nft) -> None:
    """Its tables are there while it is, and gone with it."""
    with Tracer(space, MARKED, name="tracing"):
        assert {table.name for table in rules.tables()} == {"tracing"}
    assert rules.tables() == []
