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
    """Send one datagram through the router, to a station by the shared address."""
    divert(rules, star, family, to)
    station = {1: star.first, 2: star.second}[to]
    with udp(star.asker, family) as asker, udp(station, family, port=PORT) as heard:
        asker.sendto(b"hello", (SHARED[family], PORT))
        assert heard.recv(16) == b"hello"


def forget_all(star: Star) -> None:
    """Delete all flows of the router."""
    with Conntrack(star.router) as conntrack:
        conntrack.forget(conntrack.all())


@FAMILIES
def test_watch_lists_a_flow_until_it_is_deleted(
    star: Star, rules: Nft, watch: FlowWatch, family: int
) -> None:
    """The flow is found by either address, before and after translation."""
    marks = [star.station(number, family).packed for number in (0, 1)]
    assert not watch.marked(*marks)
    begin_flow(star, rules, family)
    assert all(watch.marked(mark) for mark in marks)
    assert not watch.marked(star.station(2, family).packed)
    assert not watch.marked()
    forget_all(star)
    assert not any(watch.marked(mark) for mark in marks)


def test_watch_lists_a_flow_that_is_older_than_itself(star: Star, rules: Nft) -> None:
    """The end of that flow has no event, nor has the begin of another."""
    begin_flow(star, rules)
    first, second = (star.station(number, 4).packed for number in (1, 2))
    with FlowWatch(star.router) as watch:
        assert watch.marked(first)
        netns.write_sysctls(star.router, {EVENTS: 0})
        forget_all(star)
        begin_flow(star, rules, to=2)
        assert not watch.marked(first)
        assert watch.marked(second)


def test_watch_finds_a_flow_without_a_begin_event(star: Star, rules: Nft, watch: FlowWatch) -> None:
    """Such is a flow whose first packet a bridge floods to its own host."""
    assert not watch.marked(star.station(1, 4).packed)
    netns.write_sysctls(star.router, {EVENTS: 0})
    begin_flow(star, rules)
    assert watch.marked(star.station(1, 4).packed)
    forget_all(star)
    assert not watch.marked(star.station(1, 4).packed)


def test_watch_drops_a_flow_without_a_begin_event_at_its_end(
    star: Star, rules: Nft, watch: FlowWatch
) -> None:
    """Its end has no event either, and another flow may begin in its place."""
    first, second = (star.station(number, 4).packed for number in (1, 2))
    netns.write_sysctls(star.router, {EVENTS: 0})
    begin_flow(star, rules)
    assert watch.marked(first)
    forget_all(star)
    begin_flow(star, rules, to=2)
    assert not watch.marked(first)
    assert watch.marked(second)


def test_flow_that_ends_during_the_count_hides_no_other(
    star: Star, rules: Nft, watch: FlowWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other flow has begun without an event."""
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


def test_watch_is_thread_safe(star: Star, rules: Nft) -> None:
    """No thread gets the answer to another thread's query."""
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


def test_closed_watch_raises(star: Star) -> None:
    """A closed watch does not wait forever."""
    with FlowWatch(star.router) as watch:
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        watch.marked(star.station(1, 4).packed)


def test_announced_flows_need_no_dump(
    star: Star, rules: Nft, watch: FlowWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's table is walked only for flows without an event."""
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


def test_overrun_triggers_a_full_dump(star: Star, rules: Nft, watch: FlowWatch) -> None:
    """After ENOBUFS the table is dumped, so no flow is missed, also not the last one."""
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


def test_watch_dumps_where_flow_events_are_disabled(star: Star, rules: Nft) -> None:
    """The sysctl nf_conntrack_events is 0."""
    netns.write_sysctls(star.router, {EVENTS: 0})
    with FlowWatch(star.router) as watch:
        begin_flow(star, rules)
        assert watch.marked(star.station(1, 4).packed)
        forget_all(star)
        assert not watch.marked(star.station(1, 4).packed)
