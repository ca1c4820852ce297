"""Tests of traces, which show the nftables rules that a packet meets."""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest

from linux import nftables
from linux.netns import NetNS
from linux.nft_trace import Tracer, TraceStep, port_from
from linux.nftables import Nft, Table, transport

TABLE = Table("inet", "checked")
MARKED = [[*nftables.l4proto("udp"), *transport(8, b"marked")]]


def send(space: NetNS, payload: bytes, port: int = 9) -> None:
    """Send a datagram over loopback in the namespace, which is processed when this returns."""
    with space.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        try:
            opened.sendto(payload, ("127.0.0.1", port))
        except PermissionError:
            return  # the error of a drop at output


def drops(steps: list[TraceStep]) -> list[tuple[str, str, str]]:
    """Return table, chain and kind of each step that dropped a packet."""
    return [(step.table, step.chain, step.kind) for step in steps if step.verdict == "drop"]


def make_chain(
    rules: Nft, hook: nftables.Hook, *parts: list[nftables.Expression], policy: str = "accept"
) -> None:
    """Make a chain with one rule, or with none."""
    chain = nftables.add_chain(TABLE, hook, hook=hook, policy=policy)  # type: ignore[arg-type] # a literal
    made = [nftables.add_rule(TABLE, hook, *parts)] if parts else []
    rules.apply([nftables.add_table(TABLE), chain, *made])


@pytest.mark.parametrize("hook", ["output", "input"])
def test_trace_names_the_rule_that_drops(space: NetNS, rules: Nft, hook: nftables.Hook) -> None:
    """A trace has the table, chain and rule handle of a drop."""
    make_chain(rules, hook, nftables.daddr(ip_network("127.0.0.1/32")), nftables.verdict("drop"))
    with Tracer(space, MARKED, name="tracing") as tracer:
        send(space, b"marked")
        found = [step for step in tracer.steps() if step.verdict == "drop"]
    (rule,) = rules.rules(TABLE)
    assert [(step.table, step.chain, step.handle) for step in found] == [
        ("checked", hook, rule.handle)
    ]


def test_trace_names_the_policy_that_drops(space: NetNS, rules: Nft) -> None:
    """If no rule matches, the trace names the chain whose policy drops the packet."""
    make_chain(rules, "input", policy="drop")
    with Tracer(space, MARKED, name="tracing") as tracer:
        send(space, b"marked")
        assert drops(tracer.steps()) == [("checked", "input", "policy")]


def test_trace_reports_only_matching_packets(space: NetNS, rules: Nft) -> None:
    """A trace has no steps of packets that do not match, even if they are dropped."""
    make_chain(rules, "input", nftables.verdict("drop"))
    with Tracer(space, MARKED, name="tracing") as tracer:
        send(space, b"another")
        assert tracer.steps() == []
        send(space, b"marked")
        assert drops(tracer.steps()) == [("checked", "input", "rule")]


def test_port_from_matches_ports_from_a_number_on(space: NetNS, rules: Nft) -> None:
    """`port_from` matches its port and all higher ports, but not the port below."""
    make_chain(rules, "input", nftables.verdict("drop"))
    flow = [[*nftables.l4proto("udp"), *port_from(61000, 2)]]
    with Tracer(space, flow, name="tracing") as tracer:
        send(space, b"", port=60999)
        assert tracer.steps() == []
        send(space, b"", port=61000)
        assert drops(tracer.steps()) == [("checked", "input", "rule")]


def test_trace_carries_the_packet_headers(space: NetNS, rules: Nft) -> None:
    """The first step in each chain has the packet's headers, which identify the packet."""
    make_chain(rules, "input", nftables.verdict("accept"))
    with Tracer(space, MARKED, name="tracing") as tracer:
        send(space, b"marked", port=4242)
        head = next(step.head for step in tracer.steps() if step.head)
    assert head[12:20] == bytes([127, 0, 0, 1] * 2)
    assert int.from_bytes(head[22:24], "big") == 4242


def test_tracer_tables_end_with_the_tracer(space: NetNS, rules: Nft) -> None:
    """A tracer's tables exist until the tracer is closed, because its socket owns them."""
    with Tracer(space, MARKED, name="tracing"):
        assert {table.name for table in rules.tables()} == {"tracing"}
    assert rules.tables() == []
