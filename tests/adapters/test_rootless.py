"""Tests of the ordinary user in a host, and of rootless runtimes with real containers."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Final, Literal

import pytest

from harness.adapters import registry
from harness.adapters.docker_cli import adapter
from harness.adapters.docker_cli.docker import ROOTLESS
from harness.adapters.docker_cli.spec import CliSpec
from harness.adapters.protocol import RuntimeRefused
from harness.adapters.support import rootless
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
from harness.model.topology import Topology
from harness.testbench.listener import Listener, free_port
from harness.testbench.netns_view import fixed
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.host import HostMachine
from tests.adapters.vendors import (
    OBSTACLE,
    TRIED_DOCKER,
    TRIED_ROOTLESS,
    assert_published_port_answers,
    the_cast,
)

OTHER: Final[dict[str, Literal["pasta", "slirp4netns"]]] = {
    "pasta": "slirp4netns",
    "slirp4netns": "pasta",
}

RELAYED: Final = tuple(name for name in TRIED_ROOTLESS if name != "podman-rootless")
"""Runtimes whose published ports rootlessport listens on."""

SPEC = CliSpec(
    name="acme",
    command=("acmectl",),
    features=frozenset(),
    rootless=True,
    files=((f"{rootless.HOME}/.config/acme.conf", "quiet = true\n"),),
)


@pytest.fixture(params=["an ordinary user"] if not OBSTACLE else [])
def host() -> Iterator[HostMachine]:
    """Build a host that has an ordinary user."""
    with World.build() as world:
        adapter.prepare_host(world.host, SPEC)
        yield world.host


def user_output(host: HostMachine, text: str) -> str:
    """Return the output of a shell script that the ordinary user runs."""
    words = rootless.command(("sh", "-ec", text))
    done = host.run(words, env=adapter.environment(SPEC))
    assert done.returncode == 0, done
    return done.stdout.strip()


def test_rootless_command_runs_as_ordinary_user(host: HostMachine) -> None:
    """A rootless command runs as the ordinary user, without capabilities.

    The user has a home directory and /dev/net/tun.
    """
    assert user_output(host, "id -u; id -un").split() == [str(rootless.UID), rootless.NAME]
    assert not user_output(host, "grep CapEff /proc/self/status").split()[1].strip("0")
    assert user_output(host, "cat $XDG_CONFIG_HOME/acme.conf") == "quiet = true"


def test_lab_shell_can_switch_to_the_rootless_user(host: HostMachine) -> None:
    """In the lab's shell one can switch to the rootless user.

    The shell's command for this uses the PATH of the adapter.
    """
    script = session.scripts_for(SPEC)["as-user"]
    told = "id -u; pwd; cat $XDG_CONFIG_HOME/acme.conf"
    done = host.run(("sh", "-c", script, "as-user", "sh", "-c", told))
    assert done.stdout.split("\n")[:3] == [str(rootless.UID), rootless.HOME, "quiet = true"], done
    assert not user_output(host, "touch $HOME/here $XDG_RUNTIME_DIR/there; : <>/dev/net/tun")


def test_rootless_user_can_map_subordinate_ids(host: HostMachine) -> None:
    """The rootless user can map subordinate ids into a user namespace.

    The setuid program newuidmap has the rights of root in the host.
    """
    first = rootless.SUBORDINATE.start
    script = f"""
        unshare -U sleep 100 & pid=$!
        while [ "$(readlink /proc/$pid/ns/user)" = "$(readlink /proc/self/ns/user)" ]; do :; done
        newuidmap $pid 0 {rootless.UID} 1 1 {first} 1000
        cat /proc/$pid/uid_map; kill $pid"""
    told = ["0", str(rootless.UID), "1", "1", str(first), "1000"]
    assert user_output(host, script).split() == told


@pytest.fixture(scope="module", params=TRIED_ROOTLESS)
def vendor(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Start the cast in a separate world, once for each rootless runtime."""
    with the_cast(request.param) as scene:
        yield scene


def test_rootless_matrix_is_as_promised(vendor: Scene) -> None:
    """Each rootless runtime keeps the promises of its own dialect.

    It breaks those of the other kind of user-mode network.
    """
    assert vendor.observed() == vendor.promised()
    own = vendor.runtime.dialect.default_network
    other = replace(vendor.runtime.dialect, default_network=OTHER[own])
    assert vendor.observed() != oracle.promised(vendor.plan, other, vendor.world.topology)


def test_rootless_processes_belong_to_the_user(vendor: Scene) -> None:
    """All processes of a rootless runtime belong to the ordinary user.

    Among them are the container's pid 1 and the process of its user-mode network.
    """
    pids = [vendor[name].facts().pid for name in (CONTAINER01, ON_HOST)]
    owners = vendor.world.host.call(owners_of, pids)
    assert owners == {rootless.UID}


def owners_of(pids: list[int]) -> set[int]:
    """Return the owners of these processes, of pasta and slirp4netns, and of conmon."""
    carriers = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        # A process that only starts another one may end at any moment.
        with contextlib.suppress(OSError), open(f"/proc/{name}/comm", encoding="ascii") as file:
            if file.read().startswith(("pasta", "slirp4netns", "conmon")):
                carriers.add(os.stat(f"/proc/{name}").st_uid)
    assert carriers
    return carriers | {os.stat(f"/proc/{pid}").st_uid for pid in pids}


