"""Tests of runsc, whose containers are inspected from inside.

A joining container is in the sandbox of the joined one.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from harness.adapters import registry
from harness.model.plan import HOST, Bridge, Joined, Nothing
from harness.probe.remote import UserspaceStack
from harness.testbench import lookup
from harness.testbench.netns_view import until
from harness.testbench.scene import Scene
from harness.world.build import World
from linux import rtnetlink_dump
from linux.netlink import Netlink
from tests.adapters.vendors import OWN_STACK, is_asleep


@pytest.fixture(scope="module", params=[name for name in OWN_STACK if name == "runsc"])
def pod(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Start a container, one that joins it, and one in mode none."""
    with World.build() as world:
        runtime = registry.find(request.param)(world.host)
        runtime.start()
        with Scene(world, runtime) as made:
            made.containers(home=Bridge(), joiner=Joined("home"), alone=Nothing())
            yield made
        runtime.stop()


def test_runsc_release_is_its_version(pod: Scene) -> None:
    """The version of runsc is the release in its output.

    The first number in the output is the same in all releases.
    """
    release, _, _ = pod.runtime.version.partition(".")
    assert len(release) == len("20240729")


def test_runsc_addresses_are_visible_inside_only(pod: Scene) -> None:
    """The addresses of a runsc container are visible only inside its sandbox.

    The kernel's netns has none of them. The host has the other end of the veth pair.
    """
    home = pod["home"]
    with home.inside() as space, space.outside() as outside, Netlink(outside) as netlink:
        held = {item.address.ip for item in rtnetlink_dump.addresses(netlink)}
    assert home.net.address(4) not in held
    eth0 = home.net.links()["eth0"]
    ends = {link.ifindex for link in pod.netns(HOST).links().values()}
    assert eth0.carrier
    assert eth0.peer in ends


def test_runsc_files_names_and_sysctls_are_those_inside(pod: Scene) -> None:
    """The files, names and sysctls of a runsc container are read inside its sandbox.

    The agent that reads them is a process of the container.
    """
    home = pod["home"]
    assert home.read("/etc/hostname") == "home\n"
    assert home.mode("/etc/hosts") & 0o777 == 0o644
    with pytest.raises(FileNotFoundError):
        home.read("/no/such/file")
    assert lookup.hostname(pod.world.host, home) == "home"
    found = lookup.look_up(pod.world.host, home, "localhost", 4)
    assert found.addresses == {ip_address("127.0.0.1")}
    assert lookup.name_of(pod.world.host, home, ip_address("127.0.0.1")) == "localhost"
    assert home.net.sysctl("net.ipv4.tcp_sack") == "1"


def test_operations_on_the_kernels_netns_are_refused_for_runsc(pod: Scene) -> None:
    """Entering, attaching or dumping the kernel's netns of a runsc container is refused."""
    with pytest.raises(UserspaceStack, match="alone"):
        pod.attach("alone")
    with pytest.raises(UserspaceStack, match="home"):
        pod["home"].net.snapshot()
    with pytest.raises(UserspaceStack), pod["home"].inside() as space, space.entered():
        pass


def test_idle_runsc_container_uses_no_cpu(pod: Scene) -> None:
    """An idle runsc container uses no CPU time.

    A container that spins would slow down the others.
    """
    until(pod.netns(HOST), lambda: is_asleep(pod["home"]), "the container's first process waits")


def test_joining_runsc_container_ends_with_its_sandbox(pod: Scene) -> None:
    """A joining runsc container can end alone.

    It also ends when the joined container ends.
    """
    assert pod["joiner"].net.address(4) == pod["home"].net.address(4)
    pod["joiner"].stop()
    assert pod["home"].net.address(4)
    assert pod["home"].facts().running
    second = pod.container("second", Joined("home"))
    pod["home"].stop()
    assert not second.facts().running
