"""What a sandbox is made of: namespaces, and the mounts that belong to them.

The network namespace is a *void*: `lo`, down, and nothing else. Everything here
runs in the init of a sandbox, which is pid 1 already and does not live in the
caller's mount namespace any more once `furnish` has begun.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from linux import syscalls as sys_

MARK = Path("/run/netmodes/sandbox")
"""Lies on the private `/run`: it exists inside and cannot outside."""

_NAMESPACES = {
    "mount namespace": sys_.CLONE_NEWNS,
    "network namespace": sys_.CLONE_NEWNET,
    "UTS namespace": sys_.CLONE_NEWUTS,
    "IPC namespace": sys_.CLONE_NEWIPC,
    "cgroup namespace": sys_.CLONE_NEWCGROUP,
}
STEPS = (
    "user namespace",
    "id maps",
    "pid namespace",
    *_NAMESPACES,
    "private mounts",
    "private /proc",
    "private /run",
)
"""What the way into a sandbox consists of, in order: the values of `SandboxError.step`."""

_PLAIN = sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC


class SandboxError(Exception):
    """The machine refused a step on the way into the sandbox.

    `step` names it, `errno` and the message are the kernel's; nothing is left behind.
    """

    def __init__(self, step: str, number: int, said: str) -> None:
        super().__init__(f"{step}: {said}")
        self.step, self.errno, self.said = step, number, said


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Turn an `OSError` of the body into a `SandboxError` of this step."""
    try:
        yield
    except OSError as error:
        raise SandboxError(name, error.errno or 0, error.strerror or str(error)) from error


def furnish(*, own_cgroup: bool) -> None:
    """Make the namespaces that are left, and the mounts that belong to them."""
    for name, flag in _NAMESPACES.items():
        with step(name):
            sys_.unshare(flag)
    with step("private mounts"):
        sys_.mount("", "/", flags=sys_.MS_REC | sys_.MS_PRIVATE)
    with step("private /proc"):
        sys_.mount("proc", "/proc", "proc", _PLAIN)
    # A container that masks parts of /sys may not mount it anew: then /sys/class/net
    # shows the outer links. Nothing here reads it.
    with contextlib.suppress(OSError):
        sys_.mount("sysfs", "/sys", "sysfs", _PLAIN)
    if own_cgroup:
        with contextlib.suppress(OSError):
            sys_.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", _PLAIN)
    with step("private /run"):
        _cover_run()
        MARK.parent.mkdir()
        MARK.touch()


def _cover_run() -> None:
    """A tmpfs over /run, through which only links and what this program needs show."""
    cwd = Path.cwd()
    needed = (cwd, Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve())
    kept = {Path(*path.parts[:3]) for path in needed if Path("/run") in path.parents}
    links = {Path(entry): os.readlink(entry) for entry in os.scandir("/run") if entry.is_symlink()}
    held = {path: os.open(path, os.O_PATH) for path in kept}
    sys_.mount("tmpfs", "/run", "tmpfs", sys_.MS_NOSUID | sys_.MS_NODEV, "mode=755")
    for link, target in links.items():
        link.symlink_to(target)
    for path, fd in held.items():
        path.mkdir()
        sys_.mount(f"/proc/self/fd/{fd}", str(path), flags=sys_.MS_BIND | sys_.MS_REC)
        os.close(fd)
    if cwd.is_relative_to("/run"):
        os.chdir(cwd)
