"""The network of a container: its namespace, its connections, the files that tell about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from ipaddress import ip_interface
from typing import Final, Literal

from linux.netns import NetNS
from linux.nft import Nft
from runtime.attendant.client import Attendants, Relayed
from runtime.container import Wiring
from runtime.errors import InvalidError
from runtime.net import (
    files,
    modes,
    none,
    plug,
    ports,
    publish,
    reserve,
    routes,
    shared,
    sysctl,
)
from runtime.net.members import names_of
from runtime.net.networks import Networks
from runtime.net.plug import Bench, Plug
from runtime.net.publish import Target
from runtime.net.reserve import Reserved
from runtime.records import (
    DEFAULT_NETWORK,
    Connection,
    Container,
    ContainerConfig,
    Endpoint,
    NetworkConfig,
    Publication,
)
from runtime.state import Store


class Wirer:
    """Wires the containers of one store. `find` gets a container by a reference."""

    def __init__(
        self,
        store: Store,
        networks: Networks,
        find: Callable[[str], Container],
        attendants: Attendants,
    ) -> None:
        self._store, self._networks, self._find = store, networks, find
        self._attendants = attendants

    # --- a container that is about to start ----------------------------------

    def wire(self, found: Container) -> Wiring:
        """Choose the namespace, and write the files that tell about the network."""
        config = found.config
        mode = modes.parse(config.network)
        match mode.kind:
            case "host":
                hosts = files.read_or_nothing("/etc/hosts")
                resolv_conf = files.servers(config.dns) or files.read_or_nothing("/etc/resolv.conf")
                self._write_files(config, hosts=hosts, resolv_conf=resolv_conf)
                return Wiring(None)
            case "none":
                self.write_files(config, ())
                return self._isolated(config)
            case "container":
                return self._joined(config, mode.name)
            case "bridge":
                self._write_all(config, (), resolves=resolves_names(found.connections))
                return self._connected(found)

    def _isolated(self, config: ContainerConfig) -> Wiring:
        netns = NetNS.new()

        def connect() -> tuple[Endpoint, ...]:
            none.prepare(netns)
            _write_sysctls(netns, config)
            return ()

        return Wiring(netns, connect)

    def _connected(self, found: Container) -> Wiring:
        config = found.config
        networks = [self._networks.named(item.network) for item in found.connections]
        reserved = _reserve(config, networks)
        netns = NetNS.new()

        def connect() -> tuple[Endpoint, ...]:
            with plug.Bench(netns) as bench:
                plugs = [
                    self._plug(bench, config, connection, network, number)
                    for number, (connection, network) in enumerate(
                        zip(found.connections, networks, strict=True)
                    )
                ]
                plug.attach(bench, plugs, first=True)
            endpoints = tuple(item.endpoint for item in plugs)
            self._write_hosts(config, files.hosts([config.hostname], endpoints))
            _write_sysctls(netns, config)
            if reserved is not None:
                self.publish(reserved.nft, config, reserved.publications, endpoints)
            return endpoints

        return Wiring(netns, connect, reserved)

    def _joined(self, config: ContainerConfig, reference: str) -> Wiring:
        asked = f"join the network of container {reference[:12]!r}"
        joined = self._find(reference)
        netns = shared.join(asked, joined)
        home = joined
        while (mode := modes.parse(home.config.network)).kind == "container":
            home = self._find(mode.name)
        names = [home.config.hostname, config.hostname]
        self._write_files(config, hosts=files.hosts(names, home.state.endpoints))
        # One file under two names: what the joined container is told, the joiner is too.
        own = f"{self._store.directory(config.id)}/resolv.conf"
        if os.path.lexists(own):
            os.unlink(own)
        os.link(f"{self._store.directory(joined.id)}/resolv.conf", own)
        return Wiring(netns)

    # --- any container -------------------------------------------------------

    def join(
        self,
        netns: NetNS,
        config: ContainerConfig,
        connection: Connection,
        number: int,
    ) -> Endpoint:
        """Plug a running container into a network, by its `eth<number>`."""
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
        master = self._networks.ensure_up(network, bench.host)
        known = network.name != DEFAULT_NETWORK
        names = names_of(config, connection) if known else ()
        addresses = self._networks.take(network, config.id, connection, names=names)
        endpoint = plug.endpoint(network, config.id, addresses, mac=connection.mac, number=number)
        return Plug(network, endpoint, master)

    def publish(
        self,
        nft: Nft,
        config: ContainerConfig,
        publications: Sequence[Publication],
        endpoints: Sequence[Endpoint],
    ) -> None:
        """Have a container's ports lead to it; `nft` is what the rules belong to."""
        targets: dict[Literal[4, 6], Target] = {}
        for version in _VERSIONS:
            way = routes.way_out(endpoints, version)
            if way is not None and way.veth:
                interface = ip_interface(way.address if version == 4 else way.address6)
                bridge = self._networks.get(way.network).bridge
                targets[version] = Target(interface.ip, bridge, way.veth)
        with self._store.locked():
            publish.install(nft, config.id, config.name, publications, targets)

    def withdraw(self, config: ContainerConfig) -> None:
        """Once a container has ended: what only published ports needed, nobody needs any more."""
        if config.publish or config.publish_all:
            with self._store.locked():
                publish.withdraw([item.bridge for item in self._networks.all() if item.bridge])

    def attend(
        self, found: Container, netns: NetNS, relays: Sequence[Relayed], *, began: bool = False
    ) -> None:
        """Have the attendant see to a running container as far as there is anything to see to.

        One that `began` just now was not attended to before.
        """
        names = resolves_names(found.state.endpoints)
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

    def write_files(self, config: ContainerConfig, endpoints: Sequence[Endpoint]) -> None:
        """Write hosts, hostname and resolv.conf of a container with these endpoints."""
        self._write_all(config, endpoints, resolves=resolves_names(endpoints))

    def _write_all(
        self, config: ContainerConfig, endpoints: Sequence[Endpoint], *, resolves: bool
    ) -> None:
        if resolves:
            resolv_conf = files.through_resolver(files.read_or_nothing("/etc/resolv.conf"))
        else:
            resolv_conf = files.servers(config.dns) or files.own_resolv_conf()
        hosts = files.hosts([config.hostname], endpoints)
        self._write_files(config, hosts=hosts, resolv_conf=resolv_conf)

    def _write_files(self, config: ContainerConfig, *, hosts: str, resolv_conf: str = "") -> None:
        self._write_hosts(config, hosts)
        directory = self._store.directory(config.id)
        files.write(directory, "hostname", f"{config.hostname}\n")
        if resolv_conf:
            files.write(directory, "resolv.conf", resolv_conf)

    def _write_hosts(self, config: ContainerConfig, hosts: str) -> None:
        directory = self._store.directory(config.id)
        files.write(directory, "hosts", hosts + files.extra_hosts(config.add_hosts))


