"""What these tests ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from linux import rtnl
from linux.netlink import Netlink
from linux.netns import NetNS


@pytest.fixture
def space() -> Iterator[NetNS]:
    """A network namespace with `lo` and nothing else, up."""
    with NetNS.new() as made:
        with Netlink(made) as netlink:
            netlink.send([rtnl.set_link(rtnl.LO, up=True)])
        yield made
