"""What the kernel keeps about a network namespace, as data to compare before and after.

Links, addresses, routes of every table, policy rules, nft rules and sysctls. Taken
from the dumps attribute by attribute, so that what nobody thought of shows as
well. Left out is what moves by itself: counters, timers, ages, carrier, and the
entries of sets. Rules of the older iptables (not iptables-nft) cannot be seen here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from harness.place import Place
from harness.probe.settle import await_ready
from linux import rtnl
from linux.netlink import NETLINK_NETFILTER, NLM_F_DUMP, Netlink, Request, attributes, number
from linux.netns import NetNS

Facts = dict[str, dict[str, str]]
"""What is known about each thing, by what it is called: `link eth0` → {`mtu`: …}."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of one namespace at one moment."""

    facts: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, place: Place) -> Snapshot:
        """Look at a place, once none of its addresses is tentative any more."""
        facts: Facts = {}
        with place.open() as space:
            await_ready([space])
            with Netlink(space) as netlink:
                _links(netlink, facts)
                _addresses(netlink, facts)
                _routes(netlink, facts)
                _policy(netlink, facts)
            with Netlink(space, protocol=NETLINK_NETFILTER) as netlink:
                _nft(netlink, facts)
            _sysctls(space, facts)
        return cls(facts)

    def changes(self, later: Snapshot) -> list[str]:
        """What is different in a later snapshot, one line for each thing."""
        lines = []
        for thing in sorted({*self.facts, *later.facts}):
            was, now = self.facts.get(thing), later.facts.get(thing)
            if was is None:
                lines.append(f"{thing}: new")
            elif now is None:
                lines.append(f"{thing}: gone")
            elif was != now:
                told = (
                    f"{key} was {was.get(key, 'absent')}, is {now.get(key, 'absent')}"
                    for key in sorted({*was, *now})
                    if was.get(key) != now.get(key)
                )
                lines.append(f"{thing}: {'; '.join(told)}")
        return lines


# --- rtnetlink ---------------------------------------------------------------------

_NAMES: Final = {
    1: "address",
    3: "name",
    4: "mtu",
    5: "peer",
    10: "master",
    13: "queue length",
    18: "kind",
    27: "group",
    30: "promiscuity",
    43: "xdp",
}
"""Attributes of a link (if_link.h) by the names that people know."""
_MOVING: Final = frozenset({7, 16, 23, 26, 33, 35, 47, 48})
"""IFLA_STATS, OPERSTATE, STATS64, AF_SPEC (sysctls, told apart), CARRIER and its counts."""
_MOVING_IN_KIND: Final = {
    "bridge": frozenset({16, 17, 18, 19, 48}),  # timers, learned entries
    "port": frozenset({21, 22, 23, 38, 41}),  # timers, multicast listeners
}
_CARRIER: Final = 0x40 | 0x10000
"""IFF_RUNNING, IFF_LOWER_UP."""
_TENTATIVE: Final = 0x04 | 0x40
"""IFA_F_OPTIMISTIC, IFA_F_TENTATIVE."""
_LINKED: Final = 1 | 16
"""RTNH_F_DEAD, RTNH_F_LINKDOWN."""
_RULE: Final = 12
"""Length of `struct fib_rule_hdr`."""
_RTM_GETRULE: Final = 34


def _dump(netlink: Netlink, kind: int, body: bytes, what: str) -> list[bytes]:
    return netlink.ask(Request(kind, NLM_F_DUMP, body, f"list {what}"))


def _links(netlink: Netlink, facts: Facts) -> None:
    for answer in _dump(netlink, rtnl.RTM_GETLINK, rtnl.LINK.pack(0, 0, 0, 0, 0), "links"):
        _, kind, index, flags, _ = rtnl.LINK.unpack_from(answer)
        found = dict(attributes(answer, rtnl.LINK.size))
        known = {"type": str(kind), "index": str(index), "flags": f"{flags & ~_CARRIER:#x}"}
        for key, value in found.items():
            if key not in _MOVING and key != rtnl.IFLA_LINKINFO:
                known[_NAMES.get(key, f"attribute {key}")] = value.hex()
        known |= _link_kind(found.get(rtnl.IFLA_LINKINFO, b""))
        name = found[rtnl.IFLA_IFNAME].rstrip(b"\0").decode()
        facts[f"link {name}"] = known


