"""Network state of the host, br0, ns1 and ns2, which containers must not change."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from harness.model.dialect import Dialect
from harness.model.features import Feature
from harness.model.plan import FAMILIES, HOST, INTERNET, NS1, NS2, Bridge
from harness.model.topology import Topology
from harness.plugin.fixtures import RuntimeStarter
from harness.plugin.marks import requirement
from harness.testbench.listener import ask_echo_service
from harness.testbench.netns_view import view_of
from harness.testbench.packets.offload import features, without_offload
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.features import every_mode, lan

FORWARDING = "net.ipv4.ip_forward"
FORWARDING6 = "net.ipv6.conf.all.forwarding"


@requirement("BYS-1")
def test_bystander_network_state_is_unchanged_while_containers_run(scene: Scene) -> None:
    """The network state of ns1 and ns2 is unchanged while containers of every mode run and send."""
    views = [scene.netns(name) for name in (NS1, NS2)]
    before = [view.snapshot() for view in views]
    every_mode(scene)
    assert scene.observed() == scene.promised()
    for view, was in zip(views, before, strict=True):
        assert was.changes(view.snapshot()) == []


@requirement("BYS-1")
def test_containers_change_and_remove_no_host_network_state(scene: Scene) -> None:
    """Running containers may add network state to the host, but change or remove none."""
    host = scene.netns(HOST)
    before = host.snapshot()
    every_mode(scene)
    while_running = before.changes(host.snapshot())
    links = [line for line in while_running if line.startswith("link ") and line.endswith(": new")]
    bridged = any(isinstance(item.mode, Bridge) for item in scene.plan.containers)
    assert bool(links) == (bridged and scene.runtime.dialect.bridges == "host")
    others = [line for line in while_running if not line.endswith(": new")]
    dialect = scene.runtime.dialect
    assert [line for line in others if not _is_documented(line, dialect)] == []
    scene.close()
    assert before.changes(host.snapshot()) == []


@requirement("BYS-1")
def test_link_offloads_of_the_host_are_unchanged_by_containers(scene: Scene) -> None:
    """The host's checksum and segmentation offloads are the same before, during and after a run."""
    host = scene.netns(HOST)
    dialect = scene.runtime.dialect
    own = {link for link in host.links() if _is_documented(f"link {link}", dialect, start=True)}
    before = {link: features(host, link) for link in host.links().keys() - own}
    with without_offload(host):
        assert features(host, "eth0") != before["eth0"], (
            "the control change of an offload is not visible"
        )
    assert features(host, "eth0") == before["eth0"]
    every_mode(scene)
    assert {link: features(host, link) for link in before} == before
    scene.close()
    assert {link: features(host, link) for link in before} == before


@requirement("BYS-1")
def test_new_host_addresses_and_routes_are_on_runtime_links(scene: Scene) -> None:
    """No address, route or neighbour entry appears on a link that existed before the containers."""
    host = scene.netns(HOST)
    own = set(host.links())
    before = host.snapshot()
    every_mode(scene)
    changed = before.changes(host.snapshot())
    added = set(host.links()) - own
    for line in changed:
        if line.startswith(("address ", "route ", "neighbour ")):
            assert any(f" of {link} " in f"{line} " or f" of {link}:" in line for link in added), (
                line
            )


def _is_documented(line: str, dialect: Dialect, *, start: bool = False) -> bool:
    thing = line.partition(": ")[0]
    known = (*dialect.residue, *(dialect.made_by_start if start else ()))
    runtimes_own = any(thing.startswith(f"nft rule {table} ") for table in dialect.tables)
    return runtimes_own or any(fnmatchcase(thing, pattern) for pattern in known)


@requirement("BYS-4")
@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "dual-stack"])
def test_ip_forwarding_changes_only_as_documented(
    start_runtime: RuntimeStarter, *, ipv6: bool
) -> None:
    """On a host with IP forwarding off, the runtime changes only the sysctls that it documents."""
    with World.build(Topology(forwarding=False)) as world:
        host = view_of(world, HOST)
        before = host.snapshot()
        with start_runtime(world) as runtime, Scene(world, runtime) as scene:
            own = ipv6 or Feature.NETWORKS in runtime.features
            mode = Bridge(scene.network("lan", ipv6=ipv6).name) if own else Bridge()
            guest = scene.container("guest", mode).net
            wanted = "1" if runtime.dialect.forwarding == "enabled" else "0"
            assert host.sysctl(FORWARDING) == wanted
            assert host.sysctl(FORWARDING6) == (wanted if ipv6 else "0")
            if wanted == "1":
                for family in FAMILIES if ipv6 else (4,):
                    ask_echo_service(guest, world.address(INTERNET, family), "tcp")
            scene.close()
            changed = before.changes(host.snapshot())
            documented = [
                line for line in changed if _is_documented(line, runtime.dialect, start=True)
            ]
            assert [line for line in changed if line not in documented] == []


@requirement("BYS-4")
def test_enabled_ip_forwarding_stays_enabled(scene: Scene) -> None:
    """IP forwarding stays enabled while containers start, connect to networks and end."""
    host = scene.netns(HOST)
    own = lan(scene)
    scene.containers(a=own, b=Bridge())
    assert (host.sysctl(FORWARDING), host.sysctl(FORWARDING6)) == ("1", "1")
    if Feature.CONNECT in scene.runtime.features:
        for change in (scene.connect, scene.disconnect):
            change("b", own.network)
            assert (host.sysctl(FORWARDING), host.sysctl(FORWARDING6)) == ("1", "1")
    scene["b"].stop()
    assert (host.sysctl(FORWARDING), host.sysctl(FORWARDING6)) == ("1", "1")
    scene.close()
    assert (host.sysctl(FORWARDING), host.sysctl(FORWARDING6)) == ("1", "1")
