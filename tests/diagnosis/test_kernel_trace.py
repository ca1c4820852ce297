"""Packets that end without a rule: routes, filters, neighbours, links, forwarding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, ip_address

import pytest

from harness.model.plan import CONTAINER01, CONTAINER02, HOST, INTERNET
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, Request
from tests.diagnosis.conftest import Examine, told

INTERNETS = IPv4Network("203.0.113.0/24")


def carry_out(place: NetnsView, *requests: Request) -> None:
    """Change something in a place."""
    with place.open() as space, Netlink(space) as netlink:
        netlink.send(requests)


def forgotten(place: NetnsView, address: str) -> list[Request]:
    """What makes a place forget a neighbour, where it knows it."""
    return [
        rtnetlink.del_neighbour(entry.ifindex, entry.address)
        for entry in place.neighbours()
        if entry.address == ip_address(address)
    ]


@contextmanager
def route(place: NetnsView, via: str) -> Iterator[None]:
    """Another way to the internet while the body runs."""
    gateway = ip_address(via)
    carry_out(place, rtnetlink.add_route(INTERNETS, via=gateway))
    try:
        yield
    finally:
        carry_out(place, rtnetlink.del_route(INTERNETS, via=gateway))


@contextmanager
def tuned(place: NetnsView, **values: int) -> Iterator[None]:
    """Sysctls with other values while the body runs; `__` stands for a dot."""
    keys = {key.replace("__", "."): value for key, value in values.items()}
    before = {key: place.sysctl(key) for key in keys}
    place.tune(keys)
    try:
        yield
    finally:
        place.tune(before)


@pytest.mark.parametrize("protocol", ["icmp", "udp", "tcp"])
def test_a_missing_route_is_named(cast: Scene, examined: Examine, protocol: str) -> None:
    """The container has no default route: the request never left it."""
    net = cast[CONTAINER01].net
    gateway = cast.runtime.network_facts("bridge").gateways[0].ip
    carry_out(net, rtnetlink.del_route(None, via=gateway))
    try:
        autopsy = examined(CONTAINER01, INTERNET, protocol)
    finally:
        carry_out(net, rtnetlink.add_route(None, via=gateway))
    assert f"the request never left {CONTAINER01}" in autopsy.lines
    assert f"{CONTAINER01} has no route to 203.0.113.10" in autopsy.lines


def test_a_missing_route_of_the_host_is_named_there(host: NetnsView, examined: Examine) -> None:
    """The request comes as far as the host, which has no way to go on."""
    gateway = ip_address("198.51.100.1")
    carry_out(host, rtnetlink.del_route(None, via=gateway))
    try:
        autopsy = examined(CONTAINER01, INTERNET, "udp")
    finally:
        carry_out(host, rtnetlink.add_route(None, via=gateway))
    assert "the request was last seen at host/docker0 and ended in host" in autopsy.lines
    assert "host has no route to 203.0.113.10" in autopsy.lines


@pytest.mark.parametrize("protocol", ["icmp", "udp", "tcp"])
def test_a_neighbour_that_does_not_answer_is_named(
    host: NetnsView, examined: Examine, protocol: str
) -> None:
    """Somebody was asked for at the host's uplink; the question got through, no answer came."""
    with route(host, "198.51.100.222"):
        autopsy = examined(CONTAINER01, INTERNET, protocol)
    assert "no neighbour answered for 198.51.100.222, asked for at host/eth0" in told(autopsy)
    assert "r1/eth0" in told(autopsy)  # the kernel may have a word of its own to add


def test_the_reverse_path_filter_is_named(host: NetnsView, examined: Examine) -> None:
    """What comes from where the host would not send to is dropped by its filter."""
    strict = {"net__ipv4__conf__all__rp_filter": 1}
    with route(host, "192.168.2.10"), tuned(host, **strict):
        autopsy = examined(INTERNET, HOST, "udp")
    assert "IP_RPFILTER: host does not expect 203.0.113.10 at host/eth0" in told(autopsy)


def test_a_host_that_does_not_forward_is_named(host: NetnsView, examined: Examine) -> None:
    """The host takes the request in and sends nothing on."""
    with tuned(host, net__ipv4__conf__docker0__forwarding=0):
        autopsy = examined(CONTAINER01, INTERNET, "tcp")
    assert "host does not forward IPv4 from docker0" in autopsy.lines


def test_a_link_that_is_down_is_named(cast: Scene, host: NetnsView, examined: Examine) -> None:
    """The other container's port of the bridge is down: the request gets no further."""
    with cast[CONTAINER02].net.open() as space, Netlink(space) as netlink:
        port = rtnetlink_dump.link(netlink, "eth0").peer
    assert port is not None
    name = next(link.name for link in host.links().values() if link.ifindex == port)
    carry_out(host, rtnetlink.set_link(port, up=False))
    try:
        autopsy = examined(CONTAINER01, CONTAINER02, "udp")
    finally:
        carry_out(host, rtnetlink.set_link(port, up=True))
    address = cast[CONTAINER02].net.address(4)
    said = f"{CONTAINER02}/eth0 has {address}, and its other end, host/{name}, is down"
    assert said in autopsy.lines
