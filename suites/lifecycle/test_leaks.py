"""Kernel state after the removal of containers and networks, which equals the state before."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

import pytest

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.model.plan import HOST, INTERNET, Bridge, Family, Host, Joined, Mode, Nothing
from harness.plugin.marks import requirement
from harness.testbench.container import Container
from harness.testbench.listener import TRANSPORTS, Listener, ask_echo_service
from harness.testbench.netns_view import until
from harness.testbench.scene import Scene
from harness.world.leak_guard import LeakGuard
from suites.support.features import (
    has_ipv6,
    has_networks,
    ipv4_and_ipv6,
    lan,
    minimal_container,
    restarts,
)

MODES: dict[str, Mode] = {
    "bridge": Bridge(),
    "user-defined": Bridge("lan"),
    "host": Host(),
    "none": Nothing(),
    "container": Joined("home"),
}


@requirement("LIFE-1")
@pytest.mark.parametrize("mode", MODES.values(), ids=list(MODES))
def test_removed_container_leaves_no_kernel_state(
    scene: Scene, mode: Mode, guard: LeakGuard
) -> None:
    """A removed container of any mode leaves no kernel state.

    As a control, the leak guard must notice the container while it runs.
    """
    own = lan(scene)
    scene.container("home", Bridge())
    scene.container("stays", own)  # a bridge gets its fe80:: address with its first port
    with guard.holding() as different:
        scene.container("guest", mode)
        scene["guest"].exec("true")
        assert different()
        scene.remove("guest")


@requirement("LIFE-1")
@ipv4_and_ipv6
def test_removed_container_leaves_no_flows_or_neighbours(
    scene: Scene, family: Family, guard: LeakGuard
) -> None:
    """A removed container leaves no conntrack or neighbour entry, even if others use its bridge.

    A runtime may declare that these entries are left to the kernel. Even then nothing else stays.
    """
    own = lan(scene, family=family)
    stays = scene.container("stays", own).net
    ask_echo_service(stays, scene.world.address(INTERNET, family), "udp")
    with guard.holding() as different:
        guest = scene.container("guest", own).net
        for transport in TRANSPORTS:
            ask_echo_service(guest, scene.world.address(INTERNET, family), transport)
            for caller in (scene.netns(HOST), stays):
                with Listener(guest, transport, family=family) as listener:
                    assert listener.reached_from(caller, at=guest.address(family))
        assert any("neighbour" in line or "link" in line for line in different())
        scene.remove("guest")


@requirement("LIFE-1")
def test_removed_network_leaves_no_kernel_state(scene: Scene, guard: LeakGuard) -> None:
    """A removed network leaves no bridge, address, route, rule or sysctl.

    Some runtimes remove the bridge with the network's last container, others with the network.
    """
    scene.container("stays", Bridge())
    with guard.holding() as different:
        scene.network("lan", ipv6=has_ipv6(scene.runtime))
        scene.container("guest", Bridge("lan"))
        assert any("link" in line for line in different())
        scene.remove("guest")
        scene.remove_network("lan")


@requirement("LIFE-3")
@pytest.mark.parametrize("how", ["killed", "exited"])
def test_end_of_pid_1_is_cleaned_up_like_a_stop(scene: Scene, how: str) -> None:
    """After a container's pid 1 is killed or exits, the host's state is the same as after a stop.

    The restarted container, or a new one of the same name, is reachable.
    """
    host = scene.netns(HOST)
    guest = scene.container("guest", Bridge())
    scene.container("peer", Bridge())
    guest.stop()
    stopped = host.snapshot()
    guest = _begun_again(scene, guest)
    assert stopped.changes(host.snapshot())
    if how == "killed":
        scene.world.host.call(_signal, guest.facts().pid, signal.SIGKILL)
    else:
        with contextlib.suppress(RuntimeRefused):  # the container may end before exec returns
            guest.exec("kill", "-TERM", "1")
    until(host, lambda: not guest.facts().running, "the runtime reports the container as ended")
    until(host, lambda: not stopped.changes(host.snapshot()), "the container's network is removed")
    _begun_again(scene, guest)
    assert scene.observed() == scene.promised()


def _begun_again(scene: Scene, stopped: Container) -> Container:
    """Restart a container, or start an equal one if the runtime cannot restart."""
    if restarts(scene.runtime):
        stopped.start()
        return stopped
    stopped.remove()
    return scene.container(stopped.name, Bridge())


def _signal(pid: int, number: int) -> None:
    os.kill(pid, number)


@requirement("LIFE-5")
def test_unknown_container_or_network_is_refused_by_name(runtime: Adapter, scene: Scene) -> None:
    """Every operation on an unknown container or network is refused with an error that names it."""
    known = minimal_container(scene, "known")
    verbs: list[Callable[[str], object]] = [
        runtime.inspect,
        runtime.stop_container,
        lambda name: runtime.exec(name, ["true"]),
    ]
    if restarts(runtime):
        verbs.append(runtime.start_container)
    if has_networks(runtime):
        verbs += [runtime.network_facts, runtime.remove_network]
    for verb in verbs:
        with pytest.raises(RuntimeRefused, match="unheard-of"):
            verb("unheard-of")
    assert known.facts().running


@requirement("LIFE-5")
def test_removal_of_unknown_container_is_handled_as_declared(
    runtime: Adapter, scene: Scene
) -> None:
    """Removal of a container that does not exist is refused or does nothing, as declared.

    Names are tried of a container that was removed before, and of one that never existed.
    """
    scene.container("once", Bridge())
    scene.remove("once")
    for name in ("once", "never"):
        if runtime.dialect.removing_absent == "refused":
            with pytest.raises(RuntimeRefused, match=name):
                runtime.remove(name)
        else:
            runtime.remove(name)


@requirement("LIFE-5")
def test_stop_of_stopped_container_is_handled_as_declared(runtime: Adapter, scene: Scene) -> None:
    """Stopping a stopped container is refused or does nothing, as the runtime declares.

    The container can be started afterwards, where the runtime can restart.
    """
    guest = scene.container("guest", Bridge())
    guest.stop()
    if runtime.dialect.stopping_stopped == "refused":
        with pytest.raises(RuntimeRefused, match="guest"):
            guest.stop()
    else:
        guest.stop()
    assert not guest.facts().running
    if restarts(runtime):
        guest.start()
        assert scene.observed() == scene.promised()
