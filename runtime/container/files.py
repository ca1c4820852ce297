"""Access to a container's files from outside: `diff`, `cp`, `export`, `commit`."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Literal, NamedTuple

from linux import proc
from linux.syscalls import (
    CLONE_NEWNS,
    MS_PRIVATE,
    MS_REC,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    mount,
    open_tree,
    openat2,
    setns,
    unshare,
)
from runtime.container import start
from runtime.container.lifecycle import Lifecycle
from runtime.container.start import Descriptors, collect
from runtime.errors import ConflictError, InvalidError, NotFoundError
from runtime.image import tar, whiteout
from runtime.image.config import InvalidArchive
from runtime.image.documents import apply_changes
from runtime.image.images import Images, user_errors
from runtime.image.tar import Chunks, Readable, clean, closing
from runtime.image.unpack import extract
from runtime.init import init, rootfs, status_pipe, terminal
from runtime.init.rootfs import Rootfs
from runtime.init.status_pipe import InitReport
from runtime.records import ContainerRecord

_OUR_OWN: Final = ("HOSTNAME", "HOME", "TERM")
"""Environment variables that are specific to one container."""


class ContainerTrees:
    """File access to the containers of one store."""

    def __init__(self, life: Lifecycle, images: Images) -> None:
        self._life, self._images = life, images

    # --- roots ---------------------------------------------------------------

    @contextmanager
    def _root(self, reference: str, *, whole: bool) -> Iterator[int]:
        """Open the root directory of a container.

        The container cannot start or be removed during the body. With `whole` include the mounts of
        a running container, such as its volumes.
        """
        with self._life.held(reference) as found:
            if not found.running:
                with closing(_mounted_root(self._rootfs(found))) as root:
                    yield root
                return
            handle = proc.pidfd(found.state.pid, found.state.born)
            if handle is None:
                raise ConflictError(
                    f"read files of container {found.name!r}", "the container has just stopped"
                )
            with closing(handle):
                root = _running_root(handle, whole=whole)
        with closing(root):  # the same when the container stops, starts or is removed
            yield root

    def _rootfs(self, found: ContainerRecord) -> Rootfs:
        layers = self._life.images.of(found.config).layers
        return start.rootfs(self._life.store.directory(found.id), layers)

    # --- commands -----------------------------------------------------------

    def diff(self, reference: str) -> list[FileChange]:
        """Return every path that a container has added, changed or deleted, parents first."""
        with (
            self._life.held(reference) as found,
            user_errors(f"list the changed files of container {found.name!r}"),
        ):
            parts = self._rootfs(found)
            # An overlay without an upper layer needs two lower layers: add the empty mount point.
            image = parts._replace(layers=(*parts.layers, parts.mountpoint))
            with (
                closing(_mounted_root(image, changes=False)) as below,
                closing(os.open(parts.upper, _DIRECTORY)) as upper,
            ):
                return list(changes(upper, below))

    def export(self, reference: str) -> Iterator[bytes]:
        """Yield a tar archive of a container's files in pieces; files of mounts are left out."""
        with self._root(reference, whole=False) as root, user_errors(f"export {reference}"):
            yield from tar.pack(root)

    def commit(
        self,
        reference: str,
        name: str = "",
        *,
        author: str = "",
        comment: str = "",
        lines: Sequence[str] = (),
    ) -> str:
        """Create an image of a container's current files; return its id.

        The container's configuration becomes the image's default, changed by `lines` of a
        Dockerfile. A running container keeps running.
        """
        with self._life.held(reference) as found:
            image = self._life.images.of(found.config)
            upper = f"{self._life.store.directory(found.id)}/upper"
            config = apply_changes(self._config(found), lines)
            return self._images.commit(image, upper, name, config, author=author, comment=comment)

    def _config(self, found: ContainerRecord) -> dict[str, Any]:
        config, defaults = found.config, self._life.images.of(found.config).defaults
        env = [
            item
            for item in config.env
            if item in defaults.env or item.partition("=")[0] not in _OUR_OWN
        ]
        return {
            "Env": env,
            "Entrypoint": config.entrypoint,
            "Cmd": config.command[len(config.entrypoint) :],
            "WorkingDir": config.workdir,
            "User": config.user,
            "ExposedPorts": {port: {} for port in config.exposed},
            "Labels": config.labels,
            "StopSignal": config.stop_signal,
        }

    def copy_out(
        self,
        reference: str,
        path: str,
        destination: str,
        *,
        follow: bool = False,
        archive: bool = False,
    ) -> None:
        """Copy a file or directory of a container to the host, by the rules of `docker cp`."""
        with self._root(reference, whole=True) as root, closing(_host_root()) as host:
            source = CopyEnd(root, path, f"{reference}:{path}")
            target = CopyEnd(host, _absolute(destination), destination)
            _copy(source, target, follow=follow, archive=archive)

    def copy_in(
        self,
        origin: str,
        reference: str,
        path: str,
        *,
        follow: bool = False,
        archive: bool = False,
    ) -> None:
        """Copy a file or directory of the host into a container."""
        with self._root(reference, whole=True) as root, closing(_host_root()) as host:
            source = CopyEnd(host, _absolute(origin), origin)
            target = CopyEnd(root, path, f"{reference}:{path}")
            _copy(source, target, follow=follow, archive=archive)

    def pack(self, reference: str, path: str, *, follow: bool = False) -> Iterator[bytes]:
        """Yield the pieces of a tar of a file or directory of a container."""
        asked = f"copy {reference}:{path}"
        with self._root(reference, whole=True) as root, user_errors(asked):
            source = CopyEnd(root, path, f"{reference}:{path}")
            with closing(_open(source, asked, follow=follow)) as found:
                yield from tar.pack(found, _name(source))

    def unpack(self, stream: Readable, reference: str, path: str, *, archive: bool = False) -> None:
        """Unpack a tar into an existing directory of a container."""
        shown = f"{reference}:{path}"
        with self._root(reference, whole=True) as root, _copied(f"copy to {shown}"):
            asked = f"unpack into {shown}"
            with closing(_open(CopyEnd(root, path, shown), asked, follow=True)) as directory:
                if not stat.S_ISDIR(os.fstat(directory).st_mode):
                    raise InvalidError(asked, "the target is not a directory")
                _fill(directory, stream, archive=archive)


