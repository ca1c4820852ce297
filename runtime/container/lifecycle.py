"""Life cycle of a container: start, stop, remove, repair.

A call that starts, stops or removes a container holds the container's lock. No daemon manages
containers. Every call first runs `sweep`, which finds containers that ended by themselves or whose
start was killed, and repairs their records and networks.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from linux import proc
from linux.proc import process_born
from runtime.container import cgroup, start
from runtime.errors import (
    ConflictError,
    NotFoundError,
    output_lost,
    refused,
    require_free,
    room_for,
    room_or_not,
)
from runtime.init.fork_server import Spawn, fork_here
from runtime.init.process import Stdio
from runtime.records import ContainerRecord, ContainerState
from runtime.store import Store, now

if TYPE_CHECKING:
    from linux.conntrack import FlowWatch
    from runtime.container.networking import ConnectedContainer, ContainerNetworking
    from runtime.container.volumes import Volumes
    from runtime.image.config import Image
    from runtime.image.store import ImageStore


_AT_ONCE = 128
"""Containers removed in one step; each needs a few descriptors meanwhile."""


class Lifecycle:
    """Start and stop of the containers of one store."""

    def __init__(
        self, store: Store, flows: FlowWatch | None = None, spawn: Spawn = fork_here
    ) -> None:
        self.store, self._flows, self._spawn = store, flows, spawn
        self._states = StateCache(store)

    # --- parts that only some calls need, imported by those -------------------

    @cached_property
    def images(self) -> ImageStore:
        """All images."""
        from runtime.image.store import ImageStore

        return ImageStore(self.store.root)

    @cached_property
    def volumes(self) -> Volumes:
        """Named volumes."""
        from runtime.container.volumes import Volumes

        return Volumes(self.store, self.all)

    @cached_property
    def networking(self) -> ContainerNetworking:
        """Networks, endpoints and published ports of the containers."""
        from runtime.container.networking import ContainerNetworking

        return ContainerNetworking(self.store, self.get, self._flows, self._spawn)

    # --- looking -----------------------------------------------------------

    def get(self, reference: str) -> ContainerRecord:
        """Return a container by name, ID or unique prefix; `NotFoundError` if none matches."""
        identity = self.store.resolve(reference)
        try:
            return ContainerRecord(self.store.config(identity), self.store.state(identity))
        except FileNotFoundError:
            raise NotFoundError(
                f"find container {reference!r}",
                "the container has just been removed",
                remedy="mydocker ps -a",
            ) from None

    def all(self) -> list[ContainerRecord]:
        """Return every container, newest first."""
        found = []
        for identity in self.store.ids():
            with suppress(FileNotFoundError):  # removed meanwhile
                config, state = self.store.config(identity), self.store.state(identity)
                found.append(ContainerRecord(config, state))
        return sorted(found, key=lambda item: item.config.created, reverse=True)

    @contextmanager
    def held(self, reference: str, *, check: bool = True) -> Iterator[ContainerRecord]:
        """Hold the lock of a container, so that no other call changes it, and return its record."""
        asked = f"change container {reference!r}"
        if check:
            require_free(asked)
        identity = self.store.resolve(reference)
        lock = self.store.lock_container(identity)
        if lock is None:
            raise NotFoundError(
                f"find container {reference!r}", "the container has just been removed"
            )
        try:
            with room_for(asked):
                yield self._settled(self.get(identity))
        finally:
            lock.release()

    # --- sweep -------------------------------------------------------------

    def sweep(self, *, check: bool = True) -> None:
        """Record containers that ended by themselves; undo the effects of killed mydocker calls."""
        if check:
            require_free("use mydocker")
        with room_for("use mydocker"):
            if os.path.exists(self.store.daemon_socket):
                from runtime.daemon.client import DaemonClient  # not all of networking

                with room_or_not():
                    DaemonClient(self.store).revive()
            for identity in self._states.unsettled():
                if self.store.exists(identity):
                    self._settle(identity)
                else:
                    self.store.discard_unfinished(identity)

    def _settle(self, identity: str) -> None:
        lock = self.store.lock_container(identity, wait=False)
        if lock is None:
            return  # another call holds the lock, or the container was removed
        try:
            # A call that only reads needs no free disk space.
            with room_or_not(), suppress(NotFoundError):
                self._settled(self.get(identity))
        finally:
            lock.release()

    def _settled(self, found: ContainerRecord) -> ContainerRecord:
        """Update the container record to the actual state; the container's lock must be held."""
        state = found.state
        if state.status == "removing":
            self._delete(found)
            raise NotFoundError(f"find container {found.name!r}", "the container is being removed")
        if state.status == "starting":
            # The call that started the container was killed: undo its steps.
            if state.pid and process_born(state.pid) == state.born:
                start.end(state.pid)
            self._release(found)
            undone = ContainerState(connections=state.connections)
            return self._written(found, undone, needed=False)
        if state.status == "running" and process_born(state.pid) != state.born:
            ended = self._ended(found)
            if found.config.auto_remove:
                raise NotFoundError(
                    f"find container {found.name!r}", "the container stopped and was removed"
                )
            return ended
        if state.changing:  # the call that changed the networks was killed
            return self.networking.repair(found)
        return found

    def _ended(self, found: ContainerRecord) -> ContainerRecord:
        self._release(found)
        code, finished = self.store.exit_record(found.id) or (KILLED, now())
        ended = found.state._replace(
            status="exited",
            pid=0,
            born=0,
            endpoints=(),
            changing="",
            paused=False,
            ports=(),
            rules=-1,
            exit_code=code,
            finished=finished,
        )
        settled = self._written(found, ended, needed=False)
        if found.config.auto_remove:
            self._delete(found)
        return settled

    def _release(self, *ended: ContainerRecord) -> None:
        for found in ended:
            self._states.forget(found.id)
        wired = [found for found in ended if found.config.mode.kind == "bridge"]
        if wired:
            self.networking.release(*wired)
        for found in ended:
            self._cgroups(found).remove()

    def _cgroups(self, found: ContainerRecord) -> cgroup.Cgroups:
        return cgroup.Cgroups(self.store.directory(found.id), found.id)

    def _written(
        self, found: ContainerRecord, state: ContainerState, *, needed: bool = True
    ) -> ContainerRecord:
        self.store.write_state(found.id, state, needed=needed)
        return found._replace(state=state)

    # --- starting ----------------------------------------------------------

    def start(
        self,
        found: ContainerRecord,
        *,
        stdio: Stdio | None,
        lost: int = -1,
        image: Image | None = None,
    ) -> ContainerRecord:
        """Start a container whose lock is held; after an error the container is as before.

        `image` is the container's image, if the caller has just looked it up.
        """
        config = found.config
        starting = ContainerState("starting", connections=found.state.connections)

        def on_pid(pid: int, born: int, made: ConnectedContainer) -> None:
            nonlocal starting
            ports = made.reserved.publications if made.reserved is not None else ()
            starting = starting._replace(pid=pid, born=born, endpoints=made.endpoints, ports=ports)
            written = self._written(found, starting)
            if netns is not None and made.endpoints:
                self.networking.register(written, netns)
            limits = cgroup.Limits(config.memory, config.nano_cpus, config.pids_limit)
            if any(limits):
                self._cgroups(found).limit(limits, pid)

        try:
            if found.state.status != "starting":
                self._written(found, starting)
            layers = (image or self.images.of(config)).layers
            netns = self.networking.prepare(found)
            try:
                started = start.start(
                    found,
                    self.store.directory(config.id),
                    layers,
                    self.networking,
                    netns,
                    stdio=stdio,
                    lost=lost,
                    on_pid=on_pid,
                    binds=self.volumes.sources(config.binds) if config.binds else (),
                    spawn=self._spawn,
                )
            finally:
                if netns is not None:
                    netns.close()
        except BaseException as error:
            self._release(found)
            self._written(found, found.state, needed=False)
            if isinstance(error, OSError):
                raise refused(f"start container {config.name!r}", error) from error
            raise
        running = starting._replace(
            status="running", started=now(), ports=started.ports, rules=started.rules
        )
        return self._written(found, running)._replace(console=started.console)

    # --- ending ------------------------------------------------------------

    def end(self, found: ContainerRecord) -> ContainerRecord:
        """Kill a running container whose lock is held, and update its record."""
        start.end(found.state.pid)
        return self._ended(found)

    def kill(self, found: ContainerRecord, number: int) -> None:
        """Send a signal to a running container; SIGKILL works on a paused one too."""
        handle = proc.pidfd(found.state.pid, found.state.born)
        if handle is not None:
            with suppress(ProcessLookupError):  # the container has just ended
                signal.pidfd_send_signal(handle, number)
            os.close(handle)
        if found.state.paused and number == signal.SIGKILL:
            self._cgroups(found).thaw()

    # --- holding -----------------------------------------------------------

    def pause(self, found: ContainerRecord) -> ContainerRecord:
        """Freeze a running container; raise `UnsupportedError` if no cgroup can do it."""
        # Record the freeze first: the call after a killed call then knows the container to thaw.
        paused = self._written(found, found.state._replace(paused=True))
        try:
            self._cgroups(found).freeze(found.state.pid)
        except BaseException:
            self._cgroups(found).thaw()
            self._written(found, found.state, needed=False)
            raise
        return paused

    def unpause(self, found: ContainerRecord) -> ContainerRecord:
        """Thaw a frozen container."""
        self._cgroups(found).thaw()
        return self._written(found, found.state._replace(paused=False))

    def discard(self, references: Iterable[str], *, force: bool) -> None:
        """Remove containers in batches; with `force` running ones too."""
        require_free("remove containers")  # once: the locks below are held together
        ids = sorted({self.store.resolve(reference) for reference in references})
        # Sorted: calls that hold several locks take them in the same order.
        for begin in range(0, len(ids), _AT_ONCE):
            with ExitStack() as stack:
                some = ids[begin : begin + _AT_ONCE]
                doomed = [
                    stack.enter_context(self.held(identity, check=False)) for identity in some
                ]
                for found in doomed if not force else ():
                    if found.running:
                        raise ConflictError(
                            f"remove container {found.name!r}",
                            "the container is running",
                            remedy=f"`mydocker stop {found.name}` first, or `mydocker rm -f`",
                        )
                self.remove(*doomed)

    def remove(self, *doomed: ContainerRecord) -> None:
        """Kill and remove containers whose locks are held."""
        running = [found for found in doomed if found.running]
        for found in running:
            if found.state.paused:
                self._cgroups(found).thaw()
        start.end(*(found.state.pid for found in running))
        if running:
            self._release(*running)
        for found in doomed:
            self._delete(found)

    def _delete(self, found: ContainerRecord) -> None:
        self._written(found, found.state._replace(status="removing"), needed=False)
        self.store.delete(found.config)


