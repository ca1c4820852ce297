"""What a network is to be: what was asked for, checked, and the rest chosen. Pure.

`used` are the subnets that other networks and the host's routes take up.
"""

from __future__ import annotations

from typing import Final, TypedDict

from runtime.errors import InvalidError
from runtime.net import subnets
from runtime.records import Driver, Network, NetworkConfig
from runtime.state import NAME, NAME_RULE, now

RESERVED: Final = frozenset({"host", "none", "container", "default"})
IPV6_MIN_MTU: Final = 1280
"""Below it a link has no IPv6 at all (RFC 8200), in bytes."""
DEFAULT_MTU: Final = 1500
_MIN_MTU: Final = 68
_MAX_MTU: Final = 65535


class NetworkOptions(TypedDict, total=False):
    """Everything that may be left out when a network is made.

    `mtu` is in bytes. `driver` is `bridge` or `macvlan`, whose `parent` is an
    interface of the host.
    """

    driver: Driver
    parent: str
    subnet: str
    gateway: str
    ip_range: str
    subnet6: str
    gateway6: str
    ipv6: bool
    internal: bool
    icc: bool
    mtu: int


def check(asked: str, name: str, options: NetworkOptions) -> None:
    """Raise `InvalidError` for what is wrong whatever else there is."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise InvalidError(asked, "the name is malformed or reserved", remedy=NAME_RULE)
    if "mtu" in options:
        ipv6 = options.get("ipv6", False) or options.get("subnet6", "")
        lowest, mtu = IPV6_MIN_MTU if ipv6 else _MIN_MTU, options["mtu"]
        if not lowest <= mtu <= _MAX_MTU:
            raise InvalidError(asked, f"an MTU of {mtu} is not within {lowest} and {_MAX_MTU}")
    driver = options.get("driver", "bridge")
    if driver not in ("bridge", "macvlan"):
        raise InvalidError(asked, f"there is no driver {driver!r}", remedy="bridge, macvlan")
    if driver == "macvlan":
        if not options.get("parent") or not options.get("subnet"):
            raise InvalidError(
                asked,
                "a macvlan needs a parent interface and the subnet of the network it is on",
                remedy="--opt parent=eth0 --subnet 192.0.2.0/24 --gateway 192.0.2.1",
            )
        if not options.get("icc", True):
            raise InvalidError(asked, "icc=false needs a bridge")
    elif options.get("parent"):
        raise InvalidError(asked, "a bridge has no parent", remedy="--driver macvlan")


_WITHIN: Final = {
    "gateway": ("subnet", "a gateway"),
    "ip_range": ("subnet", "a range"),
    "gateway6": ("subnet6", "a gateway for IPv6"),
}
"""What is part of a subnet, which one, and in words."""


def design(
    asked: str, name: str, options: NetworkOptions, *, identity: str, used: list[Network]
) -> NetworkConfig:
    """The network; `ConflictError` when it overlaps, `InvalidError` when it is malformed.

    What is left out is chosen: a private IPv4 subnet that overlaps nothing, a
    ULA prefix drawn from the id, the first address as gateway.
    """
    subnet, subnet6 = options.get("subnet", ""), options.get("subnet6", "")
    ip_range = options.get("ip_range", "")
    wanted6 = subnets.parse(asked, subnet6, 6) if subnet6 else None
    if options.get("ipv6", False) and wanted6 is None:
        wanted6 = subnets.ula(identity)
    for wish, (within, told) in _WITHIN.items():
        if options.get(wish, "") and not options.get(within, ""):
            raise InvalidError(
                asked, f"{told} was asked for, and no subnet for it", remedy="give --subnet too"
            )
    chosen: Network = subnets.parse(asked, subnet, 4) if subnet else subnets.free(asked, used)
    for item in (chosen, wanted6):
        subnets.refuse_overlap(asked, item, used)
    gateway6 = subnets.gateway_of(asked, wanted6, options.get("gateway6", "")) if wanted6 else ""
    driver = options.get("driver", "bridge")
    return NetworkConfig(
        id=identity,
        name=name,
        bridge=f"br-{identity[:12]}" if driver == "bridge" else "",
        subnet=str(chosen),
        gateway=str(subnets.gateway_of(asked, chosen, options.get("gateway", ""))),
        subnet6=str(wanted6) if wanted6 else "",
        gateway6=str(gateway6),
        ip_range=str(subnets.within(asked, chosen, ip_range)) if ip_range else "",
        internal=options.get("internal", False),
        icc=options.get("icc", True),
        mtu=options.get("mtu", DEFAULT_MTU),
        created=now(),
        driver=driver,
        parent=options.get("parent", ""),
    )
