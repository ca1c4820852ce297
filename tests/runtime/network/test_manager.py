"""User-defined networks: create, inspect, remove; and the traffic that they allow."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.nftables import Nft
from runtime.engine import Engine
from runtime.errors import ConflictError, InvalidError, MydockerError, NotFoundError
from runtime.network import firewall
from runtime.records import ContainerRecord
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import (
    WITHIN,
    links,
    netns,
    network,
    nothing_left,
    tables,
    until,
)

PORT = 4242


def test_network_has_its_requested_options(engine: Engine) -> None:
    """The bridge, the veth pair and the container have its subnet, gateway, range, IPv6 and MTU."""
    made = engine.network_create(
        "lan",
        subnet="10.9.0.0/16",
        gateway="10.9.9.9",
        ip_range="10.9.8.0/24",
        subnet6="fd00:9::/64",
        gateway6="fd00:9::9",
        mtu=1400,
    )
    web = engine.run("base", FOR_EVER, network="lan")
    (endpoint,) = web.state.endpoints
    assert (endpoint.address, endpoint.gateway) == ("10.9.8.0/16", "10.9.9.9")
    assert (endpoint.address6, endpoint.gateway6) == ("fd00:9::1/64", "fd00:9::9")
    with netns(web) as inside:
        seen = network(inside)
        assert {"10.9.8.0/16", "fd00:9::1/64"} <= set(seen.addresses)
        assert {("None", "10.9.9.9"), ("None", "fd00:9::9")} <= set(seen.routes)
        assert links(inside)["eth0"].mtu == 1400
    assert links()[made.bridge].mtu == links()[endpoint.veth].mtu == 1400
    assert {"10.9.9.9/16", "fd00:9::9/64"} <= set(network().addresses)


def test_gateway_of_a_new_network_accepts_packets_at_once(engine: Engine) -> None:
    """Also over IPv6, where the kernel lists an address before it accepts packets for it."""
    for _ in range(30):
        made = engine.network_create("six", subnet6="fd00:9::/64")
        with Netlink() as host:
            assert {gateway.ip for gateway in made.gateways} & rtnetlink_dump.local_addresses(host)
        engine.network_remove("six")


def test_firewall_rules_do_not_depend_on_creation_order(engine: Engine) -> None:
    """The table is the same as before after a network's creation and removal."""
    for name in ("later", "earlier"):
        engine.network_create(name)
    before = _rules()
    engine.network_create("passing")
    assert _rules() != before
    engine.network_remove("passing")
    assert _rules() == before
    engine.repair()
    assert _rules() == before


def _rules() -> list[tuple[str, str]]:
    with Nft() as nft:
        return [(rule.chain, rule.comment) for rule in nft.rules(firewall.TABLE)]


def test_fragments_pass_a_bridge_with_a_large_mtu(engine: Engine) -> None:
    """Fragments pass also if br_netfilter reassembles and fragments them again."""
    engine.network_create("wide", mtu=4000)
    one, other = (engine.run("base", FOR_EVER, network="wide") for _ in range(2))
    with (
        netns(one) as here,
        netns(other) as there,
        here.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller,
        there.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
    ):
        ear.settimeout(WITHIN)
        ear.bind(("", PORT))
        address = str(ip_interface(other.state.endpoints[0].address).ip)
        caller.sendto(bytes(8000), (address, PORT))
        assert ear.recv(1 << 16) == bytes(8000)


def test_default_subnets_do_not_overlap(engine: Engine) -> None:
    """Each network gets a subnet that overlaps no other, nor the default network's."""
    made = [engine.network_create(name, ipv6=True) for name in ("a", "b", "c")]
    found = [
        subnet for item in (*made, engine.network_inspect("bridge")) for subnet in item.subnets
    ]
    for one in found:
        others = [item for item in found if item is not one and item.version == one.version]
        assert not any(one.overlaps(other) for other in others)


def test_subnet_of_a_host_route_is_not_used(engine: Engine) -> None:
    """A subnet of a route of the host is not chosen, and is refused as an option."""
    with Netlink() as netlink:
        netlink.send([rtnetlink.add_bridge("lan0")])
        index = links()["lan0"].ifindex
        netlink.send([rtnetlink.add_address(index, ip_interface("172.18.1.1/24"))])
    assert engine.network_create("a").subnet == "172.19.0.0/16"
    with pytest.raises(ConflictError, match=r"overlaps 172\.18\.1\.0/24"):
        engine.network_create("b", subnet="172.18.0.0/16")


