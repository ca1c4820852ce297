"""Tests of packets that are lost without a rule: routes, filters, neighbours, links."""

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
from tests.diagnosis.conftest import Diagnose, host_end_of, story_text

INTERNETS = IPv4Network("203.0.113.0/24")


def carry_out(place: NetnsView, *requests: Request) -> None:
    """Apply netlink requests in a namespace."""
    with place.open() as space, Netlink(space) as netlink:
        netlink.send(requests)


def delete_neighbour(place: NetnsView, address: str) -> list[Request]:
    """Return the request that deletes a neighbour entry, if there is one."""
    return [
        rtnetlink.del_neighbour(entry.ifindex, entry.address)
        for entry in place.neighbours()
        if entry.address == ip_address(address)
    ]


@contextmanager
def changed_meanwhile(place: NetnsView, change: Request, back: Request) -> Iterator[None]:
    """Make a change while the body runs, then revert it."""
    carry_out(place, change)
    try:
        yield
    finally:
        carry_out(place, back)


def route(place: NetnsView, via: str) -> AbstractContextManager[None]:
    """Add a route to the internet by another gateway while the body runs."""
    there, gateway = INTERNETS, ip_address(via)
    return changed_meanwhile(
        place, rtnetlink.add_route(there, via=gateway), rtnetlink.del_route(there, via=gateway)
    )


def no_default_route(place: NetnsView, via: Address) -> AbstractContextManager[None]:
    """Remove the default route while the body runs."""
    return changed_meanwhile(
        place, rtnetlink.del_route(None, via=via), rtnetlink.add_route(None, via=via)
    )


@contextmanager
def sysctls_set(place: NetnsView, **values: int) -> Iterator[None]:
    """Set sysctls while the body runs; `__` in a name stands for a dot."""
    keys = {key.replace("__", "."): value for key, value in values.items()}
    before = {key: place.sysctl(key) for key in keys}
    place.tune(keys)
    try:
        yield
    finally:
        place.tune(before)


@pytest.mark.parametrize("protocol", ["icmp", "udp", "tcp"])
def test_explanation_names_a_missing_route_of_the_container(
    cast: Scene, diagnosed: Diagnose, protocol: str
) -> None:
    """If a container has no route, the explanation says that the request never leaves it."""
    gateway = cast.runtime.network_facts("bridge").gateways[0].ip
    with no_default_route(cast[CONTAINER01].net, gateway):
        autopsy = diagnosed(CONTAINER01, INTERNET, protocol)
    assert f"the request never left {CONTAINER01}" in autopsy.lines
    assert f"{CONTAINER01} has no route to 203.0.113.10" in autopsy.lines


def test_explanation_names_a_missing_route_of_the_host(
    host: NetnsView, diagnosed: Diagnose
) -> None:
    """If the host has no route, the explanation says that the request ends in the host."""
    with no_default_route(host, ip_address("198.51.100.1")):
        autopsy = diagnosed(CONTAINER01, INTERNET, "udp")
    assert "the request was last seen at host/docker0 and was lost in host" in autopsy.lines
    assert "host has no route to 203.0.113.10" in autopsy.lines


@pytest.mark.parametrize("protocol", ["icmp", "udp", "tcp"])
def test_explanation_names_a_silent_neighbour(
    host: NetnsView, diagnosed: Diagnose, protocol: str
) -> None:
    """The explanation names a neighbour that does not reply to the host's ARP or ND request."""
    with route(host, "198.51.100.222"):
        autopsy = diagnosed(CONTAINER01, INTERNET, protocol)
    assert "no neighbour replied for 198.51.100.222, solicited at host/eth0" in story_text(autopsy)
    assert "r1/eth0" in story_text(autopsy)  # the kernel may add a drop reason


def test_explanation_names_the_reverse_path_filter(host: NetnsView, diagnosed: Diagnose) -> None:
    """The explanation names the reverse path filter if it drops a packet.

    The host's route to the packet's source address uses another interface.
    """
    strict = {"net__ipv4__conf__all__rp_filter": 1}
    with route(host, "192.168.2.10"), sysctls_set(host, **strict):
        autopsy = diagnosed(INTERNET, HOST, "udp")
    assert "IP_RPFILTER: host does not expect 203.0.113.10 at host/eth0" in story_text(autopsy)


def test_explanation_names_disabled_forwarding(host: NetnsView, diagnosed: Diagnose) -> None:
    """The explanation names disabled forwarding.

    The host receives the request, but does not forward it.
    """
    with sysctls_set(host, net__ipv4__conf__docker0__forwarding=0):
        autopsy = diagnosed(CONTAINER01, INTERNET, "tcp")
    assert "host does not forward IPv4 from docker0" in autopsy.lines


def test_explanation_names_a_link_that_is_down(
    cast: Scene, host: NetnsView, diagnosed: Diagnose
) -> None:
    """The explanation names the link that is down, here another container's bridge port."""
    port = host_end_of(cast, CONTAINER02)
    with changed_meanwhile(
        host, rtnetlink.set_link(port.ifindex, up=False), rtnetlink.set_link(port.ifindex, up=True)
    ):
        autopsy = diagnosed(CONTAINER01, CONTAINER02, "udp")
    address = cast[CONTAINER02].net.address(4)
    words = f"{CONTAINER02}/eth0 has {address}, and its other end, host/{port.name}, is down"
    assert words in autopsy.lines
