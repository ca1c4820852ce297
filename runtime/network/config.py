"""Network configuration: check the given options and choose the missing ones.

All functions are pure. `used` are the subnets of other networks and of the host's routes.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, TypedDict

from runtime.errors import ConflictError, InvalidError
from runtime.network.ipam import host_numbers
from runtime.records import NAME, NAME_RULE, Address, Driver, Network, NetworkConfig
from runtime.store import now

RESERVED: Final = frozenset({"host", "none", "container", "default"})
IPV6_MIN_MTU: Final = 1280
"""Lowest MTU in bytes at which a link has IPv6 (RFC 8200)."""
_MIN_MTU: Final = 68
_MAX_MTU: Final = 65535


class NetworkOptions(TypedDict, total=False):
    """Optional settings of a new network.

    `mtu` is in bytes. `driver` is `bridge` or `macvlan`, whose `parent` is an interface of the
    host.
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
    """Raise `InvalidError` for options that are invalid on their own."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise InvalidError(asked, "the name is malformed or reserved", remedy=NAME_RULE)
    if "mtu" in options:
        ipv6 = options.get("ipv6", False) or options.get("subnet6", "")
        lowest, mtu = IPV6_MIN_MTU if ipv6 else _MIN_MTU, options["mtu"]
        if not lowest <= mtu <= _MAX_MTU:
            raise InvalidError(asked, f"the MTU {mtu} is not between {lowest} and {_MAX_MTU}")
    driver = options.get("driver", "bridge")
    if driver not in ("bridge", "macvlan"):
        raise InvalidError(asked, f"unknown driver {driver!r}", remedy="bridge or macvlan")
    if driver == "macvlan":
        if not options.get("parent") or not options.get("subnet"):
            raise InvalidError(
                asked,
                "a macvlan network needs a parent interface and its subnet",
                remedy="--opt parent=eth0 --subnet 192.0.2.0/24 --gateway 192.0.2.1",
            )
        if not options.get("icc", True):
            raise InvalidError(asked, "icc=false needs the driver bridge")
    elif options.get("parent"):
        raise InvalidError(
            asked, "a bridge network has no parent interface", remedy="--driver macvlan"
        )


_WITHIN: Final = {
    "gateway": ("subnet", "a gateway"),
    "ip_range": ("subnet", "a range"),
    "gateway6": ("subnet6", "a gateway for IPv6"),
}
"""Options that lie within a subnet: the subnet's option, and a description."""


def design(
    asked: str, name: str, options: NetworkOptions, *, identity: str, used: list[Network]
) -> NetworkConfig:
    """Return the configuration of a new network.

    `ConflictError` if it overlaps another subnet, `InvalidError` if it is malformed. Missing
    options are chosen: a private IPv4 subnet that overlaps no other, a ULA prefix drawn from the
    ID, the first address as gateway.
    """
    subnet, subnet6 = options.get("subnet", ""), options.get("subnet6", "")
    ip_range = options.get("ip_range", "")
    wanted6 = parse(asked, subnet6, 6) if subnet6 else None
    if options.get("ipv6", False) and wanted6 is None:
        wanted6 = ula(identity)
    for option, (whole, meaning) in _WITHIN.items():
        if options.get(option, "") and not options.get(whole, ""):
            raise InvalidError(asked, f"{meaning} needs a subnet", remedy="add --subnet")
    chosen: Network = parse(asked, subnet, 4) if subnet else free(asked, used)
    for item in (chosen, wanted6):
        refuse_overlap(asked, item, used)
    gateway6 = gateway_of(asked, wanted6, options.get("gateway6", "")) if wanted6 else ""
    driver = options.get("driver", "bridge")
    return NetworkConfig(
        id=identity,
        name=name,
        bridge=f"br-{identity[:12]}" if driver == "bridge" else "",
        subnet=str(chosen),
        gateway=str(gateway_of(asked, chosen, options.get("gateway", ""))),
        subnet6=str(wanted6) if wanted6 else "",
        gateway6=str(gateway6),
        ip_range=str(within(asked, chosen, ip_range)) if ip_range else "",
        internal=options.get("internal", False),
        icc=options.get("icc", True),
        mtu=options.get("mtu", 1500),
        created=now(),
        driver=driver,
        parent=options.get("parent", ""),
    )


