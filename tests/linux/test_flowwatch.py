"""Hearing of flows: what is there is never left out, and seldom asked for."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from threading import Thread

import pytest

from linux import netns
from linux.conntrack import Conntrack, FlowWatch
from linux.nftables import Nft
from tests.linux.star_topology import SHARED, Star
from tests.linux.test_conntrack import PORT, WITHIN, divert, udp

FAMILIES = pytest.mark.parametrize("family", [4, 6])
EVENTS = "net.netfilter.nf_conntrack_events"


@pytest.fixture
def watch(star: Star) -> Iterator[FlowWatch]:
    """Whoever hears of the router's flows."""
    with FlowWatch(star.router) as opened:
        yield opened


def begin_flow(star: Star, rules: Nft, family: int = 4, *, to: int = 1) -> None:
    """One datagram through the router, to a station by the shared address."""
    divert(rules, star, family, to)
    station = {1: star.first, 2: star.second}[to]
    with udp(star.asker, family) as asker, udp(station, family, port=PORT) as heard:
        asker.sendto(b"hello", (SHARED[family], PORT))
        assert heard.recv(16) == b"hello"


def forget_all(star: Star) -> None:
    """None is there any more."""
    with Conntrack(star.router) as conntrack:
        conntrack.forget(conntrack.all())


@FAMILIES
def test_a_flow_is_there_from_its_first_packet_until_it_is_forgotten(
    star: Star, rules: Nft, watch: FlowWatch, family: int
) -> None:
    """By either address, as it came or translated."""
    marks = [star.station(number, family).packed for number in (0, 1)]
    assert not watch.marked(*marks)
    begin_flow(star, rules, family)
    assert all(watch.marked(mark) for mark in marks)
    assert not watch.marked(star.station(2, family).packed)
    assert not watch.marked()
    forget_all(star)
    assert not any(watch.marked(mark) for mark in marks)


def test_a_flow_that_is_older_than_the_watch_is_there_until_it_ends(star: Star, rules: Nft) -> None:
    """Though another begins unheard when it ends unheard, and there are as many as before."""
    begin_flow(star, rules)
    first, second = (star.station(number, 4).packed for number in (1, 2))
    with FlowWatch(star.router) as watch:
        assert watch.marked(first)
        netns.write_sysctls(star.router, {EVENTS: 0})
        forget_all(star)
        begin_flow(star, rules, to=2)
        assert not watch.marked(first)
        assert watch.marked(second)


def test_a_flow_that_begins_unheard_is_found(star: Star, rules: Nft, watch: FlowWatch) -> None:
    """As those do whose first packet a bridge floods to its own host."""
    assert not watch.marked(star.station(1, 4).packed)
    netns.write_sysctls(star.router, {EVENTS: 0})
    begin_flow(star, rules)
    assert watch.marked(star.station(1, 4).packed)
    forget_all(star)
    assert not watch.marked(star.station(1, 4).packed)


def test_a_flow_that_was_found_is_there_until_it_ends(
    star: Star, rules: Nft, watch: FlowWatch
) -> None:
    """Of what begins unheard nobody tells the end either, and another may begin in its place."""
    first, second = (star.station(number, 4).packed for number in (1, 2))
    netns.write_sysctls(star.router, {EVENTS: 0})
    begin_flow(star, rules)
    assert watch.marked(first)
    forget_all(star)
    begin_flow(star, rules, to=2)
    assert not watch.marked(first)
    assert watch.marked(second)


def test_what_ends_while_they_are_counted_makes_no_room(
    star: Star, rules: Nft, watch: FlowWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For one that has begun unheard."""
    begin_flow(star, rules)
    first = watch.marked(star.station(1, 4).packed)
    assert first
    netns.write_sysctls(star.router, {EVENTS: 0})
    begin_flow(star, rules, to=2)
    count = Conntrack.count

    def late(self: Conntrack) -> int:
        with Conntrack(star.router) as other:
            other.forget(first)
        return count(self)

    monkeypatch.setattr(Conntrack, "count", late)
    assert watch.marked(star.station(2, 4).packed)
    assert not watch.marked(star.station(1, 4).packed)


def test_threads_may_ask_at_once(star: Star, rules: Nft) -> None:
    """None takes the answer of another."""
    begin_flow(star, rules)
    answers: list[int] = []
    first = star.station(1, 4).packed
    with FlowWatch(star.router) as watch:

        def ask() -> None:
            answers.extend(len(watch.marked(first)) for _ in range(200))

        asking = [Thread(target=ask, daemon=True) for _ in range(4)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(WITHIN)
        assert answers == [1] * 800


def test_one_that_is_closed_says_so(star: Star) -> None:
    """Instead of listening for ever."""
    with FlowWatch(star.router) as watch:
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        watch.marked(star.station(1, 4).packed)


def test_what_was_heard_is_not_asked_for(
    star: Star, rules: Nft, watch: FlowWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's table is walked for what nobody has told of, and for nothing else."""
    walked: list[Conntrack] = []
    raw = Conntrack.raw

    def counted(self: Conntrack) -> Iterator[bytes]:
        walked.append(self)
        return raw(self)

    monkeypatch.setattr(Conntrack, "raw", counted)
    begin_flow(star, rules)
    begin_flow(star, rules, to=2)
    assert watch.marked(star.station(1, 4).packed)
    with Conntrack(star.router) as conntrack:
        conntrack.forget(watch.marked(star.station(1, 4).packed))
    assert not watch.marked(star.station(1, 4).packed)
    assert watch.marked(star.station(2, 4).packed)
    assert not walked
    netns.write_sysctls(star.router, {EVENTS: 0})
    begin_flow(star, rules)
    assert watch.marked(star.station(1, 4).packed)
    assert walked


def test_nothing_is_denied_after_more_flows_than_there_is_room_for(
    star: Star, rules: Nft, watch: FlowWatch
) -> None:
    """What was left out is asked for, among it the flow that began last."""
    divert(rules, star, 4, 1)
    assert not watch.marked(star.station(1, 4).packed)
    with socket.socket(fileno=os.dup(watch.fileno())) as heard:
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least there is: a few
    with star.asker.socket(socket.AF_INET, socket.SOCK_DGRAM) as many:
        for port in range(1024, 1024 + 100):
            many.sendto(b"x", (str(star.station(2, 4)), port))
    begin_flow(star, rules)
    assert watch.marked(star.station(1, 4).packed)
    forget_all(star)
    assert not watch.marked(star.station(1, 4).packed)


def test_where_nobody_is_told_of_flows_they_are_asked_for(star: Star, rules: Nft) -> None:
    """nf_conntrack_events is 0."""
    netns.write_sysctls(star.router, {EVENTS: 0})
    with FlowWatch(star.router) as watch:
        begin_flow(star, rules)
        assert watch.marked(star.station(1, 4).packed)
        forget_all(star)
        assert not watch.marked(star.station(1, 4).packed)
