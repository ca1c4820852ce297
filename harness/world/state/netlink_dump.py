"""Raw dumps of one network namespace: the kernel's netlink messages as they arrive.

Raw dumps are cheap to take and to compare; `harness.world.state.describe` decodes only the messages
that differ. They contain no statistics. The sysctls of single links come in the messages about
links and neighbour tables. All other sysctls are read from files that stay open. Rules of legacy
iptables (not iptables-nft) do not appear.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import socket
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from typing import Final, NamedTuple, Self

from linux import rtnetlink, rtnetlink_dump
from linux.netlink import (
    NETLINK_NETFILTER,
    NLM_F_DUMP,
    Netlink,
    NetlinkError,
    Request,
    attributes,
    text,
    u32,
)
from linux.netns import NetNS

Messages = tuple[bytes, ...]

_EXT_MASK: Final = 29
_SKIP_STATS: Final = 1 << 3
_NTF_PROXY: Final = 1 << 3
_RTM_GETNEIGHTBL: Final = 66
_NFGEN: Final = bytes(4)
_NFT: Final = 10 << 8
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETELEMENT = 1, 4, 7, 10, 13
_GETGEN, _GETOBJECT, _GETFLOWTABLE = 16, 19, 23
_LIVELY: Final = 0x10 | 0x20
"""NFT_SET_TIMEOUT, NFT_SET_EVAL: flags of sets that packets fill."""
_ENOENT: Final = 2


class Ruleset(NamedTuple):
    """The whole nftables ruleset at one generation."""

    tables: Messages = ()
    chains: Messages = ()
    rules: Messages = ()
    sets: Messages = ()
    elements: tuple[tuple[bytes, Messages], ...] = ()
    """Each set with its elements, except the sets that packets fill."""
    objects: Messages = ()
    flowtables: Messages = ()


class Raw(NamedTuple):
    """State of one namespace at one moment, as netlink messages."""

    links: Messages = ()
    addresses: Messages = ()
    routes: Messages = ()
    rules: Messages = ()
    neighbours: Messages = ()
    proxies: Messages = ()
    forwarding: Messages = ()
    """The bridges' forwarding databases."""
    timings: Messages = ()
    """The neighbour tables' parameters, for each link."""
    disciplines: Messages = ()
    """Configured queueing disciplines, without their counters."""
    ruleset: Ruleset = Ruleset()
    sysctls: tuple[tuple[str, bytes], ...] = ()


_QUESTIONS: Final = tuple(
    Request(kind, NLM_F_DUMP, body, f"list {what}")
    for kind, body, what in (
        (
            rtnetlink.RTM_GETLINK,
            rtnetlink.LINK.pack(0, 0, 0, 0, 0) + u32(_EXT_MASK, _SKIP_STATS),
            "links",
        ),
        (rtnetlink.RTM_GETRULE, rtnetlink.RULE.pack(0, 0, 0, 0, 0, 0, 0), "policy rules"),
        (rtnetlink.RTM_GETNEIGH, rtnetlink.NEIGH.pack(0, 0, 0, 0, 0), "neighbours"),
        (
            rtnetlink.RTM_GETNEIGH,
            rtnetlink.NEIGH.pack(0, 0, 0, _NTF_PROXY, 0),
            "proxied neighbours",
        ),
        (
            rtnetlink.RTM_GETNEIGH,
            rtnetlink.NEIGH.pack(socket.AF_BRIDGE, 0, 0, 0, 0),
            "forwarding entries",
        ),
        (_RTM_GETNEIGHTBL, bytes(4), "neighbour tables"),
    )
)
"""Requests in the order of `Raw`'s fields, except those sent once per family."""
_DISCIPLINES: Final = Request(38, NLM_F_DUMP, bytes(20), "list queueing disciplines")
"""RTM_GETQDISC (linux/pkt_sched.h)."""
_DISCIPLINE: Final = 20
_OF_LINK: Final = 16
"""Length in bytes of a discipline's header, and of the part before its use count."""
_TCA_KIND, _TCA_OPTIONS = 1, 2


_NOT_SEEN: Final[tuple[bytes, Messages]] = (b"", ())


