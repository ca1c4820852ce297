"""Engine around a bare runtime: prepares roots, connects network namespaces and keeps records.

The engine runs inside the host. Before each step it writes to disk all that is needed to undo the
step. If a start is killed, the next `begin` therefore removes all its resources.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.adapters.bare import bundle, networks, store
from harness.adapters.bare.protocol import (
    BareRuntime,
    NetworkBackend,
    StartRequest,
    StopsContainers,
)
from harness.adapters.bare.store import HOME, BareRecord
from harness.adapters.protocol import ContainerInfo, Endpoint
from harness.adapters.support.program import ProgramRefused
from harness.model.plan import DEFAULT_NETWORK, Bridge, ContainerSpec, Host, Joined
from linux import rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.proc import process_born
from linux.readiness import await_ready

_STOP: Final = 1.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True)
class BareEngine:
    """Engine for the containers of one bare runtime and its network backend."""

    runtime: BareRuntime
    wiring: NetworkBackend

    # --- containers

    def run(self, spec: ContainerSpec, args: tuple[str, ...]) -> ContainerInfo:
        """Prepare the root, connect a netns and start the container, or undo everything."""
        self.wiring.checked(spec)
        for network in spec.networks if isinstance(spec.mode, Bridge) else ():
            self.wiring.facts(network)
        home = store.bundle(spec.name)
        home.parent.mkdir(parents=True, exist_ok=True)
        try:
            home.mkdir()
        except FileExistsError:
            raise ProgramRefused(f"container {spec.name} already exists") from None
        record = BareRecord(spec, args)
        try:
            store.save(record)
            bundle.mount_root(home, HOME / "image")
            record = self._start(record)
        except BaseException:
            self._clear(spec.name)
            raise
        return store.facts(record)

    def start(self, name: str) -> ContainerInfo:
        """Start a stopped container again on its old root file system."""
        record = self._look(name)
        if record.alive:
            return store.facts(record)
        try:
            return store.facts(self._start(record))
        except BaseException:
            self._end(record)
            raise

    def _start(self, record: BareRecord) -> BareRecord:
        spec, home = record.spec, store.bundle(record.spec.name)
        settled = self.wiring.checked(spec)
        record = replace(record, ports=settled.ports)
        netns = self._netns(spec)
        if isinstance(spec.mode, Bridge):
            record = replace(record, attached=spec.networks)
            store.save(record)
            wired = self.wiring.wire(replace(record, spec=settled))
            record, netns = replace(record, endpoints=wired.endpoints), wired.netns
        held = [
            str(address)
            for item in record.endpoints
            for address in (item.address, item.address6)
            if address is not None
        ]
        resolver = Path("/etc/resolv.conf").read_text(encoding="utf-8")
        bundle.write_files(home, spec, held, resolver)
        links = tuple(self.wiring.facts(item.network).interface for item in record.endpoints)
        pid = self.runtime.start(
            StartRequest(spec, record.args, home, netns, record.endpoints, links)
        )
        record = replace(record, is_complete=True, pid=pid, start_time=process_born(pid))
        if record.endpoints and not netns:
            record = replace(record, endpoints=_in_place(record))
        store.save(record)
        return record

    def _netns(self, spec: ContainerSpec) -> str | None:
        """Return the netns to join: a path, `""` for a new netns, `None` for the host's."""
        match spec.mode:
            case Host():
                return None
            case Joined(container=name):
                joined = self._look(name)
                if not joined.alive:
                    raise ProgramRefused(
                        f"container {name} is not running, so its network cannot be joined"
                    )
                own = os.readlink("/proc/self/ns/net")
                path = f"/proc/{joined.pid}/ns/net"
                return None if os.readlink(path) == own else path
            case _:
                return ""

    def inspect(self, name: str) -> ContainerInfo:
        """Return the facts about a container; disconnect it if it has ended by itself."""
        return store.facts(self._look(name))

    def stop(self, name: str) -> None:
        """Stop a container and disconnect it; do nothing if it is stopped already."""
        record = self._look(name)
        if record.alive:
            self._end(record)

    def remove(self, name: str) -> None:
        """Stop and remove a container."""
        self._look(name)
        self._clear(name)

    def _look(self, name: str) -> BareRecord:
        record = store.load(name)
        if record.pid and not record.alive:
            record = self._end(record)
        return record

    def _end(self, record: BareRecord, *, grace: float = _STOP) -> BareRecord:
        name = record.spec.name
        if record.alive:
            if isinstance(self.runtime, StopsContainers):
                self.runtime.end(name, record.pid, grace)
            else:
                store.end_process(record.pid, grace)
        self.runtime.forget(name, store.bundle(name))
        self.wiring.unwire(replace(record, spec=replace(record.spec, ports=record.ports)))
        record = replace(record, pid=0, start_time=0, endpoints=(), attached=(), ports=())
        store.save(record)
        return record

    def _clear(self, name: str) -> None:
        """Remove all resources of a container; unmount its file systems even if a plugin fails."""
        home = store.bundle(name)
        try:
            with contextlib.suppress(ProgramRefused, EOFError):
                self._end(store.load(name), grace=0.0)
        finally:
            bundle.unmount(home)
            shutil.rmtree(home, ignore_errors=True)

    def exec_words(self, name: str) -> tuple[str, ...]:
        """Return the command prefix that runs a command in a container."""
        record = self._look(name)
        if not record.alive:
            raise ProgramRefused(f"container {name} is not running")
        return tuple(self.runtime.exec_words(name, record.pid))

    # --- all of them

    def begin(self, archive: str) -> None:
        """Unpack the image, remove unfinished containers and create the default network."""
        bundle.unpack(archive, HOME / "image")
        for name in store.names():
            if not store.is_complete(name):
                self._clear(name)
        self.wiring.begin()

    def remove_network(self, name: str) -> None:
        """Remove a network without containers."""
        self.wiring.facts(name)
        if name == DEFAULT_NETWORK:
            raise ProgramRefused(f"network {name} is the default network")
        for other in store.names():
            if name in self._look(other).attached:
                raise ProgramRefused(f"network {name} is in use by container {other}")
        self.wiring.remove(name)

    def prune(self) -> None:
        """Remove every container and every network but the default one."""
        for name in store.names():
            self._clear(name)
        for network in networks.names():
            if network != DEFAULT_NETWORK:
                self.wiring.remove(network)


def _in_place(record: BareRecord) -> tuple[Endpoint, ...]:
    """Return the endpoints that the runtime itself has configured, once they are usable."""
    path = f"/proc/{record.pid}/ns/net"
    with NetNS.own() as here, NetNS.at(path) as space, Netlink(space) as netlink:
        await_ready([space, here])
        return tuple(
            replace(item, mac=rtnetlink_dump.link(netlink, f"eth{number}").mac)
            for number, item in enumerate(record.endpoints)
        )
