"""State on disk, changed atomically and under locks.

```
root/lock                         taken for short changes: names, leases, networks
root/names/<name>                 symbolic link that holds the container's id
root/containers/<id>/lock         held while the container is started, stopped or removed
root/containers/<id>/config.json  written once
root/containers/<id>/state.json   replaced as a whole; without it there is no container
root/containers/<id>/exit         written once by the container's pid 1, in space allocated before
root/daemon.sock                  socket of the DNS daemon, removed at its normal exit
root/changing/<id>                exists while the container may be between two networks
root/networks/<name>/…            config.json, leases.json
```

A lock is a flock(2). The kernel releases it when its holder dies (and a child that has just
been forked has closed its copy). So if a container is being started and its lock is free, the
caller was killed. Locks are taken in one order: a container's, then the root's.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final

from linux import proc
from runtime.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    UnsupportedError,
    is_full,
    room_for,
    room_or_not,
)
from runtime.records import (
    NAME,
    NAME_RULE,
    ContainerConfig,
    ContainerState,
    state_from_json,
    state_to_json,
)

SOCKET: Final = "daemon.sock"
"""Path of the DNS daemon's socket, below the root."""
LOG: Final = "daemon.log"
"""Path of the DNS daemon's log, below the root; absent while it is empty and no daemon runs."""
_ID_LENGTH: Final = 64
_SHORT: Final = 12
"""Digits of an id that are shown, and that make up the hostname."""


_BLOCK: Final = 512
"""Unit of `st_blocks` in bytes, regardless of the file system's block size: stat(2)."""
_CAUSES: Final = {
    errno.EACCES: "a directory of the path belongs to another user",
    errno.EPERM: "a directory of the path belongs to another user",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a component of the path is a file",
    errno.EEXIST: "a component of the path is a file",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
}
"""Reasons why a directory cannot be created, by the kernel's error."""


