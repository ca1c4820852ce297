"""Mode host, in which a container shares the host's network namespace."""

from __future__ import annotations

import socket

import pytest

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.model.plan import (
    ATTACKER,
    CONTAINER01,
    HOST,
    ON_HOST,
    Bridge,
    Cell,
    Family,
    Host,
    Joined,
    Publish,
)
from harness.plugin.marks import requirement
from harness.testbench import container
from harness.testbench.listener import TRANSPORTS, Listener, Transport, ask_echo_service
from harness.testbench.netns_view import NetnsView, reachable_abstract_sockets
from harness.testbench.scene import LOOPBACKS, Scene
from suites.modes.conftest import assert_not_published
from suites.support.features import ipv4_and_ipv6, restarts
from suites.support.host import assert_change_shows

SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv6.conf.all.hop_limit",
    "net.core.somaxconn",
    "net/ipv4/ip_default_ttl",
)
"""Sysctls of several kinds, one with the slashes that sysctl(8) accepts too."""

PUBLISHED, INSIDE = 8196, 31081


@requirement("HOST-1")
def test_host_mode_container_is_in_netns_of_the_host(cast: Scene, host: NetnsView) -> None:
    """A host-mode container and its exec'd processes are in the host's netns."""
    assert cast[ON_HOST].net.identity == host.identity
    assert container.view(cast[ON_HOST]).netns == host.identity[1]
    assert cast[CONTAINER01].net.identity != host.identity


@requirement("HOST-1", "LIFE-7")
def test_restarted_host_mode_container_is_in_netns_of_the_host(
    scene: Scene, host: NetnsView
) -> None:
    """A restarted host-mode container and its exec'd processes are in the host's netns."""
    guest = scene.container("guest", Host())
    guest.stop()
    guest.start()
    assert guest.net.identity == host.identity
    assert container.view(guest).netns == host.identity[1]


@requirement("HOST-1")
def test_host_mode_container_sees_interfaces_of_the_host(cast: Scene, host: NetnsView) -> None:
    """A host-mode container sees all interfaces of the host and no others."""
    assert container.view(cast[ON_HOST]).interfaces == set(host.links())


@requirement("HOST-2")
def test_host_mode_container_changes_nothing_on_the_host(fresh_scene: Scene) -> None:
    """A host-mode container's start, exec, stop, restart and removal change nothing on the host."""
    host = fresh_scene.netns(HOST)
    before = host.snapshot()
    guest = fresh_scene.container("guest", Host())
    assert before.changes(host.snapshot()) == []
    container.view(guest)
    assert before.changes(host.snapshot()) == []
    guest.stop()
    assert before.changes(host.snapshot()) == []
    if restarts(fresh_scene.runtime):
        guest.start()
        assert before.changes(host.snapshot()) == []
    guest.remove()
    assert before.changes(host.snapshot()) == []
    assert_change_shows(host, before)


@requirement("HOST-2", "PUB-1")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_published_ports_survive_lifecycle_of_host_mode_container(
    scene: Scene, host: NetnsView, transport: Transport
) -> None:
    """Published ports of other containers survive start and removal of a host-mode container.

    The ports answer the LAN, and answer the host at 127.0.0.1.
    """
    web = scene.container("web", Bridge(), ports=(Publish(PUBLISHED, INSIDE, transport),))
    with Listener(web.net, transport, port=INSIDE) as listener:

        def answers() -> bool:
            lan = listener.reached_from(
                scene.netns(ATTACKER),
                at=scene.world.address(HOST, 4),
                port=PUBLISHED,
                answered=True,
            )
            return bool(
                lan and listener.reached_from(host, at=LOOPBACKS[4], port=PUBLISHED, answered=True)
            )

        assert answers()
        guest = scene.container("guest", Host())
        assert answers()
        guest.remove()
        assert answers()


@requirement("HOST-3")
@ipv4_and_ipv6
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_listener_in_host_mode_container_is_a_listener_on_the_host(
    cast: Scene, host: NetnsView, family: Family, transport: Transport
) -> None:
    """A listener in a host-mode container answers at the host's addresses and occupies the port."""
    address = cast.world.address(HOST, family)
    with Listener(cast[ON_HOST].net, transport, family=family) as listener:
        callers = [cast.netns(ATTACKER), host]
        if cast[CONTAINER01].net.address(family) not in (None, address):
            callers.append(cast[CONTAINER01].net)
        for caller in callers:
            assert listener.reached_from(caller, at=address), caller.name
        assert listener.reached_from(host, at=LOOPBACKS[family])
        with (
            pytest.raises(OSError, match="in use"),
            Listener(host, transport, family=family, port=listener.port),
        ):
            pass


