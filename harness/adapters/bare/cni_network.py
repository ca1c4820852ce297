"""Networks of bare runtimes by CNI: a directory of confs, and the choice of free subnets.

CNI neither prevents overlapping subnets nor removes a bridge with the last container, so this
module does, as an engine would. All of it runs inside the host.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
)
from pathlib import Path
from typing import Any, Final

from harness.adapters.bare import bundle, cni, linux_bridge, store
from harness.adapters.bare.cni import CniAttachment
from harness.adapters.bare.protocol import WiredNetns
from harness.adapters.bare.store import HOME, BareRecord
from harness.adapters.protocol import NetworkInfo
from harness.adapters.support.program import ProgramRefused
from harness.model.plan import DEFAULT_NETWORK, Bridge, ContainerSpec, NetworkSpec, Publish
from linux import rtnetlink
from linux.netlink import Netlink
from linux.netns import NetNS

DEFAULT_BRIDGE: Final = "cni0"
DEFAULT: Final = NetworkSpec(
    DEFAULT_NETWORK, subnet=IPv4Network("10.85.0.0/16"), gateway=IPv4Address("10.85.0.1")
)
"""The default network, with the values of CNI's and CRI-O's examples."""


@dataclass(frozen=True, slots=True)
class CniNetworks:
    """The networks with a conf in a directory."""

    home: Path

    def create(self, spec: NetworkSpec) -> NetworkInfo:
        """Write the conf of a network, and choose subnets where none are requested."""
        for name, value in (("internal", spec.internal), ("icc=false", not spec.icc)):
            if value:
                raise ProgramRefused(f"there is no CNI plugin for {name}")
        if self._path(spec.name).exists():
            raise ProgramRefused(f"network {spec.name} is there already")
        used = [item.network for name in self.names() for item in self.facts(name).gateways]
        spec = linux_bridge.with_subnets(spec, [*used, *linux_bridge.used_subnets()])
        self._write(spec)
        return self.facts(spec.name)

    def ensure_default(self) -> None:
        """Write the default network's conf unless it exists."""
        if not self._path(DEFAULT_NETWORK).exists():
            self._write(DEFAULT)

    def _write(self, spec: NetworkSpec) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        found = cni.conf(spec, bridge(spec.name), self.home / "addresses")
        self._path(spec.name).write_text(json.dumps(found), encoding="utf-8")
        (self.home / f"{spec.name}.spec").write_bytes(pickle.dumps(spec))

    def conf(self, name: str) -> dict[str, Any]:
        """Return the plugin list of a network."""
        try:
            found: dict[str, Any] = json.loads(self._path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ProgramRefused(f"there is no network {name}") from None
        return found

    def facts(self, name: str) -> NetworkInfo:
        """Return the facts about a network."""
        self.conf(name)
        spec: NetworkSpec = pickle.loads((self.home / f"{name}.spec").read_bytes())  # noqa: S301
        pairs = ((spec.gateway, spec.subnet), (spec.gateway6, spec.subnet6))
        gateways = tuple(
            ip_interface(f"{gateway}/{subnet.prefixlen}") for gateway, subnet in pairs if subnet
        )
        return NetworkInfo(name, name, bridge(name), gateways)

    def names(self) -> list[str]:
        """Return the names of all networks."""
        return sorted(path.stem for path in self.home.glob("*.conflist"))

    def remove(self, name: str) -> None:
        """Remove a conf and its bridge, which CNI leaves behind."""
        self.conf(name)
        with NetNS.own() as here, Netlink(here) as netlink:
            netlink.send([rtnetlink.del_link(bridge(name))], missing_ok=True)
        for path in (self._path(name), self.home / f"{name}.spec"):
            path.unlink()

    def _path(self, name: str) -> Path:
        return self.home / f"{name}.conflist"


def bridge(name: str) -> str:
    """Return the bridge name of a network: a hash, as link names have at most 15 characters."""
    if name == DEFAULT_NETWORK:
        return DEFAULT_BRIDGE
    return f"cni-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


TRIAL: Final = NetworkSpec(
    "cni-trial",
    subnet=IPv4Network("192.0.2.0/24"),
    gateway=IPv4Address("192.0.2.1"),
    subnet6=IPv6Network("2001:db8:74::/64"),
    gateway6=IPv6Address("2001:db8:74::1"),
)
"""The network of a trial run, with documentation addresses: RFC 5737 and RFC 3849."""


@dataclass(frozen=True, slots=True)
class CniBackend:
    """Network backend that calls CNI's plugins for each container.

    Plugins in the folder `prefix` come first.
    """

    prefix: str = ""

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages of the plugins and of the programs that they run."""
        return ("containernetworking-plugins", "iptables")

    def missing(self) -> list[str]:
        """Those of them that are not there."""
        return cni.missing(self.prefix)

    @property
    def _networks(self) -> CniNetworks:
        return CniNetworks(HOME / "networks")

    # --- networks

    def begin(self) -> None:
        """Have the default network, and try it out."""
        self._networks.ensure_default()
        self._try_out(DEFAULT_NETWORK)

    def repair(self) -> None:
        """Do nothing: CNI documents no repair, and rules come with ADD only."""

    def create(self, spec: NetworkSpec) -> NetworkInfo:
        """Write the conf and try it once, which creates the bridge."""
        facts = self._networks.create(spec)
        try:
            self._try_out(spec.name)
        except BaseException:
            self._networks.remove(spec.name)
            raise
        return facts

    def facts(self, name: str) -> NetworkInfo:
        """Return the facts about a network from its conf."""
        return self._networks.facts(name)

    def names(self) -> list[str]:
        """Return the names of all confs."""
        return self._networks.names()

    def remove(self, name: str) -> None:
        """Remove the conf and the bridge."""
        self._networks.remove(name)

    # --- containers

    def checked(self, spec: ContainerSpec) -> ContainerSpec:
        """Check the requested ports, addresses and MAC, which need a CNI network."""
        if isinstance(spec.mode, Bridge):
            _check_addresses(spec)
        else:
            given = {"publish": spec.ports, "mac": spec.mac, "ip": spec.ip or spec.ip6}
            for option in (name for name, value in given.items() if value):
                raise ProgramRefused(
                    f"{option}: there is no CNI network in mode {spec.mode} to ask for it"
                )
        return replace(spec, ports=tuple(_settled(port) for port in spec.ports))

    def wire(self, record: BareRecord) -> WiredNetns:
        """Call every plugin of every network with ADD."""
        with NetNS.new() as space:
            netns = bundle.hold_netns(store.bundle(record.spec.name), space.fd)
        attachments = list(store.attachments(record, self.prefix))
        cni.loopback(attachments[0])
        endpoints = tuple(
            cni.add(item, self._networks.conf(item.network), record.spec, first=not number)
            for number, item in enumerate(attachments)
        )
        return WiredNetns(endpoints, str(netns))

    def unwire(self, record: BareRecord) -> None:
        """Call the plugins with DEL, and release the netns."""
        for item in store.attachments(record, self.prefix):
            with contextlib.suppress(ProgramRefused):
                cni.delete(item, self._networks.conf(item.network), record.spec)
        bundle.release_netns(store.bundle(record.spec.name))

    # --- tries

    def _try_out(self, network: str) -> None:
        """Connect and disconnect a netns, which creates the bridge of the network.

        It also makes the firewall plugin's rules. Masquerade and ports are left out, which take
        most of the time: their rules are per container, or shared and made by `_try_ports`.
        """
        conf = self._networks.conf(network)
        bridge, _, walls = conf["plugins"]
        self._try({**conf, "plugins": [{**bridge, "ipMasq": False}, walls]})
        families = len(self._networks.facts(network).gateways)
        done = HOME / f"tried-{families}"
        if not done.exists():
            self._try_ports(dual=families > 1)
            done.touch()

    def _try_ports(self, *, dual: bool) -> None:
        """Make portmap create the chains that all ports share.

        A separate bridge is used, because the first port changes a bridge.
        """
        conf = cni.conf(TRIAL if dual else replace(TRIAL, subnet6=None), TRIAL.name, HOME)
        conf["plugins"] = [item for item in conf["plugins"] if item["type"] != "firewall"]
        try:
            self._try(conf, ContainerSpec("trial", ports=(Publish(1, 1),)))
        finally:
            with NetNS.own() as here, Netlink(here) as netlink:
                netlink.send([rtnetlink.del_link(TRIAL.name)], missing_ok=True)
            shutil.rmtree(HOME / TRIAL.name, ignore_errors=True)

    def _try(self, conf: Mapping[str, Any], spec: ContainerSpec | None = None) -> None:
        place = HOME / f"trial-{os.getpid()}"
        place.mkdir(parents=True)
        try:
            with NetNS.new() as space:
                path = bundle.hold_netns(place, space.fd)
            item = CniAttachment(conf["name"], place.name, "eth0", str(path), place, self.prefix)
            try:
                cni.add(item, conf, spec)
            finally:
                cni.delete(item, conf, spec)
        finally:
            bundle.unmount(place)
            shutil.rmtree(place, ignore_errors=True)


def _check_addresses(spec: ContainerSpec) -> None:
    for kind, wanted in ((IPv4Address, spec.ip), (IPv6Address, spec.ip6)):
        try:
            kind(str(wanted if wanted is not None else kind(0)))
        except ValueError as error:
            raise ProgramRefused(f"ip {wanted}: {error}") from None


def _settled(port: Publish) -> Publish:
    """Choose a free host port where none is given, because portmap needs a number."""
    if port.host_port:
        return port
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}.get(port.protocol)
    with socket.socket(socket.AF_INET, kind or socket.SOCK_STREAM) as probe:
        probe.bind((str(port.host_ip or ip_address(0)), 0))
        return replace(port, host_port=probe.getsockname()[1])
