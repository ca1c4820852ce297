"""Tests of the explanation's text without a kernel, for cases that are rare in live worlds."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from harness.diagnosis.packet_path import (
    NftVerdict,
    PacketHeader,
    ProbeTrace,
    Role,
    Sighting,
    loss_point,
)
from harness.diagnosis.story import story
from harness.model.plan import Cell, Observation, Outcome, Promise, Protocol

CELL = Cell("web", "ns1", Protocol.UDP, 4)
REQUEST = PacketHeader(
    Role.REQUEST, "udp", ip_address("172.17.0.2"), ip_address("192.168.2.10"), 40000, 61001, 64
)
REPLY = PacketHeader(
    Role.REPLY, "udp", ip_address("192.168.2.10"), ip_address("172.17.0.2"), 61001, 40000, 64
)
PROMISE = Promise(Outcome.REPLY, ttl=63, seen_from="web", requirement="BR-6")
LOST = Observation(Outcome.DROPPED)


def trail(seen: PacketHeader, *namespaces: str) -> tuple[Sighting, ...]:
    """Return the sightings of a packet in order.

    A `>` after a namespace and interface marks an outgoing packet.
    """
    found = []
    for number, where in enumerate(namespaces):
        namespace, _, link = where.rstrip(">").partition("/")
        found.append(Sighting(number, namespace, link, where.endswith(">"), seen))
    return tuple(found)


def trace_of(
    observed: Observation, *sightings: Sighting, verdicts: tuple[NftVerdict, ...] = ()
) -> ProbeTrace:
    """Return the trace of a probe from web to ns1."""
    return ProbeTrace(
        cell=CELL,
        promise=PROMISE,
        observed=observed,
        source="web",
        witness="ns1",
        sightings=sightings,
        verdicts=verdicts,
    )


def test_explanation_names_a_local_packet_sent_to_the_routers() -> None:
    """The explanation says that the host sent a packet for a local address to the routers.

    The place where the packet is lost does not matter.
    """
    seen = trail(REQUEST, "web/eth0>", "host/docker0", "host/eth0>", "r1/eth0")
    lines = story(trace_of(LOST, *seen))
    assert "the host sent the request out of the wrong interface, host/eth0" in lines
    toward = replace(trace_of(LOST, *seen), witness="internet")
    assert "the host sent the request out of the wrong interface, host/eth0" not in story(toward)


def test_explanation_names_an_unusual_initial_ttl() -> None:
    """If a packet is sent with an unusual TTL, the explanation names the TTL and the sender.

    No hop on the path has changed the TTL in an unusual way.
    """
    seen = trail(replace(REPLY, ttl=60), "ns1/eth0>", "host/br0", "web/eth0")
    lines = story(trace_of(Observation(Outcome.REPLY, ttl=60, seen_from="web"), *seen))
    assert lines[-1] == "the TTL of the reply is not 63: sent with 60 by ns1"


def test_explanation_distinguishes_ttl_decrement_from_rewrite() -> None:
    """A TTL that is lower by one was decremented by a router.

    Any other change is a rewrite.
    """
    before, after = trail(REQUEST, "web/eth0>", "host/docker0")
    router = Sighting(2, "host", "br0", True, replace(REQUEST, ttl=63))
    other = Sighting(3, "ns1", "eth0", False, replace(REQUEST, ttl=40))
    seen = Observation(Outcome.REPLY, seen_ttl=40, seen_from="web")
    (line,) = (
        item for item in story(trace_of(seen, before, after, router, other)) if "TTL" in item
    )
    assert "forwarded by host (64 → 63)" in line
    assert "rewritten in host between host/br0 and ns1/eth0 (63 → 40)" in line


def test_explanation_abbreviates_the_path_of_a_looping_packet() -> None:
    """The path of a packet in a loop is shortened to its beginning and end."""
    around = [f"r{number}/eth0" for number in range(1, 200)]
    lines = story(trace_of(LOST, *trail(REQUEST, "web/eth0>", *around)))
    assert "more …" in lines[0]
    assert len(lines[0]) < 1000


def test_flooded_copy_is_not_the_end_of_the_path() -> None:
    """A copy that the bridge floods to another port is not the end of the packet's path.

    The copy is seen later than the packet itself.
    """
    seen = trail(REQUEST, "web/eth0>", "host/veth-ns1>", "host/veth9>")
    known = replace(trace_of(LOST, *seen), behind={"host/veth-ns1": "ns1", "host/veth9": "other"})
    found = loss_point(known)
    assert found is not None
    assert found.last is not None
    assert found.last.where == "host/veth-ns1"


def test_rule_that_dropped_another_packet_is_not_named() -> None:
    """A rule that dropped an ICMP error is not named as the cause of a lost request."""
    seen = trail(REQUEST, "web/eth0>", "host/docker0")
    about = NftVerdict("host", "inet x", "y", 3, 7, "", rejects=False, seen=REQUEST)
    lines = story(trace_of(LOST, *seen, verdicts=(about,)))
    assert "dropped in host, table inet x, chain y, rule 3 (handle 7)" in lines
    other = replace(about, seen=REPLY)
    lines = story(trace_of(LOST, *seen, verdicts=(other,)))
    assert not any("dropped" in line for line in lines)
    assert lines[-1] == "the state of host shows no cause"


def test_reply_to_a_failed_lookup_is_no_arrival() -> None:
    """The DNS reply to a failed lookup does not count as the arrival of a probe."""
    nameless = replace(
        trace_of(Observation(Outcome.NO_NAME), *trail(REQUEST, "web/eth0>"), *trail(REPLY, "a/b")),
        promise=replace(PROMISE, outcome=Outcome.NO_ROUTE),
    )
    assert not any("against the promise" in line for line in story(nameless))
