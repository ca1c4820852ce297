"""Parts of a sandbox: its namespaces, and the mounts that belong to them.

The sandbox's network namespace has only `lo`, which is down. The functions run in the sandbox's
init, which already has pid 1. After its first step, `furnish` has left the caller's mount
namespace.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from linux import syscalls as sys_

MARK = Path("/run/netmodes/sandbox")
"""File on the private `/run`: it exists only inside a sandbox."""

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
"""Steps into a sandbox, in order: the values of `SandboxError.step`."""

_PLAIN = sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC


class SandboxError(Exception):
    """The machine refused a step on the way into the sandbox.

    `step` names the step. `errno` and the message come from the kernel. No resources remain.
    """

    def __init__(self, step: str, number: int, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step, self.errno, self.reason = step, number, reason


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Convert an `OSError` of the body to a `SandboxError` that names this step."""
    try:
        yield
    except OSError as error:
        raise SandboxError(name, error.errno or 0, error.strerror or str(error)) from error


def furnish(*, own_cgroup: bool) -> None:
    """Make all namespaces of the sandbox except user and pid, and mount their file systems."""
    for name, flag in _NAMESPACES.items():
        with step(name):
            sys_.unshare(flag)
    with step("private mounts"):
        sys_.mount("", "/", flags=sys_.MS_REC | sys_.MS_PRIVATE)
    with step("private /proc"):
        sys_.mount("proc", "/proc", "proc", _PLAIN)
    # The kernel refuses a new sysfs if a container masks parts of /sys: /sys/class/net then
    # shows the outer links. The harness does not read it.
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
    """Mount a tmpfs over /run; keep only symbolic links and the paths that this program needs."""
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


_CAP_NET_ADMIN, _CAP_NET_RAW, _CAP_SYS_ADMIN = 12, 13, 21


def privileged() -> bool:
    """Return whether the caller can make the sandbox's namespaces without a user namespace."""
    held = sys_.capget()
    return all(held >> bit & 1 for bit in (_CAP_NET_ADMIN, _CAP_NET_RAW, _CAP_SYS_ADMIN))


@dataclass(frozen=True, slots=True)
class Ids:
    """The uid, gid and name of a caller who is to be mapped to root."""

    uid: int
    gid: int
    name: str

    @classmethod
    def of_caller(cls) -> Ids:
        """Return uid, gid and user name of this process; a uid without a name is called `uidN`."""
        uid = os.geteuid()
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = f"uid{uid}"
        return cls(uid, os.getegid(), name)

    def write(self, pid: int) -> None:
        """Write the uid map and the gid map of process `pid`, which has made its user namespace.

        Raises `OSError` if the kernel refuses even the map of a single id.
        """
        if not self._write_range(pid, "newuidmap", "/etc/subuid", self.uid):
            Path(f"/proc/{pid}/uid_map").write_text(f"0 {self.uid} 1\n")
        if not self._write_range(pid, "newgidmap", "/etc/subgid", self.gid):
            # An unprivileged process can map a group only after it denies setgroups(2).
            Path(f"/proc/{pid}/setgroups").write_text("deny")
            Path(f"/proc/{pid}/gid_map").write_text(f"0 {self.gid} 1\n")

    def _write_range(self, pid: int, tool: str, table: str, own: int) -> bool:
        """Map root and the caller's range of subordinate ids; return whether that succeeded."""
        found = shutil.which(tool)
        subordinate = _subordinate(table, self.name, self.uid)
        if found is None or subordinate is None:
            return False
        first, count = subordinate
        argv = [found, str(pid), "0", str(own), "1", "1", str(first), str(count)]
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0


def _subordinate(table: str, name: str, uid: int) -> tuple[int, int] | None:
    """Return first id and length of the first range that `table` grants to the user: subuid(5)."""
    try:
        lines = Path(table).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        match line.strip().split(":"):
            case [owner, first, count] if owner in {name, str(uid)}:
                return int(first), int(count)
            case _:
                continue
    return None
