"""Build the world from a topology: create namespaces, links, addresses and routes.

Each namespace gets its configuration in one netlink batch, and a single batch creates all veth
pairs. In a router, `eth0` is the interface on the LAN's side, `eth1` the one on the internet's
side.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Literal, Self

from harness.model.plan import ATTACKER, FAMILIES, HOST, INTERNET, NS1, NS2
from harness.model.topology import PRIVATE, Address, Interface, Topology, pick
from harness.world.host import HostMachine
from harness.world.services import Services
from harness.world.state.netlink_dump import Dumps
from linux import netns, rtnetlink
from linux.netlink import Netlink, Request
from linux.netns import NetNS
from linux.readiness import await_ready
from linux.rtnetlink_dump import Link, LinkWatch

NEAR: Final = 2
"""Interface index of `eth0`, on the LAN's side."""
FAR: Final = 3
"""Interface index of `eth1`, on the internet's side."""
SWITCH: Final = 10
"""Interface index of a bridge: the LAN's, and br0 in the host."""
DOWNWARD: Final = 100
"""Routing table of the routers for the private ranges.

Only packets from the internet's side, or from the router itself, use the table. Otherwise a
packet of the host to an unused private address would loop between host and router until its TTL
expires.
"""

DAD: Final = "net.ipv6.conf.default.accept_dad"
"""Sysctl of duplicate address detection on links created later; the world's links skip it.

A forwarder whose link-local address is still tentative resolves no neighbour for a second or two.
Links that the runtime creates in the host have the detection, as on any machine.
"""
UNLIMITED: Final[dict[str, str | int]] = {"net.ipv4.icmp_ratemask": 0, "net.ipv6.icmp.ratemask": ""}
"""Sysctls that remove the rate limits for ICMP errors.

A matrix sends many probes a second, and each needs its error. The mask exempts every kind of
error: besides the rate for each destination (icmp_ratelimit) there is one for all destinations
together, in bursts of fifty.
"""
ROUTER: Final[dict[str, str | int]] = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
}

Probe = Literal["netns", "exec"]
"""Method to probe containers: sockets opened in their namespaces, or an agent inside."""

EVERYWHERE: Final = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


@dataclass(slots=True)
class World:
    """A running world. Use it as a context manager, or `close` it."""

    topology: Topology
    host: HostMachine
    services: Services
    namespaces: dict[str, NetNS]
    """Namespaces by name: host, lan, r1 … rN, internet, attacker, ns1, ns2."""
    probe: Probe = "netns"
    """Method to probe containers, unless their runtime decides it."""
    watched: dict[str, Dumps] = field(default_factory=dict)
    """Open dumps of the namespaces that are compared repeatedly."""
    _link_watches: dict[NetNS, LinkWatch] = field(default_factory=dict)
    _resources: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @classmethod
    def build(cls, topology: Topology | None = None) -> Self:
        """Build namespaces, links and services; an `OSError` names the step that failed."""
        topology = topology or Topology()
        with contextlib.ExitStack() as stack:
            host = HostMachine.start(
                resolver=str(pick(topology.resolver, 4).ip),
                hosts={
                    "127.0.0.1": "localhost",
                    "127.0.1.1": HOST,
                    "::1": "localhost ip6-localhost ip6-loopback",
                },
            )
            stack.callback(host.stop)
            names = ["lan", *routers(topology), INTERNET, ATTACKER, NS1, NS2]
            spaces = {name: stack.enter_context(NetNS.new()) for name in names}
            spaces[HOST] = host.netns
            _wire(topology, spaces)
            services = Services.start(
                {
                    INTERNET: (
                        spaces[INTERNET],
                        [item.ip for item in (*topology.internet, *topology.resolver)],
                    )
                },
                topology=topology,
            )
            stack.callback(services.stop)
            return cls(topology, host, services, spaces, _resources=stack.pop_all())

    def close(self) -> None:
        """End the host and the services, and close the handles on the namespaces."""
        self._resources.close()

    def links(self) -> dict[NetNS, list[Link]]:
        """Return for each namespace of the world those of its links that are up."""
        for space in self.namespaces.values():
            if space not in self._link_watches:
                self._link_watches[space] = self._resources.enter_context(LinkWatch(space))
        return {
            space: [link for link in watch.links() if link.up]
            for space, watch in self._link_watches.items()
        }

    def address(self, name: str, family: int) -> Address:
        """Return the address that a namespace of the world has in one address family.

        `name` is that of the namespace: host, internet, ns1, ….
        """
        interfaces: tuple[Interface, ...] = getattr(self.topology, name)
        return next(item.ip for item in interfaces if item.version == family)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def routers(topology: Topology) -> list[str]:
    """Return the names of the routers, beginning with the one on the LAN."""
    return [f"r{number}" for number in range(1, topology.routers + 1)]


