"""Tests of batches, dumps and errors over real netlink sockets."""

from __future__ import annotations

import contextlib
import copy
import errno
import itertools
import pickle
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linux import nftables, rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, NetlinkError, Request, attr, attributes, nest
from linux.netns import NetNS
from linux.syscalls import capset
from tests.linux import decoder

MANY = 1000
"""Number of requests; a dump or acknowledgements of so many exceed one datagram or buffer."""


ADDRESSES = [IPv4Interface((int(IPv4Address("10.0.0.1")) + n, 32)) for n in range(MANY)]


def many() -> list[Request]:
    """Return a request for each of `ADDRESSES`, which adds the address to `lo`."""
    return [rtnetlink.add_address(rtnetlink.LO, address) for address in ADDRESSES]


def unprivileged(call: Callable[[], object]) -> object:
    """Call the function in a thread without capabilities; other threads keep theirs."""

    def without() -> object:
        capset(0)
        return call()

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(without).result(timeout=20)


# --- batches ------------------------------------------------------------------------


def test_thousand_addresses_fit_the_smallest_receive_buffer(space: NetNS) -> None:
    """A batch and a dump of a thousand addresses work with the smallest receive buffer.

    pyroute2 lists all the addresses. A dump has each address once and in order.
    """
    with Netlink(space) as netlink:
        netlink._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        netlink.send(many())
        for _ in range(2):
            found = [item.address for item in rtnetlink_dump.addresses(netlink, index=rtnetlink.LO)]
            assert found[1:-1] == ADDRESSES
    decoded = decoder.addresses(space, rtnetlink.LO)
    assert len([name for name in decoded if name.startswith("10.0.")]) == MANY


def test_empty_batch_returns_at_once(space: NetNS) -> None:
    """A batch without requests returns without waiting for a reply."""
    with Netlink(space) as netlink, nftables.Nft(space) as rules:
        netlink.send([])
        rules.apply([])
        assert netlink.get([]) == []


def test_error_names_the_failed_request_of_a_batch(space: NetNS) -> None:
    """The error of a batch names the failed request and has the kernel's explanation."""
    culprit = rtnetlink.add_route(IPv4Network("10.9.0.0/16"), via=IPv4Address("192.0.2.1"))
    batch = many()
    batch.insert(700, culprit)
    with Netlink(space) as netlink, pytest.raises(NetlinkError) as caught:
        netlink.send(batch)
    error = caught.value
    assert (error.errno, error.what) == (errno.ENETUNREACH, culprit.what)
    assert error.explanation == "Nexthop has invalid gateway"
    assert str(error).endswith(
        "add route 10.9.0.0/16 via 192.0.2.1: Network is unreachable (Nexthop has invalid gateway)"
    )


def test_batch_continues_after_a_failure_and_raises_the_first(space: NetNS) -> None:
    """A batch carries out all its requests, then raises the first failure."""
    bad = [rtnetlink.add_address(index, IPv4Interface("10.0.0.1/8")) for index in (77, 78)]
    good = rtnetlink.add_bridge("after")
    with Netlink(space) as netlink:
        with pytest.raises(NetlinkError, match="to link 77: No such device"):
            netlink.send([*bad, good])
        with pytest.raises(NetlinkError, match="to link 78: No such device"):
            netlink.send([bad[1]])
        assert rtnetlink_dump.link(netlink, "after").kind == "bridge"


def test_missing_ok_ignores_missing_objects(space: NetNS) -> None:
    """With `missing_ok`, a request about a missing link, address, route or neighbour succeeds."""
    batch = [
        rtnetlink.del_link("missing"),
        rtnetlink.del_address(rtnetlink.LO, IPv4Interface("10.0.0.1/8")),
        rtnetlink.del_route(None, via=IPv4Address("10.0.0.1")),
        rtnetlink.del_neighbour(rtnetlink.LO, IPv4Address("10.0.0.1")),
    ]
    with Netlink(space) as netlink:
        netlink.send(batch, missing_ok=True)
        for request in batch:
            with pytest.raises(NetlinkError):
                netlink.send([request])


def test_missing_ok_raises_other_failures(space: NetNS) -> None:
    """With `missing_ok`, a failure for any other reason is raised."""
    batch = [rtnetlink.del_link("missing"), rtnetlink.add_bridge("b"), rtnetlink.add_bridge("b")]
    with Netlink(space) as netlink, pytest.raises(NetlinkError, match="add bridge b: File exists"):
        netlink.send(batch, missing_ok=True)


# --- refusals -----------------------------------------------------------------------

TABLE = nftables.Table("inet", "mine")


def test_batch_without_permission_is_refused(space: NetNS) -> None:
    """If a batch is not permitted, its error names the first request."""
    with Netlink(space) as netlink, pytest.raises(NetlinkError, match=r"10\.0\.0\.1/32.* not perm"):
        unprivileged(lambda: netlink.send(many()))
    assert not any(name.startswith("10.") for name in decoder.addresses(space, rtnetlink.LO))


def test_transaction_without_permission_is_refused(space: NetNS) -> None:
    """If a whole transaction is not permitted, it raises an error at once."""
    with nftables.Nft(space) as rules:
        with pytest.raises(NetlinkError, match=r"begin nft transaction: .* not permitted"):
            unprivileged(lambda: rules.apply([nftables.add_table(TABLE)]))
        assert rules.tables() == []


