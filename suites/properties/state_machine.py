"""Hypothesis state machine with random steps that create, change and remove containers."""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import ExitStack
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from harness.adapters.protocol import Adapter
from harness.model.features import Feature
from harness.model.plan import (
    ATTACKER,
    DEFAULT_NETWORK,
    FAMILIES,
    HOST,
    Bridge,
    ContainerSpec,
    Family,
    Joined,
    Plan,
    Publish,
)
from harness.plugin.progress import Steps
from harness.testbench.listener import Listener
from harness.testbench.netns_view import until
from harness.testbench.scene import Scene
from harness.testbench.strategies import modes
from harness.world.build import World
from harness.world.leak_guard import BOUND, LeakGuard
from suites.properties.ownership import OwnershipMarks, borne
from suites.support import operator_firewall

MOST_NETWORKS: Final = 3
MOST_CONTAINERS: Final = 5
INSIDE: Final = 31080
FIRST_PORT: Final = 20080
SHORT: Final = 12
"""Number of digits of a short id."""


class HistoryStage:
    """World, runtime and leak guard that random sequences of steps share.

    `last` is the plan after the last step.
    """

    def __init__(self, world: World, runtime: Adapter, guard: LeakGuard, progress: Steps) -> None:
        self.world, self.runtime, self.guard, self.progress = world, runtime, guard, progress
        self.last = Plan()