@requirement("HOST-3")
@ipv4_and_ipv6
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_host_mode_packets_carry_untranslated_host_address(
    cast: Scene, internet: NetnsView, family: Family, transport: Transport
) -> None:
    """A host-mode container's packets reach the internet with an untranslated source and port."""
    address = internet.address(family)
    assert address is not None
    exchange = ask_echo_service(cast[ON_HOST].net, address, transport)
    assert exchange.seen == exchange.own
    assert exchange.seen[0] == cast.world.address(HOST, family)


@requirement("HOST-4")
def test_reachability_of_host_mode_container_equals_that_of_the_host(cast: Scene) -> None:
    """A host-mode container gets the same replies and TTLs as the host, from every target."""
    asked = cast.promised()
    own, hosts = asked.select(source=ON_HOST), asked.select(source=HOST)
    seen = cast.observed([*own, *hosts])
    assert seen.restrict(own) == own
    assert {_question(cell): seen[cell] for cell in own} == {
        _question(cell): seen[cell] for cell in hosts
    }


def _question(cell: Cell) -> tuple[object, ...]:
    return cell.target, cell.protocol, cell.family


@requirement("HOST-5")
@pytest.mark.parametrize("key", SYSCTLS)
def test_net_sysctl_is_refused_in_host_mode(
    scene: Scene, host: NetnsView, runtime: Adapter, key: str
) -> None:
    """A net.* sysctl of a host-mode container is refused by name, and nothing changes."""
    before, dotted = host.snapshot(), key.replace("/", ".")
    value = host.sysctl(dotted)
    other = "0" if value == "1" else "1"
    try:
        refused = scene.refusal("guest", Host(), sysctls=((key, other),))
        assert host.sysctl(dotted) == value
    finally:
        host.tune({dotted: value})
    assert "sysctl" in refused.said.lower() or key in refused.said
    assert before.changes(host.snapshot()) == []
    with pytest.raises(RuntimeRefused):
        runtime.inspect("guest")


@requirement("HOST-5")
def test_net_sysctl_is_refused_for_container_joining_host_mode(
    scene: Scene, host: NetnsView
) -> None:
    """A net.* sysctl is refused for a container that joins host mode, directly or by a chain."""
    key = "net.ipv4.ip_default_ttl"
    scene.container("guest", Host())
    scene.container("between", Joined("guest"))
    value = host.sysctl(key)
    try:
        for joined in ("guest", "between"):
            scene.refusal("joiner", Joined(joined), sysctls=((key, "61"),))
        assert host.sysctl(key) == value
    finally:
        host.tune({key: value})


@requirement("HOST-5")
def test_net_sysctl_is_set_in_netns_of_bridged_container(scene: Scene, host: NetnsView) -> None:
    """A net.* sysctl of a bridged container is set in the container's netns and not on the host.

    This is the control that the option, which host mode refuses, is valid.
    """
    key = "net.ipv4.ip_default_ttl"
    value = host.sysctl(key)
    own = scene.container("own", Bridge(), sysctls=((key, "61"),))
    assert own.net.sysctl(key) == "61"
    assert host.sysctl(key) == value


@requirement("HOST-6")
def test_abstract_sockets_of_daemons_are_unreachable_in_host_mode(
    cast: Scene, host: NetnsView
) -> None:
    """A host-mode container reaches no abstract Unix socket of the runtime's daemons.

    As a control, it reaches an abstract socket of the test.
    """
    with host.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.bind("")  # the kernel chooses the name
        control.listen()
        name = control.getsockname()[1:].decode()
        assert reachable_abstract_sockets(host, cast[ON_HOST].net) == {name}


@requirement("HOST-7")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_publishing_in_host_mode_is_refused_or_warned_about(
    scene: Scene, runtime: Adapter, transport: Transport
) -> None:
    """Publishing a port in host mode is refused, or ignored with a warning, as declared.

    In both cases the port stays free on the host.
    """
    assert_not_published(scene, Host(), runtime.dialect.host_publish, transport)
