"""The network of a container: its namespace, its connections, the files that tell about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from linux.netns import NetNS
from runtime.container import Wiring
from runtime.net import files, modes, none, plug, routes, shared, sysctl
from runtime.net.members import names_of
from runtime.net.networks import Networks
from runtime.records import DEFAULT_NETWORK, Connection, Container, ContainerConfig, Endpoint
from runtime.state import Store


class Wirer:
    """Wires the containers of one store. `find` gets a container by a reference."""

    def __init__(self, store: Store, networks: Networks, find: Callable[[str], Container]) -> None:
        self._store, self._networks, self._find = store, networks, find

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
                self.write_files(config, ())
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
        for connection in found.connections:
            self._networks.named(connection.network)  # or it cannot be started at all
        netns = NetNS.new()

        def connect() -> tuple[Endpoint, ...]:
            none.prepare(netns)
            endpoints = tuple(
                self.join(netns, config, connection, number)
                for number, connection in enumerate(found.connections)
            )
            routes.settle(netns, endpoints)
            self.write_files(config, endpoints)
            _write_sysctls(netns, config)
            return endpoints

        return Wiring(netns, connect)

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
        self, netns: NetNS, config: ContainerConfig, connection: Connection, number: int
    ) -> Endpoint:
        """Plug a container into a network, by its `eth<number>`."""
        network = self._networks.named(connection.network)
        self._networks.ensure_up(network)
        known = network.name != DEFAULT_NETWORK
        names = names_of(config, connection) if known else ()
        addresses = self._networks.take(network, config.id, connection, names=names)
        endpoint = plug.endpoint(network, config.id, addresses, mac=connection.mac, number=number)
        plug.attach(netns, network, endpoint)
        return endpoint

    def write_files(self, config: ContainerConfig, endpoints: Sequence[Endpoint]) -> None:
        """Write hosts, hostname and resolv.conf of a container with these endpoints."""
        if resolves_names(endpoints) and False:
            resolv_conf = files.through_resolver(files.read_or_nothing("/etc/resolv.conf"))
        else:
            resolv_conf = files.servers(config.dns) or files.own_resolv_conf()
        hosts = files.hosts([config.hostname], endpoints)
        self._write_files(config, hosts=hosts, resolv_conf=resolv_conf)

    def _write_files(self, config: ContainerConfig, *, hosts: str, resolv_conf: str = "") -> None:
        directory = self._store.directory(config.id)
        files.write(directory, "hosts", hosts + files.extra_hosts(config.add_hosts))
        files.write(directory, "hostname", f"{config.hostname}\n")
        if resolv_conf:
            files.write(directory, "resolv.conf", resolv_conf)


def resolves_names(endpoints: Sequence[Endpoint]) -> bool:
    """Whether a container is on a network whose members resolve one another's names."""
    return any(item.network != DEFAULT_NETWORK for item in endpoints)


def _write_sysctls(netns: NetNS, config: ContainerConfig) -> None:
    """Set the `net.*` ones that were asked for, from inside the namespace."""
    wanted = {name: value for name, value in config.sysctls.items() if name.startswith("net.")}
    if not wanted:
        return
    with netns.entered():
        sysctl.apply(wanted)
