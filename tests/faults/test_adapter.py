"""Tests of the sabotaged adapter, which calls a fault at the moments that the fault declares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.adapters.mydocker import MydockerAdapter
from harness.adapters.protocol import RuntimeRefused
from harness.faults.adapter import FaultFailed, FaultyAdapter
from harness.faults.fault import RULES, AdapterCall, Moment, fault
from harness.faults.helpers import drop, remove_drops
from harness.faults.target import TABLE, FaultContext
from harness.model.plan import HOST, Bridge, ContainerSpec, Host, NetworkSpec, Nothing
from harness.testbench.netns_view import view_of
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.leak_guard import guarded
from linux import nftables


@pytest.fixture
def sabotage() -> Iterator[Callable[[Any], Scene]]:
    """Build scenes with a sabotaged mydocker in a separate world."""
    with World.build() as world:
        started: list[FaultyAdapter] = []

        def begin(item: Any) -> Scene:
            adapter = FaultyAdapter(MydockerAdapter(world.host), world.host, item)
            adapter.start()
            started.append(adapter)
            return Scene(world, adapter)

        yield begin
        for adapter in started:
            adapter.stop()


def test_fault_is_called_at_every_moment(sabotage: Callable[[Any], Scene]) -> None:
    """A fault is called at every moment, with the name of the container or network."""
    seen: list[tuple[str, str]] = []

    @fault(violates="BR-1", moment=tuple(Moment))
    def watches(site: FaultContext) -> None:
        """Record the moment and the name."""
        seen.append((str(site.moment), site.name))

    scene = sabotage(watches)
    scene.network("lan")
    scene.container("web")
    scene.connect("web", "lan")
    scene.disconnect("web", "lan")
    scene["web"].stop()
    scene.start("web")
    scene.remove("web")
    scene.remove_network("lan")
    scene.refusal("none", Bridge("unheard-of"))
    scene.runtime.repair()
    scene.runtime.crash(ContainerSpec("victim"), after=0.0)
    assert seen == [
        ("host-ready", ""),
        ("network-created", "lan"),
        ("before-container", "web"),
        ("container-started", "web"),
        ("connected", "web"),
        ("disconnected", "web"),
        ("container-stopped", "web"),
        ("container-started", "web"),
        ("container-restarted", "web"),
        ("before-remove", "web"),
        ("container-removed", "web"),
        ("before-network-removed", "lan"),
        ("network-removed", "lan"),
        ("before-container", "none"),
        ("refused", "none"),
        ("repaired", ""),
        ("crashed", "victim"),
    ]


def test_context_has_the_links_of_a_container(sabotage: Callable[[Any], Scene]) -> None:
    """A fault's context has the links of a container.

    Containers in a mode without a network have none.
    """
    plugs: dict[str, list[tuple[str, str, bool]]] = {}

    @fault(violates="BR-1", moment=("container-started", "connected"))
    def looks(site: FaultContext) -> None:
        """Record the links of the container."""
        links = site.host.links()
        plugs[site.name] = [
            (plug.inside, plug.bridge, links[plug.outside].master == links[plug.bridge].ifindex)
            for plug in site.plugs()
        ]

    scene = sabotage(looks)
    scene.network("lan", ipv6=True)
    scene.container("web")
    lan = scene.runtime.network_facts("lan").interface
    default = scene.runtime.network_facts("bridge").interface
    scene.connect("web", "lan")
    assert plugs["web"] == [("eth0", default, True), ("eth1", lan, True)]
    scene.containers(alone=Nothing(), house=Host())
    assert (plugs["alone"], plugs["house"]) == ([], [])
    scene.close()


def test_fault_can_change_or_skip_a_call_of_the_adapter(sabotage: Callable[[Any], Scene]) -> None:
    """A fault can change the arguments of a call of the adapter, or skip the call.

    The arguments are attributes of the object that represents the call.
    """

    @fault(violates="BR-1", around=("run", "remove", "connect"))
    def decides(site: FaultContext, verb: AdapterCall) -> Any:
        """Start every container in mode none, and connect none to a network."""
        if verb.called == "run":
            changed = ContainerSpec(verb.spec.name, Nothing())
            assert verb.arguments == {"spec": verb.spec}
            with pytest.raises(
                TypeError, match="run has no argument speck; its arguments are spec"
            ):
                verb(speck=changed)
            with pytest.raises(AttributeError, match="run has no argument speck"):
                _ = verb.speck
            return verb(spec=changed)
        if verb.called == "connect":
            return site.runtime.inspect(verb.name)
        return verb()

    scene = sabotage(decides)
    web = scene.container("web")
    assert web.net.links().keys() == {"lo"}
    scene.runtime.connect("web", "bridge")
    assert web.net.links().keys() == {"lo"}
    scene.remove("web")
    with pytest.raises(RuntimeRefused):
        scene.runtime.inspect("web")


def test_failing_fault_is_reported_with_its_place(sabotage: Callable[[Any], Scene]) -> None:
    """If a fault fails, the error has the fault's id, place and moment.

    An exit of the fault is such a failure, but a refusal by the runtime is not.
    """

    @fault(violates="BR-1", moment="container-started")
    def goes_wrong(site: FaultContext) -> None:
        """Exit, or change an interface that does not exist."""
        if site.name == "exits":
            raise SystemExit
        site.inside.set_link("eth7", up=False)

    scene = sabotage(goes_wrong)
    with pytest.raises(RuntimeRefused):
        scene.runtime.run(ContainerSpec("none", Bridge("unheard-of")))
    for name, error in (("web", "KeyError"), ("exits", "SystemExit$")):
        said = rf"fault goes-wrong \(.*test_adapter.py:\d+\) failed at container-started: {error}"
        with pytest.raises(FaultFailed, match=said):
            scene.runtime.run(ContainerSpec(name))


def test_fault_can_list_and_remove_rules_of_the_runtime(sabotage: Callable[[Any], Scene]) -> None:
    """A fault can list and remove the runtime's rules by verdict and interface."""
    found: list[tuple[str, bool]] = []

    @fault(violates="BR-1", moment="network-created")
    def takes_rules(site: FaultContext) -> None:
        """Remove the rules that drop or reject packets to the bridge."""
        assert site.network is not None
        out = ("out", site.network.interface)
        before = [entry for entry in site.host.rules() if entry.refuses and out in entry.links]
        taken = site.host.take_rules(lambda entry: entry.refuses and out in entry.links)
        left = [entry for entry in site.host.rules() if entry.refuses and out in entry.links]
        found.append((f"{len(before)} {taken}", bool(left)))

    sabotage(takes_rules).runtime.network(NetworkSpec("lan"))
    ((numbers, left),) = found
    had, taken = map(int, numbers.split())
    assert had == taken > 0
    assert not left


