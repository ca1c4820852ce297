"""Adapter that delegates to a healthy adapter and injects one fault.

The healthy adapter may be any adapter, and does all the work. The fault acts before or after a verb
of the adapter, or wraps the verb.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from harness.adapters.protocol import (
    Adapter,
    AdapterFactory,
    ContainerInfo,
    HostHandle,
    NetworkInfo,
    RuntimeBroken,
    RuntimeRefused,
)
from harness.faults.fault import AdapterCall, Fault, Moment
from harness.faults.target import RESIDUE, FaultContext
from harness.model.features import Feature
from harness.model.plan import Bridge, ContainerSpec, NetworkSpec
from harness.world.host import HostMachine
from harness.world.process import CompletedCommand, ExecCommand


class FaultFailed(Exception):
    """The fault itself failed, so there is no verdict on the runtime or on the suites."""


class FaultyAdapter:
    """Adapter that behaves like the healthy adapter `runtime` except for `fault`."""

    def __init__(self, runtime: Adapter, host: HostMachine, fault: Fault) -> None:
        self._runtime, self._host, self._fault = runtime, host, fault
        self._specs: dict[str, ContainerSpec] = {}
        self._memory: dict[str, Any] = {"specs": self._specs, "networks": [], "containers": []}
        self.acted = 0
        """How often the fault was called."""
        self.name, self.version = runtime.name, runtime.version
        self.features: frozenset[Feature] = runtime.features
        self.dialect = dataclasses.replace(
            runtime.dialect,
            residue=(*runtime.dialect.residue, *RESIDUE),
            fleeting=(*runtime.dialect.fleeting, *RESIDUE),
        )

    @property
    def commands(self) -> Sequence[CompletedCommand]:
        """The last commands of the runtime, if the healthy adapter keeps them."""
        return getattr(self._runtime, "commands", ())

    # --- the fault

    def _at(self, *moments: Moment, **what: Any) -> None:
        for moment in moments:
            if moment in self._fault.moments:
                self._act(self._fault.function, moment, what)

    def _act(self, call: Callable[[FaultContext], Any], moment: str, what: dict[str, Any]) -> Any:
        site = FaultContext(moment, self._host, self._runtime, self._memory, **what)
        self.acted += 1
        try:
            return call(site)
        except (RuntimeRefused, RuntimeBroken, FaultFailed):
            raise
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise FaultFailed(
                f"fault {self._fault.id} ({self._fault.where}) failed at {moment}: {said}"
            ) from error

    def _do(self, called: str, arguments: dict[str, Any], **what: Any) -> Any:
        """Call a verb of the healthy adapter, or the fault if it wraps that verb."""
        verb: Callable[..., Any] = getattr(self._runtime, called)
        if called == "remove":
            verb = self._remove_all
        if called not in self._fault.around:
            return verb(**arguments)
        wrapped = AdapterCall(called, arguments, verb)
        return self._act(lambda site: self._fault.function(site, wrapped), called, what)

    def _remove_all(self, names: Sequence[str]) -> None:
        self._runtime.remove(*names)

    # --- the subject of a moment

    def _about(self, name: str, *, network: str = "") -> dict[str, Any]:
        """Return the facts about a container and about a network, by default that of its mode."""
        try:
            facts = self._runtime.inspect(name)
        except RuntimeRefused:
            facts = None
        spec = self._specs.get(name) or (self._specs.get(facts.name) if facts else None)
        if not network and spec and isinstance(spec.mode, Bridge):
            network = spec.mode.network
        return {"name": name, "spec": spec, "facts": facts, "network": self._facts_of(network)}

    def _facts_of(self, network: str) -> NetworkInfo | None:
        try:
            return self._runtime.network_facts(network) if network else None
        except RuntimeRefused:
            return None

    def _note(self, kind: str, name: str) -> None:
        known = self._memory.setdefault(kind, [])
        if name not in known:
            known.append(name)

    # --- the verbs

    def start(self) -> None:
        """Start the runtime, then call the fault if it acts when the host is ready."""
        self._do("start", {})
        self._at(Moment.HOST_READY)

    def stop(self) -> None:
        """Stop the runtime."""
        self._runtime.stop()

    def network(self, spec: NetworkSpec) -> NetworkInfo:
        """Create a network."""
        facts: NetworkInfo = self._do("network", {"spec": spec}, name=spec.name)
        self._note("networks", spec.name)
        if spec.internal:
            self._note("internal", spec.name)
        if not spec.icc:
            self._note("apart", spec.name)
        self._at(Moment.NETWORK_CREATED, name=spec.name, network=facts)
        return facts

    def network_facts(self, name: str) -> NetworkInfo:
        """Return the facts about a network."""
        facts: NetworkInfo = self._do("network_facts", {"name": name}, name=name)
        return facts

    def remove_network(self, name: str) -> None:
        """Remove a network."""
        facts = self._facts_of(name)
        self._at(Moment.BEFORE_NETWORK_REMOVED, name=name, network=facts)
        self._do("remove_network", {"name": name}, name=name, network=facts)
        self._at(Moment.NETWORK_REMOVED, name=name, network=facts)

    def run(self, spec: ContainerSpec) -> ContainerInfo:
        """Create and start a container."""
        self._specs[spec.name] = spec
        asked = {"name": spec.name, "spec": spec}
        self._at(Moment.BEFORE_CONTAINER, **asked)
        try:
            facts: ContainerInfo = self._do("run", {"spec": spec}, **asked)
        except RuntimeRefused:
            self._at(Moment.REFUSED, **asked)
            raise
        self._note("containers", spec.name)
        self._at(Moment.CONTAINER_STARTED, **self._about(spec.name))
        return facts

    def inspect(self, name: str) -> ContainerInfo:
        """Return the runtime's report about a container."""
        facts: ContainerInfo = self._do(
            "inspect", {"name": name}, name=name, spec=self._specs.get(name)
        )
        return facts

    def connect(self, name: str, network: str, *, aliases: Sequence[str] = ()) -> ContainerInfo:
        """Connect a container to another network."""
        arguments = {"name": name, "network": network, "aliases": aliases}
        facts: ContainerInfo = self._do("connect", arguments, **self._about(name, network=network))
        self._at(Moment.CONNECTED, **self._about(name, network=network))
        return facts

    def disconnect(self, name: str, network: str) -> ContainerInfo:
        """Disconnect a container from a network."""
        about = self._about(name, network=network)
        facts: ContainerInfo = self._do("disconnect", {"name": name, "network": network}, **about)
        self._at(Moment.DISCONNECTED, **self._about(name, network=network))
        return facts

    def exec(self, name: str, argv: Sequence[str], *, timeout: float = 30) -> CompletedCommand:
        """Run a command in a container."""
        arguments = {"name": name, "argv": argv, "timeout": timeout}
        if "exec" not in self._fault.around:
            return self._runtime.exec(name, argv, timeout=timeout)
        done: CompletedCommand = self._do("exec", arguments, **self._about(name))
        return done

    def exec_command(self, name: str, argv: Sequence[str]) -> ExecCommand:
        """Return the command line that runs a command in a container, for the exec probe."""
        return self._runtime.exec_command(name, argv)

    def stop_container(self, name: str) -> None:
        """Stop a container."""
        about = self._about(name) if "stop_container" in self._fault.around else {"name": name}
        self._do("stop_container", {"name": name}, **about)
        self._at(Moment.CONTAINER_STOPPED, **self._about(name))

    def start_container(self, name: str) -> ContainerInfo:
        """Start a stopped container."""
        try:
            facts: ContainerInfo = self._do("start_container", {"name": name}, **self._about(name))
        except RuntimeRefused:
            self._at(Moment.REFUSED, **self._about(name))
            raise
        moments = (Moment.CONTAINER_STARTED, Moment.CONTAINER_RESTARTED)
        self._at(*moments, **self._about(name))
        return facts

    def remove(self, *names: str) -> None:
        """Remove containers."""
        about = [self._about(name) for name in names] if self._minds_removal else []
        known = [item for item in about if item["facts"] is not None]
        for item in known:
            self._at(Moment.BEFORE_REMOVE, **item)
        self._do("remove", {"names": names}, name=", ".join(names))
        for item in known:
            self._at(Moment.CONTAINER_REMOVED, **item)

    @property
    def _minds_removal(self) -> bool:
        return bool({Moment.BEFORE_REMOVE, Moment.CONTAINER_REMOVED} & set(self._fault.moments))

    def repair(self) -> None:
        """Repair the runtime's rules after a flush of the firewall."""
        self._do("repair", {})
        self._at(Moment.REPAIRED)

    def crash(self, spec: ContainerSpec, *, after: float) -> None:
        """Kill the runtime while it starts a container."""
        self._specs[spec.name] = spec
        self._do("crash", {"spec": spec, "after": after}, name=spec.name, spec=spec)
        self._at(Moment.CRASHED, name=spec.name, spec=spec)

    def prune(self) -> None:
        """Remove every container and every network."""
        self._runtime.prune()


@dataclasses.dataclass(frozen=True, slots=True)
class FaultyFactory:
    """`AdapterFactory` whose adapters have the fault; `made` collects these adapters."""

    healthy: AdapterFactory
    fault: Fault
    made: list[FaultyAdapter]

    @property
    def features(self) -> frozenset[Feature]:
        """The features of the healthy adapter, which the faulty one declares too."""
        return self.healthy.features

    def __call__(self, host: HostHandle, /) -> FaultyAdapter:
        """Make the faulty adapter in this host."""
        assert isinstance(host, HostMachine)
        adapter = FaultyAdapter(self.healthy(host), host, self.fault)
        self.made.append(adapter)
        return adapter
