"""Routes and rules, seen in where packets go."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Literal

import pytest

from harness.model.plan import Outcome
from linux import rtnetlink
from tests.linux.star_topology import Star


@pytest.mark.parametrize("family", [4, 6])
def test_policy_rule_routes_packets_of_its_input_interface(
    star: Star, family: Literal[4, 6]
) -> None:
    """With `iif` an interface, what comes in there uses the other table, and nothing else."""
    ways = [
        rtnetlink.add_route(star.shared(family), via=star.station(2, family), table=100),
        rtnetlink.add_rule(family, iif="eth0", table=100, priority=7),
    ]
    assert star.asked(star.asker, family, star.first).outcome is Outcome.REPLY
    star.netlink.send(ways)
    assert star.asked(star.asker, family, star.second).outcome is Outcome.REPLY
    assert star.asked(star.router, family, star.first).outcome is Outcome.REPLY


@pytest.mark.parametrize("family", [4, 6])
def test_policy_rule_for_lo_routes_locally_sent_packets(star: Star, family: Literal[4, 6]) -> None:
    """With `iif` `lo` only what the router sends itself uses the other table."""
    star.netlink.send(
        [
            rtnetlink.add_route(star.shared(family), via=star.station(2, family), table=100),
            rtnetlink.add_rule(family, iif="lo", table=100, priority=7),
        ]
    )
    assert star.asked(star.router, family, star.second).outcome is Outcome.REPLY
    assert star.asked(star.asker, family, star.first).outcome is Outcome.REPLY


@pytest.mark.parametrize("family", [4, 6])
def test_policy_rules_apply_in_order_of_priority(star: Star, family: Literal[4, 6]) -> None:
    """The matching rule with the smaller number decides."""
    for table, number in ((100, 1), (200, 2)):
        way = rtnetlink.add_route(
            star.shared(family), via=star.station(number, family), table=table
        )
        star.netlink.send(
            [way, rtnetlink.add_rule(family, iif="eth0", table=table, priority=table)]
        )
    assert star.asked(star.asker, family, star.first).outcome is Outcome.REPLY
    star.netlink.send([rtnetlink.add_rule(family, iif="eth0", table=200, priority=50)])
    assert star.asked(star.asker, family, star.second).outcome is Outcome.REPLY


@pytest.mark.parametrize("family", [4, 6])
def test_blackhole_route_drops_without_an_icmp_error(star: Star, family: Literal[4, 6]) -> None:
    """Without a route there is an error; more specific routes still apply."""
    elsewhere = {4: "198.51.100.77", 6: "2001:db8:9::77"}[family]
    around = {4: "198.51.100.0/24", 6: "2001:db8:9::/64"}[family]

    def outcome() -> Outcome:
        return star.asked(star.asker, family, star.first, to=elsewhere).outcome

    assert outcome() is Outcome.REJECTED
    star.netlink.send([rtnetlink.add_blackhole(ip_network(around))])
    assert outcome() is Outcome.DROPPED
    assert star.asked(star.asker, family, star.first).outcome is Outcome.REPLY
