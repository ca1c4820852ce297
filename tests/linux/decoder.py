"""State of the kernel as decoded by pyroute2, without any code of `linux`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute
from pyroute2.nftables.main import NFTables

from linux.netns import NetNS

Decoded = dict[str, Any]


@contextmanager
def rtnetlink(space: NetNS) -> Iterator[Any]:
    """Open pyroute2's `IPRoute` in the namespace."""
    with space.entered():
        opened = IPRoute()
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def nftables(space: NetNS) -> Iterator[Any]:
    """Open pyroute2's `NFTables` in the namespace, for every family."""
    with space.entered():
        opened = NFTables(nfgen_family=0)
    try:
        yield opened
    finally:
        opened.close()


def link(space: NetNS, name: str) -> Any:
    """Return one link, whose attributes are read by its methods `get` and `get_nested`."""
    with rtnetlink(space) as ipr:
        (found,) = ipr.get_links(ifname=name)
    return found


def addresses(space: NetNS, index: int) -> dict[str, Any]:
    """Return the addresses of a link, keyed by their text `address/prefix`."""
    with rtnetlink(space) as ipr:
        dumped = list(ipr.get_addr(index=index))
    return {f"{item.get('IFA_ADDRESS')}/{item['prefixlen']}": item for item in dumped}
