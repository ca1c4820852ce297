"""A container of a scene: the runtime's report on it, and its state as seen from inside."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from harness.adapters.protocol import ContainerInfo, Endpoint, RuntimeRefused
from harness.model.plan import DEFAULT_NETWORK
from harness.probe import remote
from harness.probe.remote import AgentClient, AgentLost, AgentNetNS, by_kernel
from harness.testbench.netns_view import NetnsView
from harness.world import process
from harness.world.host import HostMachine
from harness.world.process import CompletedCommand
from linux.netns import NetNS
from linux.proc import ProcessStat
from linux.syscalls import MS_BIND, mount, umount

if TYPE_CHECKING:
    from harness.testbench.scene import Scene


class Container:
    """A container of a scene, the networks and containers of a test."""

    def __init__(self, scene: Scene, name: str, facts: ContainerInfo) -> None:
        self._scene = scene
        self.name = name
        self.started = facts
        """The runtime's report on the container when it started."""
        own_stack = scene.runtime.dialect.own_stack
        self.net = NetnsView(name, self.inside if own_stack else self._open)
        """View of the container's network namespace, or of its user-space network stack."""
        self.own_stack = own_stack
        """True if the container has a user-space network stack, and so a separate kernel."""
        self._agent: AgentClient | None = None
        self._agents_pid = 0
        self._pid_1: tuple[int, int] | None = None
        """Host pid and start time of the container's pid 1, when its netns was last opened."""
        with contextlib.suppress(OSError):  # the process has ended
            self._pid_1 = facts.pid, self._start_time(facts.pid)

    def facts(self) -> ContainerInfo:
        """Return the runtime's current report on the container."""
        return self._scene.runtime.inspect(self.name)

    def _open(self) -> NetNS:
        # Query the runtime only when the process that it named has ended: a suite opens a
        # namespace many times, and a query takes time.
        if self._pid_1 is not None:
            pid, start_time = self._pid_1
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                space = stack.enter_context(self._scene.world.host.netns_of(pid))
                if self._start_time(pid) == start_time:  # so the pid has not been reused
                    stack.pop_all()
                    return space
        facts = self.facts()
        if not facts.running:
            raise ProcessLookupError(
                f"container {self.name} is not running, so it has no namespace"
            )
        space = self._scene.world.host.netns_of(facts.pid)
        with contextlib.suppress(OSError):
            self._pid_1 = facts.pid, self._start_time(facts.pid)
        return space

    # --- the agent inside

    def inside(self) -> AgentNetNS:
        """Return a handle on the container's netns whose sockets the agent inside opens.

        The caller closes the handle; the agent keeps running. Raises `AgentLost` if the agent
        cannot be started.
        """
        space = self._open()
        try:
            return AgentNetNS(os.dup(space.fd), self.agent(), own_stack=self.own_stack)
        finally:
            space.close()

    def agent(self) -> AgentClient:
        """Return the container's agent; start it if none runs or the container was restarted."""
        pid = self._pid_1[0] if self._pid_1 else self.facts().pid
        if self._agent is not None and (self._agent.gone or self._agents_pid != pid):
            self.hang_up()
        if self._agent is None:
            host = self._scene.world.host
            log = f"/run/netmodes/agent-{self.name}.log"
            command = self._scene.runtime.exec_command(self.name, remote.COMMAND)
            started, reading, writing = host.talk(command.argv, log=log, env=command.env)
            self._agent = AgentClient(
                self.name,
                reading,
                writing,
                log=Path(f"/proc/{host.pid}/root{log}"),
                kill=partial(host.call, process.kill, started),
            )
            self._agents_pid = pid
        return self._agent

    def prepare(self) -> None:
        """Start the container's agent, if possible; a failure is reported at its first use."""
        with contextlib.suppress(RuntimeRefused, ProcessLookupError):
            self._open().close()
            self.agent()

    def await_agent(self) -> None:
        """Wait until the container's agent, if one was started, has reported its netns.

        Raises `AgentLost` if the agent does not reply. An agent that has ended is reported at its
        next use.
        """
        if self._agent is not None:
            try:
                _ = self._agent.netns
            except AgentLost:
                if not self._agent.gone:
                    raise

    def dismiss(self) -> None:
        """Ask the container's agent to end, without waiting for it; `hang_up` waits."""
        if self._agent is not None:
            self._agent.dismiss()

    def hang_up(self) -> None:
        """End the container's agent."""
        if self._agent is not None:
            self._agent.close()
            self._agent = None

    def _proc(self, pid: int) -> str:
        return f"{self._scene.world.host.proc}/{pid}"

    def _start_time(self, pid: int) -> int:
        return ProcessStat.of(self._proc(pid)).born

    def endpoint(self, network: str = DEFAULT_NETWORK) -> Endpoint:
        """Return the container's endpoint on a network, as the runtime reports it.

        Raises `KeyError` if the container is not on the network.
        """
        for endpoint in self.facts().endpoints:
            if endpoint.network == network:
                return endpoint
        raise KeyError(f"container {self.name} is not on network {network}")

    def exec(self, *argv: str, timeout: float = 30) -> CompletedCommand:
        """Run a command inside the container through the runtime's exec."""
        return self._scene.runtime.exec(self.name, argv, timeout=timeout)

    def read(self, path: str) -> str:
        """Return the text of a file as a process inside sees it; `path` is absolute."""
        if self.own_stack:
            content: bytes = self.agent().do(["load", path])[0]
            return content.decode(errors="replace")
        with open(f"{self._proc(self.facts().pid)}/root{path}", "rb") as file:
            return file.read().decode(errors="replace")

    def mode(self, path: str) -> int:
        """Return type and permissions of a file, as a process inside sees them: inode(7)."""
        if self.own_stack:
            mode: int = self.agent().do(["mode", path])[0]
            return mode
        return os.stat(f"{self._proc(self.facts().pid)}/root{path}").st_mode

    def namespace(self, kind: str) -> tuple[int, int]:
        """Return device and inode of one of the container's namespaces: pid, mnt, uts, ipc, cgroup.

        Raises `UserspaceStack` if the container has its own kernel.
        """
        with self.net.open() as space:
            by_kernel(space)
        status = os.stat(f"{self._proc(self.facts().pid)}/ns/{kind}")
        return status.st_dev, status.st_ino

    def attach(self, network: str = DEFAULT_NETWORK) -> None:
        """Attach the container by hand to a network: create an `eth0` with addresses and routes.

        The container must be in mode none.
        """
        self._scene.attach(self.name, network)

    def stop(self) -> None:
        """Stop the container, which stays in the plan and can be restarted.

        Its agent ends first: podman may refuse to clean up after a container that has an exec
        session.
        """
        self.hang_up()
        self._scene.runtime.stop_container(self.name)

    def start(self) -> None:
        """Start the stopped container again; it comes back without its manual attachment."""
        self._scene.start(self.name)

    def remove(self) -> None:
        """Remove the container, also from the plan."""
        self._scene.remove(self.name)


