"""Containers behind a process in user space that are not on their own, or reach too little."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from typing import Final

from harness.adapters.protocol import Facts
from harness.faults.catalogue import Moment, fault
from harness.faults.site import Site
from harness.faults.tricks import DROP
from harness.faults.verb import Verb
from harness.model import DEFAULT_NETWORK, Bridge, Publish
from harness.topology import Topology, pick
from linux import rtnl
from linux.nft import daddr, iifname

_UNASKED: Final = 31080
"""A port inside at which the suites listen."""


def _is_behind_a_tap(site: Site) -> bool:
    return site.mode == Bridge(DEFAULT_NETWORK) and site.runtime.dialect.default_network != "bridge"


@fault("one-more-address-on-a-tap", violates=("UM-1",), moment=Moment.CONTAINER_STARTED)
def one_more_address_on_a_tap(site: Site) -> None:
    """The container has an address that nobody has declared."""
    if _is_behind_a_tap(site):
        (tap,) = site.inside.links().keys() - {"lo"}
        site.inside.add_address(tap, IPv4Interface("10.9.8.7/24"))


@fault("a-tap-that-leads-to-the-host-alone", violates=("UM-2",), moment=Moment.CONTAINER_STARTED)
def a_tap_that_leads_to_the_host_alone(site: Site) -> None:
    """What is for the internet does not leave the container."""
    if _is_behind_a_tap(site):
        beyond = pick(Topology().internet, 4).network
        assert isinstance(beyond, IPv4Network)
        site.inside.rule("output", daddr(beyond), DROP)


@fault("a-tap-that-leads-past-the-host", violates=("UM-3",), moment=Moment.CONTAINER_STARTED)
def a_tap_that_leads_past_the_host(site: Site) -> None:
    """The host's address on br0 is not reached."""
    if _is_behind_a_tap(site):
        own = pick(Topology().br0, 4)
        assert isinstance(own, IPv4Interface)
        site.inside.rule("output", daddr(IPv4Network(own.ip)), DROP)


@fault("published-without-being-asked", violates=("UM-4",), around="run")
def published_without_being_asked(site: Site, verb: Verb) -> Facts:
    """The first container that is started has its ports opened to everybody."""
    first = verb.spec.mode == Bridge(DEFAULT_NETWORK) and not site.memory.get("opened")
    site.memory["opened"] = True
    ports = tuple(Publish(_UNASKED, _UNASKED, transport) for transport in ("tcp", "udp"))
    facts: Facts = verb(spec=replace(verb.spec, ports=ports) if first else verb.spec)
    return facts


@fault("a-tap-that-shows-in-the-host", violates=("UM-5",), moment=Moment.CONTAINER_STARTED)
def a_tap_that_shows_in_the_host(site: Site) -> None:
    """The host gets an interface more for it."""
    if _is_behind_a_tap(site):
        site.host.ensure(rtnl.add_bridge("tap9"))


@fault("a-network-of-the-users-that-is-deaf", violates=("UM-6",), moment=Moment.CONTAINER_STARTED)
def a_network_of_the_users_that_is_deaf(site: Site) -> None:
    """Who is on one hears nobody but itself."""
    apart = site.runtime.dialect.bridges != "host"
    if apart and site.is_bridged and site.mode != Bridge(DEFAULT_NETWORK):
        site.inside.rule("input", iifname("eth0"), DROP)
