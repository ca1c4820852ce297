"""The host's view of the machine's files: read-only, except for a few private directories.

A faulty runtime, or a command that escapes from its container, must not destroy a file. So the
machine's whole tree is read-only in the host. `/run` and `/dev/shm` are private and empty. `/tmp`
and `/etc` can be written, and lose their changes when the world ends. `/tmp` is an overlay on the
machine's files. `/etc` has links to the machine's entries, and the world's resolver and names.

Only the directory `cache()` is kept when the world ends. Adapters store images there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Final

from linux.syscalls import (
    AT_FDCWD,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    mount,
    move_mount,
    open_tree,
    restrict_tree,
    umount,
)

HOME: Final = "/run/netmodes"
"""Directory in the host for the harness's own files."""

_QUIET: Final = MS_NOSUID | MS_NODEV | MS_NOEXEC


def cache() -> str:
    """Return the directory that is kept between runs: `netmodes` in the user's cache directory.

    The user's cache directory is $XDG_CACHE_HOME or ~/.cache.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return home if os.path.basename(home) == "netmodes" else os.path.join(home, "netmodes")


def furnish(hostname: str, resolver: str, hosts: Mapping[str, str]) -> None:
    """Make the mounts of a host, in a new mount and network namespace that only the caller uses.

    An `OSError` names the mount that the kernel refused.
    """
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    _protect()
    mount("proc", "/proc", "proc", _QUIET)
    for directory, mode in (("/run", "755"), ("/dev/shm", "1777")):  # noqa: S108 # tmpfs
        # Else the host could unmount something that another process has just mounted below it.
        with contextlib.suppress(OSError):  # nothing is mounted there
            umount(directory)
        mount("tmpfs", directory, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")
    os.mkdir(HOME)
    os.mkdir("/run/lock")
    _own_tmp()
    _own_sysfs()
    _own_etc(hostname, resolver, hosts)


def _protect() -> None:
    """Make all mounts read-only, except for devices and the cache, which are moved away first."""
    kept = [("/dev", open_tree("/dev", recursive=True))]
    with contextlib.suppress(OSError):  # a cache is impossible: keep nothing
        os.makedirs(cache(), mode=0o700, exist_ok=True)
        kept.append((cache(), open_tree(cache())))
    restrict_tree(AT_FDCWD, MOUNT_ATTR_RDONLY, path="/")
    for path, tree in kept:
        move_mount(tree, path)
        os.close(tree)


def _own_tmp() -> None:
    """Mount an overlay on /tmp. If the kernel refuses, /tmp stays read-only."""
    scratch, target = f"{HOME}/tmp", "/tmp"  # noqa: S108 # the host's own from here on
    for name in ("", "/upper", "/work"):
        os.mkdir(f"{scratch}{name}")
    os.chmod(f"{scratch}/upper", 0o1777)  # noqa: S103 # what /tmp is everywhere
    options = f"lowerdir={target},upperdir={scratch}/upper,workdir={scratch}/work"
    for extra in (",userxattr", ""):  # the first for user namespaces, from 5.11
        try:
            mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, options + extra)
        except OSError:
            continue
        return


def _own_sysfs() -> None:
    """Mount a sysfs at /sys that shows this network namespace, and its cgroups if possible.

    If a container engine masks parts of /sys, the kernel refuses a new sysfs in a user namespace.
    The machine's sysfs then stays, and /sys/class/net in the host lists the machine's links.
    """
    with contextlib.suppress(OSError):
        mount("sysfs", "/sys", "sysfs", _QUIET)
        with contextlib.suppress(OSError):
            mount("cgroup2", "/sys/fs/cgroup", "cgroup2", _QUIET)


def _own_etc(hostname: str, resolver: str, hosts: Mapping[str, str]) -> None:
    machine = f"{HOME}/etc"
    os.mkdir(machine)
    mount("/etc", machine, flags=MS_BIND | MS_REC)
    mount("tmpfs", "/etc", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    own = {
        "resolv.conf": f"nameserver {resolver}\n",
        "hostname": f"{hostname}\n",
        "hosts": "".join(f"{address}\t{names}\n" for address, names in hosts.items()),
    }
    for entry in os.scandir(machine):
        if entry.name in own:
            continue
        # Copy a symbolic link unchanged: most are relative to /etc.
        target = os.readlink(entry.path) if entry.is_symlink() else entry.path
        os.symlink(target, f"/etc/{entry.name}")
    for name, content in own.items():
        with open(f"/etc/{name}", "w", encoding="ascii") as file:
            file.write(content)
