"""gVisor: what is asked of its containers is asked from inside, and joiners share a sandbox."""

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
from tests.adapters.vendors import OWN_STACK, rests


@pytest.fixture(scope="module", params=[name for name in OWN_STACK if name == "runsc"])
def pod(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Start a container, a joiner of it, and one in mode none, if the runtime is installed."""
    with World.build() as world:
        runtime = registry.find(request.param)(world.host)
        runtime.start()
        with Scene(world, runtime) as made:
            made.containers(home=Bridge(), joiner=Joined("home"), alone=Nothing())
            yield made
        runtime.stop()


def test_its_release_is_its_version(pod: Scene) -> None:
    """Not the first number that it prints, which all have in common."""
    release, _, _ = pod.runtime.version.partition(".")
    assert len(release) == len("20240729")


def test_its_addresses_are_seen_from_inside_alone(pod: Scene) -> None:
    """On the host's side of its interface they are gone; the cable is the host's."""
    home = pod["home"]
    assert home.net.address(4) == home.endpoint().address.ip  # type: ignore[union-attr] # it has one
    with home.inside() as space, space.outside() as outside, Netlink(outside) as netlink:
        held = {item.address.ip for item in rtnetlink_dump.addresses(netlink)}
    assert home.net.address(4) not in held
    eth0 = home.net.links()["eth0"]
    ends = {link.ifindex for link in pod.place(HOST).links().values()}
    assert eth0.carrier
    assert eth0.peer in ends


def test_files_names_and_sysctls_are_those_inside(pod: Scene) -> None:
    """By the agent, which is a process of the container's."""
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


def test_what_only_the_kernel_could_do_is_told_apart(pod: Scene) -> None:
    """Neither entering nor attaching is of any use, and there is no snapshot."""
    with pytest.raises(UserspaceStack, match="alone"):
        pod.attach("alone")
    with pytest.raises(UserspaceStack, match="home"):
        pod["home"].net.snapshot()
    with pytest.raises(UserspaceStack), pod["home"].inside() as space, space.entered():
        pass


def test_who_has_nothing_to_do_takes_no_processor(pod: Scene) -> None:
    """A container of no command's waits: twenty that spun would starve whatever else there is."""
    until(pod.place(HOST), lambda: rests(pod["home"]), "the container's first process waits")


def test_a_joiner_goes_alone_and_stays_not_without_whom_it_joined(pod: Scene) -> None:
    """It is one more of the sandbox."""
    assert pod["joiner"].net.address(4) == pod["home"].net.address(4)
    pod["joiner"].stop()
    assert pod["home"].net.address(4)
    assert pod["home"].facts().running
    second = pod.container("second", Joined("home"))
    pod["home"].stop()
    assert not second.facts().running
