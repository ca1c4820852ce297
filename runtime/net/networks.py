"""The networks: made, listed, brought up, removed.

The default network `bridge` (interface `docker0`, 172.17.42.1/16) is made on
first use and kept, as Docker does; `teardown` removes it as well. Every change
happens under the root's lock, and a network whose maker was killed half-way
(`ready` is false) is removed by the next change.
"""

from __future__ import annotations

import os
import shutil
from ipaddress import ip_network
from typing import Final, TypedDict

from linux import netstate
from linux.netlink import Netlink, NetlinkError
from runtime.errors import ConflictError, InvalidError, NotFoundError
from runtime.net import bridge, nat, subnets
from runtime.net.ipam import Leases
from runtime.net.sysctl import Borrowed
from runtime.records import DEFAULT_NETWORK, Address, Network, NetworkConfig
from runtime.state import NAME, Store, match_prefix, new_id, now, read_json, write_json

DEFAULT_BRIDGE: Final = "docker0"
DEFAULT_GATEWAY: Final = "172.17.42.1"
RESERVED: Final = frozenset({"host", "none", "container", "default"})
_MIN_MTU: Final = 68
_MAX_MTU: Final = 65535


class NetworkOptions(TypedDict, total=False):
    """Everything that may be left out when a network is made. `mtu` in bytes."""

    subnet: str
    gateway: str
    ip_range: str
    subnet6: str
    gateway6: str
    ipv6: bool
    internal: bool
    icc: bool
    mtu: int


