"""An ordinary user of the host, and what rootless podman does as that one, live."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Literal

import pytest

from harness.adapters import registry
from harness.adapters.docker_cli.adapter import CliFactory
from harness.adapters.docker_cli.spec import CliSpec
from harness.adapters.protocol import RuntimeRefused
from harness.adapters.support import programs, rootless
from harness.lab import session
from harness.model import oracle
from harness.model.features import Feature
from harness.model.plan import (
    ATTACKER,
    CAST,
    CONTAINER01,
    DEFAULT_NETWORK,
    FAMILIES,
    GATEWAY,
    HOST,
    ON_HOST,
    Bridge,
    Family,
    Publish,
)
from harness.testbench.listener import Listener, free_port
from harness.testbench.netns_view import fixed
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.host import HostMachine
from tests.adapters.vendors import OBSTACLE, TRIED_DOCKER, TRIED_ROOTLESS, the_cast

OTHER: Final[dict[str, Literal["pasta", "slirp4netns"]]] = {
    "pasta": "slirp4netns",
    "slirp4netns": "pasta",
}

RELAYED: Final = tuple(name for name in TRIED_ROOTLESS if name != "podman-rootless")
"""Those in whose containers' place rootlessport listens on the host."""

SPEC = CliSpec(
    name="acme",
    command=("acmectl",),
    features=frozenset(),
    rootless=True,
    files=((f"{rootless.HOME}/.config/acme.conf", "quiet = true\n"),),
)


@pytest.fixture(params=["an ordinary user"] if not OBSTACLE else [])
def host() -> Iterator[HostMachine]:
    """A host that has an ordinary user."""
    with World.build() as world:
        programs.furnish(world.host, SPEC)
        yield world.host


def says(host: HostMachine, text: str) -> str:
    """What a shell of the user's says."""
    words = rootless.command(("sh", "-ec", text))
    done = host.run(words, env=programs.environment(SPEC))
    assert done.returncode == 0, done
    return done.stdout.strip()


def test_a_command_is_an_ordinary_users(host: HostMachine) -> None:
    """Without a capability, with a home of its own and a device to send by."""
    assert says(host, "id -u; id -un").split() == [str(rootless.UID), rootless.NAME]
    assert not says(host, "grep CapEff /proc/self/status").split()[1].strip("0")
    assert says(host, "cat $XDG_CONFIG_HOME/acme.conf") == "quiet = true"


def test_who_is_at_the_labs_shell_can_be_that_user(host: HostMachine) -> None:
    """By a program of the lab's, which finds what the adapter finds."""
    script = session.scripts_for(CliFactory(SPEC))["as-user"]
    told = "id -u; pwd; cat $XDG_CONFIG_HOME/acme.conf"
    done = host.run(("sh", "-c", script, "as-user", "sh", "-c", told))
    assert done.stdout.split("\n")[:3] == [str(rootless.UID), rootless.HOME, "quiet = true"], done
    assert not says(host, "touch $HOME/here $XDG_RUNTIME_DIR/there; : <>/dev/net/tun")


def test_the_user_can_give_ids_to_a_namespace_of_its_own(host: HostMachine) -> None:
    """Through newuidmap, which runs with the rights of the host's root."""
    first = rootless.SUBORDINATE.start
    script = f"""
        unshare -U sleep 100 & pid=$!
        while [ "$(readlink /proc/$pid/ns/user)" = "$(readlink /proc/self/ns/user)" ]; do :; done
        newuidmap $pid 0 {rootless.UID} 1 1 {first} 1000
        cat /proc/$pid/uid_map; kill $pid"""
    told = ["0", str(rootless.UID), "1", "1", str(first), "1000"]
    assert says(host, script).split() == told


