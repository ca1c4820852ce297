"""A world, a runtime and a plan: live containers, and the two matrices about them.

The plan grows as networks and containers are made, so that the promise is always
about what is there. `observed` measures it with real packets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol, Self

from harness.adapters.protocol import Adapter, ContainerInfo, NetworkInfo, RuntimeRefused
from harness.model import features
from harness.model.dialect import Dialect
from harness.model.features import Feature
from harness.model.matrix import Matrix
from harness.model.oracle import Promises
from harness.model.plan import (
    DEFAULT_NETWORK,
    GATEWAY,
    HOST,
    OUTSIDERS,
    Attached,
    Bridge,
    Cell,
    ContainerSpec,
    Mode,
    NetworkSpec,
    Nothing,
    Observation,
    Plan,
    Promise,
)
from harness.model.topology import Address, pick
from harness.probe import quiescence
from harness.probe.prober import observe
from harness.probe.quiescence import Quiet
from harness.probe.sockets import seen_from_host
from harness.testbench.addressing import AddressBook, questions
from harness.testbench.attach import attach, detach
from harness.testbench.container import Container
from harness.testbench.netns_view import NetnsView, view_of
from harness.world.build import Probe, World
from harness.world.host import HostMachine
from linux.netns import NetNS
from linux.readiness import await_ready

USER_SPACE_PATIENCE = 0.3
"""Seconds that a packet may spend in a runtime's user-space datapath."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the runtime, as it was asked for and as it came out."""

    spec: NetworkSpec
    facts: NetworkInfo

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name


Record = Callable[[Matrix[Promise], Matrix[Observation]], None]
"""Is told what was promised and what was observed of it."""


