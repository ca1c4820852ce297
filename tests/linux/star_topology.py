"""A router and three hosts.

The host that replies shows which of the routes is in use.
"""

from __future__ import annotations

from contextlib import ExitStack
from ipaddress import ip_address, ip_interface, ip_network

from harness.model.plan import Observation, Protocol
from harness.world.build import UNLIMITED
from linux import netns, rtnetlink
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.readiness import await_ready
from tests.support.probing import observe_one

SHARED = {4: "198.51.100.9", 6: "2001:db8:9::9"}
"""Address of two hosts, by family; the host that replies shows the route."""


class Star:
    """A router with three veth pairs, `eth0` to `eth2`, to three hosts.

    Two of the hosts have the same shared address.
    """

    def __init__(self, stack: ExitStack, router: NetNS) -> None:
        self.router = router
        self.client, self.first, self.second = self.hosts = [
            stack.enter_context(NetNS.new()) for _ in range(3)
        ]
        self.namespaces = (router, *self.hosts)
        self.netlink = stack.enter_context(Netlink(router))
        for space in self.namespaces:
            # Addresses usable at once, and no rate limit of ICMP errors.
            netns.write_sysctls(space, {"net.ipv6.conf.default.accept_dad": 0, **UNLIMITED})
        netns.write_sysctls(router, {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})
        for number, host in enumerate(self.hosts):
            self._connect(number, host)
        await_ready(self.namespaces)
        for family in (4, 6):
            self.netlink.send(
                [rtnetlink.add_route(self.shared(family), via=self.address(1, family))]
            )

    def _connect(self, number: int, host: NetNS) -> None:
        port = 10 + number
        with Netlink(host) as inside:
            self.netlink.send(
                [
                    rtnetlink.add_veth(
                        f"eth{number}", "up", index=port, peer_netns=host.fd, peer_index=2
                    ),
                    rtnetlink.add_address(port, ip_interface(f"192.0.2.{4 * number + 1}/30")),
                    rtnetlink.add_address(port, ip_interface(f"2001:db8:{number}::1/64")),
                ]
            )
            inside.send([rtnetlink.set_link(rtnetlink.LO, up=True), rtnetlink.set_link(2, up=True)])
            for family, prefix in ((4, 30), (6, 64)):
                own = ip_interface(f"{self.address(number, family)}/{prefix}")
                inside.send([rtnetlink.add_address(2, own)])
                inside.send([rtnetlink.add_route(None, via=own.network[1])])
                if number:
                    inside.send([rtnetlink.add_address(rtnetlink.LO, ip_interface(SHARED[family]))])

    def address(self, number: int, family: int) -> rtnetlink.Address:
        """Return the address of a host on its link."""
        text = f"192.0.2.{4 * number + 2}" if family == 4 else f"2001:db8:{number}::2"
        return ip_address(text)

    def shared(self, family: int) -> rtnetlink.Network:
        """Return the shared address as a network, the destination of a route."""
        return ip_network(SHARED[family])

    def probe(
        self,
        source: NetNS,
        family: int,
        target: NetNS,
        protocol: Protocol = Protocol.ICMP,
        to: str | None = None,
    ) -> Observation:
        """Probe the shared address, or the address `to`, from `source`.

        `target` is the host whose reply is expected.
        """
        address = to or SHARED[family]
        return observe_one(source, address, target, protocol=protocol, through=self.namespaces)
