"""mydocker as a library: an `Engine` for one state directory; no daemon manages containers.

```python
engine = Engine()
web = engine.run("base", ["sleep", "1000"], name="web")
print(web.state.endpoints[0].address)
engine.remove("web", force=True)
```

Every method may be called from many processes at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Unpack

from linux import proc
from runtime.container import exec as execution
from runtime.container import lifecycle
from runtime.container.exec import ExecResult, RunningExec
from runtime.container.lifecycle import Lifecycle, Stopping, refuse_paused, refuse_stopped
from runtime.errors import (
    ConflictError,
    InvalidError,
    NoRoomError,
    UnsupportedError,
    require_free,
    room_for,
)
from runtime.init import seccomp
from runtime.init.fork_server import Spawn, fork_here
from runtime.init.process import Command, Stdio
from runtime.init.security import capabilities
from runtime.records import (
    DEFAULT_NETWORK,
    ContainerRecord,
    ContainerState,
    NetworkConfig,
    NetworkMode,
)
from runtime.store import Lock, Store, new_id

if TYPE_CHECKING:  # most calls need none of these imports
    from linux.conntrack import FlowWatch
    from runtime.container.files import ContainerTrees
    from runtime.container.logs import LogEntry, LogWriter
    from runtime.container.options import ContainerOptions
    from runtime.container.processes import Process
    from runtime.container.volumes import Volumes
    from runtime.image.config import Image
    from runtime.image.images import Images
    from runtime.network.config import NetworkOptions
    from runtime.network.manager import Networks

DEFAULT_ROOT: Final = "/run/mydocker"


class Engine:
    """A minimal container runtime.

    `root` is the state directory: $MYDOCKER_ROOT, else /run/mydocker. It must be on a file system
    that supports an overlay's upper layer (tmpfs, ext4, xfs), not on an overlay.

    A caller that removes many containers passes `flows`, a watch on the flows of its netns. `flows`
    belongs to one process and not to its forks. A large process that starts many containers passes
    the `spawn` of a `ForkServer`. Errors are `MydockerError`s.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        flows: FlowWatch | None = None,
        spawn: Spawn = fork_here,
    ) -> None:
        path = os.fspath(root) if root is not None else os.environ.get("MYDOCKER_ROOT")
        if os.geteuid() != 0:
            raise UnsupportedError(
                "use mydocker",
                "the caller is not root",
                "only root can create namespaces, at least root of a user namespace",
                "`netmodes lab`, or `MYDOCKER_ROOT=~/.mydocker unshare -r -n -m mydocker …`",
            )
        require_free("use mydocker")
        self._store = store = Store(os.path.abspath(path or DEFAULT_ROOT))
        store.prepare()
        self._life = Lifecycle(store, flows, spawn)

    @property
    def images(self) -> Images:
        """All images, and the operations on them."""
        from runtime.image.images import Images  # imported here: `run` does not need it

        require_free("use images")
        return Images(self._life.images, self._store)

    @property
    def volumes(self) -> Volumes:
        """Named volumes; a container that starts creates the volumes that it names."""
        require_free("use volumes")
        return self._life.volumes

    @property
    def _networks(self) -> Networks:
        require_free("use networks")
        return self._life.networking.networks

    # --- containers --------------------------------------------------------

    def run(
        self,
        image_name: str,
        command: Sequence[str],
        *,
        stdio: Stdio | None = None,
        lost: int = -1,
        **options: Unpack[ContainerOptions],
    ) -> ContainerRecord:
        """Create and start a container.

        Return when its network is set up and its command is being executed. With `stdio` the
        command is connected to these descriptors of the caller; without it, output goes to the
        log. Pid 1 writes to the pipe `lost` when one of the descriptors accepts no more output
        (`runtime.container.lifecycle`). After an error nothing is left.
        """
        begun = ContainerState("starting")
        found, lock, image = self._create(image_name, command, options, begun)
        try:
            return self._life.start(found, stdio=stdio, lost=lost, image=image)
        except BaseException:
            self._life.remove(found)
            raise
        finally:
            lock.release()

    def create(
        self, image_name: str, command: Sequence[str], **options: Unpack[ContainerOptions]
    ) -> ContainerRecord:
        """Create a container without starting it."""
        found, lock, _ = self._create(image_name, command, options, ContainerState())
        lock.release()
        return found

    def _create(
        self,
        image_name: str,
        command: Sequence[str],
        options: ContainerOptions,
        state: ContainerState,
    ) -> tuple[ContainerRecord, Lock, Image]:
        from runtime.container.options import configure

        self._life.sweep()
        mode = NetworkMode.parse(options.get("network", DEFAULT_NETWORK))
        if mode.kind == "container":
            # Stored as an ID, which stays correct if another container gets the name.
            options = {**options, "network": f"container:{self._store.resolve(mode.name)}"}
        elif mode.kind == "bridge" and not (
            mode.name == DEFAULT_NETWORK and self._store.has_network(mode.name)
        ):  # the default network needs no look-up once it exists
            options = {**options, "network": self._networks.by_mode(mode.name).name}
        with self._life.images.pinned(image_name) as found:
            config = configure(
                new_id(), image_name, command, options, image_id=found.id, defaults=found.defaults
            )
            return ContainerRecord(config, state), self._store.create(config, state), found

    def start(self, reference: str, *, stdio: Stdio | None = None) -> ContainerRecord:
        """Start a container that was created or has ended; leave a running one as it is."""
        self._life.sweep()  # a killed start may still hold the port
        with self._life.held(reference) as found:
            return found if found.running else self._life.start(found, stdio=stdio)

    def stop(self, reference: str, *, timeout: float = 10) -> ContainerRecord:
        """Send the stop signal (the image's, else SIGTERM), and after `timeout` seconds SIGKILL.

        Return when all processes have ended. A container that is not running is left as it is.
        """
        return self.stopping(reference, timeout=timeout).finish()

    def stopping(self, reference: str, *, timeout: float = 10) -> Stopping:
        """Send only the stop signal; `finish` of the result waits for the end.

        Several containers can thus stop in parallel.
        """
        return Stopping(self._life, reference, timeout=timeout)

    def kill(self, reference: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a running container's command; SIGKILL ends the whole container."""
        with self._life.held(reference) as found:
            refuse_stopped("signal", found)
            self._life.kill(found, number)

    def restart(self, reference: str, *, timeout: float = 10) -> ContainerRecord:
        """Stop a container, as `stop` does, and start it; only start it if it does not run."""
        with self._life.held(reference) as found:
            if found.running and found.config.auto_remove:
                asked = f"restart container {found.name!r}"
                raise ConflictError(asked, "the container is removed when it stops (--rm)")
        self.stop(found.id, timeout=timeout)
        return self.start(found.id)

    def pause(self, reference: str) -> ContainerRecord:
        """Freeze a running container; raise `UnsupportedError` if the host lacks a requirement."""
        with self._life.held(reference) as found, room_for(f"pause container {found.name!r}"):
            refuse_stopped("pause", found)
            refuse_paused("pause", found)
            return self._life.pause(found)

    def unpause(self, reference: str) -> ContainerRecord:
        """Thaw a paused container."""
        with self._life.held(reference) as found:
            if not found.state.paused:
                raise ConflictError(
                    f"unpause container {found.name!r}", "the container is not paused"
                )
            return self._life.unpause(found)

    def top(self, reference: str) -> list[Process]:
        """Return the processes of a running container, as the host sees them."""
        found = self.inspect(reference)
        refuse_stopped("list the processes of", found)
        from runtime.container import processes

        return processes.described(found.state.pid)

    def wait(self, reference: str, *, lost: int = -1) -> int:
        """Wait until a container has ended; return its exit code.

        Raise `OutputError` as soon as pid 1 reports a lost output stream. `lost` is the pipe that
        was passed to `run`.
        """
        require_free(f"wait for container {reference!r}")
        found = self._life.get(reference)
        try:
            if found.running:
                return lifecycle.exit_code(found, self._store.directory(found.id), lost=lost)
            lifecycle.refuse_lost(found, lost)
        finally:
            self._life.sweep(check=False)  # a known exit code is not lost
        if found.state.exit_code is None:
            raise ConflictError(
                f"wait for container {found.name!r}", "the container was never started"
            )
        return found.state.exit_code

    def remove(self, *references: str, force: bool = False) -> None:
        """Remove containers; with `force` also running ones, which are killed.

        Removing many in one call takes little longer than removing one. If a container cannot be
        removed, those before it may already be gone.
        """
        self._life.discard(references, force=force)

    def inspect(self, reference: str) -> ContainerRecord:
        """Return one container, by name, ID or unique prefix."""
        self._life.sweep()
        return self._life.get(reference)

    def containers(self, *, everything: bool = True) -> list[ContainerRecord]:
        """Return all containers, or only the running ones; newest first."""
        self._life.sweep()
        return [item for item in self._life.all() if everything or item.running]

    def exec(
        self,
        reference: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        user: str = "",
        timeout: float | None = None,
    ) -> ExecResult:
        """Execute a command in a running container to its end, without input.

        Kill the command and raise `TimeoutError` after `timeout` seconds.
        """

        def begin(own: Stdio) -> RunningExec:
            return self.spawn(reference, argv, stdio=own, env=env, workdir=workdir, user=user)

        with room_for(f"execute a command in container {reference!r}"):
            return execution.completed(begin, timeout)

    def spawn(
        self,
        reference: str,
        argv: Sequence[str],
        *,
        stdio: Stdio,
        tty: bool = False,
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        user: str = "",
    ) -> RunningExec:
        """Start a command in a running container, connected to `stdio`.

        Environment, directory and user default to those of the container.
        """
        asked = f"execute a command in container {reference!r}"
        if not argv:
            raise InvalidError(asked, "no command was given")
        found = self.inspect(reference)
        refuse_stopped("execute a command in", found)
        refuse_paused("execute a command in", found)
        handle = proc.pidfd(found.state.pid, found.state.born)
        if handle is None:
            raise ConflictError(
                f"execute a command in container {found.name!r}", "the container has just stopped"
            )
        config = found.config
        wanted = capabilities(
            f"execute a command in container {found.name!r}", config.cap_add, config.cap_drop
        )
        command = Command(
            list(argv),
            {
                **dict(entry.split("=", 1) for entry in config.env),
                **({"TERM": "xterm"} if tty else {}),
                **(env or {}),
            },
            workdir or config.workdir,
            user or config.user,
            wanted,
            seccomp.program(wanted),
        )
        try:
            with room_for(asked):
                return execution.spawn(handle, command, tty=tty, stdio=stdio)
        finally:
            os.close(handle)

    def logs(
        self, reference: str, *, follow: bool = False, tail: int | None = None, since: str = ""
    ) -> Iterator[LogEntry]:
        """Return the output of a container, line by line; with `follow` until it ends.

        Return only entries written at or after `since` (RFC 3339, in UTC), and of the existing
        entries only the last `tail`.
        """
        from runtime.container import logs

        found = self.inspect(reference)
        directory = self._store.directory(found.id)
        return logs.read(directory, found.state, follow=follow, tail=tail, since=since)

    def log(self, reference: str) -> LogWriter:
        """Return a log writer for the output of a terminal that the caller relays."""
        from runtime.container.logs import LogWriter

        return LogWriter(f"{self._store.directory(self._life.get(reference).id)}/log")

    @property
    def inside(self) -> ContainerTrees:
        """Access to containers' files: diff, cp, export, commit."""
        from runtime.container.files import ContainerTrees  # imported here: `run` does not need it

        return ContainerTrees(self._life, self.images)

    # --- networks, all of the state ------------------------------------------

    def network_create(self, name: str, **options: Unpack[NetworkOptions]) -> NetworkConfig:
        """Create a network and bring it up."""
        return self._networks.create(name, options)

    def network_remove(self, reference: str) -> NetworkConfig:
        """Remove a network that no container is connected to."""
        self._life.sweep()
        return self._networks.remove(reference)

    def network_prune(self) -> list[NetworkConfig]:
        """Remove every network that no running container is connected to; return those."""
        self._life.sweep()
        return self._networks.prune()

    def network_connect(
        self,
        network: str,
        reference: str,
        *,
        ip: str = "",
        ip6: str = "",
        mac: str = "",
        aliases: Sequence[str] = (),
    ) -> ContainerRecord:
        """Connect a container to a further network: now if it runs, else at its next start."""
        from runtime.container.options import connection

        asked = f"connect container {reference!r}"
        wanted = connection(
            asked, self._networks.named(network).name, ip=ip, ip6=ip6, mac=mac, aliases=aliases
        )
        with self._life.held(reference) as found, room_for(asked):
            return self._life.networking.connect(found, wanted)

    def network_disconnect(self, network: str, reference: str) -> ContainerRecord:
        """Disconnect a container from a network."""
        with self._life.held(reference) as found:
            return self._life.networking.disconnect(found, network)

    def networks(self) -> list[NetworkConfig]:
        """Return all networks, the default one included, by name."""
        with suppress(NoRoomError):  # creating it needs disk space, listing does not
            self._networks.default()
        return self._networks.all()

    def network_inspect(self, reference: str) -> NetworkConfig:
        """Return one network, by name, id or unique prefix."""
        return self._networks.named(reference)

    def repair(self) -> None:
        """Bring the kernel in line with the records.

        Use it after nft rules were flushed, a bridge was taken down or forwarding was turned off:
        running containers get their network back.
        """
        from runtime.network import bridge

        self._life.sweep()
        self._networks.repair()
        for found in self.containers(everything=False):
            for endpoint in found.state.endpoints:
                if endpoint.veth:
                    bridge.reattach(self._networks.get(endpoint.network), endpoint)

    def teardown(self) -> None:
        """Remove every container, network, bridge and rule, and restore the host's sysctls."""
        self.remove(*(found.id for found in self.containers()), force=True)
        self._networks.teardown()
