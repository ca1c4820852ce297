"""A scene: the networks and containers of a test, in a world, created by a runtime.

The scene's plan grows as networks and containers are created. The promised matrix therefore
describes the live objects. `observed` measures the observed matrix with real packets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any, ClassVar, Self

from harness.adapters.protocol import Adapter, ContainerInfo, NetworkInfo, RuntimeRefused
from harness.model import features
from harness.model.dialect import Dialect
from harness.model.features import Feature
from harness.model.matrix import Matrix
from harness.model.oracle import Promises, attachments_of, shared_link
from harness.model.plan import (
    BR0,
    BY_NAME,
    DEFAULT_NETWORK,
    GATEWAY,
    HOST,
    INTERNET,
    LOOPBACK,
    OUTSIDERS,
    SELF,
    Attached,
    Bridge,
    Cell,
    ContainerSpec,
    Family,
    Host,
    Joined,
    Mode,
    NetworkSpec,
    Nothing,
    Observation,
    Outcome,
    Plan,
    Promise,
)
from harness.model.topology import Address, pick
from harness.probe import quiescence
from harness.probe.prober import observe
from harness.probe.quiescence import Quiet
from harness.probe.reception import Namer, ProbeRequest
from harness.probe.resolver import Lookup, Resolved, resolve
from harness.probe.sockets import seen_from_host
from harness.testbench.attach import attach, detach
from harness.testbench.container import Container
from harness.testbench.netns_view import NetnsView, first_address, view_of
from harness.world.build import Probe, World
from harness.world.host import HostMachine
from linux.netns import NetNS
from linux.readiness import await_ready

USER_SPACE_PATIENCE = 0.3
"""Bound on the time of a packet in a runtime's user-space datapath, in seconds."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the runtime: its specification, and the runtime's report on it."""

    spec: NetworkSpec
    facts: NetworkInfo

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.spec.name


Record = Callable[[Matrix[Promise], Matrix[Observation]], None]
"""Callback for a promised matrix and the observed one."""


class Scene:
    """The networks and containers of a test; leaving the context removes all that it created.

    `record` is called with every observed matrix. `probe` selects how containers are probed: with
    `exec` by an agent inside, as for every runtime with a user-space network stack. Without `probe`
    the world decides.

    A request for a feature that the runtime does not claim raises `Unclaimed`, except in `refusal`.
    With `claimed_only` such containers of `plan` are left out, and a later use of their name raises
    `Unclaimed`. The `watchers` are called for every scene that ends with an error, while all its
    objects still exist.
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
        self._interrupted: list[Callable[[], None]] = []
        """Removals of objects whose creation was interrupted by Ctrl-C, a time-out or a crash."""
        self.world_netns = {name: view_of(world, name) for name in world.namespaces}
        """Views of the world's own namespaces: host, ns1, ns2, internet, attacker, lan, r1, …."""
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
        """Create a network; `options` are the fields of `NetworkSpec`."""
        return self._network(NetworkSpec(name, **options))

    def _network(self, spec: NetworkSpec) -> Network:
        self._check(*features.of_network(spec))
        grown = self.plan.with_network(spec)
        with self._creating(self.runtime.remove_network, spec.name):
            facts = self.runtime.network(spec)
        made = self._networks[spec.name] = Network(spec, facts)
        self.plan = grown
        return made

    def container(self, name: str, mode: Mode | None = None, **options: Any) -> Container:
        """Start a container; `options` are the fields of `ContainerSpec`."""
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
            self._check(Feature.NETWORKS)  # a kind of network that was not created
        grown = self.plan.with_container(spec)
        made = self._containers[spec.name] = Container(self, spec.name, self._run(spec))
        self.plan = grown
        self._prepare(made)
        return made

    def _run(self, spec: ContainerSpec) -> ContainerInfo:
        with self._creating(self.runtime.remove, spec.name):
            return self.runtime.run(spec)

    @contextlib.contextmanager
    def _creating(self, remove: Callable[[str], None], name: str) -> Iterator[None]:
        """Create an object of the runtime in the body; `close` removes it after an interrupt.

        `remove` is the function that removes an object by its name.
        """
        try:
            yield
        except RuntimeRefused:
            raise  # the runtime refused: nothing was created
        except BaseException:
            self._interrupted.append(partial(remove, name))
            raise

    def _remove_interrupted(self) -> None:
        while self._interrupted:
            with contextlib.suppress(RuntimeRefused):  # the object was not created
                self._interrupted.pop()()

    def _prepare(self, container: Container) -> None:
        if self._by_exec:
            container.prepare()

    def _await_agents(self, *names: str) -> None:
        for name in names if self._by_exec else ():
            self._containers[name].await_agent()

    def adopt(self, spec: ContainerSpec, facts: ContainerInfo) -> Container:
        """Add a container to the scene that was started outside it."""
        self.plan = self.plan.with_container(spec)
        made = self._containers[spec.name] = Container(self, spec.name, facts)
        self._prepare(made)
        self._await_agents(spec.name)
        return made

    def containers(self, **modes: Mode | Network) -> None:
        """Start several containers; each keyword is a name, its value a mode or a network."""
        for name, mode in modes.items():
            self.container(name, Bridge(mode.name) if isinstance(mode, Network) else mode)

    def __getitem__(self, name: str) -> Container:
        if lacking := self._absent.get(name):
            raise features.Unclaimed(self.runtime.name, lacking)
        return self._containers[name]

    def refusal(self, name: str, mode: Mode, **options: Any) -> RuntimeRefused:
        """Return the runtime's refusal to start a container; raise `AssertionError` if it starts.

        `options` are the fields of `ContainerSpec`. The plan is not consulted.
        """
        try:
            facts = self._run(ContainerSpec(name, mode, **options))
        except RuntimeRefused as refused:
            return refused
        self.runtime.remove(name)
        raise AssertionError(
            f"{name} started in mode {mode} with {options}, which the runtime must refuse: {facts}"
        )

    def _check(self, *asked: Feature) -> None:
        features.check(self.runtime.name, self.runtime.features, *asked)

    def attach(self, name: str, network: str = DEFAULT_NETWORK) -> None:
        """Attach a container in mode none by hand to the bridge of `network`."""
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
        """Connect a container, running or stopped, to another network."""
        self._check(Feature.CONNECT)
        self.runtime.connect(name, network, aliases=aliases)
        spec = self.plan.container(name)
        if isinstance(spec.mode, Bridge):
            self._change(name, also=(*spec.also, network))
        else:
            self._change(name, mode=Bridge(network))

    def disconnect(self, name: str, network: str) -> None:
        """Disconnect a container, running or stopped, from a network.

        A container that is on no network has only `lo`.
        """
        self._check(Feature.CONNECT)
        self.runtime.disconnect(name, network)
        left = [item for item in self.plan.container(name).networks if item != network]
        mode = Bridge(left[0]) if left else Nothing()
        self._change(name, mode=mode, also=tuple(left[1:]))

    def start(self, name: str) -> None:
        """Start a stopped container again; it comes back without its manual attachment."""
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
        """Remove containers, also from the plan."""
        self._hang_up(*names)
        self.runtime.remove(*names)
        self.forget(*names)

    def forget(self, *names: str) -> None:
        """Remove containers from the plan that no longer exist."""
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
        """Remove a network, also from the plan."""
        self.runtime.remove_network(name)
        del self._networks[name]
        left = tuple(item for item in self.plan.networks if item.name != name)
        self.plan = replace(self.plan, networks=left)

    def close(self) -> None:
        """Remove every container and network of this scene.

        All removals are tried, even if one fails. The first failure is raised, because it may cause
        the others. An interrupt takes precedence.
        """
        steps: list[Callable[[], object]] = [
            *(
                partial(detach, self.world.host.netns, name, addresses)
                for name, addresses in self._by_hand.items()
            ),
            self._remove_interrupted,
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
        """Return the oracle's promises for the current plan."""
        return self._promises.of(self.plan, self.runtime.dialect, self.world.topology, cells)

    def observed(self, cells: Collection[Cell] | None = None) -> Matrix[Observation]:
        """Return the outcome of real packets, for every promised cell or for `cells` among them."""
        promised = self.promised(cells)
        cells = list(promised)
        with contextlib.ExitStack() as stack:
            spaces = {
                name: stack.enter_context(self._space(name))
                for name in (*(item.name for item in self.plan.containers), *OUTSIDERS, GATEWAY)
            }
            foreign = netns_with_shared_addresses(self.plan, self.runtime.dialect, spaces)
            addresses = self._addresses()
            found, requests = probe_requests(cells, spaces, addresses, self._resolv_conf)
            found |= observe(
                requests,
                control=self.world.namespaces["lan"],
                watched=[*self.world.namespaces.values(), *foreign],
                namer=addresses.namer(spaces),
                witnesses=foreign,
                patience=self._patience(),
            )
        observed = Matrix({cell: found[cell] for cell in cells}, origin=self)
        if self._record is not None:
            self._record(promised, observed)
        return observed

    def ready(self) -> None:
        """Wait until every address of the host and of the containers is usable and resolvable."""
        with contextlib.ExitStack() as stack:
            names = (HOST, *self._containers)
            spaces = [stack.enter_context(self.netns(name).open()) for name in names]
            await_ready([seen_from_host(space, stack) for space in spaces])

    def settle(self) -> None:
        """Wait until no packet is in flight, in the world or in a container."""
        with contextlib.ExitStack() as stack:
            watched = list(self.world.namespaces.values())
            spaces: list[NetNS] = []
            for container in self._containers.values():
                with contextlib.suppress(OSError, RuntimeRefused):  # a stopped one is silent
                    space = stack.enter_context(container.net.open())
                    spaces.append(space)
                    watched.append(seen_from_host(space, stack))
            if bridges_are_apart(self.plan, self.runtime.dialect):
                watched.append(stack.enter_context(self.netns(GATEWAY).open()))
            watched = list({space.id: space for space in watched}.values())
            lan, links = self.world.namespaces["lan"], self.world.links()
            quiet = stack.enter_context(Quiet(lan, watched, links=links))
            if patience := max(self._patience(), quiescence.agent_patience(spaces)):
                quiet.wait_for_user_space(patience, self.world.namespaces[HOST])
            else:
                quiet.wait()

    def _space(self, name: str) -> NetNS:
        """Open the netns that sends the probes of a source and receives those to it.

        The caller closes the netns.
        """
        container = self._containers.get(name) if self._by_exec else None
        return container.inside() if container else self.netns(name).open()

    def netns(self, name: str) -> NetnsView:
        """Return a view of the netns of a container, a namespace of the world, or the bridges."""
        container = self._containers.get(name)
        if name == GATEWAY:
            return NetnsView(
                GATEWAY, partial(open_bridge_netns, self.plan, self.runtime, self.world.host)
            )
        return container.net if container else self.world_netns[name]

    def address(self, cell: Cell) -> Address | None:
        """Return the address of a cell's target, or `None` if it has none of the cell's family."""
        return self._addresses().of(cell)

    def _addresses(self) -> AddressBook:
        return AddressBook(self.plan, self.runtime, self.world, self.netns)

    def _patience(self) -> float:
        return USER_SPACE_PATIENCE if self.runtime.dialect.datapath == "user-space" else 0.0

    def _resolv_conf(self, name: str) -> str:
        if name in self._containers:
            try:
                return self._containers[name].read("/etc/resolv.conf")
            except FileNotFoundError:
                return ""
        return f"nameserver {pick(self.world.topology.resolver, 4).ip}\n"


def bridges_are_apart(plan: Plan, dialect: Dialect) -> bool:
    """Return True if the bridges are in a netns other than the host's.

    With a daemon this netns always exists; without one it exists while a bridge is in use.
    """
    if dialect.bridges == "host":
        return False
    if dialect.default_network == "bridge":
        return True
    modes = (plan.home(item.name).mode for item in plan.containers)
    return any(isinstance(mode, Bridge) and mode != Bridge() for mode in modes)


def open_bridge_netns(plan: Plan, runtime: Adapter, host: HostMachine) -> NetNS:
    """Open the network namespace that contains the bridges; the caller closes it."""
    if not bridges_are_apart(plan, runtime.dialect):
        return NetNS.at(f"{host.proc}/1/ns/net")
    path = runtime.bridges_at()  # type: ignore[attr-defined] # as its dialect declares bridges
    return NetNS.at(f"{host.proc}/{path}")


def netns_with_shared_addresses(
    plan: Plan, dialect: Dialect, spaces: Mapping[str, NetNS]
) -> list[NetNS]:
    """Return the namespaces that share addresses with a container and may reply in its place."""
    found = [spaces[HOST]] if dialect.default_network == "pasta" else []
    return [*found, *([spaces[GATEWAY]] if bridges_are_apart(plan, dialect) else [])]


LOOPBACKS: dict[Family, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}


class AddressBook:
    """Cache of all addresses in a scene at one moment.

    `netns` takes the name of a container and returns a view of the container's netns.
    """

    def __init__(
        self, plan: Plan, runtime: Adapter, world: World, netns: Callable[[str], NetnsView]
    ) -> None:
        self._plan, self._world = plan, world
        self._containers = {item.name for item in plan.containers}
        self._attachments = attachments_of(plan, runtime.dialect)
        self._interfaces = cache(lambda name: netns(name).interfaces())
        self._gateways = cache(lambda network: runtime.network_facts(network).gateways)
        self._address = cache(self._look_up)

    def of(self, cell: Cell) -> Address | None:
        """Return the address of a cell's target, or `None` if it has none of the cell's family.

        Targets that are DNS names have no address here.
        """
        if cell.target == LOOPBACK:
            return LOOPBACKS[cell.family]
        if cell.target == GATEWAY:
            return self._gateway(cell.source, cell.family)
        name = cell.source if cell.target == SELF else cell.target
        return self._address(name, self._network(cell.source, name, cell.family), cell.family)

    def _network(self, source: str, target: str, family: Family) -> str:
        """Return the network whose address is used for a target on several networks, else `""`."""
        if target not in self._containers or not self._plan.home(target).also:
            return ""
        _, link = shared_link(self._attachments[source], self._attachments[target], family)
        return link.network.name if link.network else ""

    def _look_up(self, name: str, network: str, family: Family) -> Address | None:
        if name not in self._containers:
            return self._world.address(name, family)
        if isinstance(self._plan.home(name).mode, Host):
            return self._world.address(HOST, family)
        if not network:
            return first_address(self._interfaces(name), family)
        subnets = {gateway.network for gateway in self._gateways(network)}
        own = (item for item in self._interfaces(name) if item.version == family)
        return next((item.ip for item in own if item.network in subnets), None)

    def _gateway(self, name: str, family: Family) -> Address | None:
        networks = self._plan.home(name).networks
        every = (gateway for network in networks for gateway in self._gateways(network))
        return next((gateway.ip for gateway in every if gateway.version == family), None)

    def namer(self, spaces: Mapping[str, NetNS]) -> Namer:
        """Return a function that maps an address to its owner's name.

        An address of a joining container belongs to the joined container. An address of a container
        in mode host belongs to the host.
        """
        owners = self._world.topology.owners()
        for interface in (*self._interfaces(HOST), *self._interfaces(GATEWAY)):
            owners.setdefault(interface.ip, HOST)
        homes = {spaces[name].id: name for name in OUTSIDERS}
        own: dict[tuple[int, int], set[Address]] = {}
        for container in self._plan.containers:
            homes.setdefault(spaces[container.name].id, container.name)
            if isinstance(container.mode, Host | Joined):
                continue
            held = own[spaces[container.name].id] = set()
            for interface in self._interfaces(container.name):
                held.add(interface.ip)
                owners.setdefault(interface.ip, container.name)  # pasta uses the host's addresses

        def name(address: Address, witness: NetNS) -> str:
            if address.is_loopback or address in own.get(witness.id, ()):
                return homes[witness.id]
            return owners.get(address, str(address))

        return name


def probe_requests(
    cells: Sequence[Cell],
    spaces: Mapping[str, NetNS],
    addresses: AddressBook,
    resolv_conf: Callable[[str], str],
) -> tuple[dict[Cell, Observation], list[ProbeRequest]]:
    """Return observations for the cells that need no packet, and probe requests for the others.

    A cell needs no packet if its name does not resolve or its target has no address. `spaces` are
    the namespaces by name; `resolv_conf` returns the resolv.conf that belongs to a name. Names are
    resolved by real DNS queries.
    """
    ended: dict[Cell, Observation] = {}
    found: list[ProbeRequest] = []
    named = _look_up([cell for cell in cells if cell.target == BY_NAME], spaces, resolv_conf)
    for cell in cells:
        if cell.target == BY_NAME:
            resolved = named[cell.source, cell.family]
            address, outcome, reason = resolved.address, Outcome.NO_NAME, resolved.reason
        else:
            address = addresses.of(cell)
            outcome, reason = Outcome.NO_ROUTE, f"{cell.target} has no IPv{cell.family} address"
        if address is None:
            ended[cell] = Observation(outcome, detail=reason)
        else:
            found.append(ProbeRequest(cell, spaces[cell.source], address, spaces[witness(cell)]))
    return ended, found


def _look_up(
    cells: Sequence[Cell], spaces: Mapping[str, NetNS], resolv_conf: Callable[[str], str]
) -> dict[tuple[str, Family], Resolved]:
    if not cells:
        return {}
    keys = list(dict.fromkeys((cell.source, cell.family) for cell in cells))
    resolv_confs = {source: resolv_conf(source) for source, _ in keys}
    lookups = [
        Lookup(spaces[source], resolv_confs[source], BY_NAME, family) for source, family in keys
    ]
    control = Lookup(spaces[INTERNET], resolv_conf(INTERNET), BY_NAME, 4)
    return dict(zip(keys, resolve(lookups, control=control), strict=True))


def witness(cell: Cell) -> str:
    """Return the name of the namespace whose witness must reply to the probe of a cell."""
    special = {SELF: cell.source, LOOPBACK: cell.source, BR0: HOST, BY_NAME: INTERNET}
    return special.get(cell.target, cell.target)
