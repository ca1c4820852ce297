"""Network setup of a container: its netns, endpoints, published ports and /etc files.

Most network modes need only a small part of it. Modules that only bridge networks need are imported
where they are used. During a start, the child process builds the file system at the same time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from linux import proc
from linux.netns import NetNS
from linux.syscalls import pidfd_getfd
from runtime.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    UnsupportedError,
    is_exhausted,
    is_full,
    require_free,
)
from runtime.init.fork_server import Spawn, fork_here
from runtime.network import etc_files, sysctl
from runtime.records import (
    DEFAULT_NETWORK,
    Connection,
    ContainerConfig,
    ContainerRecord,
    ContainerState,
    EndpointRecord,
    Publication,
    resolves_names,
)
from runtime.store import Store

if TYPE_CHECKING:
    from linux.conntrack import FlowWatch
    from linux.netlink import Netlink
    from linux.nftables import Nft
    from runtime.daemon.client import DaemonClient
    from runtime.network.endpoint import NewEndpoint
    from runtime.network.manager import Networks
    from runtime.network.ports import PortTarget, RelayedPort, ReservedPorts

_VERSIONS: Final[tuple[Literal[4, 6], ...]] = (4, 6)


class ConnectedContainer(NamedTuple):
    """Endpoints of a container that starts, and the host ports that are reserved for it."""

    endpoints: tuple[EndpointRecord, ...] = ()
    reserved: ReservedPorts | None = None

    def close(self) -> None:
        """Close the caller's descriptors of the reserved ports."""
        if self.reserved is not None:
            self.reserved.close()


