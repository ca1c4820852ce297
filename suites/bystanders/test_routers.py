"""A host that a router on its LAN tells the way: it listens on when the runtime has it forward."""

from __future__ import annotations

from typing import Final

from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from harness.model.plan import HOST, INTERNET, Bridge
from harness.model.topology import Address, Topology, pick
from harness.plugin.fixtures import RuntimeStarter
from harness.plugin.marks import requirement
from harness.testbench.listener import introduce
from harness.testbench.netns_view import NetnsView, until, view_of
from harness.testbench.packets.craft import ALL_NODES, mac_of, send_frame
from harness.testbench.scene import Scene
from harness.world.build import World, routers
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink

LIFETIME: Final = 1800
"""Seconds for which a router is the way out, as radvd would say: three times its pause."""


@requirement("BYS-5")
def test_a_router_that_the_host_listens_to_is_listened_to_still(
    start_runtime: RuntimeStarter,
) -> None:
    """Its way out stays, and ends when the router says so, while a network has IPv6."""
    topology = Topology(forwarding=False)
    with World.build(topology) as world:
        host, router = view_of(world, HOST), view_of(world, routers(topology)[0])
        address = link_local(router, "eth0")
        forget_the_way(host, topology)
        tell(router, lifetime=LIFETIME)
        await_way(host, address)
        introduce(host, world.address(INTERNET, 6), "tcp")
        with start_runtime(world) as runtime, Scene(world, runtime) as scene:
            scene.network("six", ipv6=True)
            scene.container("guest", Bridge("six"))
            assert way(host) == address
            introduce(host, world.address(INTERNET, 6), "tcp")
            tell(router, lifetime=0)
            await_way(host, None)
            tell(router, lifetime=LIFETIME)
            await_way(host, address)


def forget_the_way(host: NetnsView, topology: Topology) -> None:
    """Take the way out that the host was told of by hand, and have it listen to routers."""
    host.tune({"net.ipv6.conf.eth0.accept_ra": 1})
    with host.open() as space, Netlink(space) as netlink:
        netlink.send([rtnetlink.del_route(None, via=pick(topology.lan_gateway, 6).ip)])


def tell(router: NetnsView, *, lifetime: int) -> None:
    """Have a router say on the LAN that it is one, for so many seconds; 0: no more."""
    send_frame(
        router, advertisement(router.links()["eth0"].mac, link_local(router, "eth0"), lifetime)
    )


def advertisement(mac: str, address: Address, lifetime: int) -> Packet:
    """Of a router that offers itself and nothing else."""
    head = Ether(src=mac, dst=mac_of(ALL_NODES))
    return (
        head
        / IPv6(src=str(address), dst=str(ALL_NODES), hlim=255)
        / ICMPv6ND_RA(routerlifetime=lifetime)
    )


def way(place: NetnsView) -> Address | None:
    """By whom its way out leads, over IPv6."""
    found = (item for item in place.routes() if item.family == 6 and item.destination is None)
    return next((item.via for item in found), None)


def await_way(place: NetnsView, wanted: Address | None) -> None:
    """Wait until that is by whom it leads, because a router has said so."""
    until(place, lambda: way(place) == wanted, f"its way out over IPv6 is by {wanted}")


def link_local(place: NetnsView, link: str) -> Address:
    """The address of a link that no router passes on."""
    with place.open() as space, Netlink(space) as netlink:
        index = rtnetlink_dump.link(netlink, link).ifindex
        found = (item.address.ip for item in rtnetlink_dump.addresses(netlink, index=index))
        return next(item for item in found if item.is_link_local)
