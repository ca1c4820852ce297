"""Root file system of a container: an overlay, and the kernel's file systems in it.

`enter` runs in the container's future pid 1, in a separate mount namespace. All its mounts end
with that namespace. Host files are opened as detached mounts first and attached after
pivot_root(2), when paths are resolved inside the new root and no symbolic link of the image can
lead out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from linux.syscalls import (
    AT_FDCWD,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_STRICTATIME,
    in_user_namespace,
    mount,
    move_mount,
    open_tree,
    openat2,
    pivot_root,
    restrict_tree,
    umount,
)
from runtime.errors import InvalidError, UnsupportedError
from runtime.records import NAME

_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_QUIET: Final = MS_NOSUID | MS_NODEV | MS_NOEXEC


class Rootfs(NamedTuple):
    """Parts of a root file system.

    `layers` are the image's directories, uppermost first; `upper` and `work` belong to the
    container; `mountpoint` is any empty directory; `files` are (path on the host, path inside) of
    single files to bind, `binds` the user's mounts.
    """

    layers: tuple[str, ...]
    upper: str
    work: str
    mountpoint: str
    files: tuple[tuple[str, str], ...] = ()
    binds: tuple[Bind, ...] = ()


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def mount_overlay(rootfs: Rootfs) -> None:
    """Mount the overlay; `UnsupportedError` gives the reason if that is impossible."""
    own = f",upperdir={_escaped(rootfs.upper)},workdir={_escaped(rootfs.work)}"
    mount_layers(rootfs.layers, rootfs.mountpoint, own)


def mount_layers(layers: tuple[str, ...], mountpoint: str, own: str = "") -> None:
    """Mount an overlay of layers, uppermost first.

    `own` has the mount options of the container's own layer. Without them the overlay is read-only
    and needs at least two layers.
    """
    # Pass layers by descriptor: all options together must fit into one page, regardless of the
    # length of the layers' paths. Without redirects and metacopy, files in the upper layer are
    # complete, as `diff` and `commit` read them.
    lower = [os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for layer in layers]
    options = f"lowerdir={':'.join(f'/proc/self/fd/{fd}' for fd in lower)}{own}"
    options += ",redirect_dir=nofollow,metacopy=off"
    if in_user_namespace():
        options += ",userxattr"  # only the host's root may use trusted.* attributes (overlayfs.rst)
    try:
        # nodev: the container cannot open a device node that it creates. It can open only the
        # devices in /dev, which are separate mounts.
        mount("overlay", mountpoint, "overlay", MS_NODEV, options)
    except OSError as error:
        cause = {
            errno.EINVAL: f"{mountpoint} is on an overlay itself, or on a file system"
            " that cannot be an upper layer",
            errno.ENODEV: "the kernel has no overlayfs",
            errno.EPERM: "user namespaces can mount overlayfs only since Linux 5.11",
        }.get(error.errno or 0, "")
        raise UnsupportedError(
            "mount the container's file system",
            str(error.strerror),
            cause,
            "point MYDOCKER_ROOT at a directory on tmpfs, ext4 or xfs; see `netmodes doctor`",
        ) from error
    finally:
        for fd in lower:
            os.close(fd)


def enter(rootfs: Rootfs, protect: Callable[[], None], *, read_only: bool = False) -> None:
    """Build the root file system and pivot into it; the host's file system is then out of reach.

    `protect` covers paths in /proc and /sys. It is called before any file of a volume or of the
    host is attached: another process could exchange such files meanwhile. With `read_only` single
    files are mounted read-only; `lock` makes the rest read-only.
    """
    outside = os.stat("/")
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    devices = [open_tree(f"/dev/{name}") for name in _DEVICES]
    for tree in devices:  # devices still accept writes; mode and owner cannot be changed
        restrict_tree(tree, MOUNT_ATTR_RDONLY)
    files = [(open_tree(source), target) for source, target in rootfs.files]
    for tree, _ in files if read_only else ():
        restrict_tree(tree, MOUNT_ATTR_RDONLY)
    taken = open_binds(rootfs.binds)
    mount_overlay(rootfs)
    os.chdir(rootfs.mountpoint)
    pivot_root(".", ".")
    # "/" is the new root now. The old root lies on top of it, reached as ".", until it is
    # unmounted. A user namespace may mount proc and sysfs only while it still sees the
    # mounts that it came from.
    for directory in ("/proc", "/sys", "/dev", "/etc"):
        with suppress(FileExistsError):
            os.mkdir(directory)
    for directory in _PROTECTED:
        if not stat.S_ISDIR(os.lstat(directory).st_mode):  # a bind could cover a link's target
            raise InvalidError("start the container", f"{directory} of the image is no directory")
    _mount_proc()
    _mount_sys()
    umount(".")
    os.chdir("/")
    _refuse_host_root(outside)
    _make_dev(devices)
    protect()
    for tree, target in files:
        _put(tree, target)
    attach_binds(taken)


def lock() -> None:
    """Remount the container's own file system read-only; mounts in it stay as they are."""
    mount("", "/", flags=MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NODEV)