class Scene:
    """Use it as a context manager: leaving removes every container and network it made.

    `record` is told of every matrix that is observed. `probe` is how containers are looked
    at, where the world does not say it: `exec` by an agent inside, as those of runtimes with
    a network stack of their own are in any case. Whatever it is asked for that the runtime does
    not claim raises `Unclaimed`, but for a `refusal`. With `claimed_only` who of `plan` needs
    such is left out, and `Unclaimed` comes when he is asked for by name. The `watchers` are told
    of every scene that an error ends, while all of it is still there.
    """

    watchers: ClassVar[list[Callable[[Scene, BaseException], None]]] = []

    def __init__(
        self,
        world: World,
        runtime: Adapter,
        plan: Plan | None = None,
        *,
        claimed_only: bool = False,
        record: Record | None = None,
        probe: Probe | None = None,
    ) -> None:
        self.world = world
        self.runtime = runtime
        self._record = record
        self._by_exec = runtime.dialect.own_stack or (probe or world.probe) == "exec"
        self.plan = Plan()
        self._promises = Promises()
        plan = plan or self.plan
        self._absent = features.absent(plan, runtime.features) if claimed_only else {}
        self._containers: dict[str, Container] = {}
        self._networks: dict[str, Network] = {}
        self._by_hand: dict[str, set[Address]] = {}
        self._cut_off = CutOff()
        self.places = {name: view_of(world, name) for name in world.namespaces}
        """The world's own places: host, ns1, ns2, internet, attacker, lan, r1, …."""
        try:
            for spec in plan.networks:
                self._network(spec)
            for container in plan.containers:
                if container.name not in self._absent:
                    self._container(container)
            self._await_agents(*self._containers)
        except BaseException as error:
            self.__exit__(None, error, None)
            raise

    # --- building

    def network(self, name: str, **options: Any) -> Network:
        """Make a network; options as in `NetworkSpec`."""
        return self._network(NetworkSpec(name, **options))

    def _network(self, spec: NetworkSpec) -> Network:
        self._check(*features.of_network(spec))
        grown = self.plan.with_network(spec)
        with self._cut_off.making(self.runtime.remove_network, spec.name):
            facts = self.runtime.network(spec)
        made = self._networks[spec.name] = Network(spec, facts)
        self.plan = grown
        return made

    def container(self, name: str, mode: Mode | None = None, **options: Any) -> Container:
        """Start a container; options as in `ContainerSpec`."""
        made = self._container(ContainerSpec(name, mode or Bridge(), **options))
        self._await_agents(name)
        return made

    def _container(self, spec: ContainerSpec) -> Container:
        if isinstance(spec.mode, Attached):
            made = self._container(replace(spec, mode=Nothing()))
            self.attach(spec.name, spec.mode.network)
            return made
        self._check(*features.of_container(spec, self.runtime.features))
        if not {DEFAULT_NETWORK, *self._networks}.issuperset(spec.networks):
            self._check(Feature.NETWORKS)  # it has those of a kind alone, and was asked for none
        grown = self.plan.with_container(spec)
        made = self._containers[spec.name] = Container(self, spec.name, self._run(spec))
        self.plan = grown
        self._prepare(made)
        return made

    def _run(self, spec: ContainerSpec) -> ContainerInfo:
        with self._cut_off.making(self.runtime.remove, spec.name):
            return self.runtime.run(spec)

    def _prepare(self, container: Container) -> None:
        if self._by_exec:
            container.prepare()

    def _await_agents(self, *names: str) -> None:
        for name in names if self._by_exec else ():
            self._containers[name].await_agent()

    def adopt(self, spec: ContainerSpec, facts: ContainerInfo) -> Container:
        """Take over a container that the runtime has started elsewhere."""
        self.plan = self.plan.with_container(spec)
        made = self._containers[spec.name] = Container(self, spec.name, facts)
        self._prepare(made)
        self._await_agents(spec.name)
        return made

    def containers(self, **modes: Mode | Network) -> None:
        """Start several, by name: each in a mode or on a network."""
        for name, mode in modes.items():
            self.container(name, Bridge(mode.name) if isinstance(mode, Network) else mode)

    def __getitem__(self, name: str) -> Container:
        if lacking := self._absent.get(name):
            raise features.Unclaimed(self.runtime.name, lacking)
        return self._containers[name]

    def refusal(self, name: str, mode: Mode, **options: Any) -> RuntimeRefused:
        """The runtime's refusal to start such a container; options as in `ContainerSpec`.

        Whatever the plan would say to it. `AssertionError` when it starts nevertheless.
        """
        try:
            facts = self._run(ContainerSpec(name, mode, **options))
        except RuntimeRefused as refused:
            return refused
        self.runtime.remove(name)
        raise AssertionError(f"{name} started in mode {mode} with {options}: {facts}")

    def _check(self, *asked: Feature) -> None:
        features.check(self.runtime.name, self.runtime.features, *asked)

    def attach(self, name: str, network: str = DEFAULT_NETWORK) -> None:
        """Give a `none` container a veth by hand, onto the bridge of `network`."""
        with self[name].net.open() as space:
            facts = self.runtime.network_facts(network)
            others = (own for other, own in self._by_hand.items() if other != name)
            self._by_hand[name] = attach(
                self.world.host.netns,
                space,
                facts,
                name,
                taken=set().union(*others),
                routed=not self.plan.network(network).internal,
            )
        self._change(name, mode=Attached(network))

    def connect(self, name: str, network: str, *, aliases: Sequence[str] = ()) -> None:
        """Connect a container, running or not, to one network more."""
        self._check(Feature.CONNECT)
        self.runtime.connect(name, network, aliases=aliases)
        spec = self.plan.container(name)
        if isinstance(spec.mode, Bridge):
            self._change(name, also=(*spec.also, network))
        else:
            self._change(name, mode=Bridge(network))

    def disconnect(self, name: str, network: str) -> None:
        """Take a container, running or not, off a network. Off the last one it has `lo` left."""
        self._check(Feature.CONNECT)
        self.runtime.disconnect(name, network)
        left = [item for item in self.plan.container(name).networks if item != network]
        mode = Bridge(left[0]) if left else Nothing()
        self._change(name, mode=mode, also=tuple(left[1:]))

    def start(self, name: str) -> None:
        """Start a stopped container again; what was attached by hand is gone."""
        self._check(Feature.RESTART)
        self.runtime.start_container(name)
        self._prepare(self._containers[name])
        self._await_agents(name)
        if isinstance(self.plan.container(name).mode, Attached):
            self._change(name, mode=Nothing())

    def _change(self, name: str, **fields: Any) -> None:
        containers = tuple(
            replace(item, **fields) if item.name == name else item for item in self.plan.containers
        )
        self.plan = replace(self.plan, containers=containers)

    def remove(self, *names: str) -> None:
        """Remove containers."""
        self._hang_up(*names)
        self.runtime.remove(*names)
        self.forget(*names)

    def forget(self, *names: str) -> None:
        """Take containers out of the plan that were removed elsewhere."""
        self._hang_up(*names)
        for name in names:
            self._containers.pop(name, None)
        left = tuple(item for item in self.plan.containers if item.name not in names)
        self.plan = replace(self.plan, containers=left)

    def _hang_up(self, *names: str) -> None:
        leaving = [self._containers[name] for name in names if name in self._containers]
        for container in leaving:
            container.dismiss()
        for container in leaving:
            container.hang_up()

    def remove_network(self, name: str) -> None:
        """Remove a network."""
        self.runtime.remove_network(name)
        del self._networks[name]
        left = tuple(item for item in self.plan.networks if item.name != name)
        self.plan = replace(self.plan, networks=left)

    def close(self) -> None:
        """Remove every container and network that this scene made.

        All are tried; the first failure is raised, because others may come of it, unless somebody
        has interrupted it meanwhile.
        """
        steps: list[Callable[[], object]] = [
            *(
                partial(detach, self.world.host.netns, name, addresses)
                for name, addresses in self._by_hand.items()
            ),
            self._cut_off.take_back,
            partial(self.remove, *self._containers),
            *(partial(self.remove_network, name) for name in reversed(self._networks)),
        ]
        failures: list[BaseException] = []
        for step in steps:
            try:
                step()
            except BaseException as error:
                failures.append(error)
        if failures:
            interrupts = (error for error in failures if not isinstance(error, Exception))
            raise next(interrupts, failures[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            for watcher in self.watchers:
                watcher(self, error)
        self.close()

    # --- the two matrices

    def promised(self, cells: Collection[Cell] | None = None) -> Matrix[Promise]:
        """What the oracle says must happen, for the plan as it is now."""
        return self._promises.of(self.plan, self.runtime.dialect, self.world.topology, cells)

    def observed(self, cells: Collection[Cell] | None = None) -> Matrix[Observation]:
        """What real packets do, in every promised cell or those of `cells`."""
        promised = self.promised(cells)
        asked = list(promised)
        with contextlib.ExitStack() as stack:
            spaces = {
                name: stack.enter_context(self._space(name))
                for name in (*(item.name for item in self.plan.containers), *OUTSIDERS, GATEWAY)
            }
            foreign = others(self.plan, self.runtime.dialect, spaces)
            addresses = self._addresses()
            found, asking = questions(asked, spaces, addresses, self._resolv_conf)
            found |= observe(
                asking,
                control=self.world.namespaces["lan"],
                watched=[*self.world.namespaces.values(), *foreign],
                namer=addresses.namer(spaces),
                witnesses=foreign,
                patience=self._patience(),
            )
        observed = Matrix({cell: found[cell] for cell in asked}, origin=self)
        if self._record is not None:
            self._record(promised, observed)
        return observed

    def ready(self) -> None:
        """Return once every address of the host and of containers can be used and found."""
        with contextlib.ExitStack() as stack:
            own = [self.place(name) for name in (HOST, *self._containers)]
            spaces = [stack.enter_context(place.open()) for place in own]
            await_ready([seen_from_host(space, stack) for space in spaces])

    def settle(self) -> None:
        """Return once nothing that was sent is under way any more, to and from containers too."""
        with contextlib.ExitStack() as stack:
            watched = list(self.world.namespaces.values())
            spaces: list[NetNS] = []
            for container in self._containers.values():
                with contextlib.suppress(OSError, RuntimeRefused):  # it does not run: nothing sends
                    space = stack.enter_context(container.net.open())
                    spaces.append(space)
                    watched.append(seen_from_host(space, stack))
            if are_apart(self.plan, self.runtime.dialect):
                watched.append(stack.enter_context(self.place(GATEWAY).open()))
            watched = list({space.id: space for space in watched}.values())
            lan, links = self.world.namespaces["lan"], self.world.links()
            quiet = stack.enter_context(Quiet(lan, watched, links=links))
            if patience := max(self._patience(), quiescence.agent_patience(spaces)):
                quiet.outlast(patience, self.world.namespaces[HOST])
            else:
                quiet.last()

    def _space(self, name: str) -> NetNS:
        """From where somebody of a matrix asks and witnesses; the caller closes it."""
        container = self._containers.get(name) if self._by_exec else None
        return container.inside() if container else self.place(name).open()

    def place(self, name: str) -> NetnsView:
        """A container's place, one of the world's own, or `gateway`: where the bridges are."""
        container = self._containers.get(name)
        if name == GATEWAY:
            return NetnsView(GATEWAY, partial(opened, self.plan, self.runtime, self.world.host))
        return container.net if container else self.places[name]

    def address(self, cell: Cell) -> Address | None:
        """The address that a cell's target goes by, `None` where it has none in that family."""
        return self._addresses().of(cell)

    def _addresses(self) -> AddressBook:
        return AddressBook(self.plan, self.runtime, self.world, self.place)

    def _patience(self) -> float:
        return USER_SPACE_PATIENCE if self.runtime.dialect.datapath == "user-space" else 0.0

    def _resolv_conf(self, name: str) -> str:
        if name in self._containers:
            try:
                return self._containers[name].read("/etc/resolv.conf")
            except FileNotFoundError:
                return ""
        return f"nameserver {pick(self.world.topology.resolver, 4).ip}\n"


class CutOff:
    """What may be there since Ctrl-C, a time-out or a crash came in the middle of its making."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    @contextlib.contextmanager
    def making(self, remove: Callable[[str], None], name: str) -> Iterator[None]:
        """The body has a runtime make something of that name, which `remove` removes.

        A refusal is the runtime's own answer: then there is nothing.
        """
        try:
            yield
        except RuntimeRefused:
            raise
        except BaseException:
            self._undo.append(partial(remove, name))
            raise

    def take_back(self) -> None:
        """Remove what is there of it."""
        while self._undo:
            with contextlib.suppress(RuntimeRefused):  # it was not made, after all
                self._undo.pop()()


class _Tells(Protocol):
    def bridges_at(self) -> str:
        """Where below /proc of the host the namespace is."""


def are_apart(plan: Plan, dialect: Dialect) -> bool:
    """Whether there is such a namespace: with a daemon always, else while somebody is in it."""
    if dialect.bridges == "host":
        return False
    if dialect.default_network == "bridge":
        return True
    modes = (plan.home(item.name).mode for item in plan.containers)
    return any(isinstance(mode, Bridge) and mode != Bridge() for mode in modes)


def opened(plan: Plan, runtime: Adapter, host: HostMachine) -> NetNS:
    """A handle on the namespace that has the bridges now, which the caller closes."""
    if not are_apart(plan, runtime.dialect):
        return NetNS.at(f"{host.proc}/1/ns/net")
    tells: _Tells = runtime  # type: ignore[assignment] # who declares it can tell
    return NetNS.at(f"{host.proc}/{tells.bridges_at()}")


def others(plan: Plan, dialect: Dialect, spaces: Mapping[str, NetNS]) -> list[NetNS]:
    """Who may answer in place of a container: whoever has addresses that others have too."""
    found = [spaces[HOST]] if dialect.default_network == "pasta" else []
    return [*found, *([spaces[GATEWAY]] if are_apart(plan, dialect) else [])]
