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
    """Fork a process that holds the descriptor until it is killed, and yield its pidfd."""
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


def test_flush_keeps_owned_tables(rules: Nft, space: NetNS) -> None:
    """Whoever flushes, but the owner: what is reserved stays."""
    plain = Table("ip6", "plain")
    with Nft(space) as owner:
        owner.apply([nftables.add_table(TABLE, owned=True), nftables.add_table(plain)])
        rules.apply([nftables.flush()])
        assert rules.tables() == [TABLE]
        owner.apply([nftables.flush()])
        assert rules.tables() == []


def test_table_without_owner_outlives_its_socket(rules: Nft, space: NetNS) -> None:
    """The kernel keeps it after the socket is closed."""
    with Nft(space) as maker:
        maker.apply([nftables.add_table(TABLE)])
    assert rules.tables() == [TABLE]


def test_owned_table_ends_with_the_last_process_that_holds_the_socket(
    rules: Nft, space: NetNS
) -> None:
    """The kernel closes the descriptors of a process, however it ends."""
    with Nft(space) as owner, holder(owner.fileno()):
        owner.apply([nftables.add_table(TABLE, owned=True)])
        owner.close()
        assert rules.tables() == [TABLE]
    assert rules.tables() == []


def test_process_that_inherits_the_socket_owns_the_table(rules: Nft, space: NetNS) -> None:
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