def refuse_stopped(verb: str, found: ContainerRecord) -> None:
    """Raise `ConflictError` for a container that does not run."""
    if not found.running:
        raise ConflictError(
            f"{verb} container {found.name!r}",
            f"the container is not running ({found.state.status})",
            remedy=f"mydocker start {found.name}",
        )


def refuse_paused(verb: str, found: ContainerRecord) -> None:
    """Raise `ConflictError` for a container that is paused."""
    if found.state.paused:
        raise ConflictError(
            f"{verb} container {found.name!r}",
            "the container is paused",
            remedy=f"mydocker unpause {found.name}",
        )


class Stopping:
    """A container that got its stop signal and then has `timeout` seconds to end.

    A container that is not running is left as it is. No lock is held meanwhile: other calls may
    kill or remove the container.
    """

    def __init__(self, life: Lifecycle, reference: str, *, timeout: float) -> None:
        self._life = life
        with life.held(reference) as found:
            self._found = found
            if found.running:
                running = life.unpause(found) if found.state.paused else found
                life.kill(running, _stop_signal(found))
        self._deadline = time.monotonic() + timeout

    def finish(self) -> ContainerRecord:
        """Wait, kill the container at the timeout, and return when all its processes are gone."""
        found = self._found
        if not found.running:
            return found
        handle = proc.pidfd(found.state.pid, found.state.born)
        try:
            if handle is not None:
                left = max(0.0, self._deadline - time.monotonic())
                proc.ended_within(handle, int(left * 1000))
            with self._life.held(found.id, check=False) as there:
                if not there.running or there.state.born != found.state.born:
                    return there
                return self._life.end(there)
        except NotFoundError:
            return found  # removed by another call, or by its own auto_remove
        finally:
            if handle is not None:
                os.close(handle)


