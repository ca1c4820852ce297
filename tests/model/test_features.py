"""Tests of the features that a plan requires, and of the cast for an adapter with few features."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest

from harness.model.features import (
    Feature,
    Unclaimed,
    absent,
    check,
    of_container,
    of_network,
    of_plan,
)
from harness.model.plan import (
    ALONE,
    CAST,
    CONTAINER01,
    CONTAINER02,
    JOINER,
    ON_HOST,
    Attached,
    Bridge,
    ContainerSpec,
    Host,
    Joined,
    NetworkSpec,
    Nothing,
    Plan,
    Publish,
)


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        (NetworkSpec("n"), {"networks"}),
        (NetworkSpec("n", ipv6=True), {"ipv6"}),
        (NetworkSpec("n", subnet6=IPv6Network("fd00::/64")), {"ipv6"}),
        (NetworkSpec("n", internal=True), {"internal"}),
        (NetworkSpec("n", icc=False, ipv6=True), {"icc", "ipv6"}),
    ],
)
def test_network_spec_requires_features_of_its_options(spec: NetworkSpec, asked: set[str]) -> None:
    """A network requires the features of its options.

    Without options it requires only `networks`.
    """
    assert set(of_network(spec)) == asked


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        (ContainerSpec("c"), {"bridge"}),
        (ContainerSpec("c", Bridge("n")), set()),
        (ContainerSpec("c", Host()), {"host"}),
        (ContainerSpec("c", Nothing()), {"none"}),
        (ContainerSpec("c", Joined("b")), {"container"}),
        (ContainerSpec("c", Attached()), {"none"}),
        (ContainerSpec("c", also=("n",)), {"bridge", "networks"}),
        (ContainerSpec("c", ip=IPv4Address("192.0.2.2")), {"bridge", "static-address"}),
        (ContainerSpec("c", ip6=IPv6Address("fd00::2")), {"bridge", "ipv6", "static-address"}),
        (ContainerSpec("c", mac="02:00:00:00:00:01"), {"bridge", "static-address"}),
        (ContainerSpec("c", aliases=("d",)), {"bridge", "dns"}),
        (ContainerSpec("c", ports=(Publish(80, 80),)), {"bridge", "publish"}),
        (ContainerSpec("c", ports=(Publish(1, 1, "sctp"),)), {"bridge", "publish", "sctp"}),
        (ContainerSpec("c", Nothing(), ports=(Publish(80, 80),)), {"none"}),
        (ContainerSpec("c", sysctls=(("net.a", "1"),)), {"bridge", "sysctl"}),
    ],
)
def test_container_spec_requires_features_of_its_mode_and_options(
    spec: ContainerSpec, asked: set[str]
) -> None:
    """A container requires the features of its mode and of all its options."""
    assert set(of_container(spec, set())) == asked


@pytest.mark.parametrize(
    ("claimed", "asked"),
    [("host", {"bridge"}), ("bridge", set()), ("user-mode", set()), ("networks", set())],
)
def test_default_network_of_another_kind_requires_no_bridge_feature(
    claimed: str, asked: set[str]
) -> None:
    """A container on the default network requires the feature `bridge` by default.

    It does not if the adapter declares a default network in user mode or of the user's own.
    """
    assert set(of_container(ContainerSpec("c"), {Feature(claimed)})) == asked


def test_check_lists_all_undeclared_features() -> None:
    """The error lists every required feature that the adapter does not declare, and no other."""
    check("acme", {Feature.BRIDGE}, Feature.BRIDGE)
    with pytest.raises(Unclaimed, match=r"acme does not declare ipv6, networks$"):
        check("acme", {Feature.BRIDGE}, Feature.NETWORKS, Feature.IPV6, Feature.BRIDGE)


@pytest.mark.parametrize(
    ("withheld", "without"),
    [
        ([], {}),
        (["host"], {ON_HOST: {"host"}}),
        (["container"], {JOINER: {"container"}}),
        (["none"], {ALONE: {"none"}}),
        (["bridge", "networks"], {name: {"bridge"} for name in (CONTAINER01, CONTAINER02, JOINER)}),
    ],
)
def test_containers_with_undeclared_mode_are_absent_from_cast(
    withheld: list[str], without: dict[str, set[str]]
) -> None:
    """The cast omits containers whose mode the adapter does not declare.

    It also omits the containers that join them.
    """
    assert absent(CAST, set(Feature) - {Feature.USER_MODE, *withheld}) == without


def test_plan_requires_features_of_its_networks_and_containers() -> None:
    """A plan requires the features of all its networks and containers."""
    plan = Plan((NetworkSpec("n", internal=True),), (ContainerSpec("c", Host()),))
    assert set(of_plan(plan, set(Feature))) == {"internal", "host"}
