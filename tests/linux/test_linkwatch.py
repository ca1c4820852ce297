"""The cache of a namespace's links agrees with a dump, and seldom needs one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, Request
from linux.netns import NetNS
from linux.rtnetlink_dump import LinkWatch

NEAR, PEER = 7, 8
MANY = 200


@pytest.fixture
def watch(space: NetNS) -> Iterator[LinkWatch]:
    """Watch the namespace's links, after a first dump."""
    with LinkWatch(space) as opened:
        opened.links()
        yield opened


@pytest.fixture
def netlink(space: NetNS) -> Iterator[Netlink]:
    """Open a socket for changes and dumps of the links."""
    with Netlink(space) as opened:
        yield opened


def change(netlink: Netlink, *requests: Request) -> None:
    """Send requests that change the links, and check that they did."""
    before = rtnetlink_dump.links(netlink)
    netlink.send(list(requests))
    # A query by name makes the kernel bring the link's state up to date.
    rtnetlink_dump.links_named(netlink, [link.name for link in rtnetlink_dump.links(netlink)])
    assert rtnetlink_dump.links(netlink) != before


def test_watch_follows_every_change_of_a_link(watch: LinkWatch, netlink: Netlink) -> None:
    """A link is made, gets a carrier, a master and an MTU, is removed, and made of another kind."""
    pair = rtnetlink.add_veth("near", "peer", index=NEAR, peer_index=PEER)
    for requests in (
        [pair],
        [rtnetlink.set_link(PEER, up=True)],
        [rtnetlink.add_bridge("br0", index=9)],
        [rtnetlink.set_link(NEAR, master=9)],
        [rtnetlink.set_link(NEAR, mtu=1400)],
        [rtnetlink.isolate_port(NEAR)],
        [rtnetlink.del_link("near")],
        [rtnetlink.add_bridge("near", index=NEAR)],
    ):
        change(netlink, *requests)
        assert watch.links() == rtnetlink_dump.links(netlink)


def test_watch_dumps_only_after_a_notification(
    watch: LinkWatch, netlink: Netlink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links are dumped once for each change, however often they are read."""
    dumps: list[Netlink] = []

    def links(by: Netlink) -> list[rtnetlink_dump.Link]:
        dumps.append(by)
        return list_links(by)

    list_links = rtnetlink_dump.links
    monkeypatch.setattr(rtnetlink_dump, "links", links)
    watch.links()
    watch.links()
    assert not dumps
    netlink.send([rtnetlink.add_bridge("br0")])
    assert [item.name for item in watch.links()] == ["lo", "br0"]
    watch.links()
    assert len(dumps) == 1


def test_overrun_triggers_a_new_dump(watch: LinkWatch, netlink: Netlink) -> None:
    """After lost notifications the links are dumped, and later notifications count again."""
    with socket.socket(fileno=os.dup(watch.fileno())) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least there is: a few
    for number in range(MANY):
        netlink.send([rtnetlink.set_link(rtnetlink.LO, mtu=1400 + number)])
    change(netlink, rtnetlink.add_bridge("br0"))
    assert watch.links() == rtnetlink_dump.links(netlink)
    change(netlink, rtnetlink.del_link("br0"))
    assert watch.links() == rtnetlink_dump.links(netlink)


def test_watch_dumps_again_after_a_failed_dump(
    watch: LinkWatch, netlink: Netlink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notification before the failure is not forgotten."""
    netlink.send([rtnetlink.add_bridge("br0")])
    with monkeypatch.context() as patched:
        patched.setattr(rtnetlink_dump, "links", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            watch.links()
    assert watch.links() == rtnetlink_dump.links(netlink)
