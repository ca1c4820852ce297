"""Hearing of flows: what may be there is never denied, and what is not need not be looked for."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from linux import sysctl
from linux.conntrack import Conntrack
from linux.flowwatch import FlowWatch
from linux.nft import Nft
from tests.linux.star import SHARED, Star
from tests.linux.test_conntrack import PORT, divert, udp

FAMILIES = pytest.mark.parametrize("family", [4, 6])
EVENTS = "net.netfilter.nf_conntrack_events"


@pytest.fixture
def watch(star: Star) -> Iterator[FlowWatch]:
    """Whoever hears of the router's flows."""
    with FlowWatch(star.router) as opened:
        yield opened


def begin_flow(star: Star, rules: Nft, family: int = 4) -> None:
    """One datagram through the router, to the first station by its shared address."""
    divert(rules, star, family, 1)
    with udp(star.asker, family) as asker, udp(star.first, family, port=PORT) as heard:
        asker.sendto(b"hello", (SHARED[family], PORT))
        assert heard.recv(16) == b"hello"


def forget_all(star: Star) -> None:
    """None is there any more."""
    with Conntrack(star.router) as conntrack:
        conntrack.forget(conntrack.all())


@FAMILIES
def test_a_flow_may_be_there_from_its_first_packet_until_it_is_forgotten(
    star: Star, rules: Nft, watch: FlowWatch, family: int
) -> None:
    """By either address, as it came or translated."""
    marks = [star.station(number, family).packed for number in (0, 1)]
    assert not watch.may_have(*marks)
    begin_flow(star, rules, family)
    assert all(watch.may_have(mark) for mark in marks)
    assert not watch.may_have(star.station(2, family).packed)
    assert not watch.may_have()
    forget_all(star)
    assert not any(watch.may_have(mark) for mark in marks)


def test_a_flow_that_is_older_than_the_watch_may_be_there(star: Star, rules: Nft) -> None:
    """It is asked for once, and believed to be there even where its end was told to nobody."""
    begin_flow(star, rules)
    with FlowWatch(star.router) as watch:
        assert watch.may_have(star.station(1, 4).packed)


def test_nothing_is_denied_after_more_flows_than_there_is_room_for(
    star: Star, rules: Nft, watch: FlowWatch
) -> None:
    """What was left out is asked for, among it the flow that began last."""
    divert(rules, star, 4, 1)
    assert not watch.may_have(star.station(1, 4).packed)
    with socket.socket(fileno=os.dup(watch.fileno())) as heard:
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least there is: a few
    with star.asker.socket(socket.AF_INET, socket.SOCK_DGRAM) as many:
        for port in range(1024, 1024 + 100):
            many.sendto(b"x", (str(star.station(2, 4)), port))
    begin_flow(star, rules)
    assert watch.may_have(star.station(1, 4).packed)
    forget_all(star)
    assert not watch.may_have(star.station(1, 4).packed)


def test_where_nobody_is_told_of_flows_any_may_be_there(star: Star, rules: Nft) -> None:
    """nf_conntrack_events is 0."""
    sysctl.write(star.router, {EVENTS: 0})
    with FlowWatch(star.router) as watch:
        assert watch.may_have(star.station(1, 4).packed)
        begin_flow(star, rules)
        forget_all(star)
        assert watch.may_have(star.station(1, 4).packed)
