"""The operator's own firewall: a table that was there before any container."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from harness.place import Place
from harness.world.snapshot import Snapshot
from linux import nft
from linux.netlink import Request

TABLE: Final = nft.Table("inet", "operator")
FORWARD: Final = "forward"
_FORBIDDEN: Final = (IPv4Network("203.0.113.99/32"), IPv6Network("2001:db8:1::99/128"))
"""Where the operator lets nobody go; nobody is there either."""


def rules() -> list[Request]:
    """A table with chains at the hooks that runtimes use, and rules in them."""
    requests = [
        nft.add_table(TABLE),
        nft.add_chain(TABLE, FORWARD, hook="forward", priority=-5),
        nft.add_chain(TABLE, "leaving", hook="postrouting", priority=90, kind="nat"),
        nft.add_rule(TABLE, FORWARD, nft.counter(), comment="operator: everything"),
    ]
    requests += [
        nft.add_rule(
            TABLE, FORWARD, nft.daddr(network), nft.verdict("drop"), comment="operator: not there"
        )
        for network in _FORBIDDEN
    ]
    return requests


@contextmanager
def operating(host: Place) -> Iterator[None]:
    """Have the operator's table in the host while the body runs."""
    load(host)
    try:
        yield
    finally:
        _apply(host, [nft.add_table(TABLE), nft.del_table(TABLE)])


def load(host: Place) -> None:
    """Load the operator's table."""
    _apply(host, rules())


def flush(host: Place) -> None:
    """`nft flush ruleset`: every table goes that no process has reserved for itself."""
    _apply(host, [nft.flush()])


def facts(host: Place) -> dict[str, dict[str, str]]:
    """What there is of the operator's in the host's nft, by name."""
    found = Snapshot.of(host).facts
    return {name: dict(known) for name, known in found.items() if f" {TABLE.name}" in name}


def _apply(host: Place, requests: list[Request]) -> None:
    with host.open() as space, nft.Nft(space) as opened:
        opened.apply(requests)