WRONG: dict[str, tuple[dict[str, Any], type[MydockerError], str]] = {
    "no length": ({"subnet": "10.0.0.0"}, InvalidError, "prefix length"),
    "host bits": ({"subnet": "10.0.0.1/24"}, InvalidError, "host bits"),
    "nonsense": ({"subnet": "lan"}, InvalidError, "malformed"),
    "too small": ({"subnet": "10.0.0.0/31"}, InvalidError, "no room"),
    "everything": ({"subnet": "0.0.0.0/0"}, InvalidError, r"those of 0\.0\.0\.0/8 are reserved"),
    "loopback": ({"subnet": "127.9.0.0/16"}, InvalidError, "are the loopback interface's"),
    "link-local": ({"subnet": "169.254.0.0/16"}, InvalidError, "are link-local"),
    "multicast": ({"subnet": "224.0.0.0/24"}, InvalidError, "multicast"),
    "broadcast": ({"subnet": "255.255.255.0/24"}, InvalidError, "broadcast"),
    "every IPv6": ({"ipv6": True, "subnet6": "::/0"}, InvalidError, "::/8 are reserved"),
    "link-local IPv6": ({"ipv6": True, "subnet6": "fe80::/64"}, InvalidError, "are link-local"),
    "multicast IPv6": ({"ipv6": True, "subnet6": "ff05::/64"}, InvalidError, "multicast"),
    "wrong family": ({"subnet": "fd00::/64"}, InvalidError, "not an IPv4 subnet"),
    "gateway outside": (
        {"subnet": "10.0.0.0/24", "gateway": "10.0.1.1"},
        InvalidError,
        r"10\.0\.1\.1",
    ),
    "gateway is broadcast": (
        {"subnet": "10.0.0.0/24", "gateway": "10.0.0.255"},
        InvalidError,
        r"10\.0\.0\.255",
    ),
    "range outside": (
        {"subnet": "10.0.0.0/24", "ip_range": "10.0.1.0/25"},
        InvalidError,
        "not within",
    ),
    "gateway of no subnet": ({"gateway": "10.0.0.1"}, InvalidError, "no subnet for it"),
    "range of no subnet": ({"ip_range": "10.0.0.0/25"}, InvalidError, "no subnet for it"),
    "IPv6 gateway of none": ({"ipv6": True, "gateway6": "fd00::1"}, InvalidError, "no subnet"),
    "overlap": ({"subnet": "172.17.128.0/24"}, ConflictError, r"overlaps 172\.17\.0\.0/16"),
    "MTU": ({"mtu": 67}, InvalidError, "67"),
    "MTU for IPv6": ({"mtu": 1279, "ipv6": True}, InvalidError, "1279"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=list(WRONG))
def test_refused_network_creation_leaves_nothing(
    engine: Engine, root: Path, case: tuple[dict[str, Any], type[MydockerError], str]
) -> None:
    """No bridge, rule or file of the attempt is left."""
    options, kind, said = case
    engine.network_inspect("bridge")
    with nothing_left(root), pytest.raises(kind, match=said):
        engine.network_create("lan", **options)


@pytest.mark.parametrize("name", ["host", "none", "bridge", "a b", ""])
def test_reserved_or_invalid_network_name_is_refused(engine: Engine, name: str) -> None:
    """Modes, the default network, and invalid names are refused."""
    engine.network_inspect("bridge")
    with pytest.raises((ConflictError, InvalidError)):
        engine.network_create(name)


def test_network_in_use_is_not_removed(engine: Engine, root: Path) -> None:
    """An unused network is removed with bridge, rules and addresses, by any prefix of its id."""
    engine.network_inspect("bridge")
    with nothing_left(root):
        made = engine.network_create("lan", ipv6=True)
        web = engine.run("base", FOR_EVER, network="lan")
        with pytest.raises(ConflictError, match=web.id[:12]):
            engine.network_remove("lan")
        engine.remove(web.id, force=True)
        engine.network_remove(made.id[:12])
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("0")
        (root / "sysctls.json").write_text('{"net.ipv4.ip_forward": "0"}')
    with pytest.raises(NotFoundError, match="lan"):
        engine.network_inspect("lan")


def test_foreign_bridge_is_neither_used_nor_removed(engine: Engine) -> None:
    """A docker0 of another runtime is neither used nor removed."""
    with Netlink() as netlink:
        netlink.send([rtnetlink.add_bridge("docker0", mac="02:42:00:00:00:99")])
    with pytest.raises(ConflictError, match="did not make"):
        engine.run("base", FOR_EVER)
    engine.teardown()
    assert links()["docker0"].mac == "02:42:00:00:00:99"


def test_teardown_keeps_a_foreign_bridge_of_the_same_name(engine: Engine) -> None:
    """A foreign bridge in the place of mydocker's own is not removed."""
    engine.network_inspect("bridge")
    with Netlink() as netlink:
        netlink.send([rtnetlink.del_link("docker0")])
        netlink.send([rtnetlink.add_bridge("docker0", mac="02:42:00:00:00:99")])
    engine.teardown()
    assert links()["docker0"].mac == "02:42:00:00:00:99"


def test_repair_restores_rules_bridge_and_forwarding(engine: Engine) -> None:
    """Rules, bridge and forwarding are restored; running containers are on the bridge again."""
    web = engine.run("base", FOR_EVER)
    (endpoint,) = web.state.endpoints
    with Nft() as nft, Netlink() as netlink:
        nft.apply(firewall.ruleset([])[:2])
        netlink.send([rtnetlink.del_link("docker0")])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    engine.repair()
    assert firewall.TABLE in tables()
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
    assert links()[endpoint.veth].master == links()["docker0"].ifindex
    assert _arrives(NetNS.own(), web)


# --- traffic -----------------------------------------------------------------------


def _where(target: ContainerRecord | tuple[str, NetNS]) -> tuple[str, NetNS]:
    """Return address and netns of a container; or both as given."""
    if isinstance(target, ContainerRecord):
        return target.state.endpoints[0].address.partition("/")[0], netns(target)
    return target


@contextmanager
def _sockets(source: NetNS, space: NetNS, address: str) -> Iterator[tuple[socket.socket, ...]]:
    """Yield a witness and a control socket at the target, and a sender."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        space.socket(family, socket.SOCK_DGRAM) as witness,
        space.socket(family, socket.SOCK_DGRAM) as control,
        source.socket(family, socket.SOCK_DGRAM) as sender,
    ):
        witness.bind(("", PORT))
        witness.settimeout(WITHIN)
        yield witness, control, sender


def _arrives(source: NetNS, target: ContainerRecord | tuple[str, NetNS]) -> bool:
    """Return whether the first datagram from `source` arrives at the target."""
    address, space = _where(target)
    with _sockets(source, space, address) as (witness, _, sender):
        sender.sendto(b"asked", (address, PORT))
        return witness.recv(64) == b"asked"


def _stopped(source: NetNS, target: ContainerRecord | tuple[str, NetNS]) -> bool:
    """Return whether no datagram from `source` arrives at the target.

    All is in one kernel: a datagram that has not arrived before a later one from the target
    itself was dropped. Repeat it several times, in case a neighbour is resolved first.
    """
    address, space = _where(target)
    loopback = "::1" if ":" in address else "127.0.0.1"
    with _sockets(source, space, address) as (witness, control, sender):
        for _ in range(5):
            try:
                sender.sendto(b"asked", (address, PORT))
            except OSError:
                return True  # no route
            control.sendto(b"control", (loopback, PORT))
            if witness.recv(64) == b"asked":
                return False
        return True


@contextmanager
def _outside() -> Iterator[NetNS]:
    """Yield a neighbour of the host on a LAN, 198.51.100.66, with the host as its router."""
    with NetNS.new() as lan, Netlink() as near, Netlink(lan) as far:
        near.send([rtnetlink.add_veth("eth9", "eth0", peer_netns=lan.fd, peer_index=2)])
        index = links()["eth9"].ifindex
        near.send([rtnetlink.add_address(index, ip_interface("198.51.100.7/24"))])
        far.send(
            [
                rtnetlink.set_link(1, up=True),
                rtnetlink.set_link(2, up=True),
                rtnetlink.add_address(2, ip_interface("198.51.100.66/24")),
                rtnetlink.add_route(None, via=ip_interface("198.51.100.7/24").ip),
            ]
        )
        # A query for one link makes the kernel notice its carrier; a dump does not.
        until(lambda: rtnetlink_dump.link(near, "eth9").running, "the LAN carries")
        until(lambda: rtnetlink_dump.link(far, "eth0").running, "the LAN carries, seen from there")
        yield lan


def test_peers_on_a_bridge_reach_each_other(engine: Engine) -> None:
    """Peers on the bridge reach each other at once after the start."""
    one, two = engine.run("base", FOR_EVER), engine.run("base", FOR_EVER)
    assert _arrives(netns(one), two)
    assert _arrives(netns(two), one)
    assert _arrives(NetNS.own(), two)


def test_routed_packet_from_a_neighbour_is_dropped(engine: Engine) -> None:
    """A neighbour's packet is dropped even if it has a route through the host."""
    web = engine.run("base", FOR_EVER)
    with _outside() as lan:
        assert _arrives(netns(web), ("198.51.100.66", lan))
        assert _stopped(lan, web)


def test_packets_between_networks_are_dropped(engine: Engine) -> None:
    """Packets are dropped in both directions, also if one network is internal."""
    engine.network_create("a")
    engine.network_create("b", internal=True)
    one = engine.run("base", FOR_EVER, network="a")
    two = engine.run("base", FOR_EVER, network="b")
    assert _stopped(netns(one), two)
    assert _stopped(netns(two), one)


def test_internal_network_has_no_route_to_the_outside(engine: Engine) -> None:
    """There is no default route, and with an added one still nothing beyond the bridge answers."""
    engine.network_create("a", internal=True)
    one = engine.run("base", FOR_EVER, network="a")
    peer = engine.run("base", FOR_EVER, network="a")
    with _outside() as lan, netns(one) as inside:
        assert not [route for route in network(inside).routes if route[0] == "None"]
        assert _arrives(inside, peer)
        with Netlink(inside) as netlink:
            gateway = engine.network_inspect("a").gateways[0].ip
            netlink.send([rtnetlink.add_route(None, via=gateway)])
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        assert _stopped(inside, ("198.51.100.66", lan))


def test_network_without_icc_isolates_its_peers(engine: Engine) -> None:
    """Bridge ports are isolated, so that even raw Ethernet is dropped; the host is reachable."""
    engine.network_create("a", icc=False)
    one = engine.run("base", FOR_EVER, network="a")
    two = engine.run("base", FOR_EVER, network="a")
    assert _stopped(netns(one), two)
    assert _arrives(NetNS.own(), two)
    assert all(links()[item.state.endpoints[0].veth].isolated for item in (one, two))


def test_packet_with_forged_source_is_dropped(engine: Engine) -> None:
    """A packet with a source outside the subnet is dropped instead of masqueraded."""
    web = engine.run("base", FOR_EVER)
    with _outside() as lan, netns(web) as inside:
        with Netlink(inside) as netlink:
            netlink.send([rtnetlink.add_address(2, ip_interface("203.0.113.5/32"))])
        with (
            lan.socket(socket.AF_INET, socket.SOCK_DGRAM) as witness,
            inside.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger,
            inside.socket(socket.AF_INET, socket.SOCK_DGRAM) as honest,
        ):
            witness.bind(("", PORT))
            witness.settimeout(WITHIN)
            forger.bind(("203.0.113.5", 0))
            forger.sendto(b"forged", ("198.51.100.66", PORT))
            honest.sendto(b"honest", ("198.51.100.66", PORT))
            data, sender = witness.recvfrom(64)
    assert (data, sender[0]) == (b"honest", "198.51.100.7")


def test_ipv6_network_connects_peers_and_masquerades(engine: Engine) -> None:
    """Peers reach each other by IPv6 at once, without duplicate address detection."""
    engine.network_create("six", ipv6=True)
    one = engine.run("base", FOR_EVER, network="six")
    two = engine.run("base", FOR_EVER, network="six")
    address = two.state.endpoints[0].address6.partition("/")[0]
    assert _arrives(netns(one), (address, netns(two)))
    with Nft() as nft:
        comments = [rule.comment for rule in nft.rules(firewall.TABLE)]
    assert comments.count("six: masquerade") == 2


def test_bridge_and_container_ignore_router_advertisements(engine: Engine) -> None:
    """`accept_ra` is 0 on the bridge and on eth0."""
    made = engine.network_create("six", ipv6=True)
    web = engine.run("base", FOR_EVER, network="six")
    listens = Path(f"/proc/sys/net/ipv6/conf/{made.bridge}/accept_ra")
    assert listens.read_text() == "0\n"
    with netns(web) as inside, inside.entered():
        assert Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").read_text() == "0\n"
