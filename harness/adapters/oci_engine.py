"""What is done inside the host to run containers with a bare OCI runtime.

A runtime of this kind knows bundles and namespaces, and nothing of networks: a network
namespace is made first, wired by CNI plugins, and given to the runtime by its path. What
is needed to undo a container is on disk before it is done, so that whoever is killed in
between leaves nothing that the next `recover` does not find.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any, Final

from harness.adapters import bundle, cni
from harness.adapters import oci_records as records
from harness.adapters.cni import Attachment
from harness.adapters.oci_networks import Networks, Refused
from harness.adapters.oci_records import HOME, Broken, Record
from harness.adapters.protocol import Endpoint, Facts
from harness.model import (
    DEFAULT_NETWORK,
    Bridge,
    ContainerSpec,
    Host,
    Joined,
    NetworkSpec,
    Publish,
)
from linux import rtnl
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.syscalls import umount

_STOP: Final = 1.0
"""Seconds that a container has to end on SIGTERM."""
_BOUND: Final = 30.0
"""Seconds that a command of the runtime may take."""


TRIAL: Final = NetworkSpec(
    "cni-trial",
    subnet=IPv4Network("192.0.2.0/24"),
    gateway=IPv4Address("192.0.2.1"),
    subnet6=IPv6Network("2001:db8:74::/64"),
    gateway6=IPv6Address("2001:db8:74::1"),
)
"""A network that lasts for one try: RFC 5737 and RFC 3849."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Containers of one runtime. `command` is the program with its global options."""

    command: tuple[str, ...]
    path: str

    @property
    def networks(self) -> Networks:
        """The networks."""
        return Networks(HOME / "networks")

    # --- containers

    def run(self, spec: ContainerSpec, args: tuple[str, ...]) -> Facts:
        """Lay a bundle, wire a namespace, have the runtime start it; all or nothing."""
        _check(spec)
        for network in spec.networks if isinstance(spec.mode, Bridge) else ():
            self.networks.conf(network)
        home = records.bundle(spec.name)
        home.parent.mkdir(parents=True, exist_ok=True)
        try:
            home.mkdir()
        except FileExistsError:
            raise Refused(f"container {spec.name} is there already") from None
        record = Record(spec, args)
        try:
            records.save(record)
            bundle.lay(home, HOME / "image")
            record = self._start(record)
        except BaseException:
            self._clear(spec.name)
            raise
        return records.facts(record)

    def start(self, name: str) -> Facts:
        """Run a stopped container's bundle anew."""
        record = self._look(name)
        if record.alive:
            return records.facts(record)
        try:
            return records.facts(self._start(record))
        except BaseException:
            self._end(record)
            raise

    def _start(self, record: Record) -> Record:
        spec, home = record.spec, records.bundle(record.spec.name)
        record = replace(record, ports=tuple(_settled(port) for port in spec.ports))
        record = replace(record, spec=replace(spec, ports=record.ports))
        netns = self._netns(record.spec)
        if isinstance(spec.mode, Bridge):
            with NetNS.new() as space:
                netns = str(bundle.hold(home, space.fd))
            record = replace(record, attached=spec.networks)
            records.save(record)
            record = replace(record, endpoints=tuple(self._wired(record)))
        held = [
            str(address)
            for item in record.endpoints
            for address in (item.address, item.address6)
            if address is not None
        ]
        resolver = Path("/etc/resolv.conf").read_text(encoding="utf-8")
        bundle.write(home, spec, args=record.args, netns=netns, resolver=resolver)
        bundle.write_hosts(home, spec, held)
        pid_file = home / "pid"
        self._ask(
            *("run", "--detach", "--pid-file", str(pid_file), "--bundle", str(home), spec.name),
            log=home / "log",
        )
        pid = int(pid_file.read_text(encoding="ascii"))
        record = replace(record, complete=True, pid=pid, born=records.born(pid), spec=spec)
        records.save(record)
        return record

    def _wired(self, record: Record) -> Iterator[Endpoint]:
        """Put a container on its networks."""
        attachments = list(records.attachments(record))
        cni.loopback(attachments[0])
        for number, item in enumerate(attachments):
            network = self.networks.conf(item.network)
            yield cni.add(item, network, record.spec, first=not number)

    def _netns(self, spec: ContainerSpec) -> str | None:
        """The namespace that the runtime is to join: a path, `""` for a new one, `None`: none."""
        match spec.mode:
            case Host():
                return None
            case Joined(container=name):
                joined = self._look(name)
                if not joined.alive:
                    raise Refused(f"container {name} does not run: it has no network to join")
                own = os.readlink("/proc/self/ns/net")
                path = f"/proc/{joined.pid}/ns/net"
                return None if os.readlink(path) == own else path
            case _:
                return ""

    def inspect(self, name: str) -> Facts:
        """What is known; who has ended by himself is cleaned up after by whoever asks."""
        return records.facts(self._look(name))

    def stop(self, name: str) -> None:
        """SIGTERM, SIGKILL, and off the networks; stopping the stopped does nothing."""
        record = self._look(name)
        if record.alive:
            self._end(record)

    def remove(self, name: str) -> None:
        """Stop a container and forget it."""
        self._look(name)
        self._clear(name)

    def _look(self, name: str) -> Record:
        record = records.load(name)
        if record.pid and not record.alive:
            record = self._end(record)
        return record

    def _end(self, record: Record, *, grace: float = _STOP) -> Record:
        name = record.spec.name
        if record.alive:
            with contextlib.suppress(ProcessLookupError):
                records.finish(record.pid, grace)
        self._forget(name)
        asked = replace(record.spec, ports=record.ports)
        for item in records.attachments(record):
            with contextlib.suppress(Refused):
                cni.delete(item, self.networks.conf(item.network), asked)
        netns = records.bundle(name) / "netns"
        if netns.exists() and netns.is_mount():
            umount(str(netns))
        record = replace(record, pid=0, born="", endpoints=(), attached=(), ports=())
        records.save(record)
        return record

    def _clear(self, name: str) -> None:
        """Undo all that there may be of a container; its mounts go even where a plugin fails."""
        home = records.bundle(name)
        try:
            with contextlib.suppress(Refused, EOFError):
                self._end(records.load(name), grace=0.0)
        finally:
            bundle.lift(home)
            shutil.rmtree(home, ignore_errors=True)

    def _forget(self, name: str) -> None:
        """Have the runtime delete what it knows of a container, if it does."""
        self._command("delete", "--force", name)

    def exec_words(self, name: str) -> tuple[str, ...]:
        """The words before a command that is to run in a container."""
        if not self._look(name).alive:
            raise Refused(f"container {name} does not run")
        return (*self.command, "exec", name)

    # --- all of them

    def begin(self, archive: str) -> None:
        """Unpack the image, undo what was begun and not finished, have the default network."""
        bundle.unpack(archive, HOME / "image")
        for name in records.names():
            if not records.complete(name):
                self._clear(name)
        self.networks.ensure_default()
        self.try_out(DEFAULT_NETWORK)

    def try_out(self, network: str) -> None:
        """Put a namespace on a network and take it off: its bridge is there from then on."""
        self._try(self.networks.conf(network))
        families = len(self.networks.facts(network).gateways)
        done = HOME / f"tried-{families}"
        if not done.exists():
            self._try_ports(dual=families > 1)
            done.touch()

    def _try_ports(self, *, dual: bool) -> None:
        """Have portmap make the chains that all its ports have in common.

        On a bridge that is for this alone: whatever bridge has had a port is another one after.
        """
        conf = cni.conf(TRIAL if dual else replace(TRIAL, subnet6=None), TRIAL.name, HOME)
        conf["plugins"] = [item for item in conf["plugins"] if item["type"] != "firewall"]
        try:
            self._try(conf, ContainerSpec("trial", ports=(Publish(1, 1),)))
        finally:
            with NetNS.own() as here, Netlink(here) as netlink:
                netlink.send([rtnl.del_link(TRIAL.name)], missing_ok=True)
            shutil.rmtree(HOME / TRIAL.name, ignore_errors=True)

    def _try(self, conf: Mapping[str, Any], spec: ContainerSpec | None = None) -> None:
        place = HOME / f"trial-{os.getpid()}"
        place.mkdir(parents=True)
        try:
            with NetNS.new() as space:
                path = bundle.hold(place, space.fd)
            item = Attachment(conf["name"], place.name, "eth0", str(path), place)
            try:
                cni.add(item, conf, spec)
            finally:
                cni.delete(item, conf, spec)
        finally:
            bundle.lift(place)
            shutil.rmtree(place, ignore_errors=True)

    def remove_network(self, name: str) -> None:
        """Remove a network that nobody is on."""
        self.networks.conf(name)
        if name == DEFAULT_NETWORK:
            raise Refused(f"network {name} is the default one")
        for other in records.names():
            if name in self._look(other).attached:
                raise Refused(f"network {name} is in use by container {other}")
        self.networks.remove(name)

    def prune(self) -> None:
        """Remove every container and every network but the default one."""
        for name in records.names():
            self._clear(name)
        for network in self.networks.names():
            if network != DEFAULT_NETWORK:
                self.networks.remove(network)

    # --- the runtime

    def _command(self, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*self.command, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=self._environment(),
                timeout=_BOUND,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Broken(
                f"{' '.join((*self.command, *words))} did not end in {_BOUND:g} s"
            ) from None

    def _ask(self, *words: str, log: Path) -> None:
        """A command whose output outlives it: a detached container goes on writing there."""
        argv = (*self.command, *words)
        with log.open("wb") as file:
            try:
                done = subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    env=self._environment(),
                    timeout=_BOUND,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise Broken(f"{' '.join(argv)} did not end within {_BOUND:g} s") from None
        said = log.read_text(encoding="utf-8", errors="replace").strip()
        if done.returncode < 0 or (done.returncode and not said):
            raise Broken(f"{' '.join(argv)} exited with {done.returncode}; it said {said!r}")
        if done.returncode:
            raise Refused(said)

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "PATH": self.path}


# --- what a runtime of this kind cannot be asked ----------------------------------


def _check(spec: ContainerSpec) -> None:
    """Ports, addresses and MACs are CNI's affair: there is nobody to ask without a network."""
    if isinstance(spec.mode, Bridge):
        for kind, wanted in ((IPv4Address, spec.ip), (IPv6Address, spec.ip6)):
            try:
                kind(str(wanted if wanted is not None else kind(0)))
            except ValueError as error:
                raise Refused(f"ip {wanted}: {error}") from None
        return
    asked = {
        "publish": spec.ports,
        "mac": spec.mac,
        "ip": spec.ip or spec.ip6,
    }
    for option, given in asked.items():
        if given:
            raise Refused(f"{option}: there is no CNI network in mode {spec.mode} to ask for it")


def _settled(port: Publish) -> Publish:
    """A port that is left open is taken from those that are free: portmap wants a number."""
    if port.host_port:
        return port
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}.get(port.protocol)
    with socket.socket(socket.AF_INET, kind or socket.SOCK_STREAM) as probe:
        probe.bind((str(port.host_ip or ip_address(0)), 0))
        return replace(port, host_port=probe.getsockname()[1])
