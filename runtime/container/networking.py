"""The network of a container: its namespace, its connections, the files that tell about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Final, Literal

from linux import proc
from linux.netns import NetNS
from linux.syscalls import pidfd_getfd
from runtime.container.start import ConnectedContainer, Wiring
from runtime.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    UnsupportedError,
    is_exhausted,
    is_full,
)
from runtime.init import fds
from runtime.network import etc_files, modes, sysctl
from runtime.records import (
    DEFAULT_NETWORK,
    Connection,
    ContainerConfig,
    ContainerRecord,
    ContainerState,
    EndpointRecord,
    NetworkConfig,
    Publication,
)
from runtime.store import Store

if TYPE_CHECKING:  # imported by the functions that need it: most modes and commands do not
    from linux.nftables import Nft
    from runtime.daemon.client import DaemonClient
    from runtime.network.endpoint import Bench, Plug
    from runtime.network.firewall import PortTarget
    from runtime.network.manager import Networks
    from runtime.network.ports import RelayedPort, ReservedPorts


class Wirer:
    """Wires the containers of one store.

    `find` gets a container by a reference, `plugger` what plugs into networks.
    """

    def __init__(
        self, store: Store, find: Callable[[str], ContainerRecord], plugger: Callable[[], Plugger]
    ) -> None:
        self._store, self._find, self._plugger = store, find, plugger

    def wire(self, found: ContainerRecord) -> Wiring:
        """Choose the namespace, and write the files that tell about the network."""
        config = found.config
        mode = modes.parse(config.network)
        match mode.kind:
            case "host":
                hosts = etc_files.read_or_nothing("/etc/hosts")
                resolv_conf = etc_files.servers(config.dns) or etc_files.read_or_nothing(
                    "/etc/resolv.conf"
                )
                self._write_files(config, hosts=hosts, resolv_conf=resolv_conf)
                return Wiring(None)
            case "none":
                self.write_files(config, ())
                return self._isolated(config)
            case "container":
                return self._joined(config, mode.name)
            case "bridge":
                self._write_all(config, (), resolves=_resolves_names(found.connections))
                return self._connected(found)

    def _isolated(self, config: ContainerConfig) -> Wiring:
        netns = NetNS.new()

        def connect() -> ConnectedContainer:
            modes.prepare(netns)  # while the child builds the file system
            _write_sysctls(netns, config)
            return ConnectedContainer()

        return Wiring(netns, connect)

    def _connected(self, found: ContainerRecord) -> Wiring:
        config = found.config
        publishes = bool(config.publish) or config.publish_all
        netns = NetNS.new()

        def connect() -> ConnectedContainer:
            plugger = self._plugger()
            reserved = plugger.reserve(found) if publishes else None
            try:
                if reserved is not None:
                    fds.ensure(f"publish the ports of container {config.name!r}")
                endpoints = plugger.connect(netns, found)
                self._write_hosts(config, etc_files.hosts([config.hostname], endpoints))
                _write_sysctls(netns, config)
                if reserved is not None:
                    plugger.publish(reserved.nft, config, reserved.publications, endpoints)
            except BaseException:
                ConnectedContainer((), reserved).close()
                raise
            return ConnectedContainer(endpoints, reserved)

        return Wiring(netns, connect, publishes)

    def _joined(self, config: ContainerConfig, reference: str) -> Wiring:
        asked = f"join the network of container {reference[:12]!r}"
        joined = self._find(reference)
        netns = modes.join(asked, joined)
        home = joined
        while (mode := modes.parse(home.config.network)).kind == "container":
            home = self._find(mode.name)
        names = [home.config.hostname, config.hostname]
        self._write_files(config, hosts=etc_files.hosts(names, home.state.endpoints))
        # One file under two names: what the joined container is told, the joiner is too.
        own = f"{self._store.directory(config.id)}/resolv.conf"
        if os.path.lexists(own):
            os.unlink(own)
        os.link(f"{self._store.directory(joined.id)}/resolv.conf", own)
        return Wiring(netns)

    def follow(self, found: ContainerRecord) -> None:
        """Write the files of a running container anew, and hosts of those who have joined it."""
        endpoints = found.state.endpoints
        self.write_files(found.config, endpoints)
        for joiner in self._joiners(found):
            names = [found.config.hostname, joiner.hostname]
            with suppress(FileNotFoundError):  # its lock is not held: it has just been removed
                self._write_hosts(joiner, etc_files.hosts(names, endpoints))

    def _joiners(self, found: ContainerRecord) -> Iterator[ContainerConfig]:
        """Who is in its namespace: their resolv.conf is the same file, which few share."""
        own = os.stat(f"{self._store.directory(found.id)}/resolv.conf")
        if own.st_nlink == 1:
            return
        namespace = os.stat(f"/proc/{found.state.pid}/ns/net")
        for identity in self._store.ids():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has gone, or does not run
                theirs = os.stat(f"{self._store.directory(identity)}/resolv.conf")
                if identity != found.id and os.path.samestat(own, theirs):
                    pid = self._store.state(identity).pid
                    if os.path.samestat(namespace, os.stat(f"/proc/{pid}/ns/net")):
                        yield self._store.config(identity)

    def write_files(self, config: ContainerConfig, endpoints: Sequence[EndpointRecord]) -> None:
        """Write hosts, hostname and resolv.conf of a container with these endpoints."""
        self._write_all(config, endpoints, resolves=_resolves_names(endpoints))

    def _write_all(
        self, config: ContainerConfig, endpoints: Sequence[EndpointRecord], *, resolves: bool
    ) -> None:
        if resolves:
            resolv_conf = etc_files.through_resolver(etc_files.read_or_nothing("/etc/resolv.conf"))
        else:
            resolv_conf = etc_files.servers(config.dns) or etc_files.own_resolv_conf()
        hosts = etc_files.hosts([config.hostname], endpoints)
        self._write_files(config, hosts=hosts, resolv_conf=resolv_conf)

    def _write_files(self, config: ContainerConfig, *, hosts: str, resolv_conf: str = "") -> None:
        self._write_hosts(config, hosts)
        directory = self._store.directory(config.id)
        etc_files.write(directory, "hostname", f"{config.hostname}\n")
        if resolv_conf:
            etc_files.write(directory, "resolv.conf", resolv_conf)

    def _write_hosts(self, config: ContainerConfig, hosts: str) -> None:
        directory = self._store.directory(config.id)
        etc_files.write(directory, "hosts", hosts + etc_files.extra_hosts(config.add_hosts))


def _resolves_names(ends: Sequence[EndpointRecord | Connection]) -> bool:
    from runtime.network.ipam import resolves_names

    return resolves_names(ends)


def _write_sysctls(netns: NetNS, config: ContainerConfig) -> None:
    """Set the `net.*` ones that were asked for, from inside the namespace."""
    wanted = {name: value for name, value in config.sysctls.items() if name.startswith("net.")}
    if not wanted:
        return
    with netns.entered():
        sysctl.apply(wanted)


_VERSIONS: Final[tuple[Literal[4, 6], ...]] = (4, 6)


class Plugger:
    """Plugs the containers of one store."""

    def __init__(self, store: Store, networks: Networks, attendants: DaemonClient) -> None:
        self._store, self._networks, self._attendants = store, networks, attendants

    # --- a container that is about to start ----------------------------------

    def reserve(self, found: ContainerRecord) -> ReservedPorts | None:
        """Keep the ports of the host that a container publishes, if there are any."""
        return _reserve(found.config, self._on(found))

    def connect(self, netns: NetNS, found: ContainerRecord) -> tuple[EndpointRecord, ...]:
        """Plug a container into all of its networks, by the namespace that is to be its own."""
        from runtime.network import endpoint as plug

        with plug.Bench(netns) as bench:
            plugs = [
                self._plug(bench, found.config, connection, network, number)
                for number, (connection, network) in enumerate(
                    zip(found.connections, self._on(found), strict=True)
                )
            ]
            plug.attach(bench, plugs, first=True)
        return tuple(item.endpoint for item in plugs)

    def _on(self, found: ContainerRecord) -> list[NetworkConfig]:
        return [self._networks.named(item.network) for item in found.connections]

    def attend_first(self, found: ContainerRecord, netns: NetNS) -> None:
        """Have the attendant see to a container that begins just now."""
        from runtime.network.endpoint import relays_of

        relays = relays_of(found.state.ports, found.state.endpoints)
        self.attend(found, netns, relays, began=True)

    # --- any container -------------------------------------------------------

    def join(
        self,
        netns: NetNS,
        config: ContainerConfig,
        connection: Connection,
        number: int,
    ) -> EndpointRecord:
        """Plug a running container into a network, by its `eth<number>`."""
        from runtime.network import endpoint as plug

        network = self._networks.named(connection.network)
        with plug.Bench(netns) as bench:
            made = self._plug(bench, config, connection, network, number)
            plug.attach(bench, [made])
        return made.endpoint

    def _plug(
        self,
        bench: Bench,
        config: ContainerConfig,
        connection: Connection,
        network: NetworkConfig,
        number: int,
    ) -> Plug:
        """See that the network is up, and take what the container needs on it."""
        from runtime.network import endpoint as plug
        from runtime.network.ipam import names_of

        master = self._networks.ensure_up(network, bench.host)
        known = network.name != DEFAULT_NETWORK
        names = names_of(config, connection) if known else ()
        addresses = self._networks.take(network, config.id, connection, names=names)
        endpoint = plug.endpoint(network, config.id, addresses, mac=connection.mac, number=number)
        return plug.Plug(network, endpoint, master)

    def publish(
        self,
        nft: Nft,
        config: ContainerConfig,
        publications: Sequence[Publication],
        endpoints: Sequence[EndpointRecord],
    ) -> None:
        """Have a container's ports lead to it; `nft` is what the rules belong to."""
        from runtime.network import endpoint as routes
        from runtime.network import firewall

        targets: dict[Literal[4, 6], PortTarget] = {}
        for version in _VERSIONS:
            way = routes.way_out(endpoints, version)
            if way is not None and way.veth:
                interface = ip_interface(way.address if version == 4 else way.address6)
                bridge = self._networks.get(way.network).bridge
                targets[version] = firewall.PortTarget(interface.ip, bridge, way.veth)
        with self._store.locked():
            firewall.install(
                nft, config.id, config.name, publications, targets, flows=self._networks.flows
            )

    def withdraw(self, config: ContainerConfig) -> None:
        """Once a container has ended: what only published ports needed, nobody needs any more."""
        if config.publish or config.publish_all:
            from runtime.network import firewall

            with self._store.locked():
                firewall.withdraw([item.bridge for item in self._networks.all() if item.bridge])

    def attend(
        self,
        found: ContainerRecord,
        netns: NetNS,
        relays: Sequence[RelayedPort],
        *,
        began: bool = False,
    ) -> None:
        """Have the attendant see to a running container as far as there is anything to see to.

        One that `began` just now was not attended to before.
        """
        names = _resolves_names(found.state.endpoints)
        if not names and not relays:
            if not began:
                self._attendants.forget(found.id)
            return
        pidfd = os.pidfd_open(found.state.pid)
        try:
            within = netns if names else None
            self._attendants.attend(found.id, pidfd, netns=within, relays=relays, began=began)
        finally:
            os.close(pidfd)


