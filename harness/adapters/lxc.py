"""lxc by its own command line, on the bridge that its own `lxc-net` makes.

https://linuxcontainers.org/lxc/manpages/man5/lxc.container.conf.5.html. lxc makes the veth
pair itself, plugs it, and gives it the addresses that a container's configuration names:
which those are is left to whoever writes it, here to this adapter. There is one bridge,
lxcbr0, so that no network can be made. Its IPv6 is off here, because what lxc-net has for it
are router advertisements, beside any address that was asked for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Final

from harness.adapters import furnish, records
from harness.adapters.bare import Order, Wired
from harness.adapters.bare_adapter import BareFactory
from harness.adapters.bundle import FILES
from harness.adapters.program import Broken, Program, Refused
from harness.adapters.protocol import Endpoint, Feature, NetworkFacts
from harness.adapters.records import Record
from harness.model import DEFAULT_NETWORK, Bridge, ContainerSpec, Joined, NetworkSpec
from linux.syscalls import mount

_HOME: Final = "/run/netmodes/lxc"
_BRIDGE: Final = "lxcbr0"
_GATEWAY: Final = IPv4Interface("10.0.3.1/24")
"""What lxc-net has where nobody says otherwise."""
_NET: Final = next(
    (path for path in ("/usr/libexec/lxc/lxc-net", "/usr/lib/lxc/lxc-net") if os.path.exists(path)),
    "lxc-net",
)
_SETTINGS: Final = 'LXC_IPV6_ENABLE="false"\n'
_UP: Final = "/run/lxc/network_up"
_LEASES: Final = "/var/lib/misc"
_ENDED: Final = "10"
"""Seconds that lxc may take to clean up after a container."""
_DROPPED: Final = "mac_admin mac_override sys_time sys_module sys_rawio"
"""What lxc's own common.conf has dropped."""


@dataclass(frozen=True, slots=True)
class Lxc:
    """Drives the lxc-* programs, each of which knows containers by name."""

    program: Program

    def start(self, order: Order) -> int:
        """A configuration file, and `lxc-start`, which returns once the container runs."""
        conf = Path(_HOME, order.name, "config")
        conf.parent.mkdir(parents=True, exist_ok=True)
        conf.write_text("".join(f"{line}\n" for line in _configuration(order)), encoding="utf-8")
        words = ("-P", _HOME, "-n", order.name)
        log = ("-o", str(order.home / "lxc.log"), "-l", "ERROR")
        try:
            self.program.ask(*words, *log, "--", *order.args, log=order.log)
        except (Refused, Broken):
            said = (order.home / "lxc.log").read_text(encoding="utf-8", errors="replace").strip()
            raise Refused(said or order.log.read_text(encoding="utf-8", errors="replace")) from None
        return int(self._other("lxc-info").run(*words, "-p", "-H").stdout)

    def forget(self, name: str, home: Path) -> None:  # noqa: ARG002 # it keeps its own records
        """`lxc-stop --kill`, and wait until lxc has cleaned up; it keeps nothing but a file."""
        self._other("lxc-stop").run("-P", _HOME, "-n", name, "-k")
        self._other("lxc-wait").run("-P", _HOME, "-n", name, "-s", "STOPPED", "-t", _ENDED)
        shutil.rmtree(f"{_HOME}/{name}", ignore_errors=True)

    def exec_words(self, name: str, pid: int) -> tuple[str, ...]:  # noqa: ARG002 # by name
        """`lxc-attach`."""
        return ("lxc-attach", "-P", _HOME, "-n", name, "--")

    def _other(self, name: str) -> Program:
        return Program((name,), self.program.path)


def _configuration(order: Order) -> Iterator[str]:
    yield f"lxc.uts.name = {order.hostname}"
    yield f"lxc.rootfs.path = dir:{order.root}"
    yield "lxc.mount.auto = proc:mixed sys:mixed"
    for name in FILES:
        yield f"lxc.mount.entry = {order.home / name} etc/{name} none bind,create=file 0 0"
    yield "lxc.tty.max = 0"
    yield f"lxc.cap.drop = {_DROPPED}"
    yield "lxc.apparmor.profile = unchanged"
    for key, value in order.spec.sysctls:
        yield f"lxc.sysctl.{key} = {value}"
    yield from _network(order)


def _network(order: Order) -> Iterator[str]:
    mode = order.spec.mode
    if order.netns is None:
        yield "lxc.net.0.type = none"
    elif isinstance(mode, Joined):
        yield f"lxc.namespace.share.net = {mode.container}"
    elif not order.endpoints:
        yield "lxc.net.0.type = empty"
    for endpoint in order.endpoints:
        yield "lxc.net.0.type = veth"
        yield f"lxc.net.0.link = {_BRIDGE}"
        yield "lxc.net.0.flags = up"
        yield "lxc.net.0.name = eth0"
        yield f"lxc.net.0.ipv4.address = {endpoint.address}"
        yield f"lxc.net.0.ipv4.gateway = {endpoint.gateway}"
        if order.spec.mac:
            yield f"lxc.net.0.hwaddr = {order.spec.mac}"


