"""Hearing of links: what is told is what there is, and seldom asked for."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, Request
from linux.netns import NetNS
from linux.rtnetlink_dump import LinkWatch

CABLE, PEER = 7, 8
MANY = 200


@pytest.fixture
def watch(space: NetNS) -> Iterator[LinkWatch]:
    """Whoever hears of the namespace's links, and has looked once."""
    with LinkWatch(space) as opened:
        opened.links()
        yield opened


@pytest.fixture
def netlink(space: NetNS) -> Iterator[Netlink]:
    """By which they are changed, and asked for."""
    with Netlink(space) as opened:
        yield opened


def change(netlink: Netlink, *requests: Request) -> None:
    """Have the kernel do something, and find out that it did."""
    before = rtnetlink_dump.links(netlink)
    netlink.send(list(requests))
    # Asked for by name a link is what it is by now, and becomes it later no more.
    rtnetlink_dump.links_named(netlink, [link.name for link in rtnetlink_dump.links(netlink)])
    assert rtnetlink_dump.links(netlink) != before


def test_whatever_becomes_of_a_link_is_told_at_once(watch: LinkWatch, netlink: Netlink) -> None:
    """It comes, has a carrier, a master, another MTU, goes, and is of another kind."""
    cable = rtnetlink.add_veth("cable", "peer", index=CABLE, peer_index=PEER)
    for requests in (
        [cable],
        [rtnetlink.set_link(PEER, up=True)],
        [rtnetlink.add_bridge("br0", index=9)],
        [rtnetlink.set_link(CABLE, master=9)],
        [rtnetlink.set_link(CABLE, mtu=1400)],
        [rtnetlink.isolate_port(CABLE)],
        [rtnetlink.del_link("cable")],
        [rtnetlink.add_bridge("cable", index=CABLE)],
    ):
        change(netlink, *requests)
        assert watch.links() == rtnetlink_dump.links(netlink)


def test_nobody_is_asked_while_nothing_is_told(
    watch: LinkWatch, netlink: Netlink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each time that something has changed, however often one looks."""
    asked: list[Netlink] = []

    def links(by: Netlink) -> list[rtnetlink_dump.Link]:
        asked.append(by)
        return list_links(by)

    list_links = rtnetlink_dump.links
    monkeypatch.setattr(rtnetlink_dump, "links", links)
    watch.links()
    watch.links()
    assert not asked
    netlink.send([rtnetlink.add_bridge("br0")])
    assert [item.name for item in watch.links()] == ["lo", "br0"]
    watch.links()
    assert len(asked) == 1


def test_nothing_is_left_out_after_more_than_there_is_room_for(
    watch: LinkWatch, netlink: Netlink
) -> None:
    """What was lost is asked for, and what comes later is heard again."""
    with socket.socket(fileno=os.dup(watch.fileno())) as heard:
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least there is: a few
    for number in range(MANY):
        netlink.send([rtnetlink.set_link(rtnetlink.LO, mtu=1400 + number)])
    change(netlink, rtnetlink.add_bridge("br0"))
    assert watch.links() == rtnetlink_dump.links(netlink)
    change(netlink, rtnetlink.del_link("br0"))
    assert watch.links() == rtnetlink_dump.links(netlink)


def test_a_question_that_fails_is_asked_again(
    watch: LinkWatch, netlink: Netlink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was told before it is not forgotten."""
    netlink.send([rtnetlink.add_bridge("br0")])
    with monkeypatch.context() as patched:
        patched.setattr(rtnetlink_dump, "links", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            watch.links()
    assert watch.links() == rtnetlink_dump.links(netlink)
