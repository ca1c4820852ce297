"""A container with a tap of its own, behind a process in user space that is an ordinary user's.

What it sends the process sends, by sockets of the host; what is published the process
listens for. Nothing is plugged in or told to the kernel in the host, so that no root is
needed: https://docs.podman.io/en/latest/markdown/podman-run.1.html#network-mode-net.
"""

from __future__ import annotations

import contextlib
import os
from ipaddress import ip_address

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import (
    ATTACKER,
    BR0,
    BY_NAME,
    CONTAINER01,
    CONTAINER02,
    FAMILIES,
    GATEWAY,
    HOST,
    INTERNET,
    JOINER,
    LOOPBACK,
    NS1,
    NS2,
    SELF,
    Bridge,
    Family,
    Host,
    cells,
)
from harness.model.topology import Address, pick
from harness.plugin.marks import requirement
from harness.testbench import container
from harness.testbench.addressing import LOOPBACKS
from harness.testbench.listener import TRANSPORTS, Listener, Transport, introduce
from harness.testbench.netns_view import NetnsView, until
from harness.testbench.scene import Scene
from linux import syscalls
from suites.ports.published import INSIDE
from suites.support.features import has_ipv6
from suites.support.host import a_change_would_show

ALIKE = (CONTAINER01, CONTAINER02)
SLIRP = "10.0.2.100/24"
"""What slirp4netns gives to everybody."""
HOST_NAME = "host.containers.internal"


# --- what it is given --------------------------------------------------------------


@requirement("UM-1")
@pytest.mark.parametrize("name", ALIKE)
def test_it_has_lo_and_one_interface_more(cast: Scene, runtime: Adapter, name: str) -> None:
    """Both are up, and a process inside is shown the same."""
    own = {"pasta": "eth0", "slirp4netns": "tap0"}[runtime.dialect.default_network]
    links = cast[name].net.links()
    assert links.keys() == {"lo", own}
    assert all(link.up for link in links.values())
    assert container.view(cast[name]).interfaces == {"lo", own}


@requirement("UM-1")
@pytest.mark.parametrize("name", ALIKE)
def test_it_has_the_addresses_that_are_declared(
    cast: Scene, runtime: Adapter, host: NetnsView, name: str
) -> None:
    """The host's own, in both families, or those that slirp4netns gives to everybody."""
    held = {item for item in cast[name].net.interfaces() if not item.ip.is_loopback}
    if runtime.dialect.default_network == "pasta":
        assert held == set(host.interfaces("eth0"))
    else:
        assert {str(item) for item in held if item.version == 4} == {SLIRP}


@requirement("UM-1")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ALIKE)
def test_it_has_one_default_route(cast: Scene, name: str, family: Family) -> None:
    """Whatever it is that answers at the other end."""
    routes = cast[name].net.routes()
    assert len([item for item in routes if not item.destination and item.family == family]) == 1


@requirement("UM-1")
def test_its_namespace_is_not_one_of_the_machines_root(cast: Scene, host: NetnsView) -> None:
    """It belongs to a user namespace of the user's own: root inside is nobody outside."""
    with cast[CONTAINER01].net.open() as inside, host.open() as outside:
        assert syscalls.user_namespace(inside.fd) != syscalls.user_namespace(outside.fd)


@requirement("UM-1")
@pytest.mark.parametrize("name", ALIKE)
def test_it_answers_itself(cast: Scene, name: str) -> None:
    """At its own addresses, though others may have the same, and on its loopback."""
    row = cast.promised(list(cells((name,), (SELF, LOOPBACK))))
    assert cast.observed(row) == row


# --- whom it reaches ---------------------------------------------------------------


@requirement("UM-2")
@pytest.mark.parametrize("name", [*ALIKE, JOINER])
def test_what_is_beyond_the_host_answers(cast: Scene, name: str) -> None:
    """The internet, by name too, and ns1 and ns2: they see the host, and no router before it."""
    row = cast.promised(list(cells((name,), (INTERNET, BY_NAME, NS1, NS2))))
    assert cast.observed(row) == row


@requirement("UM-2")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_on_the_internet_sees_the_host(
    cast: Scene, family: Family, transport: Transport
) -> None:
    """It is told by the server itself."""
    meeting = introduce(cast[CONTAINER01].net, cast.world.address(INTERNET, family), transport)
    assert meeting.seen[0] == cast.world.address(HOST, family)


@requirement("UM-3")
@pytest.mark.parametrize("name", ALIKE)
def test_the_host_answers_where_its_address_is_its_alone(cast: Scene, name: str) -> None:
    """At br0's; at its LAN address where the container has not got the same."""
    row = cast.promised(list(cells((name,), (HOST, BR0))))
    assert cast.observed(row) == row


@requirement("UM-3")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_name_leads_to_the_host(cast: Scene, host: NetnsView, transport: Transport) -> None:
    """Whatever address stands beside it in the container's hosts file."""
    lines = (line.split() for line in cast[CONTAINER01].read("/etc/hosts").splitlines())
    (address,) = (words[0] for words in lines if HOST_NAME in words)
    with Listener(host, transport, address=cast.world.address(HOST, 4)) as ear:
        assert ear.hears(cast[CONTAINER01].net, at=ip_address(address), answered=True)