def test_nft_transaction_is_all_or_nothing(space: NetNS) -> None:
    """If one request of an nft transaction fails, no request has an effect.

    The error names the failed request.
    """
    good = [nftables.add_rule(TABLE, "here", nftables.counter()) for _ in range(MANY)]
    bad = nftables.add_rule(TABLE, "nowhere", nftables.counter(), comment="the culprit")
    base = [nftables.add_table(TABLE), nftables.add_chain(TABLE, "here")]
    with nftables.Nft(space) as rules:
        with pytest.raises(NetlinkError) as caught:
            rules.apply([*base, *good, bad, *good])
        assert (caught.value.errno, caught.value.what) == (errno.ENOENT, bad.what)
        assert rules.tables() == []
        rules.apply([*base, *good])
        assert len(rules.rules(TABLE)) == MANY


def test_nft_transaction_with_a_jump_loop_is_undone(space: NetNS) -> None:
    """An nft transaction with a loop of jumps raises an error and has no effect.

    The kernel only detects the loop when it commits the transaction.
    """
    loop = [
        nftables.add_table(TABLE),
        nftables.add_chain(TABLE, "base", hook="input"),
        *(nftables.add_chain(TABLE, name) for name in "ab"),
        *(nftables.add_rule(TABLE, name, nftables.jump(to)) for name, to in ("ab", "ba")),
        nftables.add_rule(TABLE, "base", nftables.jump("a")),
    ]
    with nftables.Nft(space) as rules:
        with pytest.raises(NetlinkError, match="Too many links"):
            rules.apply(loop)
        assert rules.tables() == []


# --- queries ------------------------------------------------------------------------


class _Meddled(Netlink):
    """A socket that calls `meddle` at its next read."""

    meddle: Callable[[], object] | None = None

    def _messages(self) -> Iterator[tuple[int, int, int, bytes]]:
        if self.meddle:
            meddle, self.meddle = self.meddle, None
            meddle()
        yield from super()._messages()


def test_interrupted_dump_is_repeated(space: NetNS) -> None:
    """If addresses change during a dump, the dump is repeated until it is consistent."""
    new = IPv4Interface("10.1.0.1/32")
    with Netlink(space) as other, _Meddled(space) as netlink:
        netlink.send(many())
        netlink.meddle = lambda: other.send(
            [
                rtnetlink.del_address(rtnetlink.LO, ADDRESSES[0]),
                rtnetlink.add_address(rtnetlink.LO, new),
            ]
        )
        found = [item.address for item in rtnetlink_dump.addresses(netlink, index=rtnetlink.LO)]
    assert found[1:-1] == [*ADDRESSES[1:], new]


@pytest.mark.parametrize("request_", [rtnetlink.add_bridge("b"), rtnetlink.del_link("missing")])
def test_reply_to_an_interrupted_request_is_discarded(space: NetNS, request_: Request) -> None:
    """The reply to an interrupted request is discarded.

    The next request gets its own reply.
    """

    def interrupt() -> None:
        raise KeyboardInterrupt

    with _Meddled(space) as netlink:
        for ask in (
            lambda: netlink.send([rtnetlink.set_link(rtnetlink.LO, up=True)]),
            lambda: rtnetlink_dump.link(netlink, "lo"),
            lambda: rtnetlink_dump.links(netlink)[0],
        ):
            netlink.meddle = interrupt
            with pytest.raises(KeyboardInterrupt):
                netlink.send([request_])
            assert ask() in (None, rtnetlink_dump.link(netlink, "lo"))


def test_failed_query_names_its_object(space: NetNS) -> None:
    """A query for a missing link raises an error with the link's name.

    The socket stays usable.
    """
    with Netlink(space) as netlink:
        with pytest.raises(NetlinkError, match="look up link missing: No such device"):
            rtnetlink_dump.link(netlink, "missing")
        assert rtnetlink_dump.link(netlink, "lo").ifindex == rtnetlink.LO


# --- errors and attributes ------------------------------------------------------------


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_netlink_error_survives_pickle_and_copy(
    again: Callable[[NetlinkError], NetlinkError],
) -> None:
    """A netlink error has the same text after pickling and copying."""
    error = NetlinkError(errno.ENODEV, "remove link x", "not mine")
    error.add_note("seen in passing")
    copied = again(error)
    assert type(copied) is NetlinkError
    assert (str(copied), copied.errno, copied.__notes__) == (
        str(error),
        errno.ENODEV,
        error.__notes__,
    )
    assert (copied.what, copied.explanation) == ("remove link x", "not mine")


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_encoded_attributes_decode_to_the_original_attributes(
    pairs: list[tuple[int, bytes]],
) -> None:
    """Attributes encoded by `attr` and `nest` decode to the same, without padding and flags."""
    built = nest(7, *(attr(kind, payload) for kind, payload in pairs))
    ((kind, inside),) = attributes(built)
    assert kind == 7
    assert list(attributes(inside)) == pairs


@pytest.mark.parametrize("length", [0, 3, 9])
def test_malformed_attribute_is_an_error(length: int) -> None:
    """An attribute is an error if its length is below that of the header or exceeds the message."""
    with pytest.raises(ValueError, match=f"attribute of length {length} at 4"):
        list(itertools.islice(attributes(attr(1, b"") + struct.pack("=HH4s", length, 1, b"")), 9))


@given(st.binary(max_size=60), st.integers(0, 20))
def test_arbitrary_bytes_decode_or_raise_value_error(data: bytes, offset: int) -> None:
    """Arbitrary bytes decode or raise ValueError, but no other error."""
    with contextlib.suppress(ValueError):
        list(attributes(data, offset))
