"""Router advertisements, which the host must accept even if the runtime enables forwarding."""

from __future__ import annotations

from typing import Final

from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from harness.model.plan import HOST, INTERNET, Bridge
from harness.model.topology import Address, Topology, pick
from harness.plugin.fixtures import RuntimeStarter
from harness.plugin.marks import requirement
from harness.testbench.listener import ask_echo_service
from harness.testbench.netns_view import NetnsView, until, view_of
from harness.testbench.packets.craft import ALL_NODES, mac_of, send_frame
from harness.testbench.scene import Scene
from harness.world.build import World, routers
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink

LIFETIME: Final = 1800
"""Router lifetime in seconds, as radvd sends it: three times its default interval."""


@requirement("BYS-5")
def test_host_accepts_router_advertisements_after_runtime_enables_forwarding(
    start_runtime: RuntimeStarter,
) -> None:
    """The host still accepts router advertisements after the runtime enables IPv6 forwarding.

    The host keeps its default route while a network has IPv6, and loses the route when the router
    withdraws it.
    """
    topology = Topology(forwarding=False)
    with World.build(topology) as world:
        host, router = view_of(world, HOST), view_of(world, routers(topology)[0])
        address = link_local(router, "eth0")
        forget_the_way(host, topology)
        tell(router, lifetime=LIFETIME)
        await_way(host, address)
        ask_echo_service(host, world.address(INTERNET, 6), "tcp")
        with start_runtime(world) as runtime, Scene(world, runtime) as scene:
            scene.network("six", ipv6=True)
            scene.container("guest", Bridge("six"))
            assert way(host) == address
            ask_echo_service(host, world.address(INTERNET, 6), "tcp")
            tell(router, lifetime=0)
            await_way(host, None)
            tell(router, lifetime=LIFETIME)
            await_way(host, address)


def forget_the_way(host: NetnsView, topology: Topology) -> None:
    """Remove the host's static default route and accept router advertisements instead."""
    host.tune({"net.ipv6.conf.eth0.accept_ra": 1})
    with host.open() as space, Netlink(space) as netlink:
        netlink.send([rtnetlink.del_route(None, via=pick(topology.lan_gateway, 6).ip)])


def tell(router: NetnsView, *, lifetime: int) -> None:
    """Send a router advertisement on the LAN; a `lifetime` of 0 seconds withdraws the router."""
    send_frame(
        router, advertisement(router.links()["eth0"].mac, link_local(router, "eth0"), lifetime)
    )


def advertisement(mac: str, address: Address, lifetime: int) -> Packet:
    """Craft an advertisement that offers only its sender as a router, without a prefix."""
    head = Ether(src=mac, dst=mac_of(ALL_NODES))
    return (
        head
        / IPv6(src=str(address), dst=str(ALL_NODES), hlim=255)
        / ICMPv6ND_RA(routerlifetime=lifetime)
    )


def way(view: NetnsView) -> Address | None:
    """Return the next hop of the IPv6 default route."""
    found = (item for item in view.routes() if item.family == 6 and item.destination is None)
    return next((item.via for item in found), None)


def await_way(view: NetnsView, wanted: Address | None) -> None:
    """Wait until a router advertisement has made `wanted` the next hop."""
    until(view, lambda: way(view) == wanted, f"the next hop of the IPv6 default route is {wanted}")


def link_local(view: NetnsView, link: str) -> Address:
    """Return the link-local address of an interface."""
    with view.open() as space, Netlink(space) as netlink:
        index = rtnetlink_dump.link(netlink, link).ifindex
        found = (item.address.ip for item in rtnetlink_dump.addresses(netlink, index=index))
        return next(item for item in found if item.is_link_local)
