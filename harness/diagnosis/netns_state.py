"""The state of one network namespace as plain data, in the JSON format of `ip -j` (ip(8)).

Links, addresses, routes, rules and neighbours are read through pyroute2, which shares no code with
the runtime under test.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Any, Final

from harness.testbench.netns_view import iproute
from linux.conntrack import Conntrack, FlowTuple
from linux.netns import NetNS
from linux.nftables import Nft

Data = dict[str, Any]
Message = Any
"""A netlink message of pyroute2, which has no type hints."""

_FAMILIES: Final = {2: "inet", 10: "inet6"}
_UP, _LOWER_UP = 0x1, 0x10000
_TENTATIVE: Final = 0x40
_MAIN_TABLE: Final = 254
_NEIGHBOUR_STATES: Final = {
    0x01: "INCOMPLETE",
    0x02: "REACHABLE",
    0x04: "STALE",
    0x08: "DELAY",
    0x10: "PROBE",
    0x20: "FAILED",
    0x40: "NOARP",
    0x80: "PERMANENT",
}
_NFT_BOUND: Final = 5
"""Seconds that `nft` may take."""


def state(space: NetNS) -> Data:
    """Return links, addresses, routes, rules, neighbours, nft rules and flows of a namespace.

    The key `nft` always has the nft rules by table, chain, handle and comment. The key `ruleset`
    has the output of the program nft, if the machine has the program. Raises `OSError`.
    """
    found = _rtnetlink(space)
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
    if ruleset := _ruleset(space):
        found["ruleset"] = ruleset
    return found


def _rtnetlink(space: NetNS) -> Data:
    with iproute(space) as ip:
        links = list(ip.get_links())
        addresses, neighbours = list(ip.get_addr()), list(ip.get_neighbours())
        routes, rules = list(ip.get_routes(table=_MAIN_TABLE)), list(ip.get_rules())
    names = {link["index"]: link.get("ifname") for link in links}
    return {
        "link": [_link(item, names) for item in links],
        "addr": [
            {
                "ifindex": index,
                "ifname": name,
                "addr_info": [_address(item) for item in addresses if item["index"] == index],
            }
            for index, name in names.items()
        ],
        "route": [_route(item, names) for item in routes],
        "rule": [_rule(item) for item in rules if item["family"] in _FAMILIES],
        "neigh": [_neighbour(item, names) for item in neighbours if item["family"] in _FAMILIES],
    }


def _present(**fields: object) -> Data:
    return {key: value for key, value in fields.items() if value is not None}


def _link(item: Message, names: dict[int, str]) -> Data:
    flags = {"UP": _UP, "LOWER_UP": _LOWER_UP}
    return _present(
        ifindex=item["index"],
        ifname=item.get("ifname"),
        flags=[name for name, bit in flags.items() if item["flags"] & bit],
        mtu=item.get("mtu"),
        operstate=item.get("operstate"),
        address=item.get("address"),
        linkinfo={"info_kind": (item.get("linkinfo") or {}).get("kind") or ""},
        master=names.get(item.get("master")),
        link_index=item.get("link"),
    )


def _address(item: Message) -> Data:
    return _present(
        family=_FAMILIES[item["family"]],
        local=item.get("local") or item.get("address"),
        prefixlen=item["prefixlen"],
        tentative=True if item.get("flags") & _TENTATIVE else None,
    )


def _route(item: Message, names: dict[int, str]) -> Data:
    destination = item.get("dst")
    return _present(
        dst=f"{destination}/{item['dst_len']}" if destination else "default",
        gateway=item.get("gateway"),
        dev=names.get(item.get("oif")),
        family=_FAMILIES[item["family"]],
    )


def _rule(item: Message) -> Data:
    priority = item.get("priority") or 0
    return {"priority": priority, "family": _FAMILIES[item["family"]], "table": item.get("table")}


def _neighbour(item: Message, names: dict[int, str]) -> Data:
    return _present(
        dst=item.get("dst"),
        dev=names.get(item["ifindex"]),
        lladdr=item.get("lladdr"),
        state=[name for bit, name in _NEIGHBOUR_STATES.items() if item["state"] & bit],
    )


def _ends(ends: FlowTuple) -> Data:
    return {
        "src": str(ends.source),
        "dst": str(ends.destination),
        "protocol": ends.protocol,
        "sport": ends.source_port,
        "dport": ends.destination_port,
    }


def _ruleset(space: NetNS) -> str:
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
