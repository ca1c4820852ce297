"""A container of a scene: the runtime's report, and the state inside."""

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
    """A container of the scene."""

    def __init__(self, scene: Scene, name: str, facts: ContainerInfo) -> None:
        self._scene = scene
        self.name = name
        self.started = facts
        """Report of the runtime at the start."""
        own_stack = scene.runtime.dialect.own_stack
        self.net = NetnsView(name, self.inside if own_stack else self._open)
        """View of its network namespace, or of its user-space network stack."""
        self.own_stack = own_stack
        """True if it has a user-space network stack, and so a separate kernel."""
        self._agent: AgentClient | None = None
        self._agents_pid = 0
        self._pid_1: tuple[int, int] | None = None
        """Pid 1 when the container was created or its namespace last opened, and its start time."""
        with contextlib.suppress(OSError):  # the process has ended
            self._pid_1 = facts.pid, self._start_time(facts.pid)

    def facts(self) -> ContainerInfo:
        """Return what the runtime reports now."""
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
        """Return its network namespace, opened through the agent inside, which opens the sockets.

        The caller closes the namespace; the agent keeps running. Raises `AgentLost` when the
        agent cannot be started.
        """
        space = self._open()
        try:
            return AgentNetNS(os.dup(space.fd), self.agent(), own_stack=self.own_stack)
        finally:
            space.close()

    def agent(self) -> AgentClient:
        """Return its agent; start it if it is not running or the container was restarted."""
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
        """Start its agent, if possible. A failure is reported when the agent is needed."""
        with contextlib.suppress(RuntimeRefused, ProcessLookupError):
            self._open().close()
            self.agent()

    def await_agent(self) -> None:
        """Wait until the started agent, if any, has introduced itself.

        Raises `AgentLost` when the agent hangs. The end of an agent is reported when it is
        needed.
        """
        if self._agent is not None:
            try:
                _ = self._agent.netns
            except AgentLost:
                if not self._agent.gone:
                    raise

    def dismiss(self) -> None:
        """Ask its agent to end, without waiting for it; `hang_up` waits."""
        if self._agent is not None:
            self._agent.dismiss()

    def hang_up(self) -> None:
        """End its agent."""
        if self._agent is not None:
            self._agent.close()
            self._agent = None

    def _proc(self, pid: int) -> str:
        return f"{self._scene.world.host.proc}/{pid}"

    def _start_time(self, pid: int) -> int:
        return ProcessStat.of(self._proc(pid)).born

    def endpoint(self, network: str = DEFAULT_NETWORK) -> Endpoint:
        """Return its endpoint on a network, as reported; `KeyError` when it is not on it."""
        for endpoint in self.facts().endpoints:
            if endpoint.network == network:
                return endpoint
        raise KeyError(f"container {self.name} is not on network {network}")

    def exec(self, *argv: str, timeout: float = 30) -> CompletedCommand:
        """Run a command inside, through the runtime."""
        return self._scene.runtime.exec(self.name, argv, timeout=timeout)

    def read(self, path: str) -> str:
        """Return the text of a file as a process inside sees it; `path` is absolute."""
        if self.own_stack:
            content: bytes = self.agent().do(["load", path])[0]
            return content.decode(errors="replace")
        with open(f"{self._proc(self.facts().pid)}/root{path}", "rb") as file:
            return file.read().decode(errors="replace")

    def mode(self, path: str) -> int:
        """Return type and permissions of a file as a process inside sees it: inode(7)."""
        if self.own_stack:
            mode: int = self.agent().do(["mode", path])[0]
            return mode
        return os.stat(f"{self._proc(self.facts().pid)}/root{path}").st_mode

    def namespace(self, kind: str) -> tuple[int, int]:
        """Return device and inode of another of its namespaces: pid, mnt, uts, ipc, cgroup.

        `UserspaceStack` where they are not the kernel's.
        """
        with self.net.open() as space:
            by_kernel(space)
        status = os.stat(f"{self._proc(self.facts().pid)}/ns/{kind}")
        return status.st_dev, status.st_ino

    def attach(self, network: str = DEFAULT_NETWORK) -> None:
        """Attach it manually as `eth0` with addresses and routes; mode none only."""
        self._scene.attach(self.name, network)

    def stop(self) -> None:
        """Stop it; the container stays in the plan and can be restarted.

        The agent ends first: podman may refuse to clean up after a container with an exec
        session.
        """
        self.hang_up()
        self._scene.runtime.stop_container(self.name)

    def start(self) -> None:
        """Start it again; a manual attachment is gone."""
        self._scene.start(self.name)

    def remove(self) -> None:
        """Remove it, from the plan too."""
        self._scene.remove(self.name)


NAMES: Final = "/run/netns"
"""Folder of named network namespaces: ip-netns(8)."""


class ContainerSnapshot(NamedTuple):
    """Network namespace (inode) and interfaces that a process inside sees."""

    netns: int
    interfaces: frozenset[str]


def view(container: Container) -> ContainerSnapshot:
    """Start processes inside through the runtime; return namespace and interfaces they see.

    Raises `AssertionError` with their output when they fail, and `UserspaceStack` where another
    kernel has the namespace.
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

    The namespace is that of the reported pid. The view enters it by the name.
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
