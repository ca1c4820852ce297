"""What these tests ask for."""

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
    """A network namespace with `lo` and nothing else, up."""
    with NetNS.new() as made:
        with Netlink(made) as netlink:
            netlink.send([rtnetlink.set_link(rtnetlink.LO, up=True)])
        yield made


@pytest.fixture
def star(space: NetNS) -> Iterator[Star]:
    """A router and three stations; the shared address is routed to the first."""
    with ExitStack() as stack:
        yield Star(stack, space)


@pytest.fixture
def rules(space: NetNS) -> Iterator[Nft]:
    """The nftables of the namespace `space`, which is also the star's router."""
    with Nft(space) as opened:
        yield opened
