"""The operator's own firewall, an nft table that exists before any container."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from harness.testbench.netns_view import NetnsView
from linux import nftables
from linux.netlink import Request

TABLE: Final = nftables.Table("inet", "operator")
FORWARD: Final = "forward"
_FORBIDDEN: Final = (IPv4Network("203.0.113.99/32"), IPv6Network("2001:db8:1::99/128"))
"""Addresses that the operator blocks, which are unassigned too."""


def rules() -> list[Request]:
    """Return requests that create the operator's table.

    The table has rules in chains at the hooks that runtimes use too.
    """
    requests = [
        nftables.add_table(TABLE),
        nftables.add_chain(TABLE, FORWARD, hook="forward", priority=-5),
        nftables.add_chain(TABLE, "leaving", hook="postrouting", priority=90, kind="nat"),
        nftables.add_rule(TABLE, FORWARD, nftables.counter(), comment="operator: everything"),
    ]
    requests += [
        nftables.add_rule(
            TABLE,
            FORWARD,
            nftables.daddr(network),
            nftables.verdict("drop"),
            comment="operator: not there",
        )
        for network in _FORBIDDEN
    ]
    return requests


@contextmanager
def operator_table(host: NetnsView) -> Iterator[None]:
    """Keep the operator's table in the host while the body runs."""
    load(host)
    try:
        yield
    finally:
        _apply(host, [nftables.add_table(TABLE), nftables.del_table(TABLE)])


def load(host: NetnsView) -> None:
    """Load the operator's table."""
    _apply(host, rules())


def flush(host: NetnsView) -> None:
    """Run `nft flush ruleset`, which removes every table that no process owns."""
    _apply(host, [nftables.flush()])


def facts(host: NetnsView) -> dict[str, dict[str, str]]:
    """Return the operator's nft objects in the host, by name."""
    found = host.snapshot().facts
    return {name: dict(known) for name, known in found.items() if f" {TABLE.name}" in name}


def _apply(host: NetnsView, requests: list[Request]) -> None:
    with host.open() as space, nftables.Nft(space) as opened:
        opened.apply(requests)