class Networks:
    """The networks of one store, in the network namespace of the caller."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._borrowed = Borrowed(store.root)

    # --- reading -----------------------------------------------------------

    def _directory(self, name: str) -> str:
        return f"{self._store.networks}/{name}"

    def _read(self, name: str) -> NetworkConfig:
        return NetworkConfig(**read_json(f"{self._directory(name)}/config.json"))

    def all(self) -> list[NetworkConfig]:
        """Every network, by name."""
        found = []
        for name in sorted(os.listdir(self._store.networks)):
            try:
                network = self._read(name)
            except FileNotFoundError:
                continue
            if network.ready:
                found.append(network)
        return found

    def get(self, reference: str) -> NetworkConfig:
        """The network of that name, id or unique prefix of one; `NotFoundError` else."""
        networks = self.all()
        for network in networks:
            if network.name == reference:
                return network
        fitting = match_prefix(reference, [network.id for network in networks])
        found = [network for network in networks if reference and network.id in fitting]
        if len(found) == 1:
            return found[0]
        happened = f"{len(found)} ids start so" if found else "there is no such network"
        raise NotFoundError(f"find network {reference!r}", happened, remedy="mydocker network ls")

    def leases(self, network: NetworkConfig) -> dict[str, str]:
        """Which container has which address of the network."""
        return Leases(self._directory(network.name)).read()

    # --- changing ----------------------------------------------------------

    def create(self, name: str, options: NetworkOptions) -> NetworkConfig:
        """Make a bridge network and bring it up.

        What is left out is chosen: a private IPv4 subnet that overlaps nothing, a
        ULA prefix drawn from the id, the first address as gateway.
        """
        asked = f"create network {name!r}"
        if not NAME.fullmatch(name) or name in RESERVED:
            raise InvalidError(asked, "the name is malformed or reserved")
        subnet, subnet6 = options.get("subnet", ""), options.get("subnet6", "")
        ip_range, ipv6 = options.get("ip_range", ""), options.get("ipv6", False)
        mtu = options.get("mtu", 1500)
        lowest = bridge.IPV6_MIN_MTU if ipv6 or subnet6 else _MIN_MTU
        if not lowest <= mtu <= _MAX_MTU:
            raise InvalidError(asked, f"an MTU of {mtu} is not within {lowest} and {_MAX_MTU}")
        identity = new_id()
        wanted = subnets.parse(asked, subnet, 4) if subnet else None
        wanted6 = subnets.parse(asked, subnet6, 6) if subnet6 else None
        if ipv6 and wanted6 is None:
            wanted6 = subnets.ula(identity)
        with self._store.locked():
            self._repair()
            if os.path.exists(self._directory(name)):
                raise ConflictError(asked, "a network of that name exists")
            used = [*self._used(), *_routed()]
            chosen = wanted or subnets.free(asked, used)
            for item in (chosen, wanted6):
                subnets.refuse_overlap(asked, item, used)
            network = NetworkConfig(
                id=identity,
                name=name,
                bridge=f"br-{identity[:12]}",
                subnet=str(chosen),
                gateway=str(subnets.gateway_of(asked, chosen, options.get("gateway", ""))),
                subnet6=str(wanted6) if wanted6 else "",
                gateway6=str(subnets.gateway_of(asked, wanted6, options.get("gateway6", "")))
                if wanted6
                else "",
                ip_range=str(subnets.within(asked, chosen, ip_range)) if ip_range else "",
                internal=options.get("internal", False),
                icc=options.get("icc", True),
                mtu=mtu,
                created=now(),
            )
            return self._make(network)

    def default(self) -> NetworkConfig:
        """The default network, made on first use."""
        try:
            network = self._read(DEFAULT_NETWORK)
            if network.ready:
                return network
        except FileNotFoundError:
            pass
        with self._store.locked():
            self._repair()
            if os.path.exists(self._directory(DEFAULT_NETWORK)):
                return self._read(DEFAULT_NETWORK)
            network = NetworkConfig(
                id=new_id(),
                name=DEFAULT_NETWORK,
                bridge=DEFAULT_BRIDGE,
                subnet=subnets.DEFAULT,
                gateway=DEFAULT_GATEWAY,
                created=now(),
            )
            if not bridge.is_up(network):  # left by a mydocker whose state was deleted
                subnet, used = ip_network(subnets.DEFAULT), [*self._used(), *_routed()]
                subnets.refuse_overlap("make the default network", subnet, used)
            return self._make(network)

    def _make(self, network: NetworkConfig) -> NetworkConfig:
        directory = self._directory(network.name)
        os.mkdir(directory)
        try:
            write_json(f"{directory}/config.json", network._asdict())
            ready = network._replace(ready=True)
            self._bring_up(ready, [*self.all(), ready])
            write_json(f"{directory}/config.json", ready._asdict())
        except BaseException:
            self._unmake(network)
            raise
        return ready

    def ensure_up(self, network: NetworkConfig) -> None:
        """Bring bridge, rules and forwarding back, should somebody have removed them."""
        if bridge.is_up(network) and nat.present() and self._forwards(network):
            return
        with self._store.locked():
            self._bring_up(network, self.all())

    def repair(self) -> None:
        """Bring everything that mydocker has in the kernel in line with its state."""
        with self._store.locked():
            self._repair()
            networks = self.all()
            for network in networks:
                self._bring_up(network, networks)

    def _bring_up(self, network: NetworkConfig, all_networks: list[NetworkConfig]) -> None:
        if not bridge.is_up(network):
            bridge.make(network)
        for name in _forwarding(network):
            self._borrowed.ensure(name, "1")
        try:
            nat.apply(all_networks)
        except NetlinkError as error:
            raise bridge.refused("install the rules of nft table inet mydocker", error) from error

    def _forwards(self, network: NetworkConfig) -> bool:
        return all(self._borrowed.is_set(name, "1") for name in _forwarding(network))

    def remove(self, reference: str) -> NetworkConfig:
        """Remove a network that no container is on, with bridge and rules."""
        asked = f"remove network {reference!r}"
        if reference == DEFAULT_NETWORK or reference in RESERVED:
            raise ConflictError(
                asked, "it is predefined", remedy="`mydocker system reset` removes everything"
            )
        with self._store.locked():
            self._repair()
            network = self.get(reference)
            users = sorted({owner[:12] for owner in self.leases(network).values()})
            if users:
                raise ConflictError(
                    asked,
                    f"containers are on it: {', '.join(users)}",
                    remedy="mydocker rm -f " + " ".join(users),
                )
            self._unmake(network)
        return network

    def _unmake(self, network: NetworkConfig) -> None:
        others = [other for other in self.all() if other.name != network.name]
        nat.apply(others)
        bridge.remove(network)
        shutil.rmtree(self._directory(network.name))

    def _repair(self) -> None:
        """Remove what a killed maker left."""
        for name in os.listdir(self._store.networks):
            try:
                network = self._read(name)
            except FileNotFoundError:
                shutil.rmtree(self._directory(name))
                continue
            if not network.ready:
                self._unmake(network)

    def teardown(self) -> None:
        """Remove every network, the default one included, and give the host's sysctls back."""
        with self._store.locked():
            self._repair()
            for network in self.all():
                self._unmake(network)
            self._borrowed.restore()

    # --- addresses ---------------------------------------------------------

    def take(
        self, network: NetworkConfig, owner: str, *, ip: str = "", ip6: str = "", mac: str = ""
    ) -> list[Address]:
        """Addresses for a container, lowest free first.

        `NotFoundError` when the network is gone, `ConflictError` when nothing is
        left or what was asked for is taken, `InvalidError` when it does not fit.
        """
        with self._store.locked():
            if not os.path.exists(self._directory(network.name)):
                raise NotFoundError(f"join network {network.name!r}", "it was just removed")
            leases = Leases(self._directory(network.name))
            return leases.take(network, owner, ip=ip, ip6=ip6, mac=mac)

    def release(self, owner: str) -> None:
        """Give back every address and every veth end of a container."""
        bridge.detach(owner)
        with self._store.locked():
            for name in os.listdir(self._store.networks):
                Leases(self._directory(name)).release(owner)

    def _used(self) -> list[Network]:
        return [subnet for network in self.all() for subnet in network.subnets]


def _forwarding(network: NetworkConfig) -> list[str]:
    """The host's sysctls that the network needs at 1.

    The IPv6 one makes the host's interfaces ignore router advertisements unless
    their accept_ra is 2 (kernel: ip-sysctl), so it is touched for IPv6 networks only.
    """
    if network.internal:
        return []
    return ["net.ipv4.ip_forward", *(["net.ipv6.conf.all.forwarding"] if network.subnet6 else [])]


def _routed() -> list[Network]:
    """What the host has a route to already, the default route aside."""
    with Netlink() as host:
        return [item.destination for item in netstate.routes(host) if item.destination is not None]
