"""Start and end of a container, on the caller's side.

During a start, the caller and the child process run in parallel. The child builds the file system
while the caller sets up the network. The child waits for `GO` before it runs the command.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

from linux.netns import NetNS
from linux.proc import ended_within, process_born
from runtime.errors import UnsupportedError
from runtime.init import init, seccomp, status_pipe, terminal
from runtime.init.fork_server import Spawn, fork_here
from runtime.init.init import InitSpec
from runtime.init.process import Command, Stdio
from runtime.init.rootfs import Bind, Rootfs
from runtime.init.security import capabilities
from runtime.init.status_pipe import InitReport
from runtime.init.supervise import UNWRITTEN
from runtime.network import etc_files
from runtime.records import ContainerRecord, Publication

if TYPE_CHECKING:  # most starts do not need these imports
    from runtime.container.networking import ConnectedContainer, ContainerNetworking

_CHILD = "runtime.init.init:child"
_END_BOUND = 30_000
"""Bound on the end of a killed container, in milliseconds."""


class StartedContainer(NamedTuple):
    """Results of a start: master of the terminal or -1, published ports, owner of the nft rules.

    `rules` is the descriptor of the nft socket that owns the rules. It and the descriptors of
    `ports` are numbers in pid 1.
    """

    console: int = -1
    ports: tuple[Publication, ...] = ()
    rules: int = -1


def start(
    found: ContainerRecord,
    directory: str,
    layers: tuple[str, ...],
    networking: ContainerNetworking,
    netns: NetNS | None,
    *,
    stdio: Stdio | None,
    lost: int = -1,
    on_pid: Callable[[int, int, ConnectedContainer], None],
    binds: Sequence[Bind] = (),
    spawn: Spawn = fork_here,
) -> StartedContainer:
    """Start the container and return once its command is being executed.

    `netns` is its network namespace (`None`: the host's), which `networking` sets up while the
    child builds the file system. `on_pid` is called with pid, start time and endpoints before the
    command may run, so that they are recorded in time. Reserved host ports pass to pid 1 only
    after that, so a caller that is killed earlier keeps no port. After an error no process is
    left; the caller releases the network.
    """
    config = found.config
    with Descriptors() as open_here:
        report, report_in = open_here.pipe()
        go_out, go = open_here.socketpair() if config.publishes else open_here.pipe()
        console, far_console = (-1, -1)
        if config.tty and stdio is not None:
            console, far_console = open_here.socketpair()
        exit_record = open_here.file(f"{directory}/exit", os.O_WRONLY | os.O_CREAT)
        os.pwrite(exit_record, UNWRITTEN, 0)  # pid 1 finds disk space for its exit code here
        wanted = capabilities(f"start container {config.name!r}", config.cap_add, config.cap_drop)
        launch = InitSpec(
            rootfs=rootfs(directory, layers, binds=binds),
            hostname=config.hostname,
            command=Command(
                config.command,
                dict(entry.split("=", 1) for entry in config.env),
                config.workdir,
                config.user,
                wanted,
                seccomp.program(wanted),
            ),
            sysctls={k: v for k, v in config.sysctls.items() if not k.startswith("net.")},
            tty=config.tty,
            report=report_in,
            go=go_out,
            log=open_here.file(f"{directory}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            exit=exit_record,
            netns=netns.fd if netns is not None else -1,
            console=far_console,
            stdio=stdio,
            lost=lost,
            read_only=config.read_only,
            publishes=config.publishes,
        )
        outer = spawn(_CHILD, (launch,), launch.descriptors)
        for fd in (report_in, go_out, far_console):
            open_here.close(fd)
        reader = InitReport(report)
        connected: ConnectedContainer | None = None
        try:
            connected = networking.attach(found, netns)
            pid = reader.pid()
            born = process_born(pid)
            on_pid(pid, born, connected)
            with suppress(BrokenPipeError):  # the child has exited and reports the reason
                if connected.reserved is not None:
                    status_pipe.send_descriptors(go, connected.reserved.descriptors)
                os.write(go, init.GO)
            reader.end()
            ports, rules = _kept(connected, reader.held)
        except BaseException as error:
            open_here.close(go)  # a child that still waits for it exits
            if pid := reader.pid_or_zero():
                end(pid)
            if isinstance(error, ProcessLookupError):  # the child has exited and reports the reason
                reader.end()
            raise
        finally:
            if connected is not None:
                connected.close()
            if outer:
                collect(outer)
        master = terminal.receive(console) if console >= 0 else -1
        return StartedContainer(master, ports, rules)


def _kept(
    connected: ConnectedContainer, held: Sequence[int]
) -> tuple[tuple[Publication, ...], int]:
    if connected.reserved is None:
        return (), -1
    if len(held) != len(connected.reserved.descriptors):
        raise UnsupportedError("start the container", "its pid 1 died at once")
    return connected.reserved.kept_as(held)


def rootfs(directory: str, layers: tuple[str, ...], *, binds: Sequence[Bind] = ()) -> Rootfs:
    """Return the parts of a container's root file system; make missing directories."""
    for name in ("upper", "work", "rootfs"):
        try:
            os.mkdir(f"{directory}/{name}", mode=0o755)
        except FileExistsError:
            continue
        # This directory becomes "/": every user inside must be able to enter, regardless of the
        # umask.
        os.chmod(f"{directory}/{name}", 0o755)  # noqa: S103
    return Rootfs(
        layers=layers,
        upper=f"{directory}/upper",
        work=f"{directory}/work",
        mountpoint=f"{directory}/rootfs",
        files=tuple((f"{directory}/{name}", f"/etc/{name}") for name in etc_files.NAMES),
        binds=tuple(binds),
    )


def end(*pids: int) -> None:
    """Kill pid 1 of containers, and with it all their processes; return when all are gone."""
    with Descriptors() as descriptors:
        handles: dict[int, int] = {}
        for pid in pids:
            with suppress(ProcessLookupError):
                handles[pid] = descriptors.keep(os.pidfd_open(pid))
                signal.pidfd_send_signal(handles[pid], signal.SIGKILL)
        for pid, handle in handles.items():
            if not ended_within(handle, _END_BOUND):
                raise UnsupportedError(
                    f"end process {pid}",
                    f"the process still exists {_END_BOUND // 1000} s after SIGKILL",
                    "it waits for a device or a network file system in the kernel",
                )


def collect(child: int) -> None:
    """Wait for the end of a child process, whose exit code has no meaning."""
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        return  # the caller ignores SIGCHLD, so the kernel has reaped it


class Descriptors:
    """Descriptors that are closed together, or earlier one by one."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def keep(self, fd: int) -> int:
        """Add a descriptor."""
        self._open.add(fd)
        return fd

    def pipe(self) -> tuple[int, int]:
        """Return the read end and the write end of a new pipe."""
        out, into = os.pipe()
        return self.keep(out), self.keep(into)

    def socketpair(self) -> tuple[int, int]:
        """Return two connected Unix sockets."""
        import socket  # imported here: costs as much as all of `runtime.init.rootfs`

        one, other = socket.socketpair()
        return self.keep(one.detach()), self.keep(other.detach())

    def file(self, path: str, flags: int) -> int:
        """Open a file; if it is created, only the owner may access it."""
        return self.keep(os.open(path, flags | os.O_CLOEXEC, 0o600))

    def close(self, fd: int) -> None:
        """Close one descriptor now; do nothing if it is already closed."""
        if fd in self._open:
            self._open.remove(fd)
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in tuple(self._open):
            self.close(fd)
