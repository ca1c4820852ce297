"""Lifecycle of a manually attached container: named netns, exec, removal and restart.

Only one container at a time can be attached to a network manually, so these tests do not share the
containers of `test_manual_attach.py`.
"""

from __future__ import annotations

from harness.adapters.protocol import Adapter
from harness.model.plan import DEFAULT_NETWORK, GATEWAY, INTERNET, Bridge, Nothing, cells
from harness.plugin.marks import requirement
from harness.testbench import container
from harness.testbench.attach import host_end
from harness.testbench.container import Container
from harness.testbench.netns_view import NetnsView, until
from harness.testbench.scene import Scene


@requirement("ATT-1")
def test_container_netns_can_be_named_and_entered_from_outside(
    scene: Scene, host: NetnsView
) -> None:
    """The host can name a container's netns by /proc/PID/ns/net, and enter it by that name."""
    alone = scene.container("alone", Nothing())
    with container.named(scene.world.host, alone) as view:
        assert view.identity == alone.net.identity
        assert view.identity != host.identity
        assert set(view.links()) == {"lo"}
        assert container.view(alone).netns == view.identity[1]


@requirement("ATT-1", "ATT-2")
def test_veth_moved_by_netns_name_arrives_in_the_container(scene: Scene) -> None:
    """A veth end that is moved to the named netns of a container appears in the container."""
    alone = _alone(scene)
    with container.named(scene.world.host, alone) as view:
        alone.attach()
        assert set(view.links()) == {"lo", "eth0"}
        assert alone.net.links().keys() == view.links().keys()


@requirement("ATT-4")
def test_removal_of_manually_attached_container_removes_its_veth_pair(
    scene: Scene, host: NetnsView, runtime: Adapter
) -> None:
    """Removal of a manually attached container removes its veth pair and frees the bridge port."""
    alone = _alone(scene)
    before = ports(host, runtime)
    alone.attach()
    assert ports(host, runtime) == before | {host_end("alone")}
    alone.remove()
    wait_for_the_end_of(alone, host)
    assert ports(host, runtime) == before


@requirement("ATT-4")
def test_removed_container_can_be_created_and_attached_again(scene: Scene, host: NetnsView) -> None:
    """After removal, a new container of the same name can be attached with the same address."""
    scene.container("peer", Bridge())
    for _ in range(2):
        alone = scene.container("alone", Nothing())
        alone.attach()
        row = scene.promised(list(cells(("alone",), (GATEWAY, INTERNET))))
        assert scene.observed(row) == row
        alone.remove()
        wait_for_the_end_of(alone, host)


@requirement("ATT-5")
def test_manual_attach_survives_exec(scene: Scene) -> None:
    """An exec does not change a manually attached container's links, addresses and routes."""
    alone = _alone(scene)
    alone.attach()
    before = alone.net.snapshot()
    container.view(alone)
    assert before.changes(alone.net.snapshot()) == []
    row = scene.promised(list(cells(("alone",), (GATEWAY, INTERNET))))
    assert scene.observed(row) == row


@requirement("ATT-5")
def test_restart_of_manually_attached_container_leaves_only_lo(
    scene: Scene, host: NetnsView
) -> None:
    """A manually attached container has only lo after a restart, and the host keeps no veth end."""
    alone = _alone(scene)
    alone.attach()
    assert "eth0" in alone.net.links()
    alone.stop()
    alone.start()
    wait_for_the_end_of(alone, host)
    assert set(alone.net.links()) == {"lo"}
    assert alone.net.routes() == []
    row = scene.promised().select(source="alone")
    assert scene.observed(row) == row


def _alone(scene: Scene) -> Container:
    """Start the container to attach, and a peer that keeps the bridge in existence."""
    scene.container("peer", Bridge())
    return scene.container("alone", Nothing())


def wait_for_the_end_of(alone: Container, host: NetnsView) -> None:
    """Wait until the kernel has removed the container's netns, which happens asynchronously."""
    end = host_end(alone.name)
    until(host, lambda: end not in host.links(), f"the link {end} is removed")


def ports(host: NetnsView, runtime: Adapter) -> set[str]:
    """Return the names of the ports of the default network's bridge."""
    links = host.links()
    bridge = runtime.network_facts(DEFAULT_NETWORK).interface
    assert bridge is not None
    return {name for name, link in links.items() if link.master == links[bridge].ifindex}
