"""User-mode networking: a tap in the container, served by an unprivileged process on the host.

The process sends the container's traffic by sockets on the host and listens on published ports. It
changes no kernel state of the host and needs no root:
https://docs.podman.io/en/latest/markdown/podman-run.1.html#network-mode-net.
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
from harness.testbench.listener import TRANSPORTS, Listener, Transport, ask_echo_service
from harness.testbench.netns_view import NetnsView, until
from harness.testbench.scene import LOOPBACKS, Scene
from linux import syscalls
from suites.ports.published import INSIDE
from suites.support.features import has_ipv6, ipv4_and_ipv6
from suites.support.host import assert_change_shows

ALIKE = (CONTAINER01, CONTAINER02)
SLIRP = "10.0.2.100/24"
"""Address that slirp4netns assigns to every container."""
HOST_NAME = "host.containers.internal"


# --- configuration -----------------------------------------------------------------


@requirement("UM-1")
@pytest.mark.parametrize("name", ALIKE)
def test_user_mode_container_has_lo_and_one_tap(cast: Scene, runtime: Adapter, name: str) -> None:
    """A user-mode container has only lo and a tap, both up, and exec'd processes see the same."""
    own = {"pasta": "eth0", "slirp4netns": "tap0"}[runtime.dialect.default_network]
    links = cast[name].net.links()
    assert links.keys() == {"lo", own}
    assert all(link.up for link in links.values())
    assert container.view(cast[name]).interfaces == {"lo", own}


@requirement("UM-1")
@pytest.mark.parametrize("name", ALIKE)
def test_user_mode_addresses_are_as_declared(
    cast: Scene, runtime: Adapter, host: NetnsView, name: str
) -> None:
    """A user-mode container has the host's addresses or those of slirp4netns, as declared."""
    held = {item for item in cast[name].net.interfaces() if not item.ip.is_loopback}
    if runtime.dialect.default_network == "pasta":
        assert held == set(host.interfaces("eth0"))
    else:
        assert {str(item) for item in held if item.version == 4} == {SLIRP}


@requirement("UM-1")
@ipv4_and_ipv6
@pytest.mark.parametrize("name", ALIKE)
def test_user_mode_container_has_one_default_route_per_family(
    cast: Scene, name: str, family: Family
) -> None:
    """A user-mode container has one default route in each family."""
    routes = cast[name].net.routes()
    assert len([item for item in routes if not item.destination and item.family == family]) == 1


@requirement("UM-1")
def test_user_mode_netns_belongs_to_unprivileged_user_namespace(
    cast: Scene, host: NetnsView
) -> None:
    """A user-mode container's netns belongs to a user namespace that is not the host's."""
    with cast[CONTAINER01].net.open() as inside, host.open() as outside:
        assert syscalls.user_namespace(inside.fd) != syscalls.user_namespace(outside.fd)


@requirement("UM-1")
@pytest.mark.parametrize("name", ALIKE)
def test_user_mode_container_reaches_itself(cast: Scene, name: str) -> None:
    """A user-mode container reaches itself at its own addresses and on its loopback.

    The test covers containers that share the same addresses.
    """
    row = cast.promised(list(cells((name,), (SELF, LOOPBACK))))
    assert cast.observed(row) == row


# --- outgoing ----------------------------------------------------------------------


@requirement("UM-2")
@pytest.mark.parametrize("name", [*ALIKE, JOINER])
def test_targets_beyond_the_host_answer_user_mode_container(cast: Scene, name: str) -> None:
    """The internet, by address and by name, ns1 and ns2 answer a user-mode container.

    Each of them sees the host's address as the source.
    """
    row = cast.promised(list(cells((name,), (INTERNET, BY_NAME, NS1, NS2))))
    assert cast.observed(row) == row


@requirement("UM-2")
@ipv4_and_ipv6
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_internet_server_sees_host_address_of_user_mode_container(
    cast: Scene, family: Family, transport: Transport
) -> None:
    """A server on the internet sees the host's address as the client of a user-mode container."""
    exchange = ask_echo_service(
        cast[CONTAINER01].net, cast.world.address(INTERNET, family), transport
    )
    assert exchange.seen[0] == cast.world.address(HOST, family)


@requirement("UM-3")
@pytest.mark.parametrize("name", ALIKE)
def test_host_answers_user_mode_container_at_addresses_that_they_do_not_share(
    cast: Scene, name: str
) -> None:
    """The host answers a user-mode container at each address that the container does not have too.

    These are br0's address, and the host's LAN address if the container has another address.
    """
    row = cast.promised(list(cells((name,), (HOST, BR0))))
    assert cast.observed(row) == row


@requirement("UM-3")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_host_entry_in_hosts_file_of_user_mode_container_leads_to_the_host(
    cast: Scene, host: NetnsView, transport: Transport
) -> None:
    """The host's entry in a user-mode container's hosts file leads to a listener on the host."""
    lines = (line.split() for line in cast[CONTAINER01].read("/etc/hosts").splitlines())
    (address,) = (words[0] for words in lines if HOST_NAME in words)
    with Listener(host, transport, address=cast.world.address(HOST, 4)) as listener:
        assert listener.reached_from(cast[CONTAINER01].net, at=ip_address(address), answered=True)