def _refuse_host_root(outside: os.stat_result) -> None:
    """Raise an error unless "/" is exactly one mount, and not the host's root."""
    inside = os.stat("/")
    with open("/proc/self/mountinfo", "rb", buffering=0) as file:
        roots = sum(line.split()[4] == b"/" for line in file.read().splitlines())
    if roots != 1 or (inside.st_dev, inside.st_ino) == (outside.st_dev, outside.st_ino):
        raise UnsupportedError("leave the host's file system", "the old root is still reachable")


def _put(tree: int, target: str) -> None:
    """Attach a single file; create the mount point if the image has none."""
    if not os.path.exists(target):
        if os.path.lexists(target):
            os.unlink(target)  # a dangling symbolic link
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    move_mount(tree, target)
    os.close(tree)


def _mount_proc() -> None:
    try:
        mount("proc", "/proc", "proc", _QUIET)
    except PermissionError as error:
        raise UnsupportedError(
            "mount /proc in the container",
            str(error.strerror),
            "the outer /proc is partly masked, as inside another container",
            "start the outer container with --security-opt systempaths=unconfined",
        ) from error


def _mount_sys() -> None:
    """Mount a read-only sysfs that shows the container's network devices.

    A user namespace that does not own its network namespace (mode host in a user namespace)
    may not mount sysfs; it gets the host's, read-only.
    """
    try:
        mount("sysfs", "/sys", "sysfs", _QUIET | MS_RDONLY)
    except PermissionError:
        tree = open_tree("./sys", recursive=True)
        quiet = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
        restrict_tree(tree, MOUNT_ATTR_RDONLY | quiet)
        move_mount(tree, "/sys")
        os.close(tree)


def _make_dev(devices: Sequence[int]) -> None:
    mount("tmpfs", "/dev", "tmpfs", _QUIET | MS_STRICTATIME, "mode=755,size=65536k")
    for tree, name in zip(devices, _DEVICES, strict=True):
        os.mknod(f"/dev/{name}", stat.S_IFREG | 0o644)
        move_mount(tree, f"/dev/{name}")
        os.close(tree)
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"/dev/{name}")
    terminals = "newinstance,ptmxmode=0666,mode=0620"
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, terminals)
    shm = "/dev/shm"  # noqa: S108 - the container's own
    mount("tmpfs", shm, "tmpfs", _QUIET, "mode=1777,size=65536k")
    try:
        mount("mqueue", "/dev/mqueue", "mqueue", _QUIET)
    except OSError:
        os.rmdir("/dev/mqueue")  # a kernel without POSIX message queues


_PROTECTED: Final = ("/proc", "/sys", "/dev")
"""Directories where a mount would undo the protection of the host's kernel settings."""


