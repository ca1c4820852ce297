"""Tests of tables, owned tables, chains and rules, read back through pyroute2."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from linux import nftables
from linux.netlink import NetlinkError
from linux.netns import NetNS
from linux.nftables import Nft, Table
from linux.syscalls import pidfd_getfd
from tests.linux import decoder

TABLE = Table("inet", "mine")


def test_base_chain_has_hook_priority_type_and_policy(rules: Nft, space: NetNS) -> None:
    """A base chain has its hook, priority, type and policy.

    A priority may be negative.
    """
    asked = [
        ("a", "prerouting", -150, "filter", "accept"),
        ("b", "input", 0, "filter", "drop"),
        ("c", "forward", 10, "filter", "accept"),
        ("d", "output", -100, "nat", "accept"),
        ("e", "postrouting", 100, "nat", "accept"),
        ("f", "output", -150, "route", "accept"),
    ]
    rules.apply(
        [
            nftables.add_table(TABLE),
            *(
                nftables.add_chain(
                    TABLE,
                    name,
                    hook=hook,  # type: ignore[arg-type] # literals in a table
                    priority=priority,
                    kind=kind,  # type: ignore[arg-type] # likewise
                    policy=policy,  # type: ignore[arg-type] # likewise
                )
                for name, hook, priority, kind, policy in asked
            ),
        ]
    )
    with decoder.nftables(space) as other:
        found = [
            (
                chain.get_attr("NFTA_CHAIN_NAME"),
                chain.get_nested("NFTA_CHAIN_HOOK", "NFTA_HOOK_HOOKNUM"),
                chain.get_nested("NFTA_CHAIN_HOOK", "NFTA_HOOK_PRIORITY"),
                chain.get_attr("NFTA_CHAIN_TYPE"),
                chain.get_attr("NFTA_CHAIN_POLICY"),
            )
            for chain in other.get_chains()
        ]
    hooks = ["prerouting", "input", "forward", "output", "postrouting"]  # NF_INET_…
    policies = ["drop", "accept"]  # NF_DROP, NF_ACCEPT
    assert found == [
        (name, hooks.index(hook), priority, kind, policies.index(policy))
        for name, hook, priority, kind, policy in asked
    ]


@pytest.mark.parametrize("family", ["inet", "ip", "ip6", "arp", "bridge"])
def test_table_is_listed_under_its_family(rules: Nft, space: NetNS, family: str) -> None:
    """A table is listed under its family.

    Adding an existing table changes nothing.
    """
    table = Table(family, "name")
    rules.apply([nftables.add_table(table), nftables.add_chain(table, "inside")])
    rules.apply([nftables.add_table(table)])
    assert rules.tables() == [table]
    with decoder.nftables(space) as other:
        assert [item.get_attr("NFTA_CHAIN_NAME") for item in other.get_chains()] == ["inside"]
    rules.apply([nftables.del_table(table)])
    assert rules.tables() == []


def test_rules_are_listed_in_order_with_comments(rules: Nft, space: NetNS) -> None:
    """Rules are listed in the order of the chain, with their comments.

    They are added at the end or in front. Handle and comment are as in the kernel.
    """
    long = "x" * 300
    rules.apply(
        [
            nftables.add_table(TABLE),
            nftables.add_chain(TABLE, "chain"),
            nftables.add_rule(TABLE, "chain", nftables.counter(), comment="second"),
            nftables.add_rule(TABLE, "chain", nftables.counter()),
            nftables.add_rule(TABLE, "chain", nftables.counter(), comment="ünï"),
            nftables.add_rule(TABLE, "chain", nftables.counter(), comment=long),
            nftables.add_rule(TABLE, "chain", nftables.counter(), comment="first", first=True),
        ]
    )
    found = rules.rules(TABLE)
    assert [rule.comment for rule in found] == ["first", "second", "", "ünï", long[:253]]
    assert {rule.chain for rule in found} == {"chain"}
    with decoder.nftables(space) as other:
        dumped = list(other.get_rules())
    assert [rule.handle for rule in found] == [d.get_attr("NFTA_RULE_HANDLE") for d in dumped]
    assert dumped[0].get_attr("NFTA_RULE_USERDATA") == "first"


def test_removed_rule_and_table_are_not_listed(rules: Nft) -> None:
    """A rule is removed by its handle, and a table with its chains and rules."""
    rules.apply(
        [
            nftables.add_table(TABLE),
            *(nftables.add_chain(TABLE, name) for name in "ab"),
            nftables.add_rule(TABLE, "a", nftables.counter(), comment="a1"),
            nftables.add_rule(TABLE, "a", nftables.jump("b"), comment="a2"),
            nftables.add_rule(TABLE, "b", nftables.counter(), comment="b1"),
            nftables.add_rule(TABLE, "b", nftables.counter(), comment="b2"),
        ]
    )

    def left() -> list[str]:
        return [rule.comment for rule in rules.rules(TABLE)]

    assert left() == ["a1", "a2", "b1", "b2"]
    rules.apply([nftables.del_rule(TABLE, rules.rules(TABLE)[0])])
    assert left() == ["a2", "b1", "b2"]
    rules.apply([nftables.del_table(TABLE)])
    assert rules.tables() == []


def test_rules_of_a_table_exclude_other_tables(rules: Nft) -> None:
    """The list of a table's rules has no rules of other tables.

    Other tables have the same name in another family, or another name.
    """
    others = [Table("ip", "mine"), Table("inet", "other")]
    for table in (TABLE, *others):
        comment = f"{table.family} {table.name}"
        rules.apply(
            [
                nftables.add_table(table),
                nftables.add_chain(table, "chain"),
                nftables.add_rule(table, "chain", nftables.counter(), comment=comment),
            ]
        )
    assert [rule.comment for rule in rules.rules(TABLE)] == ["inet mine"]
    assert rules.rules(Table("inet", "missing")) == []


OWNED = Table("inet", "held")


@contextmanager
def holder(fd: int) -> Iterator[int]:
    """Fork a process that keeps the descriptor open until it is killed; yield its pidfd."""
    pid = os.fork()
    if not pid:
        signal.pause()
        os._exit(0)
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(handle)


def test_owned_table_refuses_other_sockets(rules: Nft, space: NetNS) -> None:
    """Only the socket that owns a table can change or remove the table."""
    with Nft(space) as owner:
        owner.apply([nftables.add_table(OWNED, owned=True)])
        for request in (nftables.add_chain(OWNED, "more"), nftables.del_table(OWNED)):
            with pytest.raises(NetlinkError, match="Operation not permitted"):
                rules.apply([request])
        owner.apply([nftables.add_chain(OWNED, "more")])
        owner.apply([nftables.del_table(OWNED), nftables.add_table(OWNED, owned=True)])
        assert rules.tables() == [OWNED]
    assert rules.tables() == []


def test_flush_keeps_owned_tables(rules: Nft, space: NetNS) -> None:
    """A flush by another socket removes only tables that have no owner."""
    plain = Table("ip6", "plain")
    with Nft(space) as owner:
        owner.apply([nftables.add_table(OWNED, owned=True), nftables.add_table(plain)])
        rules.apply([nftables.flush()])
        assert rules.tables() == [OWNED]
        owner.apply([nftables.flush()])
        assert rules.tables() == []


def test_owned_table_ends_with_the_last_process_that_holds_the_socket(
    rules: Nft, space: NetNS
) -> None:
    """An owned table exists until the last process that holds the owner's socket has ended.

    The kernel closes the descriptors of a process, however it ends.
    """
    with Nft(space) as owner, holder(owner.fileno()):
        owner.apply([nftables.add_table(OWNED, owned=True)])
        owner.close()
        assert rules.tables() == [OWNED]
    assert rules.tables() == []


def test_process_that_inherits_the_socket_owns_the_table(rules: Nft, space: NetNS) -> None:
    """A process that has a duplicate of the owner's socket can change the table."""
    with Nft(space) as owner:
        number = owner.fileno()
        with holder(number) as process:
            owner.apply([nftables.add_table(OWNED, owned=True)])
            owner.close()
            with Nft(fd=pidfd_getfd(process, number)) as duplicate:
                duplicate.apply([nftables.add_chain(OWNED, "more")])
                duplicate.apply([nftables.del_table(OWNED)])
            assert rules.tables() == []
