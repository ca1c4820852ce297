"""A container on networks: plugged into them, published there, seen to by the attendant.

Half of what there is to import is about networks, and most commands have to do with none:
`runtime.lifecycle` imports this when there is something to plug, and for a container that
starts while its child builds the file system.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import ip_interface
from typing import Final, Literal

from linux.netns import NetNS
from linux.nft import Nft
from runtime.attendant.client import Attendants, Relayed
from runtime.errors import InvalidError
from runtime.net import plug, ports, publish, reserve, routes
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
from runtime.wiring import resolves_names

_VERSIONS: Final[tuple[Literal[4, 6], ...]] = (4, 6)


class Plugger:
    """Plugs the containers of one store."""

    def __init__(self, store: Store, networks: Networks, attendants: Attendants) -> None:
        self._store, self._networks, self._attendants = store, networks, attendants

    # --- a container that is about to start ----------------------------------

    def reserve(self, found: Container) -> Reserved | None:
        """Keep the ports of the host that a container publishes, if there are any."""
        return _reserve(found.config, self._on(found))

    def connect(self, netns: NetNS, found: Container) -> tuple[Endpoint, ...]:
        """Plug a container into all of its networks, by the namespace that is to be its own."""
        with plug.Bench(netns) as bench:
            plugs = [
                self._plug(bench, found.config, connection, network, number)
                for number, (connection, network) in enumerate(
                    zip(found.connections, self._on(found), strict=True)
                )
            ]
            plug.attach(bench, plugs, first=True)
        return tuple(item.endpoint for item in plugs)

    def _on(self, found: Container) -> list[NetworkConfig]:
        return [self._networks.named(item.network) for item in found.connections]

    def attend_first(self, found: Container, netns: NetNS) -> None:
        """Have the attendant see to a container that begins just now."""
        relays = relays_of(found.state.ports, found.state.endpoints)
        self.attend(found, netns, relays, began=True)

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
            publish.install(
                nft, config.id, config.name, publications, targets, flows=self._networks.flows
            )

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


def _reserve(config: ContainerConfig, networks: Sequence[NetworkConfig]) -> Reserved | None:
    """Keep the ports that a container publishes; they lead to it by its default route's network.

    Of one that was taken off its last network none are: nothing leads there.
    """
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
    return reserve.reserve(asked, wanted, versions)


def relays_of(publications: Sequence[Publication], endpoints: Sequence[Endpoint]) -> list[Relayed]:
    """The ports on the IPv6 loopback address, and where they lead."""
    way = routes.way_out(endpoints, 6)
    if way is None:
        return []
    address = str(ip_interface(way.address6).ip)
    found = [item for item in publications if reserve.relayed(item)]
    return [Relayed(item.fd, address, item.port) for item in found]