@requirement("UM-3")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_loopback_of_the_host_is_the_hosts_own(
    cast: Scene, host: NetnsView, transport: Transport, family: Family
) -> None:
    """What listens there is not called by a gateway's address, nor by any that a file names."""
    inside = cast[CONTAINER01]
    known = {route.via for route in inside.net.routes() if route.via}
    for name in ("/etc/hosts", "/etc/resolv.conf"):
        known |= _addresses(inside.read(name))
    with Listener(host, transport, address=LOOPBACKS[family]) as ear:
        assert ear.hears(host)
        calls = [
            (inside.net, at, ear.port)
            for at in known
            if at.version == family and not at.is_loopback and not at.is_link_local
        ]
        assert ear.overhears(calls, cast.settle) == []


def _addresses(text: str) -> set[Address]:
    """The addresses among the words of a file."""
    found = set()
    for word in text.split():
        with contextlib.suppress(ValueError):
            found.add(ip_address(word))
    return found


# --- who reaches it ----------------------------------------------------------------


@requirement("UM-4")
@pytest.mark.parametrize("source", [*ALIKE, HOST, NS1, INTERNET, ATTACKER])
def test_nobody_reaches_it_by_its_address(cast: Scene, source: str) -> None:
    """Not a peer, nor the host: whoever has the address too is met in its place."""
    row = cast.promised(list(cells((source,), ALIKE)))
    row = row.restrict(cell for cell in row if cell.source != cell.target)
    assert cast.observed(row) == row


@requirement("UM-4")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_is_not_published_is_not_heard_of_outside(
    cast: Scene, transport: Transport, family: Family
) -> None:
    """A listener inside is called by the host's addresses, from the host and the LAN: in vain."""
    at = cast.world.address(HOST, family)
    callers = [cast.place(name) for name in (HOST, ATTACKER, NS1)]
    with Listener(cast[CONTAINER01].net, transport, family=family, port=INSIDE) as ear:
        assert ear.hears(cast[JOINER].net, at=LOOPBACKS[family])
        assert ear.overhears([(caller, at, INSIDE) for caller in callers], cast.settle) == []


# --- what it leaves ----------------------------------------------------------------


@requirement("UM-5")
def test_the_kernel_is_told_nothing_in_the_host(scene: Scene, host: NetnsView) -> None:
    """While it runs, talks, stops and starts there is no link, address, route or rule more."""
    before = host.snapshot()
    guest = scene.container("guest", Bridge())
    introduce(guest.net, pick(scene.world.topology.internet, 4).ip, "tcp")
    assert before.changes(host.snapshot()) == []
    guest.stop()
    guest.start()
    assert before.changes(host.snapshot()) == []
    guest.remove()
    assert before.changes(host.snapshot()) == []
    a_change_would_show(host, before)


@requirement("UM-5")
def test_the_process_in_user_space_goes_with_the_container(scene: Scene, host: NetnsView) -> None:
    """There is one for each container, of an ordinary user's, and none when that is gone."""
    inside = scene.world.host
    before = inside.call(_datapaths)
    guest = scene.container("guest", Bridge())
    (pid,) = inside.call(_datapaths) - before
    assert inside.call(_owner, pid) != 0
    guest.remove()
    until(host, lambda: pid not in inside.call(_datapaths), f"process {pid} has ended")


# --- networks of the user's own ----------------------------------------------------


@requirement("UM-6")
def test_a_network_of_the_users_is_a_bridge_behind_a_tap(scene: Scene, runtime: Adapter) -> None:
    """Peers and gateway on link, what is beyond by the tap; who has none is no peer of theirs."""
    scene.network("lan", ipv6=has_ipv6(runtime))
    scene.containers(a=Bridge("lan"), b=Bridge("lan"), c=Bridge(), d=Host())
    assert scene.observed() == scene.promised()


@requirement("UM-6")
def test_the_host_has_no_link_of_it(scene: Scene, host: NetnsView) -> None:
    """Nor a rule or a route: the bridge is in a namespace of the user's, with all that it needs."""
    before = host.snapshot()
    lan = scene.network("lan")
    scene.containers(a=lan, b=lan)
    assert before.changes(host.snapshot()) == []
    bridges = scene.place(GATEWAY)
    assert lan.facts.interface in bridges.links()
    with bridges.open() as inner, host.open() as outer:
        assert syscalls.user_namespace(inner.fd) != syscalls.user_namespace(outer.fd)


# --- inside the host ---------------------------------------------------------------


def _datapaths() -> set[int]:
    """The processes in user space through which containers send."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/comm", encoding="ascii") as file:
            if file.read().startswith(("pasta", "slirp4netns")):
                found.add(int(name))
    return found


def _owner(pid: int) -> int:
    return os.stat(f"/proc/{pid}").st_uid
