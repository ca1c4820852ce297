"""How a namespace would route one packet: `ip route get`, in Python.

The kernel carries out its own lookup, with the checks that a packet coming in would meet,
so that a refusal tells why such a packet is dropped (rtnetlink(7), RTM_GETROUTE).
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from typing import Final, NamedTuple

from linux import rtnl
from linux.netlink import Netlink, NetlinkError, Request, attr, attributes, number, u32
from linux.rtnl import Address

_RTA_SRC, _RTA_IIF = 2, 3
_LOCAL: Final = 2
REFUSALS: Final = {
    errno.EXDEV: "reverse path",
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "no route",
    errno.EINVAL: "blackhole",
    errno.EACCES: "prohibited",
}
"""What the kernel's refusals of a lookup mean, as `Way.refused` has them."""


class Way(NamedTuple):
    """Where a packet would go: `local`, or out by link number `oif`, to neighbour `via`.

    `refused` tells why it would go nowhere; then the rest means nothing.
    """

    refused: str = ""
    local: bool = False
    oif: int = 0
    via: Address | None = None


def way(
    netlink: Netlink, to: Address, *, source: Address | None = None, iif: int | None = None
) -> Way:
    """The way of a packet to an address: of the namespace's own, or one that came in by `iif`.

    Raises `NetlinkError` when the question itself is refused: no such link.
    """
    family = socket.AF_INET if to.version == 4 else socket.AF_INET6
    bits = to.max_prefixlen
    body = rtnl.ROUTE.pack(family, bits, bits if source else 0, 0, 0, 0, 0, 0, 0)
    body += attr(rtnl.RTA_DST, to.packed)
    if source is not None:
        body += attr(_RTA_SRC, source.packed)
    if iif is not None:
        body += u32(_RTA_IIF, iif)
    try:
        (answer,) = netlink.ask(Request(rtnl.RTM_GETROUTE, 0, body, f"look up the way to {to}"))
    except NetlinkError as error:
        if error.errno in REFUSALS:
            return Way(refused=REFUSALS[error.errno])
        raise
    fields = dict(attributes(answer, rtnl.ROUTE.size))
    kind = rtnl.ROUTE.unpack_from(answer)[7]
    if kind in _KINDS:
        return Way(refused=_KINDS[kind])
    via = fields.get(rtnl.RTA_GATEWAY)
    return Way(
        local=kind == _LOCAL,
        oif=number(fields.get(rtnl.RTA_OIF, b"")),
        via=ip_address(via) if via else None,
    )


_KINDS: Final = {6: "blackhole", 7: "no route", 8: "prohibited"}
"""RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT."""
