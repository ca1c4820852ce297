"""What is on disk, changed atomically and under locks.

```
root/lock                         taken for short changes: names, leases, networks
root/names/<name>                 symbolic link that holds the container's id
root/containers/<id>/lock         held by whoever starts, stops or removes it
root/containers/<id>/config.json  written once
root/containers/<id>/state.json   replaced as a whole; without it there is no container
root/containers/<id>/exit         written once, by the container's pid 1, in room taken before
root/attendant                    the socket of the attendant, once there was one
root/changing/<id>                there while it may be half-way between two networks
root/networks/<name>/…            config.json, leases.json
```

A lock is a flock(2): the kernel gives it back when its holder dies (and a child
that has just been forked has closed its copy), so that "being started, and the
lock is free" means that the caller was killed. Locks are taken in one order: a
container's, then the root's.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
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
from runtime.records import ContainerConfig, ContainerState, state_from_json, state_to_json

SOCKET: Final = "attendant"
"""Where the attendant is spoken to, below the root."""
_ID_LENGTH: Final = 64
_SHORT: Final = 12
"""Digits of an id that are shown, and that a container is called by inside."""
NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
NAME_RULE: Final = "at most 128 letters and digits, and after the first also '_', '.' and '-'"


_BLOCK: Final = 512
"""Bytes, whatever the file system's own blocks are: stat(2)."""
_CAUSES: Final = {
    errno.EACCES: "a directory on the way belongs to somebody else",
    errno.EPERM: "a directory on the way belongs to somebody else",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "something on the way is a file",
    errno.EEXIST: "something on the way is a file",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
}
"""Why a directory cannot be made, by the kernel's error."""