def test_fault_can_reply_to_incoming_frames(sabotage: Callable[[Any], Scene]) -> None:
    """A fault can reply to a frame with frames of its choice."""

    @fault(violates="BR-1", moment="container-started")
    def echoes(site: FaultContext) -> None:
        """Send frames back from the host's end, with the MACs swapped."""
        for plug in site.plugs():
            site.host.respond(plug.outside, _turned)

    scene = sabotage(echoes)
    web = scene.container("web").net
    with web.capture("eth0") as wire:
        with web.socket(17, 3) as opened:  # AF_PACKET, SOCK_RAW
            opened.bind(("eth0", 0))
            opened.send(bytes.fromhex("02005e100001") + bytes(6) + b"\x88\xb5" + b"hello there")
        while not [frame for frame in wire.frames() if not frame.outgoing]:
            scene.settle()
    (back,) = [
        frame for frame in wire.frames() if b"hello there" in frame.data and not frame.outgoing
    ]
    assert back.data[6:12] == bytes.fromhex("02005e100001")
    scene.close()


def _turned(frame: bytes) -> list[bytes]:
    return [frame[6:12] + frame[:6] + frame[12:]] if b"hello there" in frame else []


def test_rules_of_faults_are_in_tables_of_their_own(sabotage: Callable[[Any], Scene]) -> None:
    """The rules of faults are in one inet table and one bridge table."""

    @fault(violates="BR-1", moment="host-ready")
    def drops(site: FaultContext) -> None:
        """Drop all forwarded packets."""
        site.host.rule("forward", nftables.verdict("drop"))
        site.host.rule("forward", nftables.verdict("drop"), bridge=True, priority=0)
        tables = {entry.table for entry in site.host.rules() if entry.rule.comment == "sabotage"}
        assert {table.name for table in tables} == {"sabotage"}
        assert {table.family for table in tables} == {"inet", "bridge"}

    sabotage(drops)


def test_flushed_rules_of_a_fault_are_no_leak(
    sabotage: Callable[[Any], Scene],
) -> None:
    """A flush of a fault's rules is no leak.

    The fault adds them again when the runtime repairs its rules.
    """

    @fault(violates="BR-7", moment=RULES)
    def drops_calls(site: FaultContext) -> None:
        """Drop all packets that are forwarded to the uplink."""
        drop(site, "forward", nftables.oifname(site.uplink()))

    scene = sabotage(drops_calls)
    host = view_of(scene.world, HOST)
    with guarded(scene.world, scene.runtime.dialect) as different:
        with host.open() as space, nftables.Nft(space) as opened:
            opened.apply([nftables.del_table(TABLE)])
        assert different() == []
    scene.runtime.repair()
    with host.open() as space, nftables.Nft(space) as opened:
        assert [rule.comment for rule in opened.rules(TABLE)] == ["sabotage"]


def test_drop_rules_of_a_fault_survive_the_next_moment(sabotage: Callable[[Any], Scene]) -> None:
    """The drop rules of a fault stay at its next moment.

    The drop rules of the runtime are removed again.
    """
    seen: list[int] = []

    @fault(violates="BR-9", moment=RULES)
    def narrower(site: FaultContext) -> None:
        """Replace the runtime's drop rules by others."""
        remove_drops(site, "out")
        for bridge in site.bridges():
            drop(site, "forward", nftables.oifname(bridge))
        seen.append(sum(entry.refuses and entry.table == TABLE for entry in site.host.rules()))

    scene = sabotage(narrower)
    scene.network("lan")
    scene.container("web", Bridge("lan"))
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] >= 1
    scene.close()
