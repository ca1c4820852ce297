"""Tables that belong to a socket: nobody else's to change, and gone with its last holder."""

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

TABLE = Table("inet", "held")


@contextmanager
def holder(fd: int) -> Iterator[int]:
    """A process that has the descriptor too, until it is killed; its pidfd."""
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


def test_nobody_else_changes_it(rules: Nft, space: NetNS) -> None:
    """Another socket can neither add to it nor remove it; its owner can."""
    with Nft(space) as owner:
        owner.apply([nftables.add_table(TABLE, owned=True)])
        for request in (nftables.add_chain(TABLE, "more"), nftables.del_table(TABLE)):
            with pytest.raises(NetlinkError, match="Operation not permitted"):
                rules.apply([request])
        owner.apply([nftables.add_chain(TABLE, "more")])
        owner.apply([nftables.del_table(TABLE), nftables.add_table(TABLE, owned=True)])
        assert rules.tables() == [TABLE]
    assert rules.tables() == []


def test_a_flush_takes_plain_tables_only(rules: Nft, space: NetNS) -> None:
    """Whoever flushes, but the owner: what is reserved stays."""
    plain = Table("ip6", "plain")
    with Nft(space) as owner:
        owner.apply([nftables.add_table(TABLE, owned=True), nftables.add_table(plain)])
        rules.apply([nftables.flush()])
        assert rules.tables() == [TABLE]
        owner.apply([nftables.flush()])
        assert rules.tables() == []


def test_a_plain_table_stays(rules: Nft, space: NetNS) -> None:
    """What is not owned outlives the socket that made it."""
    with Nft(space) as maker:
        maker.apply([nftables.add_table(TABLE)])
    assert rules.tables() == [TABLE]


def test_it_goes_with_the_last_process_that_has_the_socket(rules: Nft, space: NetNS) -> None:
    """However that process ends: the kernel closes what it had."""
    with Nft(space) as owner, holder(owner.fileno()):
        owner.apply([nftables.add_table(TABLE, owned=True)])
        owner.close()
        assert rules.tables() == [TABLE]
    assert rules.tables() == []


def test_whoever_is_given_the_socket_is_the_owner(rules: Nft, space: NetNS) -> None:
    """A duplicate taken from the holder changes the table as the original did."""
    with Nft(space) as owner:
        number = owner.fileno()
        with holder(number) as process:
            owner.apply([nftables.add_table(TABLE, owned=True)])
            owner.close()
            with Nft(fd=pidfd_getfd(process, number)) as duplicate:
                duplicate.apply([nftables.add_chain(TABLE, "more")])
                duplicate.apply([nftables.del_table(TABLE)])
            assert rules.tables() == []
