"""Packets that end without a rule: routes, filters, neighbours, links, forwarding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from ipaddress import IPv4Network, ip_address

import pytest

from harness.model.plan import CONTAINER01, CONTAINER02, HOST, INTERNET
from harness.model.topology import Address
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from linux import rtnetlink
from linux.netlink import Netlink, Request
from tests.diagnosis.conftest import Diagnose, port_of, story_text

INTERNETS = IPv4Network("203.0.113.0/24")


def carry_out(place: NetnsView, *requests: Request) -> None:
    """Apply netlink requests in a namespace."""
    with place.open() as space, Netlink(space) as netlink:
        netlink.send(requests)


def forgotten(place: NetnsView, address: str) -> list[Request]:
    """Return the request that deletes a neighbour entry, if there is one."""
    return [
        rtnetlink.del_neighbour(entry.ifindex, entry.address)
        for entry in place.neighbours()
        if entry.address == ip_address(address)
    ]


@contextmanager
def undone(place: NetnsView, change: Request, back: Request) -> Iterator[None]:
    """Make a change while the body runs."""
    carry_out(place, change)
    try:
        yield
    finally:
        carry_out(place, back)


def route(place: NetnsView, via: str) -> AbstractContextManager[None]:
    """Use another route to the internet while the body runs."""
    there, gateway = INTERNETS, ip_address(via)
    return undone(
        place, rtnetlink.add_route(there, via=gateway), rtnetlink.del_route(there, via=gateway)
    )


def no_default_route(place: NetnsView, via: Address) -> AbstractContextManager[None]:
    """Remove the default route while the body runs."""
    return undone(place, rtnetlink.del_route(None, via=via), rtnetlink.add_route(None, via=via))


@contextmanager
def tuned(place: NetnsView, **values: int) -> Iterator[None]:
    """Set sysctls while the body runs; `__` stands for a dot."""
    keys = {key.replace("__", "."): value for key, value in values.items()}
    before = {key: place.sysctl(key) for key in keys}
    place.tune(keys)
    try:
        yield
    finally:
        place.tune(before)


@pytest.mark.parametrize("protocol", ["icmp", "udp", "tcp"])
def test_missing_route_of_the_container_is_named(
    cast: Scene, diagnosed: Diagnose, protocol: str
) -> None:
    """Without a default route the request never leaves the container."""
    gateway = cast.runtime.network_facts("bridge").gateways[0].ip
    with no_default_route(cast[CONTAINER01].net, gateway):
        autopsy = diagnosed(CONTAINER01, INTERNET, protocol)
    assert f"the request never left {CONTAINER01}" in autopsy.lines
    assert f"{CONTAINER01} has no route to 203.0.113.10" in autopsy.lines


def test_missing_route_of_the_host_is_named(host: NetnsView, diagnosed: Diagnose) -> None:
    """The request reaches the host, which has no route."""
    with no_default_route(host, ip_address("198.51.100.1")):
        autopsy = diagnosed(CONTAINER01, INTERNET, "udp")
    assert "the request was last seen at host/docker0 and was lost in host" in autopsy.lines
    assert "host has no route to 203.0.113.10" in autopsy.lines


@pytest.mark.parametrize("protocol", ["icmp", "udp", "tcp"])
def test_silent_neighbour_is_named(host: NetnsView, diagnosed: Diagnose, protocol: str) -> None:
    """The solicitation leaves by the host's uplink, and no reply comes."""
    with route(host, "198.51.100.222"):
        autopsy = diagnosed(CONTAINER01, INTERNET, protocol)
    assert "no neighbour replied for 198.51.100.222, solicited at host/eth0" in story_text(autopsy)
    assert "r1/eth0" in story_text(autopsy)  # the kernel may add a drop reason


def test_reverse_path_filter_is_named(host: NetnsView, diagnosed: Diagnose) -> None:
    """The filter drops a packet from an address that the host would route elsewhere."""
    strict = {"net__ipv4__conf__all__rp_filter": 1}
    with route(host, "192.168.2.10"), tuned(host, **strict):
        autopsy = diagnosed(INTERNET, HOST, "udp")
    assert "IP_RPFILTER: host does not expect 203.0.113.10 at host/eth0" in story_text(autopsy)


def test_disabled_forwarding_is_named(host: NetnsView, diagnosed: Diagnose) -> None:
    """The host receives the request and sends nothing on."""
    with tuned(host, net__ipv4__conf__docker0__forwarding=0):
        autopsy = diagnosed(CONTAINER01, INTERNET, "tcp")
    assert "host does not forward IPv4 from docker0" in autopsy.lines


def test_link_that_is_down_is_named(cast: Scene, host: NetnsView, diagnosed: Diagnose) -> None:
    """The bridge port of the other container is down."""
    port = port_of(cast, CONTAINER02)
    with undone(
        host, rtnetlink.set_link(port.ifindex, up=False), rtnetlink.set_link(port.ifindex, up=True)
    ):
        autopsy = diagnosed(CONTAINER01, CONTAINER02, "udp")
    address = cast[CONTAINER02].net.address(4)
    words = f"{CONTAINER02}/eth0 has {address}, and its other end, host/{port.name}, is down"
    assert words in autopsy.lines
