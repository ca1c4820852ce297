"""Tests of changes to links, addresses, routes, rules and neighbours.

pyroute2 reads the changed state; probes show its effects.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, NetlinkError, Request, u32
from linux.netns import NetNS
from linux.rtnetlink import Address
from tests.linux import decoder

MAC, OTHER_MAC = "02:42:0a:00:00:01", "02:42:0a:00:00:02"
BRIDGE = 5
"""Interface index of `br0`, in tests that need a link."""
UP = 0x1


def send(space: NetNS, *requests: Request) -> None:
    """Carry out requests in a namespace."""
    with Netlink(space) as netlink:
        netlink.send(requests)


@pytest.fixture
def bridged(space: NetNS) -> NetNS:
    """Add a bridge `br0` to the namespace."""
    send(space, rtnetlink.add_bridge("br0", index=BRIDGE))
    return space


# --- links --------------------------------------------------------------------------


def test_bridge_has_requested_attributes_and_no_spanning_tree(space: NetNS) -> None:
    """A bridge has the requested attributes, no spanning tree and no forward delay."""
    send(space, rtnetlink.add_bridge("br7", index=77, mac=MAC, mtu=1400))
    found = decoder.link(space, "br7")
    data = found.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    assert (found["index"], found["flags"] & UP) == (77, UP)
    assert (found.get_attr("IFLA_ADDRESS"), found.get_attr("IFLA_MTU")) == (MAC, 1400)
    assert found.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge"
    assert data.get_attr("IFLA_BR_STP_STATE") == data.get_attr("IFLA_BR_FORWARD_DELAY") == 0


def test_veth_pair_is_made_in_one_message(bridged: NetNS) -> None:
    """One message makes a veth pair whose near end is up and a bridge port.

    Both ends have the requested namespace, name and MTU.
    """
    with NetNS.new() as far:
        send(
            bridged,
            rtnetlink.add_veth(
                "near",
                "far",
                index=21,
                master=BRIDGE,
                mtu=1300,
                mac=MAC,
                peer_netns=far.fd,
                peer_index=22,
                peer_mac=OTHER_MAC,
            ),
        )
        near, peer = decoder.link(bridged, "near"), decoder.link(far, "far")
    attributes = ("IFLA_MASTER", "IFLA_MTU", "IFLA_ADDRESS", "IFLA_LINK")
    assert [near.get_attr(name) for name in attributes] == [BRIDGE, 1300, MAC, 22]
    assert [peer.get_attr(name) for name in attributes] == [None, 1300, OTHER_MAC, 21]
    assert (near["index"], peer["index"]) == (21, 22)
    assert (near["flags"] & UP, peer["flags"] & UP) == (UP, 0)


def test_both_veth_ends_can_be_placed_from_a_third_namespace(space: NetNS) -> None:
    """The two ends of a veth pair can be placed in two namespaces from a third one.

    The third namespace gets no link.
    """
    with NetNS.new() as one, NetNS.new() as other:
        send(space, rtnetlink.add_veth("a", "b", netns=one.fd, peer_netns=other.fd, up=False))
        assert not decoder.link(one, "a")["flags"] & UP
        assert decoder.link(other, "b").get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "veth"
        with decoder.rtnetlink(space) as ipr:
            assert len(list(ipr.get_links())) == 1


def test_macvlan_has_parent_and_mode_in_another_namespace(bridged: NetNS) -> None:
    """One message makes a macvlan link, with its parent and mode, in another namespace."""
    mode = u32(rtnetlink.IFLA_MACVLAN_MODE, 4)  # MACVLAN_MODE_BRIDGE
    with NetNS.new() as far:
        made = rtnetlink.add_link("macvlan", "mv", parent=BRIDGE, netns=far.fd, data=mode, index=8)
        send(bridged, made)
        found = decoder.link(far, "mv")
    assert (found["index"], found.get_attr("IFLA_LINK")) == (8, BRIDGE)
    assert found.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_MACVLAN_MODE") == "bridge"


def test_bridge_port_can_be_isolated_and_hairpin(bridged: NetNS) -> None:
    """The options isolated and hairpin of a bridge port can be switched on and off."""
    send(bridged, rtnetlink.add_veth("near", "far", index=20, master=BRIDGE))
    for on in (True, False):
        send(bridged, rtnetlink.isolate_port(20, isolated=on), rtnetlink.hairpin_port(20, on=on))
        port = decoder.link(bridged, "near").get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
        assert port.get_attr("IFLA_BRPORT_ISOLATED") == port.get_attr("IFLA_BRPORT_MODE") == on


def test_no_link_local_keeps_a_link_without_ipv6_address(space: NetNS) -> None:
    """A link that is set up after `no_link_local` has no IPv6 address; other links get one."""
    send(
        space,
        rtnetlink.add_veth("with", "without", index=20, peer_index=21, up=False),
        rtnetlink.no_link_local("without"),
        rtnetlink.set_link(20, up=True),
        rtnetlink.set_link(21, up=True),
    )
    with Netlink(space) as netlink:
        rtnetlink_dump.links_named(netlink, ["with", "without"])  # the kernel sees the carrier
    assert decoder.addresses(space, 20)
    assert not decoder.addresses(space, 21)


def test_set_link_changes_only_the_given_attributes(bridged: NetNS) -> None:
    """`set_link` changes the given attributes, such as name, MTU, MAC, master or state.

    Other attributes stay unchanged.
    """

    def state() -> tuple[Any, ...]:
        found = decoder.link(bridged, name)
        wanted = ("IFLA_MTU", "IFLA_ADDRESS", "IFLA_MASTER")
        return (found["flags"] & UP, *(found.get_attr(key) for key in wanted))

    name = "near"
    send(bridged, rtnetlink.add_veth(name, "far", index=20, mac=MAC, mtu=1500, up=False))
    assert state() == (0, 1500, MAC, None)
    send(bridged, rtnetlink.set_link(20, mtu=1400))
    assert state() == (0, 1400, MAC, None)
    send(bridged, rtnetlink.set_link(20, mac=OTHER_MAC))
    assert state() == (0, 1400, OTHER_MAC, None)
    send(bridged, rtnetlink.set_link(20, master=BRIDGE, up=True))
    assert state() == (UP, 1400, OTHER_MAC, BRIDGE)
    send(bridged, rtnetlink.set_link(20, master=0))
    assert state() == (UP, 1400, OTHER_MAC, None)
    send(bridged, rtnetlink.set_link(20, up=False))
    assert state() == (0, 1400, OTHER_MAC, None)
    name = "renamed"
    send(bridged, rtnetlink.set_link(20, name=name))
    assert state() == (0, 1400, OTHER_MAC, None)


def test_link_can_be_moved_and_removed(space: NetNS) -> None:
    """The option `netns` moves a link to another namespace.

    `del_link` with one end's name removes both ends of a veth pair.
    """
    with NetNS.new() as far:
        send(space, rtnetlink.add_veth("near", "far", index=20))
        send(space, rtnetlink.set_link(20, netns=far.fd))
        assert decoder.link(far, "near")["index"] == 20
        send(far, rtnetlink.del_link("near"))
        for place in (space, far):
            with decoder.rtnetlink(place) as ipr:
                assert [item.get_attr("IFLA_IFNAME") for item in ipr.get_links()] == ["lo"]


def test_del_group_removes_all_links_of_the_group(space: NetNS) -> None:
    """`del_group` removes both ends of each veth pair in a group, and no other link."""
    send(space, *(rtnetlink.add_veth(f"near{number}", f"far{number}") for number in range(3)))
    send(space, *(rtnetlink.set_link(0, name=f"near{number}", group=77) for number in range(2)))
    send(space, rtnetlink.del_group(77))
    with decoder.rtnetlink(space) as ipr:
        left = {item.get_attr("IFLA_IFNAME") for item in ipr.get_links()}
    assert left == {"lo", "near2", "far2"}


@pytest.mark.parametrize("mac", ["02:42:0a:00:00", "02:42:0a:00:00:01:02", "not a mac"])
def test_malformed_mac_is_refused(mac: str) -> None:
    """A malformed MAC is refused before a request is sent to the kernel."""
    with pytest.raises(ValueError, match=r"is not a MAC address|non-hexadecimal"):
        rtnetlink.set_link(1, mac=mac)


# --- addresses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "broadcast"),
    [
        ("10.1.2.3/16", "10.1.255.255"),
        ("10.1.2.3/30", "10.1.2.3"),
        ("10.1.2.2/31", None),
        ("10.1.2.3/32", None),
        ("fd00::3/64", None),
        ("fd00::3/128", None),
    ],
)
def test_address_is_added_and_removed(bridged: NetNS, text: str, broadcast: str | None) -> None:
    """An added address has its prefix length and broadcast address.

    After its removal the link no longer has the address.
    """
    send(bridged, rtnetlink.add_address(BRIDGE, ip_interface(text)))
    found = decoder.addresses(bridged, BRIDGE)[text]
    assert found.get_attr("IFA_BROADCAST") == broadcast
    send(bridged, rtnetlink.del_address(BRIDGE, ip_interface(text)))
    assert text not in decoder.addresses(bridged, BRIDGE)


@pytest.mark.parametrize(("nodad", "flags"), [(True, 0x02), (False, 0x40)])
def test_nodad_makes_ipv6_address_usable_at_once(
    bridged: NetNS, *, nodad: bool, flags: int
) -> None:
    """With `nodad` an IPv6 address is usable at once; otherwise it is tentative at first."""
    send(bridged, rtnetlink.add_address(BRIDGE, ip_interface("fd00::3/64"), nodad=nodad))
    found = decoder.addresses(bridged, BRIDGE)["fd00::3/64"].get_attr("IFA_FLAGS")
    assert found & (0x02 | 0x40) == flags  # IFA_F_NODAD, IFA_F_TENTATIVE


def test_existing_address_is_refused(bridged: NetNS) -> None:
    """Adding an existing address is an error that names the address and the link."""
    request = rtnetlink.add_address(BRIDGE, ip_interface("10.1.2.3/16"))
    send(bridged, request)
    with pytest.raises(NetlinkError, match=r"add address 10\.1\.2\.3/16 to link 5: File exists"):
        send(bridged, request)


# --- routes and rules ---------------------------------------------------------------


@pytest.fixture
def routed(bridged: NetNS) -> NetNS:
    """Add addresses to `br0`, so that gateways are directly reachable."""
    for text in ("10.0.0.1/24", "fd00::1/64"):
        send(bridged, rtnetlink.add_address(BRIDGE, ip_interface(text)))
    return bridged


RouteFields = tuple[str | None, int, str | None, int | None, str | None, int, int]


def routes(space: NetNS, family: int, table: int) -> set[RouteFields]:
    """Return routes as (destination, prefix, gateway, link, source, scope, type)."""
    with decoder.rtnetlink(space) as ipr:
        found = [item for item in ipr.get_routes(family=family) if in_table(item) == table]
    attributes = ("RTA_GATEWAY", "RTA_OIF", "RTA_PREFSRC")
    return {
        (
            item.get_attr("RTA_DST"),
            item["dst_len"],
            *(item.get_attr(name) for name in attributes),
            item["scope"],
            item["type"],
        )
        for item in found
        if item["proto"] != 2  # RTPROT_KERNEL
    }


def in_table(item: Any) -> int:
    """Return the routing table of a route or rule that pyroute2 has decoded."""
    return int(item.get_attr("RTA_TABLE") or item.get_attr("FRA_TABLE") or item["table"])


@pytest.mark.parametrize("table", [254, 100, 1000])
def test_route_has_requested_attributes(routed: NetNS, table: int) -> None:
    """A route has the requested attributes in both families: destination, gateway and others.

    The others are link, source address and table.
    """
    four, six = ip_network("10.9.0.0/16"), ip_network("fd09::/16")
    send(
        routed,
        rtnetlink.add_route(four, via=ip_address("10.0.0.2"), table=table),
        rtnetlink.add_route(six, via=ip_address("fd00::2"), table=table),
        rtnetlink.add_route(None, via=ip_address("10.0.0.3"), table=table),
        rtnetlink.add_route(None, via=ip_address("fd00::3"), oif=BRIDGE, table=table),
        rtnetlink.add_route(
            ip_network("10.8.0.0/16"), oif=BRIDGE, source=ip_address("10.0.0.1"), table=table
        ),
    )
    assert routes(routed, socket.AF_INET, table) == {
        ("10.9.0.0", 16, "10.0.0.2", BRIDGE, None, 0, 1),
        (None, 0, "10.0.0.3", BRIDGE, None, 0, 1),
        ("10.8.0.0", 16, None, BRIDGE, "10.0.0.1", 253, 1),
    }
    assert routes(routed, socket.AF_INET6, table) == {
        ("fd09::", 16, "fd00::2", BRIDGE, None, 0, 1),
        (None, 0, "fd00::3", BRIDGE, None, 0, 1),
    }


@pytest.mark.parametrize(
    ("destination", "first", "second"),
    [
        ("10.9.0.0/16", "10.0.0.2", "10.0.0.3"),
        ("fd09::/16", "fd00::2", "fd00::3"),
        (None, "10.0.0.2", "10.0.0.3"),
        (None, "fd00::2", "fd00::3"),
    ],
)
def test_route_is_added_replaced_and_removed(
    routed: NetNS, destination: str | None, first: str, second: str
) -> None:
    """A second route to the same destination is refused, unless it replaces the first one.

    A removal removes exactly the named route.
    """
    where = ip_network(destination) if destination else None
    family = socket.AF_INET if "." in first else socket.AF_INET6

    def gateways() -> set[str | None]:
        return {item[2] for item in routes(routed, family, 254)}

    send(routed, rtnetlink.add_route(where, via=ip_address(first)))
    with pytest.raises(NetlinkError, match="File exists"):
        send(routed, rtnetlink.add_route(where, via=ip_address(second)))
    send(routed, rtnetlink.add_route(where, via=ip_address(second), replace=True))
    assert gateways() == {second}
    with pytest.raises(NetlinkError, match="No such process"):
        send(routed, rtnetlink.del_route(where, via=ip_address(first)))
    send(routed, rtnetlink.del_route(where, via=ip_address(second)))
    assert gateways() == set()


@pytest.mark.parametrize("text", ["10.9.0.0/16", "fd09::/16", "0.0.0.0/0", "::/0"])
def test_blackhole_route_has_its_type_in_the_main_table(space: NetNS, text: str) -> None:
    """A blackhole route is in the main table and has the type blackhole.

    It may be for a network of either family, or a default route.
    """
    network = ip_network(text)
    send(space, rtnetlink.add_blackhole(network))
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    ((destination, length, *_, kind),) = routes(space, family, 254)
    assert (destination or str(network.network_address), length, kind) == (
        str(network.network_address),
        network.prefixlen,
        6,  # RTN_BLACKHOLE
    )


@pytest.mark.parametrize("table", [100, 1000])
def test_policy_rule_has_requested_attributes(space: NetNS, table: int) -> None:
    """A policy rule has the requested priority, interface and table in both families."""
    for family in (4, 6):
        send(space, rtnetlink.add_rule(family, iif="eth9", table=table, priority=7))
    for number in (socket.AF_INET, socket.AF_INET6):
        with decoder.rtnetlink(space) as ipr:
            (rule,) = [item for item in ipr.get_rules(family=number) if in_table(item) == table]
        found = [rule.get_attr(name) for name in ("FRA_PRIORITY", "FRA_IIFNAME", "FRA_TABLE")]
        assert (found, rule["action"]) == ([7, "eth9", table], 1)  # FR_ACT_TO_TBL


# --- neighbours ---------------------------------------------------------------------


@pytest.mark.parametrize("address", [ip_address("10.0.0.9"), ip_address("fd00::9")])
def test_neighbour_is_added_replaced_and_removed(routed: NetNS, address: Address) -> None:
    """A permanent neighbour entry has the requested MAC.

    It can be replaced and removed.
    """

    def entries() -> list[tuple[str, int, int]]:
        with decoder.rtnetlink(routed) as ipr:
            found = [n for n in ipr.get_neighbours() if n.get_attr("NDA_DST") == str(address)]
        return [(n.get_attr("NDA_LLADDR"), n["state"], n["ifindex"]) for n in found]

    for mac in (MAC, OTHER_MAC):
        send(routed, rtnetlink.add_neighbour(BRIDGE, address, mac))
        assert entries() == [(mac, 0x80, BRIDGE)]  # NUD_PERMANENT
    send(routed, rtnetlink.del_neighbour(BRIDGE, address))
    assert entries() == []