class ContainerNetworking:
    """Attachments of the containers of one store to their networks.

    `find` returns a container by its reference. Hold the lock of each container around the calls.
    """

    def __init__(
        self,
        store: Store,
        find: Callable[[str], ContainerRecord],
        flows: FlowWatch | None = None,
        spawn: Spawn = fork_here,
    ) -> None:
        self._store, self._find, self._flows, self._spawn = store, find, flows, spawn

    @cached_property
    def networks(self) -> Networks:
        """The networks of the store."""
        from runtime.network.manager import Networks

        return Networks(self._store, self._flows)

    @cached_property
    def _daemon(self) -> DaemonClient:
        """Client of the DNS and relay daemon."""
        from runtime.daemon.client import DaemonClient

        return DaemonClient(self._store, self._spawn)

    # --- start and end -------------------------------------------------------

    def prepare(self, found: ContainerRecord) -> NetNS | None:
        """Write the /etc files and return the container's netns; `None` for the host's."""
        config = found.config
        mode = config.mode
        match mode.kind:
            case "host":
                hosts = etc_files.read_or_nothing("/etc/hosts")
                resolv_conf = etc_files.servers(config.dns) or etc_files.read_or_nothing(
                    "/etc/resolv.conf"
                )
                self._write_files(config, hosts=hosts, resolv_conf=resolv_conf)
                return None
            case "container":
                return self._join(config, mode.name)
            case "none":
                self._write_own_files(config, (), ())
                return NetNS.new()
            case "bridge":
                self._write_own_files(config, (), found.connections)
                return NetNS.new()

    def attach(self, found: ContainerRecord, netns: NetNS | None) -> ConnectedContainer:
        """Set up the netns of a container that starts, while its child builds the file system."""
        config = found.config
        kind = config.mode.kind
        if netns is None or kind == "container":
            return ConnectedContainer()
        if kind == "none":
            _bring_lo_up(netns)
            _write_sysctls(netns, config)
            return ConnectedContainer()
        reserved = self._reserve(found) if config.publishes else None
        try:
            if reserved is not None:
                require_free(f"publish the ports of container {config.name!r}")
            endpoints = self._add_endpoints(
                netns, config, list(enumerate(found.connections)), first=True
            )
            self._write_hosts(config, etc_files.hosts([config.hostname], endpoints))
            _write_sysctls(netns, config)
            if reserved is not None:
                self._publish(reserved.nft, config, reserved.publications, endpoints)
        except BaseException:
            ConnectedContainer((), reserved).close()
            raise
        return ConnectedContainer(endpoints, reserved)

    def register(self, found: ContainerRecord, netns: NetNS) -> None:
        """Register a container that just started with the DNS and relay daemon."""
        relays: Sequence[RelayedPort] = ()
        if found.state.ports:
            from runtime.network.ports import relays_of

            relays = relays_of(found.state.ports, found.state.endpoints)
        self._register(found, netns, relays, first=True)

    def release(self, *ended: ContainerRecord) -> None:
        """Release leases, links and rules of stopped containers on bridge networks."""
        for found in ended:
            self._daemon.forget(found.id)
        self.networks.release(*(found.id for found in ended))
        if any(found.config.publishes for found in ended):
            from runtime.network import ports

            with self._store.locked():
                ports.withdraw([item.bridge for item in self.networks.all() if item.bridge])

    # --- connect and disconnect -----------------------------------------------

    def connect(self, found: ContainerRecord, connection: Connection) -> ContainerRecord:
        """Connect a container to a network: now if it runs, else at its next start.

        After an error the container is as before, unless the error says otherwise.
        """
        asked = f"connect container {found.name!r} to network {connection.network!r}"
        _refuse_without_own_network(asked, found)
        if any(item.network == connection.network for item in found.connections):
            raise ConflictError(asked, "the container is already connected to the network")
        connections = (*found.connections, connection)
        if not found.running:
            return self._written(found, found.state._replace(connections=connections))
        from runtime.network import endpoint

        with _namespace(found) as netns:
            number = endpoint.free_number(asked, netns)
            changing = found.state._replace(changing=f"eth{number}")
            self._written(found, changing)
            try:
                added = self._add_endpoints(netns, found.config, [(number, connection)])
            except BaseException:
                # The daemon's sockets stay as they are: the endpoints have not changed.
                self._settle(found._replace(state=changing), register=False)
                raise
        endpoints = (*found.state.endpoints, *added)
        after = changing._replace(connections=connections, endpoints=endpoints)
        return self._apply(self._written(found, after))

    def disconnect(self, found: ContainerRecord, reference: str) -> ContainerRecord:
        """Disconnect a container from a network; `NotFoundError` if it is not connected."""
        own = {item.network for item in found.connections}
        # Look in the record first: the network may have been removed meanwhile.
        name = reference if reference in own else self.networks.named(reference).name
        asked = f"disconnect container {found.name!r} from network {name!r}"
        _refuse_without_own_network(asked, found)
        connections = tuple(item for item in found.connections if item.network != name)
        if len(connections) == len(found.connections):
            raise NotFoundError(
                asked, "the container is not connected to the network", remedy="mydocker inspect"
            )
        state = found.state._replace(connections=connections)
        gone = [item for item in state.endpoints if item.network == name]
        if not gone:
            return self._written(found, state)
        left = tuple(item for item in state.endpoints if item.network != name)
        changing = state._replace(changing=gone[0].interface, endpoints=left)
        return self._apply(self._written(found, changing))

    def repair(self, found: ContainerRecord) -> ContainerRecord:
        """Bring the network of a container in line with its record after a killed mydocker call.

        A failure inside the container is ignored, because it must not make other calls fail.
        """
        return self._settle(found)[0]

    def _apply(self, found: ContainerRecord) -> ContainerRecord:
        """Bring the network of a running container in line with its record.

        Raises `UnsupportedError` at the end if a process inside the container made a step fail.
        """
        written, failure = self._settle(found)
        if failure is not None:
            raise UnsupportedError(
                f"set up the network of container {found.name!r}",
                str(failure.strerror),
                "a process in the container has changed its interfaces or uses its ports",
                f"mydocker restart {found.name}",
            ) from failure
        return written

    def _settle(
        self, found: ContainerRecord, *, register: bool = True
    ) -> tuple[ContainerRecord, OSError | None]:
        """Change the kernel to match the container record; return the new record and any error.

        The error is that of the last failed step inside the netns. With `register` false the daemon
        keeps its sockets, since the endpoints are unchanged.
        """
        from runtime.network import endpoint

        endpoints, failure = found.state.endpoints, None
        with _namespace(found) as netns:
            try:
                if found.state.changing not in {item.interface for item in endpoints}:
                    endpoint.unplug(netns, found.state.changing)
            except OSError as error:  # another interface has the name now
                failure = error
            self.networks.release(
                found.id,
                keep={item.network for item in endpoints},
                veths={item.veth for item in endpoints},
            )
            try:
                self._redirect(found, netns, register=register)
            except OSError as error:
                if is_full(error) or is_exhausted(error):
                    raise
                failure = error
        self._rewrite_files(found)
        return self._written(found, found.state._replace(changing="")), failure

    def _redirect(self, found: ContainerRecord, netns: NetNS, *, register: bool) -> None:
        """Set default routes, published ports and DNS listeners for the current endpoints."""
        from linux.nftables import Nft
        from runtime.daemon.dns_socket import remove_redirection
        from runtime.network import endpoint, ports

        state = found.state
        endpoint.settle(netns, state.endpoints)
        if state.ports:
            with Nft(fd=_held(found, state.rules)) as nft:
                self._publish(nft, found.config, state.ports, state.endpoints)
        if not register:
            return
        with ExitStack() as stack:
            relays = []
            for item in ports.relays_of(state.ports, state.endpoints):
                own = _held(found, item.fd)
                stack.callback(os.close, own)
                relays.append(item._replace(fd=own))
            self._register(found, netns, relays)
            if not resolves_names(state.endpoints):
                remove_redirection(netns)

    def _written(self, found: ContainerRecord, state: ContainerState) -> ContainerRecord:
        if state.changing:
            self._store.mark(found.id, changing=True)
        self._store.write_state(found.id, state)
        if found.state.changing and not state.changing:
            self._store.mark(found.id, changing=False)
        return found._replace(state=state)

    # --- endpoints, ports, daemon ---------------------------------------------

    def _add_endpoints(
        self,
        netns: NetNS,
        config: ContainerConfig,
        connections: Sequence[tuple[int, Connection]],
        *,
        first: bool = False,
    ) -> tuple[EndpointRecord, ...]:
        """Attach a netns to networks; each attachment gets its interface `eth<number>`."""
        from linux.netlink import Netlink
        from runtime.network import endpoint

        with Netlink() as host, Netlink(netns) as inside:
            added = [
                self._new_endpoint(host, config, connection, number)
                for number, connection in connections
            ]
            endpoint.attach(netns, host, inside, added, first=first)
        return tuple(item.record for item in added)

    def _new_endpoint(
        self, host: Netlink, config: ContainerConfig, connection: Connection, number: int
    ) -> NewEndpoint:
        """Ensure that the network is up, and lease the container's addresses on it."""
        from runtime.network import endpoint
        from runtime.network.ipam import names_of

        network = self.networks.named(connection.network)
        bridge = self.networks.ensure_up(network, host)
        names = names_of(config, connection) if network.name != DEFAULT_NETWORK else ()
        addresses = self.networks.take(network, config.id, connection, names=names)
        record = endpoint.endpoint(network, config.id, addresses, mac=connection.mac, number=number)
        return endpoint.NewEndpoint(network, record, bridge)

    def _reserve(self, found: ContainerRecord) -> ReservedPorts | None:
        """Reserve the host ports that a container publishes.

        They are forwarded to the container through the network of its default route. A container
        without networks gets none.
        """
        from runtime.network import endpoint, ports

        config = found.config
        asked = f"start container {config.name!r}"
        networks = [self.networks.named(item.network) for item in found.connections]
        wanted = [item for text in config.publish for item in ports.parse(asked, text)]
        if config.publish_all:
            named = {(item.protocol, item.port) for item in wanted}
            exposed = ports.exposed(asked, config.exposed)
            wanted += [item for item in exposed if (item.protocol, item.port) not in named]
        if not wanted or not networks:
            return None
        leading = {version: endpoint.leading(networks, version) for version in _VERSIONS}
        versions = [version for version, way in leading.items() if way and way.driver == "bridge"]
        if not versions:
            raise InvalidError(
                asked,
                "its networks cannot publish ports",
                "all of them are internal or macvlan networks",
                "connect the container to a bridge network without --internal",
            )
        return ports.reserve(asked, wanted, versions)

    def _publish(
        self,
        nft: Nft,
        config: ContainerConfig,
        publications: Sequence[Publication],
        endpoints: Sequence[EndpointRecord],
    ) -> None:
        """Install the rules of a container's published ports; the table belongs to `nft`."""
        from ipaddress import ip_interface

        from runtime.network import endpoint, ports

        targets: dict[Literal[4, 6], PortTarget] = {}
        for version in _VERSIONS:
            way = endpoint.way_out(endpoints, version)
            if way is not None and way.veth:
                interface = ip_interface(way.address if version == 4 else way.address6)
                bridge = self.networks.get(way.network).bridge
                targets[version] = ports.PortTarget(interface.ip, bridge, way.veth)
        with self._store.locked():
            ports.redirect(
                nft, config.id, config.name, publications, targets, flows=self.networks.flows
            )

    def _register(
        self,
        found: ContainerRecord,
        netns: NetNS,
        relays: Sequence[RelayedPort],
        *,
        first: bool = False,
    ) -> None:
        """Register a container with the daemon, or unregister it.

        A container that needs neither DNS nor relays is unregistered. With `first` the container is
        unknown to the daemon.
        """
        names = resolves_names(found.state.endpoints)
        if not names and not relays:
            if not first:
                self._daemon.forget(found.id)
            return
        pidfd = os.pidfd_open(found.state.pid)
        try:
            within = netns if names else None
            self._daemon.serve(found.id, pidfd, netns=within, relays=relays, began=first)
        finally:
            os.close(pidfd)

    # --- container: mode and /etc files ----------------------------------------

    def _join(self, config: ContainerConfig, reference: str) -> NetNS:
        """Return the netns of the running container `reference`; share its resolv.conf.

        That container may itself have joined the netns of another one.
        """
        asked = f"join the network of container {reference[:12]!r}"
        joined = self._find(reference)
        if not joined.running:
            raise NotFoundError(
                asked,
                f"container {joined.name} is not running ({joined.state.status})",
                remedy=f"mydocker start {joined.name}",
            )
        try:
            netns = _namespace(joined)
        except FileNotFoundError:
            raise NotFoundError(asked, f"container {joined.name} has just stopped") from None
        home = joined
        while (mode := home.config.mode).kind == "container":
            home = self._find(mode.name)
        names = [home.config.hostname, config.hostname]
        self._write_files(config, hosts=etc_files.hosts(names, home.state.endpoints))
        # A hard link: when the file of the joined container is rewritten, so is this one.
        own = f"{self._store.directory(config.id)}/resolv.conf"
        if os.path.lexists(own):
            os.unlink(own)
        os.link(f"{self._store.directory(joined.id)}/resolv.conf", own)
        return netns

    def _rewrite_files(self, found: ContainerRecord) -> None:
        """Rewrite the files of a running container and the hosts files of joining containers."""
        endpoints = found.state.endpoints
        self._write_own_files(found.config, endpoints, endpoints)
        for joiner in self._joiners(found):
            names = [found.config.hostname, joiner.hostname]
            with suppress(FileNotFoundError):  # just removed: its lock is not held
                self._write_hosts(joiner, etc_files.hosts(names, endpoints))

    def _joiners(self, found: ContainerRecord) -> Iterator[ContainerConfig]:
        """Yield the containers in the same netns; they share the inode of resolv.conf."""
        own = os.stat(f"{self._store.directory(found.id)}/resolv.conf")
        if own.st_nlink == 1:
            return
        namespace = os.stat(f"/proc/{found.state.pid}/ns/net")
        for identity in self._store.ids():
            with suppress(FileNotFoundError, ProcessLookupError):  # removed, or not running
                theirs = os.stat(f"{self._store.directory(identity)}/resolv.conf")
                if identity != found.id and os.path.samestat(own, theirs):
                    pid = self._store.state(identity).pid
                    if os.path.samestat(namespace, os.stat(f"/proc/{pid}/ns/net")):
                        yield self._store.config(identity)

    def _write_own_files(
        self,
        config: ContainerConfig,
        endpoints: Sequence[EndpointRecord],
        networks: Sequence[EndpointRecord | Connection],
    ) -> None:
        """Write hosts, hostname and resolv.conf of a container with a separate netns."""
        if resolves_names(networks):
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