def _stop_signal(found: ContainerRecord) -> int:
    wanted = found.config.stop_signal
    if not wanted:
        return signal.SIGTERM
    from runtime.container.options import signal_number

    return signal_number(f"stop {found.name!r}", wanted)


KILLED: Final = 137
"""Exit code of a container whose pid 1 was killed: 128 plus SIGKILL."""
_MOST: Final = 4096
"""Size of a read in bytes; the messages about both streams are shorter."""


def exit_code(found: ContainerRecord, directory: str, *, lost: int = -1) -> int:
    """Wait until a running container has ended; return its exit code.

    `lost` is the pipe by which pid 1 reports that the caller gets no more output
    (`supervise.OutputStream`), or -1. Raise `OutputError` as soon as pid 1 reports this, even if
    the container has ended meanwhile.
    """
    # Open the record first: with auto_remove any other call may remove it after the end.
    with open(f"{directory}/exit", "rb") as record:
        handle = proc.pidfd(found.state.pid, found.state.born)
        if handle is not None:
            try:
                _wait_for_end_or_report(handle, lost)
            finally:
                os.close(handle)
        refuse_lost(found, lost)
        text = record.read().split()
    return int(text[0]) if text else KILLED


def _wait_for_end_or_report(handle: int, lost: int) -> None:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if lost >= 0:
        poll.register(lost, select.POLLIN)
    while True:
        events = dict(poll.poll())
        if handle in events or events.get(lost, 0) & select.POLLIN:
            return
        poll.unregister(lost)  # pid 1 has closed the pipe and is about to end


