"""The network of a container: its namespace, its connections, the files that tell about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from linux.netns import NetNS
from runtime import spare
from runtime.container import Connected, Wiring
from runtime.net import files, modes, shared, sysctl
from runtime.records import DEFAULT_NETWORK, Connection, Container, ContainerConfig, Endpoint
from runtime.state import Store

if TYPE_CHECKING:
    from runtime.plugger import Plugger  # brings what most modes have no use for


class Wirer:
    """Wires the containers of one store.

    `find` gets a container by a reference, `plugger` what plugs into networks.
    """

    def __init__(
        self, store: Store, find: Callable[[str], Container], plugger: Callable[[], Plugger]
    ) -> None:
        self._store, self._find, self._plugger = store, find, plugger

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

        def connect() -> Connected:
            from runtime.net import none  # while the child builds the file system

            none.prepare(netns)
            _write_sysctls(netns, config)
            return Connected()

        return Wiring(netns, connect)

    def _connected(self, found: Container) -> Wiring:
        config = found.config
        publishes = bool(config.publish) or config.publish_all
        netns = NetNS.new()

        def connect() -> Connected:
            plugger = self._plugger()
            reserved = plugger.reserve(found) if publishes else None
            try:
                if reserved is not None:
                    spare.ensure(f"publish the ports of container {config.name!r}")
                endpoints = plugger.connect(netns, found)
                self._write_hosts(config, files.hosts([config.hostname], endpoints))
                _write_sysctls(netns, config)
                if reserved is not None:
                    plugger.publish(reserved.nft, config, reserved.publications, endpoints)
            except BaseException:
                Connected((), reserved).close()
                raise
            return Connected(endpoints, reserved)

        return Wiring(netns, connect, publishes)

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

    def follow(self, found: Container) -> None:
        """Write the files of a running container anew, and hosts of those who have joined it."""
        endpoints = found.state.endpoints
        self.write_files(found.config, endpoints)
        for joiner in self._joiners(found):
            names = [found.config.hostname, joiner.hostname]
            with suppress(FileNotFoundError):  # its lock is not held: it has just been removed
                self._write_hosts(joiner, files.hosts(names, endpoints))

    def _joiners(self, found: Container) -> Iterator[ContainerConfig]:
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