def _copied(asked: str) -> AbstractContextManager[None]:
    """Turn errors of a copy into `MydockerError`; files copied before the error stay."""
    return user_errors(asked, kept="the files before it have been copied")


def _host_root() -> int:
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _absolute(path: str) -> str:
    """Make a path absolute; keep a final `/` or `/.`, which has a meaning in `docker cp`."""
    return path if path.startswith("/") else f"{os.getcwd()}/{path}"


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FileChange(NamedTuple):
    """One path, and whether it was added, changed or deleted."""

    kind: Literal["A", "C", "D"]
    path: str


def changes(upper: int, lower: int) -> Iterator[FileChange]:
    """Yield every path that a container has changed, parents first.

    Both arguments are open directories. `upper` is the container's own layer on disk. `lower`
    contains the image's files as an overlay shows them. A directory counts as changed when any
    entry in it is changed. Raise `InvalidArchive` if the paths are deeper than those of an image
    may be.
    """
    return _Comparison(lower).below(os.dup(upper), "", seen=True)


class _Comparison:
    def __init__(self, lower: int) -> None:
        self._lower = lower
        self._mark = whiteout.attribute()

    def below(self, directory: int, path: str, *, seen: bool) -> Iterator[FileChange]:
        """Compare an open directory of the upper layer with the image, and close it at the end.

        `seen` is true if the image has the directory too.
        """
        try:
            names = set(os.listdir(directory))
            hidden = seen and path and whiteout.is_opaque(directory, self._mark)
            gone = self._names(path) - names if hidden else set()
            for name in sorted(names | gone):
                inner = f"{path}/{name}"
                if name in gone:
                    yield FileChange("D", inner)
                    continue
                try:
                    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # deleted meanwhile by a process of the running container
                if whiteout.is_whiteout(status):
                    yield FileChange("D", inner)
                    continue
                clean(inner.lstrip("/"), "the path")
                before = self._mode(inner) if seen else None
                yield FileChange("A" if before is None else "C", inner)
                if stat.S_ISDIR(status.st_mode):
                    both = before is not None and stat.S_ISDIR(before)
                    try:
                        opened = os.open(name, _DIRECTORY, dir_fd=directory)
                    except (FileNotFoundError, NotADirectoryError):
                        continue
                    yield from self.below(opened, inner, seen=both)
        finally:
            os.close(directory)

    def _open(self, path: str, flags: int) -> int:
        return openat2(self._lower, path.lstrip("/"), flags, resolve=RESOLVE_BENEATH)

    def _mode(self, path: str) -> int | None:
        """Return the mode of a path in the image; `None` if the image has no such path."""
        try:
            with closing(self._open(path, os.O_PATH | os.O_NOFOLLOW)) as fd:
                return os.fstat(fd).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _names(self, path: str) -> set[str]:
        with closing(self._open(path, _DIRECTORY)) as fd:
            return set(os.listdir(fd))


_MAX_LINKS: Final = 40
_CONTENT: Final = ("", ".", "..")


class CopyEnd(NamedTuple):
    """One end of a copy: a path below an open root directory, and the name that the user gave."""

    root: int
    path: str
    shown: str