class Dumps:
    """Open sockets and files of a namespace, for taking dumps repeatedly.

    Use it as a context manager, or `close` it, because it keeps the namespace alive.
    """

    def __init__(self, space: NetNS, *, once: bool = False) -> None:
        """Open the sockets and sysctls of the namespace.

        With `once` the sysctls are not kept open: `take` opens and closes them.
        """
        with contextlib.ExitStack() as stack:
            self._route = stack.enter_context(Netlink(space))
            self._netfilter = stack.enter_context(Netlink(space, protocol=NETLINK_NETFILTER))
            self._seen, self._ruleset = _NOT_SEEN, Ruleset()
            self._space = stack.enter_context(NetNS(os.dup(space.fd)))
            self._keys: list[str] = []
            self._files: list[int] = []
            stack.callback(self._close_files)
            if not once:
                self._open()
            self._resources = stack.pop_all()

    def _open(self) -> None:
        """Open all sysctls; keep none of them open if the limit on open files is too low."""
        _allow_files()
        with self._space.entered():
            for key, fd, _ in _open_files():
                try:
                    self._files.append(_out_of_the_way(fd))
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.EINVAL):
                        raise
                    self._close_files()
                    return
                self._keys.append(key)

    def take(self) -> Raw:
        """Return the current state of the namespace."""
        links, rules, neighbours, proxies, forwarding, timings = (
            tuple(self._route.ask(question)) for question in _QUESTIONS
        )
        return Raw(
            links,
            self._of_each_family(rtnetlink_dump.addresses_request),
            self._of_each_family(rtnetlink_dump.routes_request),
            rules,
            neighbours,
            proxies,
            forwarding,
            timings,
            tuple(self._disciplines()),
            self._nft(),
            tuple(self._sysctls()),
        )

    def _of_each_family(self, about: Callable[[int], Request]) -> Messages:
        answers = (
            rtnetlink_dump.dump_family(self._route, about(item)) for item in rtnetlink_dump.FAMILIES
        )
        return tuple(chain.from_iterable(answers))

    def _disciplines(self) -> Iterator[bytes]:
        """Yield the queueing disciplines with a handle; a link's default discipline has none."""
        try:
            answers = self._route.ask(_DISCIPLINES)
        except NetlinkError as error:
            if error.errno != errno.EOPNOTSUPP:  # a kernel without any
                raise
            return
        for answer in answers:
            if any(answer[8:12]):
                found = dict(attributes(answer, _DISCIPLINE))
                yield answer[:_OF_LINK] + found[_TCA_KIND] + found.get(_TCA_OPTIONS, b"")

    def _sysctls(self) -> Iterable[tuple[str, bytes]]:
        """Return key and value of each sysctl.

        The files are read through `map` for speed: each dump reads hundreds of files.
        """
        if self._files:
            values = list(map(os.pread, self._files, repeat(_SHORT), repeat(0)))
            if len(max(values, key=len)) == _SHORT:  # may be truncated
                values = list(map(os.pread, self._files, repeat(_LONG), repeat(0)))
            return zip(self._keys, values, strict=True)
        with self._space.entered():
            return [(key, _closed(fd, value)) for key, fd, value in _open_files()]

    def _nft(self) -> Ruleset:
        """Return the nftables ruleset; dump it only if its generation or its tables have changed.

        The tables are compared too: the generation does not change when a table is removed with the
        socket of its owner.
        """
        while (seen := self._nft_seen()) != self._seen:
            self._ruleset = self._dump_nft()
            if self._nft_seen() == seen:
                self._seen = seen
        return self._ruleset

    def _nft_seen(self) -> tuple[bytes, Messages]:
        (answer,) = self._netfilter.ask(Request(_NFT | _GETGEN, 0, _NFGEN, "ask nft's generation"))
        return dict(attributes(answer, 4))[1], self._ask_nft(_GETTABLE, "tables")

    def _dump_nft(self) -> Ruleset:
        sets = self._ask_nft(_GETSET, "sets")
        return Ruleset(
            self._ask_nft(_GETTABLE, "tables"),
            self._ask_nft(_GETCHAIN, "chains"),
            self._ask_nft(_GETRULE, "rules"),
            sets,
            tuple(self._elements(sets)),
            self._ask_nft(_GETOBJECT, "objects"),
            self._ask_nft(_GETFLOWTABLE, "flowtables"),
        )

    def _ask_nft(self, kind: int, what: str, body: bytes = _NFGEN) -> Messages:
        return tuple(self._netfilter.ask(Request(_NFT | kind, NLM_F_DUMP, body, f"list {what}")))

    def _elements(self, sets: Messages) -> Iterator[tuple[bytes, Messages]]:
        for item in sets:
            found = dict(attributes(item, 4))
            if int.from_bytes(found.get(3, b""), "big") & _LIVELY:
                continue
            table, name = (found[key].rstrip(b"\0").decode() for key in (1, 2))
            body = item[:1] + _NFGEN[1:] + text(1, table) + text(2, name)
            try:
                yield item, self._ask_nft(_GETELEMENT, f"elements of set {name}", body)
            except NetlinkError as error:
                if error.errno != _ENOENT:  # the set is gone, so the generation has changed
                    raise

    def _close_files(self) -> None:
        for fd in self._files:
            os.close(fd)
        self._files.clear()

    def close(self) -> None:
        """Close all sockets and files."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_ROOT: Final = "/proc/sys/"
_PER_LINK: Final = tuple(
    f"net/{family}/{kind}" for family in ("ipv4", "ipv6") for kind in ("conf", "neigh")
)
_COMMON: Final = frozenset({"all", "default"})
_SHORT, _LONG = 256, 1 << 16
"""Bytes to read of a sysctl. Most values are shorter, and the kernel clears the whole buffer."""
_COUNTS: Final = frozenset({"net/netfilter/nf_conntrack_count"})


_LOW: Final = 1024
"""Limit of the descriptors that select(2) accepts; lower ones are left to other code."""
_MOST: Final = 8192


def _allow_files() -> None:
    """Raise the limit on open files, because a namespace has about five hundred sysctls."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(_MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _closed(fd: int, value: bytes) -> bytes:
    os.close(fd)
    return value


def _out_of_the_way(fd: int) -> int:
    """Move a descriptor to a high number; raise EMFILE or EINVAL if the limit is too low."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOW)
    finally:
        os.close(fd)


def _open_files() -> Iterator[tuple[str, int, bytes]]:
    """Open every sysctl under `net.` of the thread's namespace, except those of single links.

    Yields the key, the descriptor and the value.
    """
    for directory, below, names in os.walk(f"{_ROOT}net"):
        where = directory.removeprefix(_ROOT)
        below.sort()
        if where in _PER_LINK:
            below[:] = [name for name in below if name in _COMMON]
        for name in sorted(names):
            path = f"{where}/{name}"
            if path in _COUNTS:
                continue
            try:
                fd = os.open(f"{_ROOT}{path}", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # write-only
                continue
            try:
                value = os.pread(fd, _LONG, 0)
            except OSError:  # never set (stable_secret)
                os.close(fd)
            else:
                yield path.replace("/", "."), fd, value
