"""Tests of user-defined networks: create, inspect, repair, remove."""

from __future__ import annotations

import socket
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.nftables import Nft
from runtime.engine import Engine
from runtime.errors import ConflictError, InvalidError, MydockerError, NotFoundError
from runtime.network import firewall
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import (
    WITHIN,
    links,
    netns,
    network,
    nothing_left,
    tables,
)

PORT = 4242


def test_network_has_its_requested_options(engine: Engine) -> None:
    """Bridge, veth pair and container have the network's subnet, gateway, IPv6 and MTU.

    Containers get addresses of the network's range.
    """
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
    """The gateway of a new network accepts packets at once, also over IPv6.

    The kernel lists an IPv6 address before it accepts packets for it.
    """
    for _ in range(30):
        made = engine.network_create("six", subnet6="fd00:9::/64")
        with Netlink() as host:
            assert {gateway.ip for gateway in made.gateways} & rtnetlink_dump.local_addresses(host)
        engine.network_remove("six")


def test_firewall_rules_do_not_depend_on_removed_networks(engine: Engine) -> None:
    """After a network's creation and removal, the firewall rules are the same as before."""
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
    """Fragments pass a bridge, also if br_netfilter reassembles and fragments them again."""
    engine.network_create("wide", mtu=4000)
    one, other = (engine.run("base", FOR_EVER, network="wide") for _ in range(2))
    with (
        netns(one) as here,
        netns(other) as there,
        here.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller,
        there.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener,
    ):
        listener.settimeout(WITHIN)
        listener.bind(("", PORT))
        address = str(ip_interface(other.state.endpoints[0].address).ip)
        caller.sendto(bytes(8000), (address, PORT))
        assert listener.recv(1 << 16) == bytes(8000)


def test_default_subnets_do_not_overlap(engine: Engine) -> None:
    """The default subnet of a network overlaps no subnet of another network."""
    made = [engine.network_create(name, ipv6=True) for name in ("a", "b", "c")]
    found = [
        subnet for item in (*made, engine.network_inspect("bridge")) for subnet in item.subnets
    ]
    for one in found:
        others = [item for item in found if item is not one and item.version == one.version]
        assert not any(one.overlaps(other) for other in others)


def test_subnet_of_a_host_route_is_not_used(engine: Engine) -> None:
    """The subnet of a host route is never chosen for a network, and is refused as an option."""
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
    "everything": (
        {"subnet": "0.0.0.0/0"},
        InvalidError,
        r"addresses in 0\.0\.0\.0/8 are reserved",
    ),
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
    "gateway of no subnet": ({"gateway": "10.0.0.1"}, InvalidError, "needs a subnet"),
    "range of no subnet": ({"ip_range": "10.0.0.0/25"}, InvalidError, "needs a subnet"),
    "IPv6 gateway of none": ({"ipv6": True, "gateway6": "fd00::1"}, InvalidError, "needs a subnet"),
    "overlap": ({"subnet": "172.17.128.0/24"}, ConflictError, r"overlaps 172\.17\.0\.0/16"),
    "MTU": ({"mtu": 67}, InvalidError, "67"),
    "MTU for IPv6": ({"mtu": 1279, "ipv6": True}, InvalidError, "1279"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=list(WRONG))
def test_refused_network_creation_leaves_nothing(
    engine: Engine, root: Path, case: tuple[dict[str, Any], type[MydockerError], str]
) -> None:
    """A refused network creation leaves no bridge, rule or file."""
    options, kind, message = case
    engine.network_inspect("bridge")
    with nothing_left(root), pytest.raises(kind, match=message):
        engine.network_create("lan", **options)


@pytest.mark.parametrize("name", ["host", "none", "bridge", "a b", ""])
def test_reserved_or_invalid_network_name_is_refused(engine: Engine, name: str) -> None:
    """A mode, the default network's name and an invalid name are refused for a network."""
    engine.network_inspect("bridge")
    with pytest.raises((ConflictError, InvalidError)):
        engine.network_create(name)


def test_network_in_use_is_not_removed(engine: Engine, root: Path) -> None:
    """A network in use is not removed.

    An unused network is removed, by any prefix of its id. Its bridge, rules and addresses are
    removed too.
    """
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
    with pytest.raises(ConflictError, match="did not create"):
        engine.run("base", FOR_EVER)
    engine.teardown()
    assert links()["docker0"].mac == "02:42:00:00:00:99"


def test_teardown_keeps_a_foreign_bridge_of_the_same_name(engine: Engine) -> None:
    """Teardown does not remove a foreign bridge that has the name of mydocker's own."""
    engine.network_inspect("bridge")
    with Netlink() as netlink:
        netlink.send([rtnetlink.del_link("docker0")])
        netlink.send([rtnetlink.add_bridge("docker0", mac="02:42:00:00:00:99")])
    engine.teardown()
    assert links()["docker0"].mac == "02:42:00:00:00:99"


def test_repair_restores_rules_bridge_and_forwarding(engine: Engine) -> None:
    """Repair restores rules, bridge and forwarding; running containers are ports of the bridge."""
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
    with (
        netns(web) as inside,
        inside.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller,
    ):
        listener.settimeout(WITHIN)
        listener.bind(("", PORT))
        caller.sendto(b"hello", (str(ip_interface(endpoint.address).ip), PORT))
        assert listener.recv(64) == b"hello"


def test_host_keeps_accepting_router_advertisements(engine: Engine) -> None:
    """The host accepts router advertisements while it forwards IPv6.

    After the teardown each interface that still exists has its original setting.
    """
    with Netlink() as netlink:
        for index, name in ((90, "up.90"), (91, "up91"), (92, "aside")):
            netlink.send([rtnetlink.add_bridge(name, index=index)])
            own = ip_interface(f"2001:db8:{index}::1/64")
            netlink.send([rtnetlink.add_address(index, own)])
    with IPRoute() as ipr:
        for index in (90, 91):
            via = f"2001:db8:{index}::2"
            ipr.route("add", dst=f"2001:db8:{index + 10}::/64", gateway=via, oif=index, proto=9)
    assert [accepts(name) for name in ("up.90", "up91", "aside")] == ["1", "1", "1"]
    engine.network_create("four")
    assert accepts("up.90") == "1"
    engine.network_create("lan", ipv6=True)
    assert [accepts(name) for name in ("up.90", "up91", "aside")] == ["2", "2", "1"]
    with Netlink() as netlink:
        netlink.send([rtnetlink.del_link("up91")])
    engine.teardown()
    assert accepts("up.90") == "1"


def accepts(link: str) -> str:
    """Return whether a link of the host accepts router advertisements."""
    return Path(f"/proc/sys/net/ipv6/conf/{link}/accept_ra").read_text().strip()