DEFAULT: Final = "172.17.0.0/16"
"""The subnet of the default network."""


_ROUTERLESS: Final = "link-local: no router passes them on"
_GROUPS: Final = "groups of receivers (multicast)"
_TAKEN: Final[dict[Network, str]] = {
    ip_network("0.0.0.0/8"): "reserved: they mean this network",
    ip_network("127.0.0.0/8"): "the loopback interface's",
    ip_network("169.254.0.0/16"): _ROUTERLESS,
    ip_network("224.0.0.0/4"): _GROUPS,
    ip_network("240.0.0.0/4"): "reserved, the last of them for broadcast",
    ip_network("::/8"): "reserved: the loopback address and mapped IPv4 are among them",
    ip_network("fe80::/10"): _ROUTERLESS,
    ip_network("ff00::/8"): _GROUPS,
}
"""Addresses that no container can have, and their purpose (RFC 6890, RFC 4291)."""

_EXAMPLES: Final = {4: "10.20.0.0/24", 6: "fd00:20::/64"}


def parse(asked: str, text: str, version: int) -> Network:
    """Parse a subnet in the user's notation; `InvalidError` names the mistake."""
    try:
        subnet = ip_network(text)
    except ValueError as error:
        raise InvalidError(asked, f"the subnet {text!r} is malformed: {error}") from None
    if subnet.version != version or "/" not in text:
        raise InvalidError(asked, f"{text!r} is not an IPv{version} subnet with a prefix length")
    if subnet.num_addresses < 4:
        raise InvalidError(asked, f"the subnet {text} has no room for a gateway and a container")
    for other, use in _TAKEN.items():
        if subnet.version == other.version and subnet.overlaps(other):
            raise InvalidError(
                asked,
                f"the subnet {text} overlaps reserved addresses",
                f"addresses in {other} are {use}",
                f"a subnet such as {_EXAMPLES[version]}",
            )
    return subnet


def gateway_of(asked: str, subnet: Network, text: str) -> Address:
    """Return the requested gateway or the first address; never the network or broadcast address."""
    if not text:
        return subnet[1]
    try:
        gateway = ip_address(text)
    except ValueError as error:
        raise InvalidError(asked, f"the gateway is malformed: {error}") from None
    if gateway not in subnet or int(gateway) not in host_numbers(subnet):
        raise InvalidError(asked, f"the gateway {text} is not a host address of {subnet}")
    return gateway


def within(asked: str, subnet: Network, text: str) -> Network:
    """Return the part of an IPv4 subnet that container addresses come from."""
    part = parse(asked, text, 4)
    if part[0] not in subnet or part[-1] not in subnet:
        raise InvalidError(asked, f"the range {text} is not within {subnet}")
    return part


def refuse_overlap(asked: str, subnet: Network | None, used: list[Network]) -> None:
    """Raise `ConflictError` if `subnet` shares an address with one that is in use."""
    for other in used:
        if subnet is not None and subnet.version == other.version and subnet.overlaps(other):
            raise ConflictError(
                asked,
                f"its subnet {subnet} overlaps {other}",
                "another network or a route of this host uses the subnet",
                "choose another --subnet; `ip route` and `mydocker network ls` show those in use",
            )


def free(asked: str, used: list[Network]) -> IPv4Network:
    """Return the first private subnet that overlaps no used one."""
    reserved = [IPv4Network("172.16.0.0/16"), IPv4Network(DEFAULT)]
    for subnet in (
        *IPv4Network("172.16.0.0/12").subnets(new_prefix=16),
        *IPv4Network("192.168.0.0/16").subnets(new_prefix=20),
    ):
        if not any(subnet.overlaps(other) for other in [*reserved, *used] if other.version == 4):
            return subnet
    raise ConflictError(
        asked, "every private subnet is in use", remedy="choose a subnet with --subnet"
    )


def ula(identity: str) -> IPv6Network:
    """Return a unique local /64 (RFC 4193) from the network's random id."""
    random = bytes.fromhex(identity)[:5]
    return IPv6Network((b"\xfd" + random + bytes(10), 64))
