"""Networks: create, list, bring up, remove.

The default network `bridge` (interface `docker0`, 172.17.42.1/16) is created on first use and
kept, as in Docker; `teardown` removes it as well. Every change holds the root's lock, and the
next change removes a network whose creation was killed half-way (`ready` is false).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from linux import rtnetlink_dump
from linux.netlink import Netlink, NetlinkError
from runtime.errors import ConflictError, NotFoundError, room_for
from runtime.network import bridge, config, endpoint, firewall, macvlan, sysctl
from runtime.network.config import RESERVED, NetworkOptions, check, design
from runtime.network.ipam import Leases, Members
from runtime.network.sysctl import BorrowedSysctls
from runtime.records import (
    DEFAULT_NETWORK,
    NETWORK_MODES,
    Address,
    Connection,
    Network,
    NetworkConfig,
    is_mac,
)
from runtime.store import Store, match_prefix, new_id, now, read_json, remove_tree, write_json

if TYPE_CHECKING:
    from linux.conntrack import FlowWatch

DEFAULT_BRIDGE: Final = "docker0"
DEFAULT_GATEWAY: Final = "172.17.42.1"
_FORWARDING6: Final = "net.ipv6.conf.all.forwarding"


class Networks:
    """Networks of one store, in the netns of the caller."""

    def __init__(self, store: Store, flows: FlowWatch | None = None) -> None:
        self._store = store
        self.flows = flows
        """Watch of the flows of the netns, if there is one."""
        self._borrowed = BorrowedSysctls(store.root)

    # --- reading -----------------------------------------------------------

    def _directory(self, name: str) -> str:
        return f"{self._store.networks}/{name}"

    def _read(self, name: str) -> NetworkConfig:
        return NetworkConfig(**read_json(f"{self._directory(name)}/config.json"))

    def all(self) -> list[NetworkConfig]:
        """Return every network, by name."""
        found = []
        for name in sorted(os.listdir(self._store.networks)):
            with suppress(FileNotFoundError):
                found.append(self._read(name))
        return [network for network in found if network.ready]

    def get(self, reference: str) -> NetworkConfig:
        """Return the network by name, id or unique prefix of an id; `NotFoundError` if none."""
        networks = self.all()
        for network in networks:
            if network.name == reference:
                return network
        fitting = match_prefix(reference, [network.id for network in networks])
        found = [network for network in networks if reference and network.id in fitting]
        if len(found) == 1:
            return found[0]
        happened = f"{len(found)} IDs have this prefix" if found else "no such network"
        raise NotFoundError(f"find network {reference!r}", happened, remedy="mydocker network ls")

    def named(self, reference: str) -> NetworkConfig:
        """Return a network as `get` does; create the default network if it does not exist."""
        return self.default() if reference == DEFAULT_NETWORK else self.get(reference)

    def by_mode(self, name: str) -> NetworkConfig:
        """Return the network that a mode names, as `named` does.

        The `NotFoundError` also lists the modes.
        """
        try:
            return self.named(name)
        except NotFoundError as error:
            if "IDs have this prefix" in error.happened:
                raise
            raise NotFoundError(
                f"use the network mode {name!r}",
                "no such mode or network",
                remedy=f"{NETWORK_MODES}; `mydocker network ls`",
            ) from None

    def members(self, network: NetworkConfig) -> Members:
        """Return the members of the network, with their names."""
        return Members(self._directory(network.name))

    def leases(self, network: NetworkConfig) -> dict[str, str]:
        """Return the leases of the network: address to container."""
        return Leases(self._directory(network.name)).read()

    # --- changing ----------------------------------------------------------

    def create(self, name: str, options: NetworkOptions) -> NetworkConfig:
        """Create a network and bring it up; missing options are chosen."""
        asked = f"create network {name!r}"
        check(asked, name, options)
        on_parent = options.get("driver") == "macvlan"
        if on_parent:
            options = {"mtu": macvlan.parent(asked, options["parent"]).mtu, **options}
        with room_for(asked), self._store.locked():
            self._repair()
            # The default network counts as existing even before its first use.
            if name == DEFAULT_NETWORK or os.path.exists(self._directory(name)):
                raise ConflictError(asked, "a network of this name already exists")
            # Containers on a macvlan share the subnet of the parent's own network.
            used = [*self._used(), *([] if on_parent else _routed())]
            return self._make(design(asked, name, options, identity=new_id(), used=used))

    def default(self) -> NetworkConfig:
        """Return the default network, created on first use."""
        with suppress(FileNotFoundError):
            network = self._read(DEFAULT_NETWORK)
            if network.ready:
                return network
        with room_for("create the default network"), self._store.locked():
            self._repair()
            if os.path.exists(self._directory(DEFAULT_NETWORK)):
                return self._read(DEFAULT_NETWORK)
            network = NetworkConfig(
                id=new_id(),
                name=DEFAULT_NETWORK,
                bridge=DEFAULT_BRIDGE,
                subnet=config.DEFAULT,
                gateway=DEFAULT_GATEWAY,
                created=now(),
            )
            with Netlink() as host:
                left = bridge.find(host, network)
            if left is None:  # else left by a mydocker whose state was deleted
                subnet, used = ip_network(config.DEFAULT), [*self._used(), *_routed()]
                config.refuse_overlap("create the default network", subnet, used)
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
            self._unmake_unfinished(network)
            raise
        return ready

    def _unmake_unfinished(self, network: NetworkConfig) -> None:
        """Undo an incomplete creation.

        If the caller has no right to change the kernel's links, the creation changed none either.
        """
        try:
            self._unmake(network)
        except NetlinkError as error:
            if error.errno not in (errno.EPERM, errno.EACCES):
                raise
            remove_tree(self._directory(network.name))

    def ensure_up(self, network: NetworkConfig, host: Netlink) -> rtnetlink_dump.Link | None:
        """Restore bridge, rules and forwarding, in case a user has removed them.

        Return the bridge; a macvlan has none.
        """
        if network.driver == "macvlan":
            return None
        link = bridge.find(host, network)
        forwards = all(sysctl.read(name) == "1" for name in _forwarding(network))
        if link is not None and forwards and firewall.present():
            return link
        with self._store.locked():
            self._bring_up(network, self.all())
        return rtnetlink_dump.link(host, network.bridge)

    def repair(self) -> None:
        """Restore all of mydocker's settings in the kernel from its state."""
        with self._store.locked():
            self._repair()
            networks = self.all()
            for network in networks:
                self._bring_up(network, networks)

    def _bring_up(self, network: NetworkConfig, all_networks: list[NetworkConfig]) -> None:
        if network.driver == "macvlan":
            return
        with ExitStack() as stack:
            try:
                stack.enter_context(firewall.applied(all_networks))
            except NetlinkError as error:
                asked = "install the rules of nft table inet mydocker"
                raise bridge.refused(asked, error) from error
            bridge.make(network)
            wanted = _forwarding(network)
            if _FORWARDING6 in wanted and sysctl.read(_FORWARDING6) != "1":
                for name in _heard_routers():
                    self._borrowed.ensure(name, "2")
            for name in wanted:
                self._borrowed.ensure(name, "1")

    def remove(self, reference: str) -> NetworkConfig:
        """Remove a network without containers, with its bridge and rules."""
        asked = f"remove network {reference!r}"
        if reference == DEFAULT_NETWORK or reference in RESERVED:
            raise ConflictError(
                asked,
                "the network is predefined",
                remedy="`mydocker system reset`, which removes everything",
            )
        with self._store.locked():
            self._repair()
            network = self.get(reference)
            users = sorted({owner[:12] for owner in self.leases(network).values()})
            if users:
                raise ConflictError(
                    asked,
                    f"containers are connected to it: {', '.join(users)}",
                    remedy="mydocker rm -f " + " ".join(users),
                )
            self._unmake(network)
        return network

    def prune(self) -> list[NetworkConfig]:
        """Remove every network without containers; return the removed ones."""
        with self._store.locked():
            self._repair()
            unused = [
                network
                for network in self.all()
                if network.name != DEFAULT_NETWORK and not self.leases(network)
            ]
            for network in unused:
                self._unmake(network)
        return unused

    def _unmake(self, network: NetworkConfig) -> None:
        if network.driver == "bridge":
            with firewall.applied([other for other in self.all() if other.name != network.name]):
                bridge.remove(network)
        remove_tree(self._directory(network.name))

    def _repair(self) -> None:
        """Remove the remains of a killed creation."""
        for name in os.listdir(self._store.networks):
            try:
                network = self._read(name)
            except FileNotFoundError:
                remove_tree(self._directory(name))
                continue
            if not network.ready:
                self._unmake(network)

    def teardown(self) -> None:
        """Remove every network, the default one included, and restore the host's sysctls."""
        with self._store.locked():
            self._repair()
            for network in self.all():
                self._unmake(network)
            self._borrowed.restore()

    # --- addresses ---------------------------------------------------------

    def take(
        self,
        network: NetworkConfig,
        owner: str,
        connection: Connection,
        *,
        names: Collection[str] = (),
    ) -> list[Address]:
        """Lease addresses to a container, lowest free first; its `names` resolve to them.

        `NotFoundError` if the network is gone, `ConflictError` if no address is left or the
        requested one is taken, `InvalidError` if the requested one does not fit the network.
        """
        with self._store.locked():
            directory = self._directory(network.name)
            if not os.path.exists(directory):
                raise NotFoundError(
                    f"connect to network {network.name!r}", "the network has just been removed"
                )
            given = Leases(directory).take(
                network, owner, ip=connection.ip, ip6=connection.ip6, mac=connection.mac
            )
            if names:
                Members(directory).add(owner, names, given)
        return given

    def release(
        self, *owners: str, keep: Collection[str] = (), veths: Collection[str] = ()
    ) -> None:
        """Release the leases of containers on every network but those to `keep`.

        First remove their veth ends (except `veths`), and the kernel's neighbour entries and flows
        of their addresses.
        """
        gone = frozenset(owners)
        endpoint.detach(*owners, keep=veths)
        endpoint.forget(set(self._held(gone, keep)), self.flows)
        with self._store.locked():
            for name in set(os.listdir(self._store.networks)) - set(keep):
                Members(self._directory(name)).remove(gone)
                Leases(self._directory(name)).release(gone)

    def _held(self, owners: Collection[str], keep: Collection[str]) -> Iterator[Address]:
        """Yield the containers' addresses on every network but those to `keep`."""
        for name in set(os.listdir(self._store.networks)) - set(keep):
            for item, owner in Leases(self._directory(name)).read().items():
                if owner in owners and not is_mac(item):
                    yield ip_address(item)

    def _used(self) -> list[Network]:
        return [subnet for network in self.all() for subnet in network.subnets]


def _forwarding(network: NetworkConfig) -> list[str]:
    """Return the host's sysctls that must be 1 for the network; the IPv6 one if it has IPv6."""
    if network.internal:
        return []
    return ["net.ipv4.ip_forward", *([_FORWARDING6] if network.subnet6 else [])]


def _heard_routers() -> list[str]:
    """Return the sysctls that keep the host accepting router advertisements as before.

    A kernel that forwards IPv6 ignores router advertisements and at once deletes the default
    routes learned from them, except on links whose accept_ra is 2 (ip-sysctl;
    rt6_purge_dflt_routers in net/ipv6/route.c).
    """
    with Netlink() as host:
        links = rtnetlink_dump.links_with_ra_routes(host)
    # A dot in a link's name is a slash in a sysctl's.
    keys = [f"net.ipv6.conf.{name.replace('.', '/')}.accept_ra" for name in links]
    return [key for key in keys if sysctl.read(key) == "1"]


def _routed() -> list[Network]:
    """Return the destinations of the host's routes, without the default route."""
    with Netlink() as host:
        return [
            item.destination for item in rtnetlink_dump.routes(host) if item.destination is not None
        ]
