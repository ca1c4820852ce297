"""Networks that containers come to, leave, or find other than they were asked for."""

from __future__ import annotations

from dataclasses import replace

from harness.adapters.protocol import Facts, RuntimeRefused
from harness.faults.catalogue import Moment, fault
from harness.faults.site import Site
from harness.faults.verb import Verb
from linux import rtnl
from linux.nft import Table, add_chain, add_rule, add_table, counter, ct_dnat, verdict


@fault("connected-later", violates=("NET-3",), moment=Moment.CONNECTED, narrow=True)
def connected_later(site: Site) -> None:
    """A container that is connected to another network is not reached there yet."""
    for plug in site.plugs():
        if site.network and plug.network.name == site.network.name:
            site.inside.set_link(plug.inside, up=False)


@fault("connecting-disturbs", violates=("NET-3",), moment=Moment.CONNECTED, narrow=True)
def connecting_disturbs(site: Site) -> None:
    """When a container is connected to another network it loses the one that it has."""
    for plug in site.plugs():
        if site.network and plug.network.name != site.network.name:
            site.host.set_link(plug.outside, up=False)


@fault("disconnecting-does-nothing", violates=("NET-3",), around="disconnect")
def disconnecting_does_nothing(site: Site, verb: Verb) -> Facts:
    """A container that is taken off a network is still there."""
    return site.runtime.inspect(verb.name)


@fault("disconnecting-disturbs", violates=("NET-3",), moment=Moment.DISCONNECTED)
def disconnecting_disturbs(site: Site) -> None:
    """A container that is taken off one network loses its way out by the other."""
    for plug in site.plugs():
        for gateway in plug.gateways:
            site.inside.ensure(rtnl.del_route(None, via=gateway.ip))


@fault("network-in-use-removed", violates=("NET-6",), around="remove_network", narrow=True)
def network_in_use_removed(site: Site, verb: Verb) -> None:
    """Removing a network that a container is on is not refused."""
    try:
        verb()
    except RuntimeRefused:
        if site.network is None:  # there is none of that name
            raise


@fault("bridge-outlives-its-network", violates=("NET-6",), moment=Moment.NETWORK_REMOVED)
def bridge_outlives_its_network(site: Site) -> None:
    """A removed network's bridge stays in the host."""
    if site.network and site.network.interface:
        site.host.ensure(rtnl.add_bridge(site.network.interface))


@fault("rules-outlive-their-network", violates=("NET-6",), moment=Moment.NETWORK_REMOVED)
def rules_outlive_their_network(site: Site) -> None:
    """A removed network's rules stay in the host's firewall."""
    table = Table("inet", f"left-{site.name}"[:30])
    chain = add_chain(table, "forward", hook="forward")
    site.host.firewall(add_table(table), chain, add_rule(table, "forward", counter()))


@fault("bad-subnet-corrected", violates=("NET-7",), around="network")
def bad_subnet_corrected(site: Site, verb: Verb) -> object:
    """A gateway or a range that does not fit its subnet is left out without a word."""
    try:
        return verb()
    except RuntimeRefused:
        spec = replace(verb.spec, subnet=None, gateway=None, ip_range=None)
        return verb(spec=replace(spec, subnet6=None, gateway6=None))


@fault("refused-removal-breaks-the-network", violates=("NET-6",), around="remove_network")
def refused_removal_breaks_the_network(site: Site, verb: Verb) -> None:
    """Removing a network in use is refused when half of it has been done."""
    try:
        verb()
    except RuntimeRefused:
        if site.network and site.network.interface:
            site.host.set_link(site.network.interface, up=False)
        raise


@fault(
    "connections-close-published-ports",
    violates=("NET-3",),
    moment=(Moment.CONNECTED, Moment.DISCONNECTED),
)
def connections_close_published_ports(site: Site) -> None:
    """When a container is connected to another network its published ports are closed."""
    if site.spec and site.spec.ports:
        site.host.rule("forward", ct_dnat(), verdict("drop"))
