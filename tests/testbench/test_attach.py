"""Tests of attaching a container's netns to a network by hand, and of detaching it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from harness.adapters.protocol import NetworkInfo
from harness.model.plan import PROTOCOLS, Outcome
from harness.model.topology import Interface
from harness.testbench.attach import attach, detach, host_end, last_address
from harness.testbench.netns_view import fixed
from linux import netns, rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from tests.support.probing import control, observe_all, probe

GATEWAYS = (ip_interface("172.20.0.1/16"), ip_interface("fd20::1/64"))
LAST = {ip_address("172.20.255.254"), ip_address("fd20::ffff:ffff:ffff:fffe")}
NETWORK = NetworkInfo("net", "id", "docker9", GATEWAYS)


@pytest.fixture
def host() -> Iterator[NetNS]:
    """Create a namespace with a bridge of MTU 1450 that has the gateways' addresses."""
    with control() as space, Netlink(space) as netlink:
        netns.write_sysctls(space, {"net.ipv6.conf.default.accept_dad": 0})
        netlink.send([rtnetlink.add_bridge("docker9", index=9, mtu=1450)])
        netlink.send([rtnetlink.add_address(9, gateway) for gateway in GATEWAYS])
        yield space


@pytest.fixture
def inside() -> Iterator[NetNS]:
    """Create a container's namespace, in which `lo` is down."""
    with NetNS.new() as space:
        netns.write_sysctls(space, {"net.ipv6.conf.default.accept_dad": 0})
        yield space


def test_attached_namespace_is_on_the_network(host: NetNS, inside: NetNS) -> None:
    """An attached namespace has `eth0`, the last usable addresses and a default route.

    Its MTU is the bridge's. Host and container get replies from each other.
    """
    assert attach(host, inside, NETWORK, "alone") == LAST
    view, machine = fixed("alone", inside), fixed("host", host)
    assert set(view.links()) == {"lo", "eth0"}
    eth0, end = view.links()["eth0"], machine.links()[host_end("alone")]
    assert (eth0.mtu, end.mtu, end.master) == (1450, 1450, 9)
    assert eth0.mac == "02:42:ac:14:ff:fe"
    assert {interface.ip for interface in view.interfaces("eth0")} == LAST
    gateways = {route.via for route in view.routes() if route.destination is None}
    assert gateways == {gateway.ip for gateway in GATEWAYS}
    requests = [
        *(probe(inside, str(gateway.ip), host, p) for gateway in GATEWAYS for p in PROTOCOLS),
        *(probe(host, str(address), inside, p, 1) for address in LAST for p in PROTOCOLS),
        *(probe(inside, text, inside, number=2) for text in ("127.0.0.1", "::1")),
    ]
    found = observe_all(requests)
    assert {(seen.outcome, seen.seen_ttl) for seen in found} == {(Outcome.REPLY, 64)}


def test_attached_namespace_receives_packets_at_once(host: NetNS, inside: NetNS) -> None:
    """When `attach` returns, the namespace receives packets, over IPv6 too.

    Without a wait, the kernel would receive IPv6 packets only later (`linux.readiness`).
    """
    with Netlink(inside) as netlink:
        for _ in range(30):
            attach(host, inside, NETWORK, "alone")
            assert LAST & rtnetlink_dump.local_addresses(netlink)
            netlink.send([rtnetlink.del_link("eth0")])


def test_detach_removes_links_and_neighbours(host: NetNS, inside: NetNS) -> None:
    """Detaching removes both ends of the veth pair and the host's neighbour entries.

    Detaching again has no effect.
    """
    with NetNS.new() as another:  # its port keeps the bridge and its neighbour entries
        attach(host, another, replace(NETWORK, gateways=()), "another")
        _attach_and_detach(host, inside)


def _attach_and_detach(host: NetNS, inside: NetNS) -> None:
    attach(host, inside, NETWORK, "alone")
    observe_all([probe(host, str(address), inside) for address in LAST])
    machine = fixed("host", host)
    assert {neighbour.address for neighbour in machine.neighbours()} >= LAST
    for _ in range(2):
        detach(host, "alone", LAST)
        assert set(machine.links()) == {"lo", "docker9", host_end("another")}
        assert set(fixed("alone", inside).links()) == {"lo"}
        assert not LAST & {neighbour.address for neighbour in machine.neighbours()}


def test_network_without_bridge_is_refused(host: NetNS, inside: NetNS) -> None:
    """Attaching to a network without a bridge in the host is refused."""
    with pytest.raises(ValueError, match="network net has no bridge in the host"):
        attach(host, inside, NetworkInfo("net", "id", None, GATEWAYS), "alone")


def test_failed_attach_leaves_namespace_with_eth0_unchanged(host: NetNS, inside: NetNS) -> None:
    """Attaching a namespace that already has `eth0` fails and leaves the namespace unchanged.

    The error names the new veth pair. Both of its ends are removed.
    """
    with Netlink(inside) as netlink:
        netlink.send([rtnetlink.add_bridge("eth0")])
    with pytest.raises(FileExistsError, match=f"add veth {host_end('alone')}.*File exists"):
        attach(host, inside, NETWORK, "alone")
    assert set(fixed("host", host).links()) == {"lo", "docker9"}
    assert set(fixed("alone", inside).links()) == {"lo", "eth0"}


def test_attaching_a_container_twice_is_refused(host: NetNS, inside: NetNS) -> None:
    """Attaching a container twice is refused, and its first veth pair keeps working."""
    attach(host, inside, NETWORK, "alone")
    with pytest.raises(FileExistsError, match=f"add veth {host_end('alone')}.*File exists"):
        attach(host, inside, NETWORK, "alone")
    (seen,) = observe_all([probe(inside, str(GATEWAYS[0].ip), host)])
    assert seen.outcome is Outcome.REPLY


def test_host_ends_have_distinct_valid_names() -> None:
    """Host ends of veth pairs have distinct names, even if long container names differ little.

    Each name is short enough for an interface.
    """
    ends = {host_end(f"{'container' * 9}{number:02}") for number in range(50)}
    assert len(ends) == 50
    assert all(len(f"{end}p") <= 15 for end in ends)


@pytest.mark.parametrize(
    ("gateway", "last"),
    [
        ("172.17.42.1/16", "172.17.255.254/16"),
        ("10.0.0.1/30", "10.0.0.2/30"),
        ("192.168.2.129/25", "192.168.2.254/25"),
        ("fd00::1/64", "fd00::ffff:ffff:ffff:fffe/64"),
        ("fd00::1/126", "fd00::2/126"),
    ],
)
def test_last_usable_address_is_inside_the_subnet(gateway: str, last: str) -> None:
    """The last usable address is in the subnet and has its prefix length.

    It is no broadcast address.
    """
    own: Interface = ip_interface(gateway)
    assert str(last_address(own)) == last
