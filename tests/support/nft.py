"""Rules of nftables in a netns that a test has made."""

from __future__ import annotations

from linux import nftables
from linux.netns import NetNS
from linux.nftables import Expression, Nft, Table

TABLE = Table("inet", "tested")


def add_rule(
    space: NetNS, hook: nftables.Hook, *parts: list[Expression], kind: str = "filter"
) -> None:
    """Add a rule to a chain of `TABLE` at a hook.

    The rule exists until its netns or table is removed.
    """
    chain = nftables.add_chain(TABLE, hook, hook=hook, kind=kind)  # type: ignore[arg-type] # a literal
    with Nft(space) as rules:
        rules.apply([nftables.add_table(TABLE), chain, nftables.add_rule(TABLE, hook, *parts)])
