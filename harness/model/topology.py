"""Topology of the world: its namespaces, their addresses, and the routers between them.

The LAN, the links between routers and the internet use only documentation ranges (RFC 5737,
RFC 3849), so that a mistake never sends a packet to a real host. The network behind `br0`
belongs to the host and uses private ranges (RFC 1918, RFC 4193).

```
                     internet  203.0.113.10 (www.example.com), 203.0.113.53 (DNS)
                        |
                     r3 - r2 - r1      a chain, so that TTLs differ
                        |
      attacker ------ LAN 198.51.100.0/24 ------ host eth0 198.51.100.7
                                                   |-- br0 192.168.2.1/24 -- ns1 .10, ns2 .20
                                                   `-- (the runtime's bridges)
```
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from harness.model.plan import Family

Interface = IPv4Interface | IPv6Interface
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


START_TTL = 64
"""Initial TTL and hop limit of packets that Linux sends."""

WWW = "www.example.com"
SENTINEL_ZONE = "sentinel.example.com"
"""Zone in which every name has the internet's address; the DNS server records client and query."""

PRIVATE: tuple[Network, ...] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv6Network("fc00::/7"),
)
"""Ranges that the routers and the attacker route towards the host.

A packet from the internet to a container's address therefore arrives at the host, and
only the runtime's rules stop it there.
"""


@dataclass(frozen=True, slots=True)
class Topology:
    """The shape of one world: number of routers, addresses and MTU.

    Every address is an interface address, with its prefix length. `routers` is the number of
    routers in the chain between the LAN and the internet, at least 1. `narrow_mtu` is the MTU in
    bytes of the link between the first two routers, or between a single router and the internet.
    """

    routers: int = 3
    narrow_mtu: int | None = None
    forwarding: bool = True

    host: tuple[Interface, ...] = (
        IPv4Interface("198.51.100.7/24"),
        IPv6Interface("2001:db8:64::7/64"),
    )
    attacker: tuple[Interface, ...] = (
        IPv4Interface("198.51.100.66/24"),
        IPv6Interface("2001:db8:64::66/64"),
    )
    lan_gateway: tuple[Interface, ...] = (
        IPv4Interface("198.51.100.1/24"),
        IPv6Interface("2001:db8:64::1/64"),
    )
    internet: tuple[Interface, ...] = (
        IPv4Interface("203.0.113.10/24"),
        IPv6Interface("2001:db8:1::10/64"),
    )
    resolver: tuple[Interface, ...] = (
        IPv4Interface("203.0.113.53/24"),
        IPv6Interface("2001:db8:1::53/64"),
    )
    internet_gateway: tuple[Interface, ...] = (
        IPv4Interface("203.0.113.1/24"),
        IPv6Interface("2001:db8:1::1/64"),
    )
    br0: tuple[Interface, ...] = (IPv4Interface("192.168.2.1/24"), IPv6Interface("fd00:2::1/64"))
    ns1: tuple[Interface, ...] = (IPv4Interface("192.168.2.10/24"), IPv6Interface("fd00:2::10/64"))
    ns2: tuple[Interface, ...] = (IPv4Interface("192.168.2.20/24"), IPv6Interface("fd00:2::20/64"))

    def __post_init__(self) -> None:
        if not 1 <= self.routers <= 30:
            raise ValueError(f"a world has 1 to 30 routers, not {self.routers}")

    def link(self, number: int) -> tuple[tuple[Interface, ...], tuple[Interface, ...]]:
        """Return the addresses of the link between router `number` and the next, LAN side first.

        `number` counts from 1. The ranges are 192.0.2.0/24 and 2001:db8:2::/48.
        """
        base = int(IPv4Address("192.0.2.0")) + 4 * number
        return (
            (IPv4Interface((base + 1, 30)), IPv6Interface(f"2001:db8:2:{number:x}::1/64")),
            (IPv4Interface((base + 2, 30)), IPv6Interface(f"2001:db8:2:{number:x}::2/64")),
        )

    def owners(self) -> dict[Address, str]:
        """Return the owner's name for each address that belongs to a namespace of the world."""
        named = {
            "host": (*self.host, *self.br0),
            "attacker": self.attacker,
            "internet": (*self.internet, *self.resolver),
            "ns1": self.ns1,
            "ns2": self.ns2,
        }
        return {interface.ip: name for name, own in named.items() for interface in own}


def pick(interfaces: tuple[Interface, ...], family: Family) -> Interface:
    """Return the interface address of one family; raise `LookupError` if there is none."""
    for interface in interfaces:
        if interface.version == family:
            return interface
    raise LookupError(f"no IPv{family} address among {interfaces}")