NAMES: Final = "/run/netns"
"""Folder of named network namespaces: ip-netns(8)."""


class ContainerSnapshot(NamedTuple):
    """Network namespace (its inode) and interfaces, as a process inside a container sees them."""

    netns: int
    interfaces: frozenset[str]


def view(container: Container) -> ContainerSnapshot:
    """Return the network namespace and interfaces that processes inside a container see.

    The runtime starts these processes. If they fail, raises `AssertionError` with their output.
    Raises `UserspaceStack` for a container with its own kernel.
    """
    with container.net.open() as space:
        by_kernel(space)
    link = _output(container, "readlink", "/proc/self/ns/net")  # net:[4026531840]
    table = _output(container, "cat", "/proc/net/dev")  # two lines of heading, then "  eth0: …"
    names = frozenset(line.partition(":")[0].strip() for line in table.splitlines()[2:])
    return ContainerSnapshot(int(link.strip().removeprefix("net:[").removesuffix("]")), names)


def _output(container: Container, *argv: str) -> str:
    done = container.exec(*argv)
    assert done.returncode == 0, f"{' '.join(argv)} in {container.name}: {done}"
    return done.stdout


@contextlib.contextmanager
def named(host: HostMachine, container: Container) -> Iterator[NetnsView]:
    """Name a container's network namespace in the host while the body runs, as `ip netns attach`.

    The namespace is that of the pid that the runtime reports. The yielded view opens it by its
    name.
    """
    path = f"{NAMES}/{container.name}"
    host.call(_bind_name, container.facts().pid, path)
    try:
        yield NetnsView(container.name, lambda: NetNS.at(f"/proc/{host.pid}/root{path}"))
    finally:
        host.call(_remove_name, path)


def _bind_name(pid: int, path: str) -> None:
    os.makedirs(NAMES, exist_ok=True)
    with open(path, "xb"):
        mount(f"/proc/{pid}/ns/net", path, flags=MS_BIND)


def _remove_name(path: str) -> None:
    umount(path)
    os.unlink(path)