def _copy(source: CopyEnd, target: CopyEnd, *, follow: bool, archive: bool) -> None:
    """Copy a file or a directory, by the rules of `docker cp`.

    A copy into an existing directory keeps the name of the source. If the source ends in `/.`, only
    its content is copied into that directory. Otherwise the last name of the target is the name of
    the copy. With `follow` the target of a symbolic link is copied. With `archive` the owners are
    kept; without it all files belong to root.
    """
    asked = f"copy {source.shown} to {target.shown}"
    with _copied(asked), closing(_open(source, asked, follow=follow)) as found:
        whole = stat.S_ISDIR(os.fstat(found).st_mode)
        opened, name = _land(target, asked, whole=whole, name=_name(source))
        with closing(opened) as directory:
            pieces = tar.pack(found, name, owner=None if archive else (0, 0))
            _fill(directory, Chunks(pieces), archive=archive)


def _fill(directory: int, source: Readable, *, archive: bool) -> None:
    extract(source, directory, layer=False, owner=None if archive else (0, 0))


def _name(source: CopyEnd) -> str:
    """Return the name of the copy; `""` for the content of a directory."""
    last = source.path.rpartition("/")[2] or source.path.rstrip("/").rpartition("/")[2]
    return "" if last in _CONTENT else last


def _open(side: CopyEnd, asked: str, *, follow: bool) -> int:
    whole = side.path.rpartition("/")[2] in _CONTENT
    flags = os.O_PATH | (os.O_DIRECTORY if whole else 0)
    if not follow and not whole:
        flags |= os.O_NOFOLLOW
    try:
        return openat2(side.root, side.path or "/", flags, resolve=RESOLVE_IN_ROOT)
    except FileNotFoundError:
        raise NotFoundError(asked, f"{side.shown} does not exist") from None
    except NotADirectoryError:
        raise InvalidError(asked, f"{side.shown} is not a directory") from None


def _land(target: CopyEnd, asked: str, *, whole: bool, name: str) -> tuple[int, str]:
    """Return the open directory that the copy goes to, and the name of the copy there."""
    try:
        found = openat2(target.root, target.path, os.O_PATH, resolve=RESOLVE_IN_ROOT)
    except FileNotFoundError:
        if target.path.endswith("/") and not whole:
            raise NotFoundError(asked, f"the directory {target.shown} does not exist") from None
        return _parent(target, asked)
    except NotADirectoryError:
        raise InvalidError(asked, f"a parent of {target.shown} is a file") from None
    status = os.fstat(found)
    if stat.S_ISDIR(status.st_mode):
        return found, name
    os.close(found)
    if whole:
        raise InvalidError(asked, "a directory cannot be copied over a file")
    if not stat.S_ISREG(status.st_mode):
        raise InvalidError(asked, f"{target.shown} is neither a file nor a directory")
    return _parent(target, asked)


def _parent(target: CopyEnd, asked: str) -> tuple[int, str]:
    """Resolve the links of a path; return its open parent directory and its last name."""
    path = target.path.rstrip("/")
    for _ in range(_MAX_LINKS):
        above, _, name = path.rpartition("/")
        flags = os.O_PATH | os.O_DIRECTORY
        try:
            directory = openat2(target.root, above or "/", flags, resolve=RESOLVE_IN_ROOT)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(asked, f"the directory {above or '/'} does not exist") from None
        try:
            link = os.readlink(name, dir_fd=directory)
        except OSError:  # not a symbolic link, or no such file
            return directory, name
        os.close(directory)
        path = link if link.startswith("/") else f"{above}/{link}"
    raise InvalidArchive(f"{target.shown} is a symbolic link that leads to itself")


def _running_root(handle: int, *, whole: bool) -> int:
    """Return the root of the container whose pid 1 a pidfd refers to.

    With `whole` include its mounts, such as volumes and /proc; without it return the bare file
    system.
    """

    def take() -> int:
        setns(handle, CLONE_NEWNS)
        return open_tree("/", recursive=whole)

    return _taken(take, {handle})


def _mounted_root(parts: Rootfs, *, changes: bool = True) -> int:
    """Return the root of a stopped container, or of its image without the container's `changes`.

    Hold the container's lock as long as the root is open.
    """

    def take() -> int:
        unshare(CLONE_NEWNS)
        mount("", "/", flags=MS_REC | MS_PRIVATE)
        if changes:
            rootfs.mount_overlay(parts)
        else:
            rootfs.mount_layers(parts.layers, parts.mountpoint)
        return open_tree(parts.mountpoint)

    return _taken(take, set())


def _taken(take: Callable[[], int], keep: set[int]) -> int:
    with Descriptors() as open_here:
        report, report_in = open_here.pipe()
        near, far = open_here.socketpair()
        pid = init.fork()
        if not pid:
            try:
                init.forget_parent({report_in, far, *keep})
                terminal.send(far, take())
            except BaseException as error:
                status_pipe.send_error(report_in, error)
            finally:
                os._exit(0)
        open_here.close(report_in)
        open_here.close(far)
        try:
            InitReport(report).end()
        finally:
            collect(pid)
        root = terminal.receive(near)
    if root < 0:
        raise ConflictError("read files of the container", "the container has just stopped")
    return root