def _link_kind(info: bytes) -> dict[str, str]:
    found = dict(attributes(info))
    kind = found.get(rtnl.IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
    known = {"kind": kind}
    for part, nested, moving in (
        (kind, rtnl.IFLA_INFO_DATA, _MOVING_IN_KIND.get(kind, frozenset())),
        ("port", rtnl.IFLA_INFO_SLAVE_DATA, _MOVING_IN_KIND["port"]),
    ):
        for key, value in attributes(found.get(nested, b"")):
            if key not in moving:
                known[f"{part} attribute {key}"] = value.hex()
    return known


def _addresses(netlink: Netlink, facts: Facts) -> None:
    for answer in _dump(netlink, rtnl.RTM_GETADDR, rtnl.ADDR.pack(0, 0, 0, 0, 0), "addresses"):
        _, prefix, flags, scope, index = rtnl.ADDR.unpack_from(answer)
        found = dict(attributes(answer, rtnl.ADDR.size))
        flags = number(found.pop(rtnl.IFA_FLAGS)) if rtnl.IFA_FLAGS in found else flags
        address = _address(found.get(rtnl.IFA_LOCAL) or found[rtnl.IFA_ADDRESS])
        known = {"scope": str(scope), "flags": f"{flags & ~_TENTATIVE:#x}"}
        known |= {f"attribute {key}": value.hex() for key, value in found.items() if key != 6}
        facts[f"address {address}/{prefix} of link {index}"] = known  # 6: IFA_CACHEINFO


def _routes(netlink: Netlink, facts: Facts) -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        body = rtnl.ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        for answer in _dump(netlink, rtnl.RTM_GETROUTE, body, "routes"):
            head = rtnl.ROUTE.unpack_from(answer)
            found = dict(attributes(answer, rtnl.ROUTE.size))
            found.pop(12, None)  # RTA_CACHEINFO
            destination = _address(found.get(rtnl.RTA_DST, bytes(4 if family == 2 else 16)))
            if destination.startswith("fe80:"):
                continue  # comes when duplicate address detection is done
            table = number(found.get(rtnl.RTA_TABLE, b"")) or head[4]
            known = {"header": " ".join(map(str, (*head[:8], head[8] & ~_LINKED)))}
            known |= {f"attribute {key}": value.hex() for key, value in found.items()}
            where = number(found.get(rtnl.RTA_OIF, b""))
            metric = number(found.get(rtnl.RTA_PRIORITY, b""))
            name = f"route {destination}/{head[1]} of table {table}, link {where}, metric {metric}"
            _add(facts, name, known)


def _policy(netlink: Netlink, facts: Facts) -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        body = bytes([family]) + bytes(_RULE - 1)
        for answer in _dump(netlink, _RTM_GETRULE, body, "policy rules"):
            found = dict(attributes(answer, _RULE))
            known = {"header": answer[:_RULE].hex()}
            known |= {f"attribute {key}": value.hex() for key, value in found.items()}
            priority = number(found.get(6, b""))  # FRA_PRIORITY
            _add(facts, f"policy rule {priority} of family {family}", known)


def _address(packed: bytes) -> str:
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, packed)


def _add(facts: Facts, name: str, known: dict[str, str]) -> None:
    """Several things may go by one name: told apart by their order."""
    count = 1
    unique = name
    while unique in facts:
        count += 1
        unique = f"{name} ({count})"
    facts[unique] = known


# --- nfnetlink -----------------------------------------------------------------------

_GETTABLE, _GETCHAIN, _GETRULE, _GETSET = 10 << 8 | 1, 10 << 8 | 4, 10 << 8 | 7, 10 << 8 | 10
_NFGEN: Final = 4
_RULE_EXPRESSIONS: Final = 4


def _nft(netlink: Netlink, facts: Facts) -> None:
    for kind, what, moving, name in _NFT:
        for answer in _dump(netlink, kind, bytes(_NFGEN), what):
            found = dict(attributes(answer, _NFGEN))
            known = {"family": str(answer[0])}
            for key, value in found.items():
                if key == _RULE_EXPRESSIONS and what == "nft rule":
                    known["expressions"] = _expressions(value)
                elif key not in moving:
                    known[f"attribute {key}"] = value.hex()
            _add(facts, f"{what} {name(found)} of family {answer[0]}", known)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


_NFT: Final[tuple[tuple[int, str, frozenset[int], Callable[[dict[int, bytes]], str]], ...]] = (
    (_GETTABLE, "nft table", frozenset(), lambda found: _text(found[1])),
    (_GETCHAIN, "nft chain", frozenset({8}), lambda found: f"{_text(found[1])} {_text(found[3])}"),
    (
        _GETRULE,
        "nft rule",
        frozenset(),
        lambda found: f"{_text(found[1])} {_text(found[2])} {int.from_bytes(found[3], 'big')}",
    ),
    (_GETSET, "nft set", frozenset(), lambda found: f"{_text(found[1])} {_text(found[2])}"),
)
"""Question, what a thing is called, which attributes move (chain counters), its own name."""


def _expressions(value: bytes) -> str:
    """A rule's expressions, without what its counters have counted."""
    told = []
    for _, element in attributes(value):
        parts = dict(attributes(element))
        name = _text(parts[1])
        told.append(name if name == "counter" else f"{name} {parts.get(2, b'').hex()}")
    return ", ".join(told)


# --- sysctls ---------------------------------------------------------------------------

_ROOT: Final = "/proc/sys/"
_COUNTS: Final = frozenset({"net/netfilter/nf_conntrack_count"})


def _sysctls(space: NetNS, facts: Facts) -> None:
    with space.entered():
        for path in _files(f"{_ROOT}net"):
            key = path.removeprefix(_ROOT)
            if key in _COUNTS:
                continue
            try:
                with open(path, "rb") as file:
                    value = " ".join(file.read().decode(errors="replace").split())
            except OSError as error:  # write-only, or never set (stable_secret)
                value = error.strerror or ""
            facts[f"sysctl {key.replace('/', '.')}"] = {"value": value}


def _files(top: str) -> Iterator[str]:
    for directory, _, names in os.walk(top):
        for name in names:
            yield f"{directory}/{name}"