def test_rootless_published_port_is_reported_and_answers(vendor: Scene) -> None:
    """A published port of a rootless container replies.

    `inspect` reports it with the requested number.
    """
    assert_published_port_answers(vendor)


def test_refused_rootless_start_leaves_no_container(vendor: Scene) -> None:
    """If a rootless start is refused, no container is left, not even in the state created."""
    vendor.refusal("late", Bridge(), command=("/no/such/command",))
    with pytest.raises(RuntimeRefused):
        vendor.runtime.inspect("late")


@pytest.mark.parametrize("vendor", RELAYED, indirect=True)
@pytest.mark.parametrize("family", FAMILIES)
def test_rootless_published_port_leads_to_the_ipv4_address(vendor: Scene, family: Family) -> None:
    """A published port of a rootless container leads to the container's IPv4 address.

    The listener sees the container's own address, because rootlessport connects from inside.
    """
    port = free_port(vendor.netns(HOST), "tcp")
    mode = Bridge()
    if Feature.NETWORKS in vendor.runtime.features:
        vendor.network("dual", ipv6=True)
        mode = Bridge("dual")
    web = vendor.container("web", mode, ports=(Publish(port, 8080),))
    with Listener(web.net, "tcp", family=4, port=8080) as listener:
        at = vendor.world.address(HOST, family)
        met = listener.reached_from(vendor.netns(ATTACKER), at=at, port=port, answered=True)
    assert met
    assert met.seen[0] == web.net.address(4)
    web.remove()
    if mode != Bridge():
        vendor.remove_network("dual")


@pytest.mark.parametrize("name", TRIED_DOCKER)
def test_rootless_docker_bridges_are_in_the_users_netns(name: str) -> None:
    """The bridges of rootless Docker are in the user's netns, and reach the outside.

    The host gets no additional link.
    """
    with World.build() as world:
        adapter = registry.find(name)(world.host)
        host = fixed(HOST, world.namespaces[HOST])
        before = host.links()
        adapter.start()
        with Scene(world, adapter, CAST, claimed_only=True) as scene:
            assert scene.observed() == scene.promised()
            assert adapter.network_facts(DEFAULT_NETWORK).interface in scene.netns(GATEWAY).links()
            assert host.links() == before
            other = replace(adapter.dialect, bridges="host")
            assert scene.observed() != oracle.promised(scene.plan, other, world.topology)
        adapter.stop()


@pytest.mark.parametrize("name", TRIED_DOCKER)
def test_rootless_docker_has_ipv6_on_its_bridges_only(name: str) -> None:
    """With rootless Docker, bridges have IPv6, and published ports reply over IPv6.

    Containers cannot reach the outside over IPv6.
    """
    with World.build() as world:
        adapter = registry.find(name)(world.host)
        adapter.start()
        with Scene(world, adapter) as scene:
            network = scene.network("six", ipv6=True)
            port = free_port(scene.netns(HOST), "tcp")
            web = scene.container("web", Bridge("six"), ports=(Publish(port, 8080),))
            scene.containers(other=Bridge("six"))
            scene.ready()
            observed = scene.observed()
            assert observed == scene.promised()
            assert "net-unreachable" in {
                seen.code for seen in observed.values()
            }  # the rejection is seen too, not only missing replies
            reached = replace(adapter.dialect, beyond6="reached")
            assert scene.observed() != oracle.promised(scene.plan, reached, world.topology)
            gateways = {item.ip for item in network.facts.gateways}
            for family in FAMILIES:
                with Listener(web.net, "tcp", family=family, port=8080) as listener:
                    at = world.address(HOST, family)
                    met = listener.reached_from(
                        scene.netns(ATTACKER), at=at, port=port, answered=True
                    )
                assert met
                assert met.seen[0] in gateways
        adapter.stop()


# --- without a host -------------------------------------------------------------------


def test_rootless_docker_pools_avoid_the_hosts_subnet() -> None:
    """The address pools of rootless Docker do not overlap with the host's subnets.

    Dockerd cannot see these subnets from its netns, so ns1 would be unreachable.
    """
    conf = json.loads(dict(ROOTLESS.files)[f"{rootless.HOME}/daemon.json"])
    pools = [ip_network(pool["base"]) for pool in conf["default-address-pools"]]
    own = [item.network for item in (*Topology().host, *Topology().br0)]
    assert not [pool for pool in pools for item in own if pool.overlaps(item)]


@pytest.mark.parametrize(
    ("rows", "last", "enough"),
    [
        (["0 0 4294967295"], 65535, True),
        (["0 1000 1", "1 100000 65536"], 65535, True),
        (["1 100000 65535", "0 1000 1"], 65535, True),
        (["0 1000 1"], 65535, False),
        (["0 1000 1", "2 100000 65536"], 65535, False),
        (["0 1000 1", "1 100000 65534"], 65535, False),
        ([], 0, False),
    ],
)
def test_uid_map_without_a_gap_maps_every_id(rows: list[str], last: int, *, enough: bool) -> None:
    """`maps_every_id` is true if the rows of a uid map cover every id up to the last.

    The rows may be in any order.
    """
    assert rootless.maps_every_id(rows, last) == enough