def _wire(topology: Topology, spaces: dict[str, NetNS]) -> None:
    for space in spaces.values():
        netns.write_sysctls(space, {DAD: 0})
    with Netlink(spaces["lan"]) as netlink:
        netlink.send(_cables(topology, spaces))
    for name, space in spaces.items():
        with Netlink(space) as netlink:
            netlink.send(_inside(name, topology))
        forwards = name in routers(topology) or (name == HOST and topology.forwarding)
        netns.write_sysctls(space, UNLIMITED | (ROUTER if forwards else {}))
    netns.write_sysctls(spaces[HOST], {DAD: 1})
    await_ready(list(spaces.values()))


def _cables(topology: Topology, spaces: dict[str, NetNS]) -> Iterator[Request]:
    """Yield the requests that create all links of the world, for one netlink socket in the LAN.

    They are the ports of the bridges, and the links between routers.
    """
    chain = routers(topology)
    yield rtnetlink.add_bridge("lan0", index=SWITCH)
    for port, name in enumerate((HOST, chain[0], ATTACKER), 20):
        yield _cable(name, spaces[name], index=port, master=SWITCH)
    for number, (lower, upper) in enumerate(zip(chain, [*chain[1:], INTERNET], strict=True)):
        mtu = None if number else topology.narrow_mtu
        yield _cable("eth1", spaces[upper], netns=spaces[lower].fd, index=FAR, mtu=mtu)
    for port, name in enumerate((NS1, NS2), 30):
        yield _cable(f"veth-{name}", spaces[name], netns=spaces[HOST].fd, index=port)


def _cable(
    name: str,
    peer: NetNS,
    *,
    index: int,
    netns: int | None = None,
    master: int | None = None,
    mtu: int | None = None,
) -> Request:
    """Return the request for a veth pair; one end is `name`, the other is `eth0` in `peer`."""
    return rtnetlink.add_veth(
        *(name, "eth0"),
        netns=netns,
        index=index,
        master=master,
        peer_netns=peer.fd,
        peer_index=NEAR,
        mtu=mtu,
    )


def _inside(name: str, topology: Topology) -> Iterator[Request]:
    """Yield the requests that configure one namespace, for a single netlink batch."""
    yield rtnetlink.set_link(rtnetlink.LO, up=True)
    if name != "lan":
        yield rtnetlink.set_link(NEAR, up=True)
    chain = routers(topology)
    if name == HOST:
        yield from _addresses(NEAR, topology.host)
        yield from _default(topology.lan_gateway)
        yield rtnetlink.add_bridge("br0", index=SWITCH)
        yield from _addresses(SWITCH, topology.br0)
        yield rtnetlink.set_link(30, master=SWITCH, up=True)
        yield rtnetlink.set_link(31, master=SWITCH, up=True)
    elif name == ATTACKER:
        yield from _addresses(NEAR, topology.attacker)
        yield from _default(topology.lan_gateway)
        yield from _private(topology.host)
    elif name == INTERNET:
        yield from _addresses(NEAR, (*topology.internet, *topology.resolver))
        yield from _default(topology.internet_gateway)
    elif name in (NS1, NS2):
        yield from _addresses(NEAR, topology.ns1 if name == NS1 else topology.ns2)
        yield from _default(topology.br0)
    elif name in chain:
        yield from _router(chain.index(name) + 1, topology)


def _router(number: int, topology: Topology) -> Iterator[Request]:
    last = number == topology.routers
    yield rtnetlink.set_link(FAR, up=True)
    for family in FAMILIES:
        yield rtnetlink.add_rule(family, iif="eth1", table=DOWNWARD, priority=100)
        yield rtnetlink.add_rule(family, iif="lo", table=DOWNWARD, priority=101)
    if number == 1:
        yield from _addresses(NEAR, topology.lan_gateway)
        yield from _private(topology.host, table=DOWNWARD)
    else:
        lower, own = topology.link(number - 1)
        yield from _addresses(NEAR, own)
        yield from _private(lower, table=DOWNWARD)
        links = (topology.link(below)[0] for below in range(1, number - 1))
        for interface in itertools.chain(topology.lan_gateway, *links):
            yield rtnetlink.add_route(interface.network, via=pick(lower, interface.version).ip)
    if last:
        yield from _addresses(FAR, topology.internet_gateway)
        # Without a route the kernel sends only a few errors a second (net.ipv4.route.error_burst,
        # which no namespace can change), so it sometimes rejects and sometimes drops. A promise
        # needs one outcome, so such packets are always dropped.
        for network in EVERYWHERE:
            yield rtnetlink.add_blackhole(network)
    else:
        own, upper = topology.link(number)
        yield from _addresses(FAR, own)
        yield from _default(upper)


def _addresses(index: int, interfaces: tuple[Interface, ...]) -> Iterator[Request]:
    for interface in interfaces:
        yield rtnetlink.add_address(index, interface)


def _default(gateway: tuple[Interface, ...]) -> Iterator[Request]:
    for family in FAMILIES:
        yield rtnetlink.add_route(None, via=pick(gateway, family).ip)


def _private(
    gateway: tuple[Interface, ...], *, table: int = rtnetlink.MAIN_TABLE
) -> Iterator[Request]:
    for network in PRIVATE:
        yield rtnetlink.add_route(network, via=pick(gateway, network.version).ip, table=table)
