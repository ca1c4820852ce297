"""gVisor under podman and Docker: what the engine has made of a network is what a sandbox has."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from harness.adapters import registry
from harness.adapters.docker_cli import gvisor
from harness.adapters.docker_cli.spec import CliSpec
from harness.adapters.support import programs
from harness.model.plan import HOST, Bridge
from harness.model.plan import Host as HostMode
from harness.testbench import lookup
from harness.testbench.netns_view import until
from harness.testbench.scene import Scene
from harness.world.build import World
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from tests.adapters.vendors import OWN_STACK, rests

ENGINES = tuple(name for name in OWN_STACK if name != "runsc")
SPECS = (gvisor.PODMAN, gvisor.DOCKER)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A container on the default network, one on a network of its own, one in mode host."""
    with World.build() as world:
        runtime = registry.find(request.param)(world.host)
        runtime.start()
        with Scene(world, runtime) as made:
            made.network("lan")
            made.containers(home=Bridge(), away=Bridge("lan"), guest=HostMode())
            yield made
        runtime.stop()


@pytest.mark.parametrize("name", ["home", "away"])
def test_its_addresses_are_seen_from_inside_alone(engine: Scene, name: str) -> None:
    """As the engine tells them; on the host's side of its interface they are gone."""
    (endpoint,) = engine[name].facts().endpoints
    assert endpoint.address in engine[name].net.interfaces("eth0")
    with engine[name].inside() as space, space.outside() as outside, Netlink(outside) as netlink:
        held = [item.address for item in rtnetlink_dump.addresses(netlink)]
    assert endpoint.address not in held


@pytest.mark.parametrize("name", ["home", "away"])
def test_its_cable_is_the_hosts_whatever_number_it_has_inside(engine: Scene, name: str) -> None:
    """Each end names the other by the number that the kernel has given it."""
    cable = engine[name].net.kernel_link("eth0")
    (end,) = (link for link in engine.place(HOST).links().values() if link.ifindex == cable.peer)
    assert (cable.kind, end.kind, end.peer) == ("veth", "veth", cable.ifindex)


def test_in_mode_host_its_sockets_are_the_hosts(engine: Scene) -> None:
    """It would have no interface at all if the engine alone knew of the mode."""
    own = engine["guest"].net.interfaces()
    assert set(own) == set(engine.place(HOST).interfaces())


def test_a_network_has_the_resolver_that_is_declared(engine: Scene) -> None:
    """Podman's is at the gateway; Docker's is out of reach, and that of the default network not."""
    reached = engine.runtime.dialect.network_resolver == "reached"
    host = engine.world.host
    assert bool(lookup.look_up(host, engine["away"], "www.example.com", 4).addresses) == reached
    assert lookup.look_up(host, engine["home"], "www.example.com", 4).addresses


def test_who_has_nothing_to_do_takes_no_processor(engine: Scene) -> None:
    """At a terminal that nobody is at it would spin."""
    until(engine.place(HOST), lambda: rests(engine["home"]), "the container's first process waits")


def test_started_again_it_is_where_it_was(engine: Scene) -> None:
    """In a sandbox of its own, on its network, with an agent of its own."""
    again = engine.container("again", Bridge("lan"))
    again.stop()
    again.start()
    (endpoint,) = again.facts().endpoints
    assert endpoint.address in again.net.interfaces("eth0")
    again.remove()


def test_its_stack_takes_a_route(engine: Scene) -> None:
    """By the same words as the kernel."""
    network = IPv4Network("198.18.0.0/15")
    (gateway,) = engine.runtime.network_facts("lan").gateways
    with engine["away"].net.open() as space, Netlink(space) as netlink:
        eth0 = rtnetlink_dump.link(netlink, "eth0").ifindex
        netlink.send([rtnetlink.add_route(network, via=gateway.ip, oif=eth0)])
    assert network in {route.destination for route in engine["away"].net.routes()}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_what_the_engine_calls_is_a_script_that_can_be_executed(
    spec: CliSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which passes on what it is told; a file that is no script is not to be executed."""
    files = [(f"{tmp_path}{path}", content) for path, content in spec.files]
    monkeypatch.setattr(programs, "_DONE", str(tmp_path / "done"))
    programs._furnish((), files, rootless=False)
    modes = {Path(path).name: Path(path).stat().st_mode & 0o111 for path, _ in files}
    assert {name for name, mode in modes.items() if mode} == {"runsc"}
    (script,) = (path for path, _ in files if Path(path).name == "runsc")
    subprocess.run(("sh", "-n", script), check=True)
    for program in ("unshare", "runsc"):
        Path(tmp_path, program).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        Path(tmp_path, program).chmod(0o755)
    words = ("--root", "/run/a b", "create", "one two")
    told = subprocess.run(
        (script, *words),
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert told[-len(words) :] == list(words)
    assert "--net-raw" in told