class Bind(NamedTuple):
    """One `-v` option: source (a host path or a volume's name), target, and access."""

    source: str
    target: str
    read_only: bool = False

    @property
    def volume(self) -> bool:
        """True if the source is the name of a volume."""
        return "/" not in self.source

    def __str__(self) -> str:
        return f"{self.source}:{self.target}{':ro' if self.read_only else ''}"


def parse_bind(asked: str, text: str) -> Bind:
    """Parse `source:target[:ro|:rw]`; `InvalidError` names the malformed part."""
    source, target, *rest = [*text.split(":"), ""]
    mode = rest[0] if rest else ""
    bind = Bind(source, os.path.normpath(target) if target else "", mode == "ro")
    wrong = ""
    if not source or not target or len(rest) > 2 or mode not in ("", "ro", "rw"):
        wrong = "is not SOURCE:TARGET[:ro]"
    elif not target.startswith("/"):
        wrong = f"has the target {target!r}, which is not absolute"
    elif _forbidden(bind.target):
        wrong = f"would cover {bind.target}, which mydocker mounts itself"
    elif bind.volume and not NAME.fullmatch(source):
        wrong = f"has the malformed volume name {source!r}"
    elif not bind.volume and not source.startswith("/"):
        wrong = f"has the source {source!r}, which is not absolute"
    if wrong:
        raise InvalidError(asked, f"-v {text} {wrong}", remedy="-v /here:/there, or -v name:/there")
    return bind


def _forbidden(target: str) -> bool:
    return target == "/" or any(f"{target}/".startswith(f"{path}/") for path in _PROTECTED)


class DetachedMount(NamedTuple):
    """A source as a detached mount (open_tree(2))."""

    tree: int
    target: str
    directory: bool


def open_binds(binds: Sequence[Bind]) -> list[DetachedMount]:
    """Open every source, with the mounts below it, for `attach_binds`.

    The container cannot open a device in a source. Raise `InvalidError` if a source does not exist.
    """
    found = []
    for source, target, read_only in binds:
        try:
            tree = open_tree(source, recursive=True)
        except OSError as error:
            raise InvalidError(
                f"mount {source} at {target}",
                str(os.strerror(error.errno or 0)),
                remedy=f"mkdir -p {source}",
            ) from error
        restrict_tree(tree, MOUNT_ATTR_NODEV | (MOUNT_ATTR_RDONLY if read_only else 0))
        found.append(DetachedMount(tree, target, stat.S_ISDIR(os.fstat(tree).st_mode)))
    return found


def attach_binds(taken: Iterable[DetachedMount]) -> None:
    """Attach the detached mounts inside the current root, outer targets first."""
    for tree, target, directory in sorted(taken, key=lambda item: item.target.count("/")):
        asked = f"mount something at {target}"
        try:
            place = _open_mount_point(asked, target, directory=directory)
            if stat.S_ISDIR(os.fstat(place).st_mode) != directory:
                kinds = ("a file", "a directory") if directory else ("a directory", "a file")
                raise InvalidError(asked, "the target is {}, but the source is {}".format(*kinds))
            move_mount(tree, place)
            os.close(place)
        except OSError as error:
            raise InvalidError(asked, str(os.strerror(error.errno or 0))) from error
        finally:
            os.close(tree)


def _open_mount_point(asked: str, target: str, *, directory: bool) -> int:
    """Open a mount target, which is created if it is missing; refuse a protected path.

    The second check is on the descriptor: another process may share the directory that the path
    leads through, and may exchange the target meanwhile.
    """
    path = os.path.realpath(target)
    if not _forbidden(path):
        _make_mount_point(path, directory=directory)
        place = openat2(AT_FDCWD, path, os.O_PATH, resolve=0)
        path = os.readlink(f"/proc/self/fd/{place}")
        if not _forbidden(path):
            return place
    raise InvalidError(asked, f"in this image the path leads to {path}")


def _make_mount_point(path: str, *, directory: bool) -> None:
    if os.path.exists(path):
        return
    os.makedirs(path if directory else os.path.dirname(path), exist_ok=True)
    if not directory:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