@requirement("UM-3")
@ipv4_and_ipv6
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_host_loopback_is_unreachable_for_user_mode_container(
    cast: Scene, host: NetnsView, transport: Transport, family: Family
) -> None:
    """A user-mode container reaches no listener on the host's loopback.

    The container tries its gateways, and every address in its hosts and resolv.conf files.
    """
    inside = cast[CONTAINER01]
    known = {route.via for route in inside.net.routes() if route.via}
    for name in ("/etc/hosts", "/etc/resolv.conf"):
        known |= _addresses(inside.read(name))
    with Listener(host, transport, address=LOOPBACKS[family]) as listener:
        assert listener.reached_from(host)
        calls = [
            (inside.net, at, listener.port)
            for at in known
            if at.version == family and not at.is_loopback and not at.is_link_local
        ]
        assert listener.delivered(calls, cast.settle) == []


def _addresses(text: str) -> set[Address]:
    """Return the addresses among the words of a file."""
    found = set()
    for word in text.split():
        with contextlib.suppress(ValueError):
            found.add(ip_address(word))
    return found


# --- incoming ----------------------------------------------------------------------


@requirement("UM-4")
@pytest.mark.parametrize("source", [*ALIKE, HOST, NS1, INTERNET, ATTACKER])
def test_user_mode_container_is_unreachable_by_its_address(cast: Scene, source: str) -> None:
    """Neither a peer, nor the host, nor an outsider reaches a user-mode container by its address.

    A client that has the same address reaches only itself.
    """
    row = cast.promised(list(cells((source,), ALIKE)))
    row = row.restrict(cell for cell in row if cell.source != cell.target)
    assert cast.observed(row) == row


@requirement("UM-4")
@ipv4_and_ipv6
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_unpublished_listener_of_user_mode_container_is_unreachable(
    cast: Scene, transport: Transport, family: Family
) -> None:
    """A user-mode container's unpublished listener is unreachable at the host's address."""
    at = cast.world.address(HOST, family)
    callers = [cast.netns(name) for name in (HOST, ATTACKER, NS1)]
    with Listener(cast[CONTAINER01].net, transport, family=family, port=INSIDE) as listener:
        assert listener.reached_from(cast[JOINER].net, at=LOOPBACKS[family])
        assert listener.delivered([(caller, at, INSIDE) for caller in callers], cast.settle) == []


# --- state in the host -------------------------------------------------------------


@requirement("UM-5")
def test_user_mode_container_leaves_host_kernel_state_unchanged(
    scene: Scene, host: NetnsView
) -> None:
    """A running user-mode container adds no link, address, route or rule to the host.

    The host is also unchanged after the container's stop, restart and removal.
    """
    before = host.snapshot()
    guest = scene.container("guest", Bridge())
    ask_echo_service(guest.net, pick(scene.world.topology.internet, 4).ip, "tcp")
    assert before.changes(host.snapshot()) == []
    guest.stop()
    guest.start()
    assert before.changes(host.snapshot()) == []
    guest.remove()
    assert before.changes(host.snapshot()) == []
    assert_change_shows(host, before)


@requirement("UM-5")
def test_user_mode_process_ends_with_the_container(scene: Scene, host: NetnsView) -> None:
    """Each user-mode container has one unprivileged network process on the host.

    The process ends with the container.
    """
    inside = scene.world.host
    before = inside.call(_datapaths)
    guest = scene.container("guest", Bridge())
    (pid,) = inside.call(_datapaths) - before
    assert inside.call(_owner, pid) != 0
    guest.remove()
    until(host, lambda: pid not in inside.call(_datapaths), f"process {pid} has ended")


# --- rootless user-defined networks -------------------------------------------------------


@requirement("UM-6")
def test_rootless_network_is_a_bridge_behind_a_tap(scene: Scene, runtime: Adapter) -> None:
    """On a rootless network, peers and gateway are on link, and all other targets behind a tap.

    A container on another network is not a peer.
    """
    scene.network("lan", ipv6=has_ipv6(runtime))
    scene.containers(a=Bridge("lan"), b=Bridge("lan"), c=Bridge(), d=Host())
    assert scene.observed() == scene.promised()


@requirement("UM-6")
def test_rootless_network_has_no_link_on_the_host(scene: Scene, host: NetnsView) -> None:
    """A rootless network adds no link, route or rule to the host: its bridge is elsewhere.

    The bridge is in a network namespace of the user.
    """
    before = host.snapshot()
    lan = scene.network("lan")
    scene.containers(a=lan, b=lan)
    assert before.changes(host.snapshot()) == []
    bridges = scene.netns(GATEWAY)
    assert lan.facts.interface in bridges.links()
    with bridges.open() as inner, host.open() as outer:
        assert syscalls.user_namespace(inner.fd) != syscalls.user_namespace(outer.fd)


# --- inside the host ---------------------------------------------------------------


def _datapaths() -> set[int]:
    """Return the pids of the user-mode networking processes."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/comm", encoding="ascii") as file:
            if file.read().startswith(("pasta", "slirp4netns")):
                found.add(int(name))
    return found


def _owner(pid: int) -> int:
    return os.stat(f"/proc/{pid}").st_uid