def now() -> str:
    """Return the time in UTC with nanoseconds, in the format of RFC 3339."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def new_id() -> str:
    """Return 64 random hexadecimal digits; the first twelve are not a decimal number.

    The first twelve become the hostname. The C library takes a name that consists of decimal
    digits for a malformed address: it reads no hosts file and sends no DNS query (moby#3869).
    """
    while (found := os.urandom(32).hex())[:_SHORT].isdecimal():
        pass
    return found


def write_json(path: str, data: Any) -> None:
    """Replace a file in one step: readers see the old content or the new, never a part.

    On a full disk the new content overwrites the old in place, if it needs no additional blocks.
    The caller holds the lock of the file.
    """
    scratch, content = f"{path}.new", json.dumps(data).encode()
    try:
        proc.write(scratch, content)
    except OSError as error:
        with suppress(OSError):
            os.unlink(scratch)
        if not is_full(error) or not _refilled(path, content):
            raise
    else:
        os.rename(scratch, path)


def _refilled(path: str, content: bytes) -> bool:
    """Write JSON in place if the file's blocks are enough; return False otherwise.

    Pad with blanks if the new content is shorter. A write within one block cannot be interrupted
    half-way, and most of the files fit into one block.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        found = os.fstat(fd)
        if len(content) > found.st_blocks * _BLOCK:
            return False
        os.pwrite(fd, content.ljust(found.st_size), 0)
        # Set the time: the kernel's own clock may stand still between two changes, and the state
        # cache then sees no change.
        os.utime(fd, ns=(time.time_ns(),) * 2)
    except OSError:  # the file system cannot write in place
        return False
    finally:
        os.close(fd)
    return True


def read_json(path: str) -> Any:
    """Return the content of a JSON file; raise `FileNotFoundError` if it does not exist."""
    return json.loads(proc.read(path))


def match_prefix(prefix: str, ids: list[str]) -> list[str]:
    """Return the ids that start with `prefix`; an exact match takes precedence."""
    return [prefix] if prefix in ids else sorted(item for item in ids if item.startswith(prefix))


class Lock:
    """A flock(2), released by `release` or by the holder's death."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def take(cls, path: str, *, wait: bool = True, create: bool = True) -> Lock | None:
        """Take and return the lock of the file or directory at `path`.

        Return `None` if the lock is taken and `wait` is false.
        """
        flags = os.O_CLOEXEC | (os.O_RDWR | os.O_CREAT if create else os.O_RDONLY)
        fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    def release(self) -> None:
        """Release the lock, also for a child that inherited the descriptor."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        os.close(self.fd)


class Store:
    """State directory of one mydocker."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.containers = f"{root}/containers"
        self.names = f"{root}/names"
        self.networks = f"{root}/networks"
        self.changing = f"{root}/changing"
        self.daemon_socket = f"{root}/{SOCKET}"

    def prepare(self) -> None:
        """Make the directories, accessible to the owner only."""
        if os.path.isdir(self.changing):
            return
        try:
            for path in (self.root, self.containers, self.names, self.networks, self.changing):
                os.makedirs(path, mode=0o700, exist_ok=True)
        except OSError as error:
            raise UnsupportedError(
                f"use {self.root} for mydocker's state",
                f"creating the directory failed: {error.strerror}",
                _CAUSES.get(error.errno or 0, ""),
                "point MYDOCKER_ROOT at a directory that you own",
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the root's lock, for short changes of names, leases and networks."""
        lock = Lock.take(f"{self.root}/lock")
        assert lock is not None
        try:
            yield
        finally:
            lock.release()

    def directory(self, identity: str) -> str:
        """Return the directory of one container."""
        return f"{self.containers}/{identity}"

    def lock_container(self, identity: str, *, wait: bool = True) -> Lock | None:
        """Return the lock of a container.

        Return `None` if the container is gone, or if the lock is taken and `wait` is false.
        """
        try:
            return Lock.take(f"{self.directory(identity)}/lock", wait=wait, create=False)
        except FileNotFoundError:
            return None

    # --- containers --------------------------------------------------------

    def create(self, config: ContainerConfig, state: ContainerState) -> Lock:
        """Claim the name and write a new container; return its lock.

        Raise `ConflictError` if the name is taken.
        """
        if not NAME.fullmatch(config.name):
            raise InvalidError(
                f"name a container {config.name!r}",
                "the name is malformed",
                remedy=NAME_RULE,
            )
        with room_for(f"create container {config.name!r}"), self.locked():
            self._claim(config)
            try:
                return self._make(config, state)
            except BaseException:
                remove_tree(self.directory(config.id))
                os.unlink(f"{self.names}/{config.name}")
                raise

    def _make(self, config: ContainerConfig, state: ContainerState) -> Lock:
        os.mkdir(self.directory(config.id), mode=0o700)
        lock = Lock.take(f"{self.directory(config.id)}/lock")
        assert lock is not None
        try:
            write_json(f"{self.directory(config.id)}/config.json", config._asdict())
            self.write_state(config.id, state)  # last: the container exists from now on
        except BaseException:
            lock.release()
            raise
        return lock

    def _claim(self, config: ContainerConfig) -> None:
        link = f"{self.names}/{config.name}"
        try:
            os.symlink(config.id, link)
        except FileExistsError:
            owner = os.readlink(link)
            if os.path.exists(f"{self.directory(owner)}/state.json"):
                raise ConflictError(
                    f"name a container {config.name!r}",
                    f"container {owner[:12]} already has this name",
                    remedy=f"`mydocker rm -f {config.name}`, or another name",
                ) from None
            os.unlink(link)  # left by a creator that was killed
            os.symlink(config.id, link)

    def delete(self, config: ContainerConfig) -> None:
        """Release the name and remove a container's directory."""
        with self.locked():
            link = f"{self.names}/{config.name}"
            if os.path.lexists(link) and os.readlink(link) == config.id:
                os.unlink(link)
        self.mark(config.id, changing=False)
        directory = self.directory(config.id)
        os.unlink(f"{directory}/state.json")  # any call may remove a directory without a state
        remove_tree(directory)

    def discard_unfinished(self, identity: str) -> None:
        """Remove a container whose creation or removal was killed half-way."""
        with self.locked():  # every creator holds this lock until all files are written
            if not self.exists(identity):
                remove_tree(self.directory(identity))

    def exists(self, identity: str) -> bool:
        """Return True if the container exists completely, not as the rest of a killed creation."""
        return os.path.exists(f"{self.directory(identity)}/state.json")

    def ids(self) -> list[str]:
        """Return the ids of all containers, unsorted."""
        return os.listdir(self.containers)

    def resolve(self, reference: str) -> str:
        """Return the id of the container with this id, name or unique prefix of an id.

        They are tried in this order. Raise `NotFoundError` if there is none, or if a prefix fits
        several.
        """
        if NAME.fullmatch(reference):
            if len(reference) == _ID_LENGTH and self.exists(reference):
                return reference
            with suppress(FileNotFoundError):
                return os.readlink(f"{self.names}/{reference}")
        found = match_prefix(reference, self.ids()) if reference else []
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(item[:12] for item in found[:5])
            raise NotFoundError(
                f"find container {reference!r}",
                f"{len(found)} IDs have this prefix: {some}",
                remedy="more digits of the ID, or the name",
            )
        raise NotFoundError(
            f"find container {reference!r}", "no such container", remedy="mydocker ps -a"
        )

    def config(self, identity: str) -> ContainerConfig:
        """Return the configuration; raise `FileNotFoundError` if the container is gone."""
        return ContainerConfig(**read_json(f"{self.directory(identity)}/config.json"))

    def state(self, identity: str) -> ContainerState:
        """Return the last written state; raise `FileNotFoundError` if the container is gone."""
        return state_from_json(read_json(f"{self.directory(identity)}/state.json"))

    def write_state(self, identity: str, state: ContainerState, *, needed: bool = True) -> None:
        """Replace the state of a container; its lock must be held.

        If the write is not `needed`, because the next reader comes to the same result, a full disk
        keeps the old state.
        """
        with nullcontext() if needed else room_or_not():
            write_json(f"{self.directory(identity)}/state.json", state_to_json(state))

    def mark(self, identity: str, *, changing: bool) -> None:
        """Mark a running container as being changed, or unmark it; its lock must be held."""
        path = f"{self.changing}/{identity}"
        if changing:
            proc.write(path, b"")
        else:
            with suppress(FileNotFoundError):
                os.unlink(path)

    def has_network(self, name: str) -> bool:
        """Return True if there is a network of exactly that name, even a partly made one."""
        return os.path.exists(f"{self.networks}/{name}")

    def exit_record(self, identity: str) -> tuple[int, str] | None:
        """Return exit code and time as pid 1 wrote them; `None` if pid 1 was killed before."""
        try:
            with open(f"{self.directory(identity)}/exit", encoding="utf-8") as file:
                code, _, finished = file.read().strip().partition(" ")
        except FileNotFoundError:
            return None
        return (int(code), finished) if finished else None


_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Remove a directory tree; another process may have removed it, or remove it meanwhile.

    A container can make directories so deep that neither a recursion nor a path reaches the end. So
    each subdirectory is moved up to the top before it is removed. If this call is killed, the next
    one can remove the rest in the same way.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        while True:
            for name in os.listdir(top):
                with suppress(FileNotFoundError):
                    _remove_one(top, name)
            try:
                os.rmdir(path)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                # Another process that removes it has just moved a subdirectory up.
            else:
                return
    finally:
        os.close(top)


def _remove_one(top: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=top)
    except IsADirectoryError:
        directory = os.open(name, _DIRECTORY, dir_fd=top)
        try:
            for inner in os.listdir(directory):
                with suppress(FileNotFoundError):
                    _move_up(top, directory, inner)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=top)


def _move_up(top: int, directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        os.rename(name, os.urandom(16).hex(), src_dir_fd=directory, dst_dir_fd=top)
