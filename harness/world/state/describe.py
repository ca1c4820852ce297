"""Decode raw dumps into named objects and their facts.

Every attribute is included, so that even unforeseen attributes are compared. Only values that
change by themselves are left out: counters, timers, ages, the carrier of a link, and handles. For
learned neighbours, also left out, see `learned`.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, NamedTuple

from harness.model.topology import Address
from harness.world.state.netlink_dump import Messages, Raw, Ruleset
from linux import rtnetlink
from linux.netlink import attributes, number
from linux.nftables import comment_of

Thing = tuple[str, dict[str, str]]
"""Name of an object, such as `link eth0`, and its facts: `mtu` → …."""
Names = Mapping[int, str]
"""Names of links by interface index."""
Still = tuple[object, ...]

_LABELS: Final = {
    1: "address",
    4: "mtu",
    5: "peer",
    10: "master",
    13: "queue length",
    27: "group",
    30: "promiscuity",
    43: "xdp",
}
"""Attributes of a link (if_link.h) by their usual names."""
_MOVING: Final = frozenset({7, 16, 23, 33, 35, 47, 48, 59, 60})
"""IFLA_STATS, OPERSTATE, STATS64, CARRIER and its counts, TSO_MAX_* (follow a bridge's ports)."""
_MOVING_IN_BRIDGE: Final = frozenset({16, 17, 18, 19, 48})  # timers, learned entries
_MOVING_IN_PORT: Final = frozenset({21, 22, 23, 38, 41})  # timers, multicast listeners
_CARRIER: Final = 0x40 | 0x10000
"""IFF_RUNNING, IFF_LOWER_UP."""
_TENTATIVE: Final = 0x04 | 0x40
"""IFA_F_OPTIMISTIC, IFA_F_TENTATIVE."""
_LINKED: Final = 1 | 16
"""RTNH_F_DEAD, RTNH_F_LINKDOWN."""
_CACHEINFO: Final = {"address": 6, "route": 12}
_FRA_NAMES: Final = {3: "iif", 17: "oif", 1: "to", 2: "from", 10: "mark"}
_FAMILIES: Final[dict[int, str]] = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
_NDA_CACHEINFO: Final = 3
_PROXIED: Final = 0x08
"""NTF_PROXY."""
_DISCIPLINE: Final = 16
"""Length of a discipline's header in the dumps; the kind follows it."""
_NUD_LEARNED: Final = rtnetlink.NUD_REACHABLE | rtnetlink.NUD_STALE | 0x08 | 0x10  # DELAY, PROBE


def names(raw: Raw) -> dict[int, str]:
    """Return the names of a namespace's links by interface index."""
    return {rtnetlink.LINK.unpack_from(answer)[2]: _name(answer) for answer in raw.links}


def things(raw: Raw, names: Names) -> Iterator[Thing]:
    """Yield name and facts of every object in `raw`, which may be only a part of a dump."""
    for answer in raw.links:
        yield _link(answer)
        yield from _link_sysctls(answer)
    for answer in raw.addresses:
        yield _address(answer, names)
    for answer in raw.routes:
        yield from _route(answer, names)
    for answer in raw.rules:
        yield _rule(answer)
    for answer in (*raw.neighbours, *raw.proxies):
        yield from _kept_neighbour(answer, names)
    for answer in raw.forwarding:
        yield from _forwarding(answer, names)
    for answer in raw.timings:
        yield from _timings(answer, names)
    for answer in raw.disciplines:
        yield _discipline(answer, names)
    yield from ruleset(raw.ruleset)
    for key, value in raw.sysctls:
        yield f"sysctl {key}", {"value": " ".join(value.decode(errors="replace").split())}


# --- links -------------------------------------------------------------------


def _still_link(answer: bytes) -> Still:
    kept: list[object] = []
    for key, value in attributes(answer, rtnetlink.LINK.size):
        if key == rtnetlink.IFLA_LINKINFO:
            kept += _kind(value).items()
        elif key == rtnetlink.IFLA_AF_SPEC:
            kept += _confs(value).values()
        elif key not in _MOVING:
            kept += key, value
    _, kind, index, flags, _ = rtnetlink.LINK.unpack_from(answer)
    return kind, index, flags & ~_CARRIER, *kept


def _name(answer: bytes) -> str:
    found = (
        value
        for key, value in attributes(answer, rtnetlink.LINK.size)
        if key == rtnetlink.IFLA_IFNAME
    )
    return next(found).rstrip(b"\0").decode()


def _link(answer: bytes) -> Thing:
    _, kind, index, flags, _ = rtnetlink.LINK.unpack_from(answer)
    known = {"type": str(kind), "index": str(index), "flags": f"{flags & ~_CARRIER:#x}"}
    for key, value in attributes(answer, rtnetlink.LINK.size):
        if key == rtnetlink.IFLA_LINKINFO:
            known |= {label: value.hex() for label, value in _kind(value).items()}
        elif key not in _MOVING and key != rtnetlink.IFLA_AF_SPEC:
            known[_LABELS.get(key, f"attribute {key}")] = value.hex()
    return f"link {_name(answer)}", known


def _kind(info: bytes) -> dict[str, bytes]:
    """Return the kind of a link, the attributes of this kind, and those as a bridge port."""
    found = dict(attributes(info))
    kind = found.get(rtnetlink.IFLA_INFO_KIND, b"").rstrip(b"\0")
    moving = _MOVING_IN_BRIDGE if kind == b"bridge" else frozenset()
    known = {"kind": kind}
    for part, nested, skipped in (
        (kind.decode(), rtnetlink.IFLA_INFO_DATA, moving),
        ("port", rtnetlink.IFLA_INFO_SLAVE_DATA, _MOVING_IN_PORT),
    ):
        for key, value in attributes(found.get(nested, b"")):
            if key not in skipped:
                known[f"{part} attribute {key}"] = value
    return known


def _confs(spec: bytes) -> dict[str, bytes]:
    """Return a link's IPv4 and IPv6 sysctls as arrays: IFLA_INET_CONF, IFLA_INET6_CONF."""
    found = dict(attributes(spec))
    inet = dict(attributes(found.get(socket.AF_INET, b"")))
    inet6 = dict(attributes(found.get(socket.AF_INET6, b"")))
    return {"ipv4": inet.get(1, b""), "ipv6": inet6.get(2, b"")}


_CONF: Final = {
    "ipv4": """forwarding mc_forwarding proxy_arp accept_redirects secure_redirects
    send_redirects shared_media rp_filter accept_source_route bootp_relay log_martians tag
    arp_filter medium_id disable_xfrm disable_policy force_igmp_version arp_announce
    arp_ignore promote_secondaries arp_accept arp_notify accept_local src_valid_mark
    proxy_arp_pvlan route_localnet igmpv2_unsolicited_report_interval
    igmpv3_unsolicited_report_interval ignore_routes_with_linkdown
    drop_unicast_in_l2_multicast drop_gratuitous_arp bc_forwarding
    arp_evict_nocarrier""",
    "ipv6": """forwarding hop_limit mtu accept_ra accept_redirects autoconf dad_transmits
    router_solicitations router_solicitation_interval router_solicitation_delay use_tempaddr
    temp_valid_lft temp_prefered_lft regen_max_retry max_desync_factor max_addresses
    force_mld_version accept_ra_defrtr accept_ra_pinfo accept_ra_rtr_pref
    router_probe_interval accept_ra_rt_info_max_plen proxy_ndp optimistic_dad
    accept_source_route mc_forwarding disable_ipv6 accept_dad force_tllao ndisc_notify
    mldv1_unsolicited_report_interval mldv2_unsolicited_report_interval suppress_frag_ndisc
    accept_ra_from_local use_optimistic accept_ra_mtu stable_secret use_oif_addrs_only
    accept_ra_min_hop_limit ignore_routes_with_linkdown drop_unicast_in_l2_multicast
    drop_unsolicited_na keep_addr_on_down router_solicitation_max_interval seg6_enabled
    seg6_require_hmac enhanced_dad addr_gen_mode disable_policy accept_ra_rt_info_min_plen
    ndisc_tclass rpl_seg_enabled ra_defrtr_metric ioam6_enabled ioam6_id ioam6_id_wide
    ndisc_evict_nocarrier accept_untracked_na accept_ra_min_lft force_forwarding""",
}
"""Indexes into the arrays by name (linux/ip.h, linux/ipv6.h)."""


def _link_sysctls(answer: bytes) -> Iterator[Thing]:
    spec = dict(attributes(answer, rtnetlink.LINK.size)).get(rtnetlink.IFLA_AF_SPEC, b"")
    for family, array in _confs(spec).items():
        labels = _CONF[family].split()
        for index, (value,) in enumerate(struct.iter_unpack("=i", array)):
            label = labels[index] if index < len(labels) else f"({index})"
            yield f"sysctl net.{family}.conf.{_name(answer)}.{label}", {"value": str(value)}


_TIMINGS: Final = {
    4: "base_reachable_time_ms",
    5: "retrans_time_ms",
    6: "gc_stale_time",
    7: "delay_first_probe_time",
    9: "app_solicit",
    10: "ucast_solicit",
    11: "mcast_solicit",
    12: "anycast_delay",
    13: "proxy_delay",
    14: "proxy_qlen",
    15: "locktime",
    16: "unres_qlen_bytes",
    17: "mcast_resolicit",
    19: "interval_probe_time_ms",
}
"""NDTPA_… (linux/neighbour.h); times are in milliseconds."""


_NDTA_PARMS: Final = 6
_NDTPA_IFINDEX: Final = 1
_REPORTED: Final = frozenset({_NDTPA_IFINDEX, *_TIMINGS})


def _still_timings(answer: bytes) -> Still:
    """Return a neighbour table's parameters, without counters and without the randomized time."""
    parameters = dict(attributes(answer, 4, (_NDTA_PARMS,))).get(_NDTA_PARMS, b"")
    return answer[0], *dict(attributes(parameters, 0, _REPORTED)).items()


def _timings(answer: bytes, names: Names) -> Iterator[Thing]:
    found = dict(attributes(answer, 4))
    parameters = dict(attributes(found.get(_NDTA_PARMS, b"")))
    link = names.get(number(parameters.get(_NDTPA_IFINDEX, b"")), "default")
    family = _FAMILIES.get(answer[0], "").lower()
    for key, label in _TIMINGS.items():
        if key in parameters:
            value = str(number(parameters[key]))
            yield f"sysctl net.{family}.neigh.{link}.{label}", {"value": value}


def _discipline(answer: bytes, names: Names) -> Thing:
    """Return name and facts of a queueing discipline, or of the hook of filters: tc(8)."""
    _, index, handle, parent = struct.unpack_from("=4siII", answer)
    kind, _, options = answer[_DISCIPLINE:].partition(b"\0")
    known = {"kind": kind.decode(), "parent": f"{parent:#x}", "options": options.hex()}
    return f"discipline {handle >> 16:x}: of {names.get(index, index)}", known


# --- addresses, routes, rules ---------------------------------------------------


def _address(answer: bytes, names: Names) -> Thing:
    _, prefix, flags, scope, index = rtnetlink.ADDR.unpack_from(answer)
    found = dict(attributes(answer, rtnetlink.ADDR.size))
    found.pop(_CACHEINFO["address"], None)
    flags = number(found.pop(rtnetlink.IFA_FLAGS)) if rtnetlink.IFA_FLAGS in found else flags
    address = ip_address(found.get(rtnetlink.IFA_LOCAL) or found[rtnetlink.IFA_ADDRESS])
    known = {"scope": str(scope), "flags": f"{flags & ~_TENTATIVE:#x}"}
    known |= {f"attribute {key}": value.hex() for key, value in found.items()}
    return f"address {address}/{prefix} of {names.get(index, index)}", known


def _route(answer: bytes, names: Names) -> Iterator[Thing]:
    head = rtnetlink.ROUTE.unpack_from(answer)
    if head[0] not in _FAMILIES:
        return
    found = dict(attributes(answer, rtnetlink.ROUTE.size))
    found.pop(_CACHEINFO["route"], None)
    size = 4 if head[0] == socket.AF_INET else 16
    destination = ip_address(found.get(rtnetlink.RTA_DST, bytes(size)))
    if destination.version == 6 and destination.is_link_local:
        return  # set when duplicate address detection is done
    known = {"header": " ".join(map(str, (*head[:8], head[8] & ~_LINKED)))}
    known |= {f"attribute {key}": value.hex() for key, value in found.items()}
    table = number(found.get(rtnetlink.RTA_TABLE, b"")) or head[4]
    index = number(found.get(rtnetlink.RTA_OIF, b""))
    metric = number(found.get(rtnetlink.RTA_PRIORITY, b""))
    link = names.get(index, index)
    yield f"route {destination}/{head[1]} of {link} in table {table}, metric {metric}", known


def _rule(answer: bytes) -> Thing:
    family = _FAMILIES.get(answer[0], str(answer[0]))
    found = dict(attributes(answer, rtnetlink.RULE.size))
    known = {"header": answer[: rtnetlink.RULE.size].hex()}
    known |= {_FRA_NAMES.get(key, f"attribute {key}"): value.hex() for key, value in found.items()}
    table = number(found.get(rtnetlink.RTA_TABLE, b"")) or answer[4]
    return f"rule {number(found.get(6, b''))} of {family}, to table {table}", known


# --- neighbours -------------------------------------------------------------------


class LearnedNeighbour(NamedTuple):
    """A neighbour whose MAC the kernel has learned from packets on the link."""

    link: str
    address: Address


def learned(messages: Messages, names: Names) -> set[LearnedNeighbour]:
    """Return the learned neighbours; the kernel adds and removes them by itself."""
    found = set()
    for answer in messages:
        family, index, state, _, _ = rtnetlink.NEIGH.unpack_from(answer)
        if family in _FAMILIES and state & _NUD_LEARNED:
            address = ip_address(dict(attributes(answer, rtnetlink.NEIGH.size))[rtnetlink.NDA_DST])
            found.add(LearnedNeighbour(names.get(index, str(index)), address))
    return found


def _still_neighbour(answer: bytes) -> Still:
    return _without_age(answer) if _is_entered(answer) else ()


def _is_entered(answer: bytes) -> bool:
    """Return whether a program added the neighbour entry, as a permanent or a proxy entry."""
    family, _, state, flags, _ = rtnetlink.NEIGH.unpack_from(answer)
    return family in _FAMILIES and bool(flags & _PROXIED or state & rtnetlink.NUD_PERMANENT)


def _without_age(answer: bytes) -> Still:
    found = attributes(answer, rtnetlink.NEIGH.size)
    return answer[: rtnetlink.NEIGH.size], *(item for item in found if item[0] != _NDA_CACHEINFO)


def _kept_neighbour(answer: bytes, names: Names) -> Iterator[Thing]:
    if not _is_entered(answer):
        return
    _, index, _, flags, _ = rtnetlink.NEIGH.unpack_from(answer)
    proxied = flags & _PROXIED
    found = dict(attributes(answer, rtnetlink.NEIGH.size))
    what = "proxied neighbour" if proxied else "neighbour"
    known = {"MAC": found.get(rtnetlink.NDA_LLADDR, b"").hex(":")}
    yield f"{what} {ip_address(found[rtnetlink.NDA_DST])} of {names.get(index, index)}", known


def _still_forwarding(answer: bytes) -> Still:
    return _without_age(answer) if _bridge(answer) else ()


def _bridge(answer: bytes) -> int:
    """Return the interface index of a permanent forwarding entry's bridge, or 0 for other entries.

    Permanent entries are a bridge port's own MAC, and entries that a program added.
    """
    _, index, state, _, _ = rtnetlink.NEIGH.unpack_from(answer)
    if not state & (rtnetlink.NUD_PERMANENT | rtnetlink.NUD_NOARP):
        return 0  # learned
    bridge = number(
        dict(attributes(answer, rtnetlink.NEIGH.size, (rtnetlink.NDA_MASTER,))).get(
            rtnetlink.NDA_MASTER, b""
        )
    )
    # An entry without a master is a link's multicast group. The bridge's own entry ends with the
    # bridge.
    return bridge if index != bridge else 0


def _forwarding(answer: bytes, names: Names) -> Iterator[Thing]:
    """Yield name and facts of a permanent forwarding entry: its MAC and its bridge port."""
    bridge = _bridge(answer)
    if not bridge:
        return
    _, index, _, _, _ = rtnetlink.NEIGH.unpack_from(answer)
    found = dict(attributes(answer, rtnetlink.NEIGH.size))
    mac = found[rtnetlink.NDA_LLADDR].hex(":")
    vlan = f" in VLAN {number(found[rtnetlink.NDA_VLAN])}" if rtnetlink.NDA_VLAN in found else ""
    known = {"port": names.get(index, str(index))}
    yield f"forwarding entry {mac}{vlan} of {names.get(bridge, bridge)}", known


_STILL: Final[Mapping[str, Callable[[bytes], Still]]] = {
    "links": _still_link,
    "neighbours": _still_neighbour,
    "forwarding": _still_forwarding,
    "timings": _still_timings,
}


@lru_cache(maxsize=1024)
def still(part: str, answer: bytes) -> Still:
    """Return a message of a dump without the values that change by themselves.

    `part` is the field of `Raw`. The results for two dumps are equal if the object was not changed.
    The result is empty for an object that comes and goes by itself.
    """
    return _STILL[part](answer) if part in _STILL else (answer,)


_NFTFACTS_FAMILIES: Final = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_COUNTING: Final = frozenset({"counter", "quota", "last", "connlimit"})
"""nft expressions whose data changes with every packet."""
_EXPRESSIONS: Final = 4
_LEFT_OUT: Final = {
    "table": frozenset({3, 4}),  # use, handle
    "chain": frozenset({2, 6, 8}),  # handle, use, counters
    "rule": frozenset({3, _EXPRESSIONS, 6}),  # handle, described separately, position
    "set": frozenset({9, 16, 17, 18, 20}),  # size, handle, counters, count
    "object": frozenset({4, 5, 6}),  # its count, use, handle
    "flowtable": frozenset({4, 5}),  # use, handle
}


def ruleset(found: Ruleset) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield name and facts of each table, chain, rule, set, element, object and flowtable.

    The name of a rule consists of its chain and its comment. The rule's position in the chain is a
    fact.
    """
    yield from _plain("table", found.tables, 1)
    yield from _plain("chain", found.chains, 1, 3)
    positions: Counter[tuple[int, bytes, bytes]] = Counter()
    for answer in found.rules:
        parts = dict(attributes(answer, 4))
        chain = (answer[0], parts[1], parts[2])
        positions[chain] += 1
        known = _known("rule", parts)
        known["position"] = str(positions[chain])
        known["expressions"] = _expressions(parts.get(_EXPRESSIONS, b""))
        comment = comment_of(parts.get(7, b""))
        yield f"nft rule {_where(answer, parts, 1, 2)} {comment}".rstrip(), known
    yield from _plain("set", found.sets, 1, 2)
    for item, answers in found.elements:
        name = _where(item, dict(attributes(item, 4)), 1, 2)
        for answer in answers:
            for _, element in attributes(dict(attributes(answer, 4)).get(3, b"")):
                parts = dict(attributes(element))
                known = {f"attribute {key}": parts[key].hex() for key in (2, 3) if key in parts}
                yield f"nft element {name} {parts.get(1, b'').hex()}", known
    yield from _plain("object", found.objects, 1, 2)
    yield from _plain("flowtable", found.flowtables, 1, 2)


def _plain(what: str, messages: Messages, *named: int) -> Iterator[tuple[str, dict[str, str]]]:
    for answer in messages:
        parts = dict(attributes(answer, 4))
        yield f"nft {what} {_where(answer, parts, *named)}", _known(what, parts)


def _where(answer: bytes, parts: dict[int, bytes], *named: int) -> str:
    path = [parts[key].rstrip(b"\0").decode(errors="replace") for key in named]
    return " ".join([_NFTFACTS_FAMILIES.get(answer[0], str(answer[0])), *path])


def _known(what: str, parts: dict[int, bytes]) -> dict[str, str]:
    left_out = _LEFT_OUT[what]
    return {f"attribute {key}": value.hex() for key, value in parts.items() if key not in left_out}


def _expressions(value: bytes) -> str:
    words = []
    for _, element in attributes(value):
        parts = dict(attributes(element))
        name = parts[1].rstrip(b"\0").decode(errors="replace")
        words.append(name if name in _COUNTING else f"{name} {parts.get(2, b'').hex()}")
    return ", ".join(words)