def _bring_lo_up(netns: NetNS) -> None:
    """Bring `lo` up: 127.0.0.1 and, where the kernel has IPv6, ::1."""
    from linux import rtnetlink  # no other mode needs netlink
    from linux.netlink import Netlink

    with Netlink(netns) as inside:
        inside.send([rtnetlink.set_link(rtnetlink.LO, up=True)])


def _write_sysctls(netns: NetNS, config: ContainerConfig) -> None:
    """Set the requested `net.*` sysctls from inside the netns."""
    wanted = {name: value for name, value in config.sysctls.items() if name.startswith("net.")}
    if wanted:
        with netns.entered():
            sysctl.apply(wanted)


def _namespace(found: ContainerRecord) -> NetNS:
    return NetNS.at(f"/proc/{found.state.pid}/ns/net")


def _held(found: ContainerRecord, number: int) -> int:
    """Return a duplicate of a descriptor that the container's pid 1 holds."""
    handle = proc.pidfd(found.state.pid, found.state.born)
    if handle is None:
        raise ConflictError(
            f"change the network of container {found.name!r}", "the container has just stopped"
        )
    try:
        return pidfd_getfd(handle, number)
    finally:
        os.close(handle)


def _refuse_without_own_network(asked: str, found: ContainerRecord) -> None:
    if found.config.mode.kind != "bridge":
        raise InvalidError(
            asked,
            f"the container has network mode {found.config.network}",
            "only a container on a bridge or macvlan network can be connected to further networks",
            "create the container with --network and the name of a network",
        )