@dataclass(frozen=True, slots=True)
class LxcNet:
    """lxcbr0, and who has which of its addresses."""

    program: Program = field(default_factory=lambda: Program((_NET,), furnish.search_path()))

    def begin(self) -> None:
        """`lxc-net start`, with dnsmasq, which wants a place for leases."""
        if os.path.exists(_UP):
            return
        mount("tmpfs", _LEASES, "tmpfs", 0, "mode=755")
        with contextlib.suppress(FileNotFoundError):
            os.unlink("/etc/default")  # a link to the machine's own
        Path("/etc/default").mkdir()
        Path("/etc/default/lxc").write_text(_SETTINGS, encoding="ascii")
        log = Path("/run/netmodes/lxc-net.log")
        try:
            self.program.ask("start", log=log)
        except Refused as error:
            raise Broken(f"{_NET} start: {error}") from error

    def create(self, spec: NetworkSpec) -> NetworkFacts:
        """Not claimed."""
        raise Refused(f"there is no network but {_BRIDGE}, and none can be made: {spec.name}")

    def facts(self, name: str) -> NetworkFacts:
        """That of the one there is."""
        if name != DEFAULT_NETWORK:
            raise Refused(f"there is no network {name}")
        return NetworkFacts(name, _BRIDGE, _BRIDGE, (_GATEWAY,))

    def names(self) -> list[str]:
        """The one there is."""
        return [DEFAULT_NETWORK]

    def remove(self, name: str) -> None:
        """Not claimed."""
        raise Refused(f"network {name} cannot be removed")

    def asked(self, spec: ContainerSpec) -> ContainerSpec:
        """Addresses and MACs are those of a veth of its own; ports are nobody's."""
        bridged = isinstance(spec.mode, Bridge)
        given: dict[str, object] = {"publish": spec.ports, "ip6": spec.ip6}
        if not bridged:
            given |= {"mac": spec.mac, "ip": spec.ip}
        for option in (name for name, value in given.items() if value):
            raise Refused(f"{option}: there is no such option for mode {spec.mode}")
        if spec.ip is not None:
            _usable(str(spec.ip))
        return spec

    def wire(self, record: Record) -> Wired:
        """Settle its address: the one that is asked for, or the next that nobody has.

        Not the last one that was freed: its neighbours know it by another MAC for a while,
        which is why DHCP servers give it again to the same client only.
        """
        taken = {
            item.address.ip
            for name in records.names()
            if name != record.spec.name
            for item in records.load(name).endpoints
            if item.address is not None
        }
        address = _usable(str(record.spec.ip)) if record.spec.ip else _next(taken)
        if address is None or address in taken:
            raise Refused(f"ip {address}: taken" if address else "no address is free")
        own = IPv4Interface(f"{address}/{_GATEWAY.network.prefixlen}")
        return Wired((Endpoint(DEFAULT_NETWORK, own, str(_GATEWAY.ip), mac=record.spec.mac),))

    def unwire(self, record: Record) -> None:
        """The veth goes with its namespace, the address with the record's endpoints."""


def _next(taken: Set[IPv4Address]) -> IPv4Address | None:
    """The free address that comes after the one that was given last, in a ring."""
    last = Path(_HOME, "last")
    start = IPv4Address(last.read_text(encoding="ascii")) if last.exists() else _GATEWAY.ip
    hosts = [item for item in _GATEWAY.network.hosts() if item != _GATEWAY.ip]
    ring = sorted(hosts, key=lambda item: (item <= start, item))
    found = next((item for item in ring if item not in taken), None)
    if found is not None:
        last.parent.mkdir(parents=True, exist_ok=True)
        last.write_text(str(found), encoding="ascii")
    return found


def _usable(asked: str) -> IPv4Address:
    try:
        found = IPv4Address(asked)
    except ValueError as error:
        raise Refused(f"ip {asked}: {error}") from None
    if found not in set(_GATEWAY.network.hosts()) - {_GATEWAY.ip}:
        raise Refused(f"ip {asked} is no address for a container on {_GATEWAY.network}")
    return found


FACTORY: Final = BareFactory(
    name="lxc",
    command=("lxc-start",),
    make=Lxc,
    packages=("lxc", "dnsmasq-base", "nftables"),
    programs=("lxc-attach", "lxc-info", "lxc-stop", "lxc-wait", _NET, "dnsmasq", "nft"),
    features=frozenset(
        {
            *(Feature.BRIDGE, Feature.HOST, Feature.NONE, Feature.CONTAINER),
            *(Feature.RESTART, Feature.SYSCTL),
        }
    ),
    wiring=LxcNet(),
    upon="lxc-net",
)
