"""The state of one network namespace as plain data, shaped as `ip -j` prints it (ip(8))."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, Final

from linux import rtnetlink, rtnetlink_dump
from linux.conntrack import Conntrack, FlowTuple
from linux.netlink import NLM_F_DUMP, Netlink, Request, attributes, number
from linux.netns import NetNS
from linux.nftables import Nft

Data = dict[str, Any]

_STATES: Final = {
    0x01: "INCOMPLETE",
    0x02: "REACHABLE",
    0x04: "STALE",
    0x08: "DELAY",
    0x10: "PROBE",
    0x20: "FAILED",
    0x40: "NOARP",
    0x80: "PERMANENT",
}
_FAMILIES: Final = {4: "inet", 6: "inet6"}
_FRA_PRIORITY, _FRA_TABLE = 6, 15
_NFT_BOUND: Final = 5
"""Seconds that `nft` may take."""


def state(space: NetNS) -> Data:
    """Links, addresses, routes, rules, neighbours, nft rules and flows of a namespace.

    `ruleset` is in the words of `nft` where there is such a program; `nft` are the rules
    by table, chain, handle and comment in any case. Raises `OSError`.
    """
    with Netlink(space) as netlink:
        links = rtnetlink_dump.links(netlink)
        names = {link.ifindex: link.name for link in links}
        found: Data = {
            "link": [_link(link, names) for link in links],
            "addr": list(_addresses(netlink, names)),
            "route": [
                _route(item, names) for item in rtnetlink_dump.routes(netlink, every_kind=True)
            ],
            "rule": list(_rules(netlink)),
            "neigh": [_neighbour(item, names) for item in rtnetlink_dump.neighbours(netlink)],
        }
    with Nft(space) as opened:
        found["nft"] = [
            {
                "family": table.family,
                "table": table.name,
                "chain": rule.chain,
                "handle": rule.handle,
                "comment": rule.comment,
            }
            for table in opened.tables()
            for rule in opened.rules(table)
        ]
    with Conntrack(space) as flows:
        found["conntrack"] = [
            {"original": _ends(flow.original), "reply": _ends(flow.reply)} for flow in flows.all()
        ]
    if words := _in_words(space):
        found["ruleset"] = words
    return found


def _link(link: rtnetlink_dump.Link, names: dict[int, str]) -> Data:
    flags = ["UP"] if link.up else []
    flags += ["LOWER_UP"] if link.carrier else []
    told: Data = {
        "ifindex": link.ifindex,
        "ifname": link.name,
        "flags": flags,
        "mtu": link.mtu,
        "operstate": "UP" if link.running else "DOWN",
        "address": link.mac,
        "linkinfo": {"info_kind": link.kind},
    }
    if link.master is not None:
        told["master"] = names.get(link.master, str(link.master))
    if link.peer is not None:
        told["link_index"] = link.peer
    return told


def _addresses(netlink: Netlink, names: dict[int, str]) -> Iterator[Data]:
    found: dict[int, list[Data]] = {index: [] for index in names}
    for item in rtnetlink_dump.addresses(netlink):
        address: Data = {
            "family": _FAMILIES[item.address.version],
            "local": str(item.address.ip),
            "prefixlen": item.address.network.prefixlen,
        }
        if item.tentative:
            address["tentative"] = True
        found.setdefault(item.ifindex, []).append(address)
    for index, own in found.items():
        yield {"ifindex": index, "ifname": names.get(index, str(index)), "addr_info": own}


def _route(route: rtnetlink_dump.Route, names: dict[int, str]) -> Data:
    told: Data = {"dst": "default" if route.destination is None else str(route.destination)}
    if route.via is not None:
        told["gateway"] = str(route.via)
    if route.oif is not None:
        told["dev"] = names.get(route.oif, str(route.oif))
    return told | {"family": _FAMILIES[route.family]}


def _rules(netlink: Netlink) -> Iterator[Data]:
    body = rtnetlink.RULE.pack(0, 0, 0, 0, 0, 0, 0)
    for answer in netlink.ask(
        Request(rtnetlink.RTM_GETRULE, NLM_F_DUMP, body, "list policy rules")
    ):
        found = dict(attributes(answer, rtnetlink.RULE.size))
        yield {
            "priority": number(found.get(_FRA_PRIORITY, b"")),
            "family": "inet" if answer[0] == 2 else "inet6",
            "table": number(found.get(_FRA_TABLE, b"")) or answer[4],
        }


def _neighbour(item: rtnetlink_dump.Neighbour, names: dict[int, str]) -> Data:
    states = [name for bit, name in _STATES.items() if item.state & bit]
    told: Data = {"dst": str(item.address), "dev": names.get(item.ifindex, str(item.ifindex))}
    if item.mac:
        told["lladdr"] = item.mac
    return told | {"state": states}


def _ends(ends: FlowTuple) -> Data:
    return {
        "src": str(ends.source),
        "dst": str(ends.destination),
        "protocol": ends.protocol,
        "sport": ends.source_port,
        "dport": ends.destination_port,
    }


def _in_words(space: NetNS) -> str:
    program = shutil.which("nft")
    if program is None:
        return ""
    with space.entered():
        done = subprocess.run(
            [program, "-a", "list", "ruleset"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_NFT_BOUND,
            check=False,
        )
    return done.stdout if done.returncode == 0 else ""
