"""Network backend of bare runtimes that calls the CNI plugins for each container.

CNI does not remove a bridge with the last container, so this module does, as an engine would. All
of the module runs inside the host.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from harness.adapters.bare import bundle, cni, networks, store
from harness.adapters.bare.cni import CniAttachment
from harness.adapters.bare.protocol import WiredNetns
from harness.adapters.bare.store import HOME, BareRecord
from harness.adapters.protocol import NetworkInfo
from harness.adapters.support.program import ProgramRefused
from harness.model.plan import DEFAULT_NETWORK, Bridge, ContainerSpec, NetworkSpec, Publish
from linux import rtnetlink
from linux.netlink import Netlink
from linux.netns import NetNS

DEFAULT: Final = NetworkSpec(
    DEFAULT_NETWORK, subnet=IPv4Network("10.85.0.0/16"), gateway=IPv4Address("10.85.0.1")
)
"""The default network, with the values of CNI's and CRI-O's examples."""


TRIAL: Final = NetworkSpec(
    "cni-trial",
    subnet=IPv4Network("192.0.2.0/24"),
    gateway=IPv4Address("192.0.2.1"),
    subnet6=IPv6Network("2001:db8:74::/64"),
    gateway6=IPv6Address("2001:db8:74::1"),
)
"""The network of the trial netns, with documentation addresses: RFC 5737 and RFC 3849."""


@dataclass(frozen=True, slots=True)
class CniBackend:
    """Network backend of CNI's plugins; plugins in the folder `prefix` take precedence."""

    prefix: str = ""

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages with the plugins, and with the programs that the plugins run."""
        return ("containernetworking-plugins", "iptables")

    def missing(self) -> list[str]:
        """Return the missing plugins, and the missing programs that the plugins run."""
        return cni.missing(self.prefix)

    # --- networks

    def begin(self) -> None:
        """Create the default network unless it exists, and test it by connecting a trial netns."""
        if DEFAULT_NETWORK not in networks.names():
            networks.save(DEFAULT)
        self._try_out(DEFAULT_NETWORK)

    def repair(self) -> None:
        """Do nothing: CNI documents no repair, and only ADD creates rules."""

    def create(self, spec: NetworkSpec) -> NetworkInfo:
        """Choose subnets, and test the network with a trial netns, which creates the bridge."""
        networks.save(networks.completed(spec, "no CNI plugin supports"))
        try:
            self._try_out(spec.name)
        except BaseException:
            self.remove(spec.name)
            raise
        return self.facts(spec.name)

    def facts(self, name: str) -> NetworkInfo:
        """Return the facts about a network."""
        return networks.facts(networks.load(name), _bridge(name))

    def remove(self, name: str) -> None:
        """Remove a network and its bridge, which CNI leaves behind."""
        networks.load(name)
        _remove_link(_bridge(name))
        networks.forget(name)

    # --- containers

    def checked(self, spec: ContainerSpec) -> ContainerSpec:
        """Return the spec if it can be fulfilled: ports, addresses and a MAC need a CNI network."""
        if isinstance(spec.mode, Bridge):
            _check_addresses(spec)
        else:
            given = {"publish": spec.ports, "mac": spec.mac, "ip": spec.ip or spec.ip6}
            for option in (name for name, value in given.items() if value):
                raise ProgramRefused(f"{option}: mode {spec.mode} has no CNI network")
        return replace(spec, ports=tuple(_settled(port) for port in spec.ports))

    def wire(self, record: BareRecord) -> WiredNetns:
        """Connect a container: call every plugin of every network with ADD."""
        with NetNS.new() as space:
            netns = bundle.hold_netns(store.bundle(record.spec.name), space.fd)
        attachments = list(store.attachments(record, self.prefix))
        cni.loopback(attachments[0])
        endpoints = tuple(
            cni.add(item, _conf(item.network), record.spec, first=not number)
            for number, item in enumerate(attachments)
        )
        return WiredNetns(endpoints, str(netns))

    def unwire(self, record: BareRecord) -> None:
        """Disconnect a container: call the plugins with DEL, and release the netns."""
        for item in store.attachments(record, self.prefix):
            with contextlib.suppress(ProgramRefused):
                cni.delete(item, _conf(item.network), record.spec)
        bundle.unmount(store.bundle(record.spec.name), "netns")

    # --- tries

    def _try_out(self, network: str) -> None:
        """Connect and disconnect a trial netns, which creates the bridge of the network.

        The firewall plugin creates its rules too. Masquerade and ports are left out, because they
        take most of the time. Their rules belong to one container, or `_try_ports` creates them.
        """
        conf = _conf(network)
        bridge, _, walls = conf["plugins"]
        self._try({**conf, "plugins": [{**bridge, "ipMasq": False}, walls]})
        families = len(networks.gateways(networks.load(network)))
        done = HOME / f"tried-{families}"
        if not done.exists():
            self._try_ports(dual=families > 1)
            done.touch()

    def _try_ports(self, *, dual: bool) -> None:
        """Make portmap create the chains that all published ports share.

        The trial uses a separate bridge, because the first published port changes settings of its
        bridge.
        """
        conf = cni.conf(TRIAL if dual else replace(TRIAL, subnet6=None), TRIAL.name, HOME)
        conf["plugins"] = [item for item in conf["plugins"] if item["type"] != "firewall"]
        try:
            self._try(conf, ContainerSpec("trial", ports=(Publish(1, 1),)))
        finally:
            _remove_link(TRIAL.name)
            shutil.rmtree(HOME / TRIAL.name, ignore_errors=True)

    def _try(self, conf: Mapping[str, Any], spec: ContainerSpec | None = None) -> None:
        home = HOME / f"trial-{os.getpid()}"
        home.mkdir(parents=True)
        try:
            with NetNS.new() as space:
                path = bundle.hold_netns(home, space.fd)
            item = CniAttachment(conf["name"], home.name, "eth0", str(path), home, self.prefix)
            try:
                cni.add(item, conf, spec)
            finally:
                cni.delete(item, conf, spec)
        finally:
            bundle.unmount(home)
            shutil.rmtree(home, ignore_errors=True)


def _bridge(network: str) -> str:
    return "cni0" if network == DEFAULT_NETWORK else networks.bridge_name("cni", network)


def _conf(network: str) -> dict[str, Any]:
    return cni.conf(networks.load(network), _bridge(network), networks.ADDRESSES)


def _remove_link(name: str) -> None:
    with NetNS.own() as here, Netlink(here) as netlink:
        netlink.send([rtnetlink.del_link(name)], missing_ok=True)


def _check_addresses(spec: ContainerSpec) -> None:
    for kind, wanted in ((IPv4Address, spec.ip), (IPv6Address, spec.ip6)):
        try:
            kind(str(wanted if wanted is not None else kind(0)))
        except ValueError as error:
            raise ProgramRefused(f"ip {wanted}: {error}") from None


def _settled(port: Publish) -> Publish:
    """Return a published port with a free host port if it has none: portmap needs a number."""
    if port.host_port:
        return port
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}.get(port.protocol)
    with socket.socket(socket.AF_INET, kind or socket.SOCK_STREAM) as probe:
        probe.bind((str(port.host_ip or ip_address(0)), 0))
        return replace(port, host_port=probe.getsockname()[1])