def now() -> str:
    """The time in UTC with nanoseconds, as RFC 3339 writes it."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def new_id() -> str:
    """64 random hexadecimal digits, of which the first twelve are no decimal number.

    They become the hostname, and what consists of digits the C library takes for a malformed
    address: it looks in no file and asks nobody (moby#3869).
    """
    while (found := os.urandom(32).hex())[:_SHORT].isdecimal():
        pass
    return found


def write_json(path: str, data: Any) -> None:
    """Replace a file in one step: readers see the old content or the new, never a part.

    On a full disk it goes where the old content is, if it takes no more room than that.
    Whoever writes holds the lock that the file belongs to.
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
    """Write JSON into a file whose blocks are enough for it; false when there is no such file.

    It ends in blanks where it is shorter than what was there. Nothing can stop a write that is
    within one block half-way, and most of what is written here is.
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
        # The kernel's own clock may stand still between two changes, which `Glance` would not see.
        os.utime(fd, ns=(time.time_ns(),) * 2)
    except OSError:  # a file system that writes nothing in place
        return False
    finally:
        os.close(fd)
    return True


def read_json(path: str) -> Any:
    """The content of a JSON file; `FileNotFoundError` when it is not there."""
    return json.loads(proc.read(path))


def match_prefix(prefix: str, ids: list[str]) -> list[str]:
    """The ids that start with `prefix`; an exact match beats every other."""
    return [prefix] if prefix in ids else sorted(item for item in ids if item.startswith(prefix))


class Lock:
    """One flock(2), given back by `release` or by the holder's death."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def take(cls, path: str, *, wait: bool = True, create: bool = True) -> Lock | None:
        """The lock of the file at `path`; `None` when it is taken and `wait` is false."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
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
        """Give it back. A child that inherited the descriptor no longer holds it either."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        os.close(self.fd)


class Store:
    """The state directory of one mydocker."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.containers = f"{root}/containers"
        self.names = f"{root}/names"
        self.networks = f"{root}/networks"
        self.changing = f"{root}/changing"
        self.attendant = f"{root}/{SOCKET}"

    def prepare(self) -> None:
        """Make the directories, for the owner's eyes only."""
        if os.path.isdir(self.changing):
            return
        try:
            for path in (self.root, self.containers, self.names, self.networks, self.changing):
                os.makedirs(path, mode=0o700, exist_ok=True)
        except OSError as error:
            raise UnsupportedError(
                f"use {self.root} for mydocker's state",
                f"it cannot be made: {error.strerror}",
                _CAUSES.get(error.errno or 0, ""),
                "point MYDOCKER_ROOT at a directory of your own",
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the root's lock: for names, leases and networks, for moments only."""
        lock = Lock.take(f"{self.root}/lock")
        assert lock is not None
        try:
            yield
        finally:
            lock.release()

    def directory(self, identity: str) -> str:
        """The directory of one container."""
        return f"{self.containers}/{identity}"

    def lock_container(self, identity: str, *, wait: bool = True) -> Lock | None:
        """The lock of one container; `None` when it is gone, or taken and `wait` is false."""
        try:
            return Lock.take(f"{self.directory(identity)}/lock", wait=wait, create=False)
        except FileNotFoundError:
            return None

    # --- containers --------------------------------------------------------

    def create(self, config: ContainerConfig, state: ContainerState) -> Lock:
        """Claim the name and write a new container, whose lock is returned.

        `ConflictError` when the name is taken.
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
                remove(self.directory(config.id))
                os.unlink(f"{self.names}/{config.name}")
                raise

    def _make(self, config: ContainerConfig, state: ContainerState) -> Lock:
        os.mkdir(self.directory(config.id), mode=0o700)
        lock = Lock.take(f"{self.directory(config.id)}/lock")
        assert lock is not None
        try:
            write_json(f"{self.directory(config.id)}/config.json", config._asdict())
            self.write_state(config.id, state)  # last: from now on there is a container
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
                    f"container {owner[:12]} has that name",
                    remedy=f"`mydocker rm -f {config.name}`, or another name",
                ) from None
            os.unlink(link)  # left by a creator that was killed
            os.symlink(config.id, link)

    def delete(self, config: ContainerConfig) -> None:
        """Give the name back and remove a container's directory."""
        with self.locked():
            link = f"{self.names}/{config.name}"
            if os.path.lexists(link) and os.readlink(link) == config.id:
                os.unlink(link)
        self.mark(config.id, changing=False)
        directory = self.directory(config.id)
        os.unlink(f"{directory}/state.json")  # what has none is for anybody to remove
        remove(directory)

    def discard_unfinished(self, identity: str) -> None:
        """Remove a container whose creator, or remover, was killed half-way."""
        with self.locked():  # which every creator holds until all is written
            if not self.exists(identity):
                remove(self.directory(identity))

    def exists(self, identity: str) -> bool:
        """Whether there is such a container: not one whose creator was killed half-way."""
        return os.path.exists(f"{self.directory(identity)}/state.json")

    def ids(self) -> list[str]:
        """The ids of all containers, in no order."""
        return os.listdir(self.containers)

    def resolve(self, reference: str) -> str:
        """The id behind an id, a name or a unique prefix of an id, in this order.

        `NotFoundError` when there is none, or when a prefix fits several.
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
                f"{len(found)} ids start so: {some}",
                remedy="more digits, or the name",
            )
        raise NotFoundError(
            f"find container {reference!r}", "there is no such container", remedy="mydocker ps -a"
        )

    def config(self, identity: str) -> ContainerConfig:
        """What was asked for; `FileNotFoundError` when the container is gone."""
        return ContainerConfig(**read_json(f"{self.directory(identity)}/config.json"))

    def state(self, identity: str) -> ContainerState:
        """What was last written about it; `FileNotFoundError` when the container is gone."""
        return state_from_json(read_json(f"{self.directory(identity)}/state.json"))

    def write_state(self, identity: str, state: ContainerState, *, needed: bool = True) -> None:
        """Replace the state of a container; its lock must be held.

        Where it is not `needed`, because whoever looks next comes to the same, the old one stays
        on a disk that is full.
        """
        with nullcontext() if needed else room_or_not():
            write_json(f"{self.directory(identity)}/state.json", state_to_json(state))

    def mark(self, identity: str, *, changing: bool) -> None:
        """Let everybody look at a running container, or no longer; its lock must be held."""
        path = f"{self.changing}/{identity}"
        if changing:
            proc.write(path, b"")
        else:
            with suppress(FileNotFoundError):
                os.unlink(path)

    def has_network(self, name: str) -> bool:
        """Whether there is a network of exactly that name, if only a half-made one."""
        return os.path.exists(f"{self.networks}/{name}")

    def exit_record(self, identity: str) -> tuple[int, str] | None:
        """Exit code and time as pid 1 wrote them; `None` when it was killed before it could."""
        try:
            with open(f"{self.directory(identity)}/exit", encoding="utf-8") as file:
                code, _, finished = file.read().strip().partition(" ")
        except FileNotFoundError:
            return None
        return (int(code), finished) if finished else None


_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(path: str) -> None:
    """Remove a directory; one that is not there is no failure, also when others are at it too.

    A container can make directories so deep that a recursion, or a path, does
    not reach the end. So each is moved up to the top before its turn comes. What
    a killed call leaves is as removable as before.
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
                # Another remover has just moved something up.
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