class History(RuleBasedStateMachine):
    """A history: a random sequence of steps that change networks and containers."""

    def __init__(self, stage: HistoryStage) -> None:
        super().__init__()
        self.stage = stage
        stage.progress.example()
        self.features = {str(item) for item in stage.runtime.features}
        self.made = 0
        """Number of networks and containers so far, so that no name or port is used twice."""
        self.bridged: set[str] = set()
        """Containers that were started on a network, even if they have left it."""
        with ExitStack() as stack:
            self.different = stack.enter_context(stage.guard.holding())
            self.scene = stack.enter_context(Scene(stage.world, stage.runtime))
            stack.enter_context(operator_firewall.operator_table(self.scene.netns(HOST)))
            self.veths = {"": self._host_veths()}
            """Host ends of veth pairs by container; `""` has those that existed before."""
            self.marks = OwnershipMarks()
            self.acting = ""
            """Container or network that the last step changed."""
            self._resources = stack.pop_all()

    def teardown(self) -> None:
        """Remove everything, and fail if anything is left, unless the history failed already."""
        self._resources.__exit__(*sys.exc_info())

    # --- state -----------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """Return the current plan."""
        return self.scene.plan

    def name(self, kind: str) -> str:
        """Return a new name that begins with `kind`."""
        self.made += 1
        return f"{kind}{self.made}"

    def free(self) -> list[str]:
        """Return the containers that no other container has joined."""
        modes_in_use = (item.mode for item in self.plan.containers)
        joined = {mode.container for mode in modes_in_use if isinstance(mode, Joined)}
        return [item.name for item in self.plan.containers if item.name not in joined]

    def movable(self) -> list[ContainerSpec]:
        """Return the containers that can be connected and disconnected."""
        return [item for item in self.plan.containers if item.name in self.bridged]

    def networks(self) -> list[str]:
        """Return the networks by name, the default one first."""
        return [DEFAULT_NETWORK, *(item.name for item in self.plan.networks)]

    def _host_veths(self) -> set[str]:
        """Return the host ends of veth pairs."""
        links = self.scene.netns(HOST).links().values()
        return {link.name for link in links if link.kind == "veth"}

    def _host_veths_of(self, name: str) -> set[str]:
        """Return the host ends of a container's veth pairs."""
        others = (veths for owner, veths in self.veths.items() if owner != name)
        return self._host_veths().difference(*others)

    def claims(self, *features: Feature) -> bool:
        """Return True if the adapter declares all of the features."""
        return self.stage.runtime.features.issuperset(features)

    # --- steps -----------------------------------------------------------------

    @precondition(
        lambda self: self.claims(Feature.NETWORKS) and len(self.plan.networks) < MOST_NETWORKS
    )
    @rule(ipv6=st.booleans(), internal=st.booleans(), icc=st.booleans())
    def create_network(self, *, ipv6: bool, internal: bool, icc: bool) -> None:
        """Create a network with random options."""
        self.acting = self.name("net")
        self.scene.network(
            self.acting,
            ipv6=ipv6 and self.claims(Feature.IPV6),
            internal=internal and self.claims(Feature.INTERNAL),
            icc=icc or not self.claims(Feature.ICC),
        )

    @precondition(lambda self: len(self.plan.containers) < MOST_CONTAINERS)
    @rule(data=st.data(), publish=st.booleans())
    def start(self, data: st.DataObject, *, publish: bool) -> None:
        """Start a container in a random mode, with a published port where the mode has one."""
        mode = data.draw(st.sampled_from(modes(self.plan, self.features)), label="mode")
        name = self.name("container")
        ports: tuple[Publish, ...] = ()
        if isinstance(mode, Bridge):
            self.bridged.add(name)
            outward = not self.plan.network(mode.network).internal
            if publish and outward and self.claims(Feature.PUBLISH):
                ports = (Publish(FIRST_PORT + self.made, INSIDE),)
        self.acting = name
        self.scene.container(name, mode, ports=ports)

    @precondition(lambda self: self.claims(Feature.CONNECT) and self._connections())
    @rule(data=st.data())
    def connect(self, data: st.DataObject) -> None:
        """Connect a running container to another network."""
        name, network = data.draw(st.sampled_from(self._connections()), label="connection")
        self.acting = name
        self.scene.connect(name, network)

    def _connections(self) -> list[tuple[str, str]]:
        return [
            (item.name, network)
            for item in self.movable()
            for network in self.networks()
            if network not in item.networks
        ]

    @precondition(lambda self: self.claims(Feature.CONNECT) and self._disconnections())
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        """Disconnect a container without published ports, even from its last network."""
        name, network = data.draw(st.sampled_from(self._disconnections()), label="connection")
        self.acting = name
        self.scene.disconnect(name, network)

    def _disconnections(self) -> list[tuple[str, str]]:
        return [
            (item.name, network)
            for item in self.movable()
            if not item.ports
            for network in item.networks
        ]

    @precondition(lambda self: self.claims(Feature.RESTART) and self.free())
    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        """Stop and start a container."""
        container = self.scene[self._chosen(data)]
        container.stop()
        container.start()

    @precondition(lambda self: self.claims(Feature.RESTART) and self.free())
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        """Kill pid 1 and start the container again."""
        container = self.scene[self._chosen(data)]
        self.stage.world.host.call(_end, container.facts().pid)
        container.start()

    @precondition(lambda self: self.free())
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Remove a container."""
        name = self._chosen(data)
        self.scene.remove(name)
        self.bridged.discard(name)

    def _chosen(self, data: st.DataObject) -> str:
        """Return a random container for the next step."""
        self.acting = data.draw(st.sampled_from(self.free()), label="container")
        return self.acting

    @precondition(lambda self: self._unused())
    @rule(data=st.data())
    def remove_network(self, data: st.DataObject) -> None:
        """Remove an unused network."""
        self.scene.remove_network(data.draw(st.sampled_from(self._unused()), label="network"))

    def _unused(self) -> list[str]:
        used = {name for item in self.plan.containers for name in item.networks}
        return [item.name for item in self.plan.networks if item.name not in used]

    @precondition(lambda self: self.stage.runtime.dialect.repair == "whole")
    @rule()
    def reload_firewall(self) -> None:
        """Flush all firewall rules, load the operator's rules, and repair the runtime's."""
        host = self.scene.netns(HOST)
        operator_firewall.flush(host)
        operator_firewall.load(host)
        self.stage.runtime.repair()

    # --- invariants ------------------------------------------------------------

    @invariant()
    def observed_equals_promised(self) -> None:
        """Assert that observed and promised reachability are equal for all sources and targets."""
        self.stage.last = self.plan
        self.stage.progress.state()
        assert self.scene.observed() == self.scene.promised()

    @invariant()
    def addresses_and_macs_are_unique(self) -> None:
        """Assert that all containers' addresses and MACs are unique, across all networks."""
        addresses: list[str] = []
        macs: list[str] = []
        for item in self.plan.containers:
            if isinstance(item.mode, Bridge):
                view = self.scene[item.name].net
                addresses += [str(each.ip) for each in view.interfaces() if not each.ip.is_loopback]
                macs += [link.mac for name, link in view.links().items() if name != "lo"]
        assert sorted(set(addresses)) == sorted(addresses)
        assert sorted(set(macs)) == sorted(macs)

    @invariant()
    def published_ports_answer(self) -> None:
        """Assert that published ports answer the LAN in each family that the container has."""
        for item in self.plan.containers:
            for port in item.ports:
                for family in self._families(item):
                    self._answers(item.name, port.host_port, family)

    def _answers(self, name: str, port: int, family: Family) -> None:
        host = self.scene.netns(HOST).address(family)
        with Listener(self.scene[name].net, "tcp", family=family, port=INSIDE) as listener:
            exchange = listener.reached_from(
                self.scene.netns(ATTACKER), at=host, port=port, answered=True
            )
            assert exchange is not None, f"{name}: port {port} is refused over IPv{family}"

    def _families(self, item: ContainerSpec) -> tuple[Family, ...]:
        """Return the families of the network that a container was started on."""
        return FAMILIES if self.plan.network(item.networks[0]).ipv6 else (4,)

    @invariant()
    def removed_objects_leave_nothing(self) -> None:
        """Assert after each step that nothing is left of removed containers and networks.

        A removed container or network, or the former pid 1 of a restarted container, leaves no
        veth, address, MAC, name or id. A disconnected container leaves no veth. Conntrack entries
        are checked at the end of the history.
        """
        there = {item.name for item in self.plan.containers}
        there |= {item.name for item in self.plan.networks}
        if self.acting in there:
            self.marks.know(self.acting, self._marks(self.acting))
        gone = self.marks.forget_except(there)
        if gone:
            host, condition = (
                self.scene.netns(HOST),
                f"no state of {', '.join(sorted(gone))} is left",
            )
            try:
                until(host, lambda: not borne(gone, self._new()), condition, bound=BOUND)
            except TimeoutError as error:
                error.add_note("\n".join(["leftovers:", *borne(gone, self._new())]))
                raise
        self.veths = {name: veths for name, veths in self.veths.items() if name in {"", *there}}

    def _marks(self, name: str) -> set[str]:
        """Return the names and addresses by which host objects show their container or network."""
        if any(item.name == name for item in self.plan.networks):
            network = self.stage.runtime.network_facts(name)
            interface = {network.interface} if network.interface else set()
            return {name, *interface, *(str(item.network) for item in network.gateways)}
        facts = self.scene[name].facts()
        if name in self.bridged:
            host, condition = self.scene.netns(HOST), f"{name} has no more veth pairs than networks"
            most = len(facts.endpoints)
            until(host, lambda: len(self._host_veths_of(name)) <= most, condition, bound=BOUND)
        self.veths[name] = self._host_veths_of(name)
        known = {name, facts.id, facts.id[:SHORT], f"process {facts.pid}", *self.veths[name]}
        for item in facts.endpoints:
            addresses = (each.ip for each in (item.address, item.address6) if each is not None)
            known |= {str(each) for each in (*addresses, item.mac) if each}
        return known

    def _new(self) -> list[str]:
        """Return descriptions of the host's objects that did not exist before the first step."""
        return [line for line in self.different() if line.endswith(": new")]

    @invariant()
    def bystander_state_is_unchanged(self) -> None:
        """Assert that no state that the host had before the first step is removed or changed.

        The runtime's bridge may change, and the rules in the runtime's tables while containers run.
        """
        runtime = self.stage.runtime
        own = [f".{runtime.network_facts(DEFAULT_NETWORK).interface}."]
        own += [f"nft rule {table} " for table in runtime.dialect.tables]
        found = [line for line in self.different() if not line.endswith(": new")]
        assert [line for line in found if not any(mark in line for mark in own)] == []


def _end(pid: int) -> None:
    """Kill a process of the host and wait for its end."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [])
    finally:
        os.close(handle)