_VERSIONS: Final[tuple[Literal[4, 6], ...]] = (4, 6)


def _reserve(config: ContainerConfig, networks: Sequence[NetworkConfig]) -> Reserved | None:
    """Keep the ports that a container publishes; they lead to it by its default route's network."""
    asked = f"start container {config.name!r}"
    wanted = [item for text in config.publish for item in ports.parse(asked, text)]
    if config.publish_all:
        wanted += ports.exposed(asked, config.exposed)
    if not wanted:
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
    return reserve.reserve(asked, wanted, versions)


def relays_of(publications: Sequence[Publication], endpoints: Sequence[Endpoint]) -> list[Relayed]:
    """The ports on the IPv6 loopback address, and where they lead."""
    way = routes.way_out(endpoints, 6)
    if way is None:
        return []
    address = str(ip_interface(way.address6).ip)
    found = [item for item in publications if reserve.relayed(item)]
    return [Relayed(item.fd, address, item.port) for item in found]


def resolves_names(ends: Sequence[Endpoint | Connection]) -> bool:
    """Whether a container is on a network whose members resolve one another's names."""
    return any(item.network != DEFAULT_NETWORK for item in ends)


def _write_sysctls(netns: NetNS, config: ContainerConfig) -> None:
    """Set the `net.*` ones that were asked for, from inside the namespace."""
    wanted = {name: value for name, value in config.sysctls.items() if name.startswith("net.")}
    if not wanted:
        return
    with netns.entered():
        sysctl.apply(wanted)
