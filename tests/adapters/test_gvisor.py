"""Tests of gVisor under podman and Docker, where the sandbox takes over the veth end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from harness.adapters import registry
from harness.adapters.docker_cli import adapter, gvisor
from harness.adapters.docker_cli.spec import CliSpec
from harness.model.plan import HOST, Bridge
from harness.model.plan import Host as HostMode
from harness.testbench import lookup
from harness.testbench.netns_view import until
from harness.testbench.scene import Scene
from harness.world.build import World
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from tests.adapters.vendors import OWN_STACK, is_asleep

ENGINES = tuple(name for name in OWN_STACK if name != "runsc")
SPECS = (gvisor.PODMAN, gvisor.DOCKER)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Start a container on the default network, a user-defined one, and in mode host."""
    with World.build() as world:
        runtime = registry.find(request.param)(world.host)
        runtime.start()
        with Scene(world, runtime) as made:
            made.network("lan")
            made.containers(home=Bridge(), away=Bridge("lan"), guest=HostMode())
            yield made
        runtime.stop()


@pytest.mark.parametrize("name", ["home", "away"])
def test_gvisor_addresses_are_visible_inside_only(engine: Scene, name: str) -> None:
    """The addresses of a gVisor container are those of its sandbox.

    The kernel's netns of the container does not have them.
    """
    (endpoint,) = engine[name].facts().endpoints
    assert endpoint.address in engine[name].net.interfaces("eth0")
    with engine[name].inside() as space, space.outside() as outside, Netlink(outside) as netlink:
        held = [item.address for item in rtnetlink_dump.addresses(netlink)]
    assert endpoint.address not in held


@pytest.mark.parametrize("name", ["home", "away"])
def test_veth_peer_is_found_by_the_kernels_ifindex(engine: Scene, name: str) -> None:
    """A veth peer is found by the kernel's interface index, not by the sandbox's index."""
    cable = engine[name].net.kernel_link("eth0")
    (end,) = (link for link in engine.netns(HOST).links().values() if link.ifindex == cable.peer)
    assert (cable.kind, end.kind, end.peer) == ("veth", "veth", cable.ifindex)


def test_mode_host_uses_the_hosts_sockets(engine: Scene) -> None:
    """In mode host a gVisor container uses the sockets of the host.

    Without the annotation for this, the sandbox would have no interface.
    """
    own = engine["guest"].net.interfaces()
    assert set(own) == set(engine.netns(HOST).interfaces())


def test_gvisor_resolver_is_reachable_as_declared(engine: Scene) -> None:
    """The resolver of a gVisor container is reachable if the dialect declares it.

    Podman's is at the gateway. Docker's is reachable on the default network only.
    """
    reached = engine.runtime.dialect.network_resolver == "reached"
    host = engine.world.host
    assert bool(lookup.look_up(host, engine["away"], "www.example.com", 4).addresses) == reached
    assert lookup.look_up(host, engine["home"], "www.example.com", 4).addresses


def test_idle_gvisor_container_uses_no_cpu(engine: Scene) -> None:
    """An idle gVisor container uses no CPU time, because it has no unused terminal to poll."""
    until(
        engine.netns(HOST), lambda: is_asleep(engine["home"]), "the container's first process waits"
    )


def test_restarted_gvisor_container_is_on_its_network(engine: Scene) -> None:
    """A gVisor container is on its network again after a restart.

    It has a new sandbox and a new agent.
    """
    again = engine.container("again", Bridge("lan"))
    again.stop()
    again.start()
    (endpoint,) = again.facts().endpoints
    assert endpoint.address in again.net.interfaces("eth0")
    again.remove()


def test_user_space_stack_accepts_a_route(engine: Scene) -> None:
    """A user-space network stack accepts the rtnetlink request that adds a route."""
    network = IPv4Network("198.18.0.0/15")
    (gateway,) = engine.runtime.network_facts("lan").gateways
    with engine["away"].net.open() as space, Netlink(space) as netlink:
        eth0 = rtnetlink_dump.link(netlink, "eth0").ifindex
        netlink.send([rtnetlink.add_route(network, via=gateway.ip, oif=eth0)])
    assert network in {route.destination for route in engine["away"].net.routes()}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_engine_calls_an_executable_wrapper_script(
    spec: CliSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine calls a wrapper script, which passes its arguments on.

    The script is executable; other files in its folder are not.
    """
    files = [(f"{tmp_path}{path}", content) for path, content in spec.files]
    monkeypatch.setattr(adapter, "_PREPARED", str(tmp_path / "done"))
    adapter._prepare((), files, for_user=False)
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