def refuse_lost(found: ContainerRecord, lost: int) -> None:
    """Raise `OutputError` if pid 1 has reported that it cannot pass on the command's output."""
    if lost < 0:
        return
    os.set_blocking(lost, False)
    try:
        report = os.read(lost, _MOST).split()
    except BlockingIOError:
        return
    if report:
        kept = " until the container stops (--rm)" if found.config.auto_remove else ""
        raise output_lost(
            f"show the {report[0].decode()} of container {found.name!r}",
            int(report[1]),
            f"`mydocker logs -f {found.name}`, which shows all output{kept}",
        )


class _Seen(NamedTuple):
    """A state as read from its file, and the stamp that shows whether the file has changed."""

    stamp: tuple[int, int]
    state: ContainerState


class StateCache:
    """Cache of the containers' states in one process; each state is read from one file.

    A state file is either replaced when it changes, or rewritten in place with a new time. The same
    inode with the same time therefore has the same content, and is not read again.

    A container that is found running a second time is watched by a pidfd (pidfd_open(2)). While the
    container runs and no call changes its networks, its files are not read at all. The cost of a
    call therefore does not grow with the number of running containers, except for the list of their
    IDs.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, _Seen] = {}
        self._watched: dict[str, int] = {}
        self._poll = select.poll()
        # Use at most half of the caller's descriptor limit.
        self._most = os.sysconf("SC_OPEN_MAX") // 2

    def unsettled(self) -> Iterator[str]:
        """Yield the IDs of containers whose record is outdated or unfinished."""
        ids = self._store.ids()
        changing = set(os.listdir(self._store.changing))
        self._drop(ids)
        seen, self._seen = self._seen, {}
        for identity in ids:
            known = seen.get(identity)
            if known is not None and identity in self._watched and identity not in changing:
                self._seen[identity] = known
                continue
            found = self._look(identity, known)
            if found is None:
                yield identity
                continue
            self._seen[identity] = found
            if not settled(found.state):
                yield identity
            elif known is not None and found.state.status == "running":
                self._watch(identity, found.state)

    def _look(self, identity: str, known: _Seen | None) -> _Seen | None:
        try:
            # Take the stamp before the read: at worst a newer state gets an older stamp.
            status = os.stat(f"{self._store.directory(identity)}/state.json")
            stamp = (status.st_ino, status.st_mtime_ns)
            if known is not None and known.stamp == stamp:
                return known
            return _Seen(stamp, self._store.state(identity))
        except FileNotFoundError:
            return None

    def _watch(self, identity: str, state: ContainerState) -> None:
        if identity in self._watched or len(self._watched) >= self._most:
            return
        try:
            handle = os.pidfd_open(state.pid)
        except OSError:  # the process just ended, or no descriptor is free
            return
        if process_born(state.pid) != state.born:
            os.close(handle)
            return
        self._watched[identity] = handle
        self._poll.register(handle, select.POLLIN)

    def _drop(self, ids: list[str]) -> None:
        """Stop watching each of the containers that has ended or was removed."""
        if not self._watched:
            return
        ended = {handle for handle, _ in self._poll.poll(0)}
        gone = self._watched.keys() - ids
        for identity, handle in tuple(self._watched.items()):
            if handle in ended or identity in gone:
                self.forget(identity)

    def forget(self, identity: str) -> None:
        """Stop watching a container; do nothing if it is not watched."""
        handle = self._watched.pop(identity, None)
        if handle is not None:
            self._poll.unregister(handle)
            os.close(handle)

    def __del__(self) -> None:
        for handle in self._watched.values():
            os.close(handle)


def settled(state: ContainerState) -> bool:
    """Return True if a container record matches the kernel and no change was interrupted."""
    if state.changing:
        return False
    if state.status == "running":
        return process_born(state.pid) == state.born
    return state.status in ("created", "exited")