@pytest.fixture(scope="module", params=TRIED_ROOTLESS)
def vendor(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The cast, in a world of its own, by each runtime."""
    with the_cast(request.param) as scene:
        yield scene


def test_the_whole_matrix_is_as_promised(vendor: Scene) -> None:
    """By its own dialect; a promise of the other one's is seen to be broken."""
    assert vendor.observed() == vendor.promised()
    own = vendor.runtime.dialect.default_network
    other = replace(vendor.runtime.dialect, default_network=OTHER[own])
    assert vendor.observed() != oracle.promised(vendor.plan, other, vendor.world.topology)


def test_everything_of_it_is_the_users(vendor: Scene) -> None:
    """The container's first process, and what carries its packets; nobody is root."""
    pids = [vendor[name].facts().pid for name in (CONTAINER01, ON_HOST)]
    owners = vendor.world.host.call(owners_of, pids)
    assert owners == {rootless.UID}


def owners_of(pids: list[int]) -> set[int]:
    """Whose processes of the host these are, and those that pasta and slirp4netns run in."""
    carriers = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        # One that only starts another may end at any moment.
        with contextlib.suppress(OSError), open(f"/proc/{name}/comm", encoding="ascii") as file:
            if file.read().startswith(("pasta", "slirp4netns", "conmon")):
                carriers.add(os.stat(f"/proc/{name}").st_uid)
    assert carriers
    return carriers | {os.stat(f"/proc/{pid}").st_uid for pid in pids}


def test_a_published_port_is_told_and_answers(vendor: Scene) -> None:
    """Under the number that was asked for."""
    port = free_port(vendor.place(HOST), "tcp")
    web = vendor.container("web", Bridge(), ports=(Publish(port, 8080),))
    assert {item.host_port for item in web.facts().ports} == {port}
    with Listener(web.net, "tcp", port=8080) as ear:
        address = vendor.world.address(HOST, 4)
        assert ear.reached_from(vendor.place("attacker"), at=address, port=port)
    web.remove()


@pytest.mark.parametrize("vendor", RELAYED, indirect=True)
@pytest.mark.parametrize("family", FAMILIES)
def test_who_calls_a_published_port_is_led_to_its_ipv4_address(
    vendor: Scene, family: Family
) -> None:
    """Whichever the family, and is seen as the container itself: rootlessport calls from there."""
    port = free_port(vendor.place(HOST), "tcp")
    mode = Bridge()
    if Feature.NETWORKS in vendor.runtime.features:
        vendor.network("dual", ipv6=True)
        mode = Bridge("dual")
    web = vendor.container("web", mode, ports=(Publish(port, 8080),))
    with Listener(web.net, "tcp", family=4, port=8080) as ear:
        at = vendor.world.address(HOST, family)
        met = ear.reached_from(vendor.place(ATTACKER), at=at, port=port, answered=True)
    assert met
    assert met.seen[0] == web.net.address(4)
    web.remove()
    if mode != Bridge():
        vendor.remove_network("dual")


def test_a_refused_start_leaves_no_container(vendor: Scene) -> None:
    """Not even one that was made and never started."""
    vendor.refusal("late", Bridge(), command=("/no/such/command",))
    with pytest.raises(RuntimeRefused):
        vendor.runtime.inspect("late")


@pytest.mark.parametrize("name", TRIED_DOCKER)
def test_docker_has_its_bridges_in_a_namespace_of_the_users(name: str) -> None:
    """The default one too; the host has no link more, and what is beyond answers all the same."""
    with World.build() as world:
        adapter = registry.find(name)(world.host)
        host = fixed(HOST, world.namespaces[HOST])
        before = host.links()
        adapter.start()
        with Scene(world, adapter, CAST, claimed_only=True) as scene:
            assert scene.observed() == scene.promised()
            assert adapter.network_facts(DEFAULT_NETWORK).interface in scene.place(GATEWAY).links()
            assert host.links() == before
            other = replace(adapter.dialect, bridges="host")
            assert scene.observed() != oracle.promised(scene.plan, other, world.topology)
        adapter.stop()


@pytest.mark.parametrize("name", TRIED_DOCKER)
def test_docker_has_ipv6_as_far_as_its_bridges(name: str) -> None:
    """Nothing beyond is reached by it; whoever calls a published port by it is served."""
    with World.build() as world:
        adapter = registry.find(name)(world.host)
        adapter.start()
        with Scene(world, adapter) as scene:
            network = scene.network("six", ipv6=True)
            port = free_port(scene.place(HOST), "tcp")
            web = scene.container("web", Bridge("six"), ports=(Publish(port, 8080),))
            scene.containers(other=Bridge("six"))
            scene.ready()
            observed = scene.observed()
            assert observed == scene.promised()
            assert "net-unreachable" in {
                seen.code for seen in observed.values()
            }  # not silence alone
            reached = replace(adapter.dialect, beyond6="reached")
            assert scene.observed() != oracle.promised(scene.plan, reached, world.topology)
            gateways = {item.ip for item in network.facts.gateways}
            for family in FAMILIES:
                with Listener(web.net, "tcp", family=family, port=8080) as ear:
                    at = world.address(HOST, family)
                    met = ear.reached_from(scene.place(ATTACKER), at=at, port=port, answered=True)
                assert met
                assert met.seen[0] in gateways
        adapter.stop()
