"""Flows of others that are lost when a container or a network comes or goes."""

from __future__ import annotations

import socket
from collections.abc import Callable

from harness.faults.acts import whom_it_joined
from harness.faults.catalogue import Moment, fault
from harness.faults.site import Site
from harness.model import Host, Nothing
from linux.conntrack import Conntrack, Flow


@fault("starts-forget-others-flows", violates=("LIFE-8",), moment=Moment.CONTAINER_STARTED)
def starts_forget_others_flows(site: Site) -> None:
    """A start makes the host forget every flow: translated ones are lost."""
    _forget(site, lambda _: True)


@fault("removals-forget-others-flows", violates=("LIFE-8",), moment=Moment.CONTAINER_REMOVED)
def removals_forget_others_flows(site: Site) -> None:
    """A removal makes the host forget every flow: translated ones are lost."""
    _forget(site, lambda _: True)


@fault("networks-forget-others-flows", violates=("LIFE-8",), moment=Moment.NETWORK_REMOVED)
def networks_forget_others_flows(site: Site) -> None:
    """When a network is removed the host forgets every flow: translated ones are lost."""
    _forget(site, lambda _: True)


@fault(
    "starts-forget-flows-of-the-port",
    violates=("LIFE-8",),
    moment=Moment.CONTAINER_STARTED,
    history="moby#46276",
    narrow=True,
)
def starts_forget_flows_of_the_port(site: Site) -> None:
    """A start makes the host forget UDP flows to ports that it publishes, of whichever address."""
    own = {port.host_port for port in (site.facts.ports if site.facts else ())}
    _forget(
        site,
        lambda flow: (
            flow.original.protocol == socket.IPPROTO_UDP and flow.original.destination_port in own
        ),
    )


@fault("others-modes-forget-flows", violates=("LIFE-8",), moment=Moment.CONTAINER_STARTED)
def others_modes_forget_flows(site: Site) -> None:
    """The start of a container that has no network of its own makes the host forget every flow."""
    if isinstance(site.mode, Nothing | Host):
        _forget(site, lambda _: True)


@fault("refused-starts-forget-flows", violates=("LIFE-8",), moment=Moment.REFUSED)
def refused_starts_forget_flows(site: Site) -> None:
    """A start that fails makes the host forget every flow."""
    _forget(site, lambda _: True)


@fault("removals-forget-ipv6-flows", violates=("LIFE-8",), moment=Moment.CONTAINER_REMOVED)
def removals_forget_ipv6_flows(site: Site) -> None:
    """A removal makes the host forget every flow of IPv6."""
    _forget(site, lambda flow: any(address.version == 6 for address in flow.addresses))


@fault(
    "joiner-takes-the-flows-along",
    violates=("LIFE-8",),
    moment=Moment.CONTAINER_REMOVED,
    narrow=True,
)
def joiner_takes_the_flows_along(site: Site) -> None:
    """When a joiner is removed the host forgets the flows of whom it joined: it had his address."""
    if facts := whom_it_joined(site):
        kept = {item.ip for end in facts.endpoints for item in (end.address, end.address6) if item}
        _forget(site, lambda flow: bool(kept & flow.addresses))


def _forget(site: Site, which: Callable[[Flow], bool]) -> None:
    with site.host.place.open() as space, Conntrack(space) as conntrack:
        conntrack.forget([flow for flow in conntrack.all() if which(flow)])
