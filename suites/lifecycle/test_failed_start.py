"""Failed starts of containers, which must leave no kernel state."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final

import pytest

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.model.plan import Bridge, Joined, Mode
from harness.plugin.marks import requirement
from harness.testbench.scene import Scene
from harness.world.leak_guard import LeakGuard
from suites.support.features import has_ipv6, has_networks

SUBNET, SUBNET6 = IPv4Network("172.30.9.0/29"), IPv6Network("fd00:99::/64")
TAKEN, TAKEN6 = IPv4Address("172.30.9.5"), IPv6Address("fd00:99::5")
TAKEN_BY_FIRST: Final[dict[str, Any]] = {"ip": TAKEN, "ip6": TAKEN6}
"""Addresses that the container `first` requests, if a case needs them to be in use."""


@dataclass(frozen=True)
class FailingStart:
    """Mode and options of a start that must fail; the default mode is the network of `first`."""

    mode: Mode | None = None
    options: dict[str, Any] = field(default_factory=dict)


FAILING = {
    "missing-command": FailingStart(options={"command": ("/no/such/command",)}),
    "non-executable-command": FailingStart(options={"command": ("/etc/hosts",)}),
    "address-in-use": FailingStart(options={"ip": TAKEN}),
    "IPv6-address-in-use": FailingStart(options={"ip6": TAKEN6}),
    "address-outside-subnet": FailingStart(options={"ip": IPv4Address("172.30.10.5")}),
    "unknown-sysctl": FailingStart(options={"sysctls": (("net.ipv4.unheard_of", "1"),)}),
    "unknown-network": FailingStart(mode=Bridge("unheard-of")),
    "unknown-container": FailingStart(mode=Joined("unheard-of")),
}


@requirement("LIFE-2")
@pytest.mark.parametrize("case", FAILING.values(), ids=list(FAILING))
def test_failed_start_leaves_no_kernel_state(
    scene: Scene, runtime: Adapter, case: FailingStart, guard: LeakGuard
) -> None:
    """A failed start leaves no kernel state, and frees its name and address for the next start."""
    asked = {key: TAKEN_BY_FIRST[key] for key in case.options if key in TAKEN_BY_FIRST}
    home = _small(scene, **asked) if asked or has_networks(runtime) else _default(scene)
    with guard.holding():
        scene.refusal("guest", case.mode or home, **case.options)
        with pytest.raises(RuntimeRefused):
            runtime.inspect("guest")
    with guard.holding() as different:
        second = scene.container("guest", home)
        assert different()
        assert scene.observed() == scene.promised()
        second.remove()


@requirement("LIFE-2")
def test_start_without_free_address_leaves_no_kernel_state(
    scene: Scene, runtime: Adapter, guard: LeakGuard
) -> None:
    """A start that fails because no address is free leaves no kernel state.

    After another container is removed, the next start gets that container's address.
    """
    home = _small(scene)
    names = [f"member{number}" for number in range(SUBNET.num_addresses - 4)]
    for name in names:
        scene.container(name, home)
    with guard.holding():
        scene.refusal("late", home)
        with pytest.raises(RuntimeRefused):
            runtime.inspect("late")
    scene.remove(names[0])
    scene.container("late", home)


def _small(scene: Scene, **asked: Any) -> Bridge:
    six = has_ipv6(scene.runtime)
    scene.network("small", subnet=SUBNET, subnet6=SUBNET6 if six else None)
    scene.container("first", Bridge("small"), **asked)
    return Bridge("small")


def _default(scene: Scene) -> Bridge:
    scene.container("first", Bridge())
    return Bridge()
