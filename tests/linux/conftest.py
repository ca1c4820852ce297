"""Fixtures of the tests of `linux`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from linux import rtnetlink
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.nftables import Nft
from tests.linux.star_topology import Star


@pytest.fixture
def space() -> Iterator[NetNS]:
    """Make a network namespace whose only link is `lo`, which is up."""
    with NetNS.new() as made:
        with Netlink(made) as netlink:
            netlink.send([rtnetlink.set_link(rtnetlink.LO, up=True)])
        yield made


@pytest.fixture
def star(space: NetNS) -> Iterator[Star]:
    """Make a router and three hosts.

    The route to the shared address leads to the first host.
    """
    with ExitStack() as stack:
        yield Star(stack, space)


@pytest.fixture
def rules(space: NetNS) -> Iterator[Nft]:
    """Open the nftables of the namespace `space`, which is also the router of the star topology."""
    with Nft(space) as opened:
        yield opened