def _reserve(config: ContainerConfig, networks: Sequence[NetworkConfig]) -> ReservedPorts | None:
    """Keep the ports that a container publishes; they lead to it by its default route's network.

    Of one that was taken off its last network none are: nothing leads there.
    """
    from runtime.network import endpoint as routes
    from runtime.network import ports

    asked = f"start container {config.name!r}"
    wanted = [item for text in config.publish for item in ports.parse(asked, text)]
    if config.publish_all:
        named = {(item.protocol, item.port) for item in wanted}
        exposed = ports.exposed(asked, config.exposed)
        wanted += [item for item in exposed if (item.protocol, item.port) not in named]
    if not wanted or not networks:
        return None
    ways = {version: routes.leading(networks, version) for version in _VERSIONS}
    versions = [version for version, way in ways.items() if way and way.driver == "bridge"]
    if not versions:
        raise InvalidError(
            asked,
            "publish cannot go with its networks",
            "none of them leads out by a bridge: they are internal, or macvlans",
            "mydocker network create, without --internal",
        )
    return ports.reserve(asked, wanted, versions)


class Connector:
    """Changes the connections of containers whose lock is held."""

    def __init__(self, store: Store, networks: Networks, wirer: Wirer, plugger: Plugger) -> None:
        self._store, self._networks = store, networks
        self._wirer, self._plugger = wirer, plugger

    def connect(self, found: ContainerRecord, connection: Connection) -> ContainerRecord:
        """Connect it to one network more; at once when it runs, else from its next start on.

        After an error it is as it was before, or as `follow` tells.
        """
        from runtime.network import endpoint as plug

        asked = f"connect container {found.name!r} to network {connection.network!r}"
        _refuse_without_own_network(asked, found)
        if any(item.network == connection.network for item in found.connections):
            raise ConflictError(asked, "it is connected to it already")
        connections = (*found.connections, connection)
        if not found.running:
            return self._written(found, found.state._replace(connections=connections))
        with _namespace(found) as netns:
            number = plug.free_number(asked, netns)
            changing = found.state._replace(changing=f"eth{number}")
            self._written(found, changing)
            try:
                endpoint = self._plugger.join(netns, found.config, connection, number)
            except BaseException:
                # What it has asked and is being answered goes on: it is where it was.
                self._followed(found._replace(state=changing), attend=False)
                raise
        endpoints = (*found.state.endpoints, endpoint)
        after = changing._replace(connections=connections, endpoints=endpoints)
        return self.follow(self._written(found, after))

    def disconnect(self, found: ContainerRecord, reference: str) -> ContainerRecord:
        """Take it off a network, at once when it runs; `NotFoundError` when it is not on it."""
        own = {item.network for item in found.connections}
        # One that has gone meanwhile is left by the name that it had.
        name = reference if reference in own else self._networks.named(reference).name
        asked = f"disconnect container {found.name!r} from network {name!r}"
        _refuse_without_own_network(asked, found)
        connections = tuple(item for item in found.connections if item.network != name)
        if len(connections) == len(found.connections):
            raise NotFoundError(asked, "it is not connected to it", remedy="mydocker inspect")
        state = found.state._replace(connections=connections)
        gone = [item for item in state.endpoints if item.network == name]
        if not gone:
            return self._written(found, state)
        left = tuple(item for item in state.endpoints if item.network != name)
        changing = state._replace(changing=gone[0].interface, endpoints=left)
        return self.follow(self._written(found, changing))

    def follow(self, found: ContainerRecord) -> ContainerRecord:
        """Bring what is around a running container in line with its record.

        `UnsupportedError` afterwards where somebody inside was in the way: it is its own loss.
        """
        written, failure = self._followed(found)
        if failure is not None:
            raise UnsupportedError(
                f"lead all traffic of container {found.name!r} by its networks",
                str(failure.strerror),
                "somebody inside has changed its interfaces, or taken its ports",
                f"mydocker restart {found.name}",
            ) from failure
        return written

    def repair(self, found: ContainerRecord) -> ContainerRecord:
        """The same for one at which somebody was killed: of its inside, what can be done.

        Nobody else is to be kept from anything by what is done in there.
        """
        return self._followed(found)[0]

    def _followed(
        self, found: ContainerRecord, *, attend: bool = True
    ) -> tuple[ContainerRecord, OSError | None]:
        """What is written down at last, and what could not be done inside.

        Whoever attends to it need not be told where its endpoints are those from before.
        """
        from runtime.network import endpoint as plug

        endpoints, failure = found.state.endpoints, None
        with _namespace(found) as netns:
            try:
                if found.state.changing not in {item.interface for item in endpoints}:
                    plug.unplug(netns, found.state.changing)
            except OSError as error:  # it is somebody else's by now
                failure = error
            self._networks.release(
                found.id,
                keep={item.network for item in endpoints},
                veths={item.veth for item in endpoints},
            )
            try:
                self._lead(found, netns, attend=attend)
            except OSError as error:
                if is_full(error) or is_exhausted(error):
                    raise
                failure = error
        self._wirer.follow(found)
        return self._written(found, found.state._replace(changing="")), failure

    def _lead(self, found: ContainerRecord, netns: NetNS, *, attend: bool) -> None:
        from linux.nftables import Nft
        from runtime.network import endpoint as routes

        routes.settle(netns, found.state.endpoints)
        if found.state.ports:
            with Nft(fd=_held(found, found.state.rules)) as nft:
                self._plugger.publish(nft, found.config, found.state.ports, found.state.endpoints)
        if attend:
            self._attend(found, netns)

    def _attend(self, found: ContainerRecord, netns: NetNS) -> None:
        from runtime.daemon.dns_socket import lead_nowhere
        from runtime.network.endpoint import relays_of

        with ExitStack() as stack:
            relays = []
            for item in relays_of(found.state.ports, found.state.endpoints):
                own = _held(found, item.fd)
                stack.callback(os.close, own)
                relays.append(item._replace(fd=own))
            self._plugger.attend(found, netns, relays)
            if not _resolves_names(found.state.endpoints):
                lead_nowhere(netns)

    def _written(self, found: ContainerRecord, state: ContainerState) -> ContainerRecord:
        if state.changing:
            self._store.mark(found.id, changing=True)
        self._store.write_state(found.id, state)
        if found.state.changing and not state.changing:
            self._store.mark(found.id, changing=False)
        return found._replace(state=state)


def _namespace(found: ContainerRecord) -> NetNS:
    return NetNS.at(f"/proc/{found.state.pid}/ns/net")


def _held(found: ContainerRecord, number: int) -> int:
    """A duplicate of a descriptor that the container's pid 1 holds."""
    handle = proc.pidfd(found.state.pid, found.state.born)
    if handle is None:
        raise ConflictError(f"change the network of container {found.name!r}", "it just stopped")
    try:
        return pidfd_getfd(handle, number)
    finally:
        os.close(handle)


def _refuse_without_own_network(asked: str, found: ContainerRecord) -> None:
    mode = found.config.network
    if modes.parse(mode).kind != "bridge":
        raise InvalidError(
            asked,
            f"its network mode is {mode}",
            "only a container with a network of its own can be on several",
            "start it with --net and the name of a network",
        )
