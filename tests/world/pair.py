"""Two network namespaces joined by a veth pair: the smallest world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_interface

from harness.world.build import UNLIMITED
from linux import rtnetlink
from linux.netlink import Netlink
from linux.netns import NetNS, write_sysctls
from linux.readiness import await_ready

PORT = 2
"""Interface index of `eth0`, the end of the veth pair, in both namespaces."""


@contextmanager
def pair(left: Sequence[str], right: Sequence[str]) -> Iterator[tuple[NetNS, NetNS]]:
    """Make two namespaces whose `eth0` have these addresses, such as `192.0.2.1/24`.

    Duplicate address detection is off, so addresses are usable at once. The rate limit of ICMP
    errors is off too, because on older kernels it applies to the whole machine.
    """
    with NetNS.new() as one, NetNS.new() as other, ExitStack() as stack:
        near, far = (stack.enter_context(Netlink(netns)) for netns in (one, other))
        for netns in (one, other):
            write_sysctls(netns, {"net.ipv6.conf.default.accept_dad": 0, **UNLIMITED})
        near.send(
            [rtnetlink.add_veth("eth0", "eth0", index=PORT, peer_netns=other.fd, peer_index=PORT)]
        )
        for netlink, addresses in ((near, left), (far, right)):
            netlink.send(
                [
                    rtnetlink.set_link(1, up=True),
                    rtnetlink.set_link(PORT, up=True),
                    *(rtnetlink.add_address(PORT, ip_interface(text)) for text in addresses),
                ]
            )
        await_ready([one, other])
        yield one, other
