"""Every promise tells its reason, in words that a failed assertion can show."""

from __future__ import annotations

import pytest

from harness.model.dialect import Dialect
from harness.model.plan import Cell, Family, Protocol
from tests.model.reference import PLAN
from tests.model.test_oracle import NETWORKS, PLAIN, of

LESS = Dialect(
    direct_routing="reject",
    router6="cut-off",
    none_resolver=False,
    network_resolver="unreachable",
    none_loopback=False,
    bridge_loopback6=False,
)
"""Dialect in which everything is missing that a dialect can declare to be missing."""

SHARED = "it shares container01's namespace"
THERE = "container05-container has container01's addresses"


@pytest.mark.parametrize(
    ("dialect", "source", "target", "family", "why"),
    [
        (PLAIN, "lan1", "self", 4, "delivered without leaving its namespace"),
        (PLAIN, "lan1", "loopback", 4, "every namespace answers itself on lo"),
        (PLAIN, "lan1", "lan2", 4, "no router between"),
        (PLAIN, "attacker", "ns1", 4, "one router between"),
        (PLAIN, "lan1", "ns1", 4, "one router between, behind the host's address"),
        (PLAIN, "host", "internet", 4, "3 routers between"),
        (PLAIN, "lan1", "internet", 4, "4 routers between, behind the host's address"),
        (PLAIN, "ns1", "internet", 6, "4 routers between"),
        (PLAIN, "deaf1", "lan1", 6, "its network has no IPv6"),
        (PLAIN, "vault1", "lan1", 4, "an internal network has no default route"),
        (
            PLAIN,
            "vault1",
            "www.example.com",
            4,
            "no resolver outside is asked for an internal network",
        ),
        (PLAIN, "lan1", "vault1", 4, "nothing is forwarded into an internal network"),
        (PLAIN, "lan1", "deaf1", 4, "they are on different networks"),
        (PLAIN, "deaf1", "deaf2", 4, "inter-container communication is off on this network"),
        (PLAIN, "ns1", "lan1", 4, "direct routing to unpublished containers is dropped"),
        (LESS, "ns1", "lan1", 4, "direct routing to unpublished containers is rejected"),
        (
            LESS,
            "lan1",
            "www.example.com",
            4,
            "the resolver of a network is declared to be out of reach",
        ),
        (LESS, "ns1", "internet", 6, "the host is declared to forward IPv6 no more"),
        (LESS, "deaf1", "loopback", 6, "lo is declared not to have it"),
        (PLAIN, "host1", "lan1", 4, "it is the host: no router between"),
        (PLAIN, "lan1", "host1", 4, "host1 is the host: no router between"),
    ],
)
def test_promise_reason_names_network_path_or_isolation(
    dialect: Dialect, source: str, target: str, family: Family, why: str
) -> None:
    """The reason is the path between two containers or the isolation of their networks."""
    assert of(NETWORKS, dialect)[Cell(source, target, Protocol.ICMP, family)].why == why


@pytest.mark.parametrize(
    ("dialect", "source", "target", "family", "why"),
    [
        (PLAIN, "container06-none", "container01", 4, "there is no route at all"),
        (
            PLAIN,
            "container06-none",
            "www.example.com",
            4,
            "no resolver is reachable over lo alone",
        ),
        (LESS, "container06-none", "loopback", 4, "lo is declared not to have it"),
        (
            LESS,
            "container07-attached",
            "www.example.com",
            4,
            "a container in mode none is declared to know no resolver",
        ),
        (PLAIN, "container05-container", "container02", 4, f"{SHARED}: no router between"),
        (
            PLAIN,
            "container05-container",
            "container03-host",
            6,
            f"{SHARED}: its network has no IPv6",
        ),
        (PLAIN, "container02", "container05-container", 4, f"{THERE}: no router between"),
        (
            PLAIN,
            "ns1",
            "container05-container",
            4,
            "direct routing to unpublished containers is dropped",
        ),
    ],
)
def test_promise_reason_names_joined_container_or_host(
    dialect: Dialect, source: str, target: str, family: Family, why: str
) -> None:
    """The reason is that of the netns the container is in."""
    assert of(PLAN, dialect)[Cell(source, target, Protocol.ICMP, family)].why == why


@pytest.mark.parametrize("name", ["host", "ns1", "internet", "attacker"])
@pytest.mark.parametrize("target", ["self", "loopback"])
def test_bystander_reaches_its_own_address(name: str, target: str) -> None:
    """The promise belongs to the bystander requirement BYS-1."""
    for family in (4, 6):
        promise = of(PLAN)[Cell(name, target, Protocol.ICMP, family)]
        assert (str(promise), promise.requirement) == (f"reply, ttl 64, seen as {name}", "BYS-1")
