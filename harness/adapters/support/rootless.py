"""Ordinary user of the host that starts a rootless runtime.

The user has a user id, subordinate ids for user namespaces of containers (subuid(5)), a home and a
runtime directory. `setpriv` switches to the user and drops all capabilities. newuidmap(1) is copied
into the host. In an unprivileged run the set-user-ID bit of the machine's file has no effect: the
file's owner, the machine's root, is not mapped in the sandbox (user_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from linux.syscalls import MS_BIND, MS_REC, MS_SHARED, in_user_namespace, mount

NAME: Final = "user"
UID: Final = 1000
SUBORDINATE: Final = range(10_000, 65_536)
"""Subordinate ids for containers; an ordinary user's sandbox has these ids too."""
HOME: Final = "/run/netmodes/user"
"""The user's home, with runtime directory and programs, in the host."""
PROGRAMS: Final = ("newuidmap", "newgidmap", "setpriv")
"""Programs that switch to an ordinary user."""

RUN: Final = f"{HOME}/run"
"""The directory of the user's sockets and pid files: XDG_RUNTIME_DIR."""
_BIN, _DEV, _SCRATCH = f"{HOME}/bin", f"{HOME}/dev", f"{HOME}/scratch"
_TUN: Final = "/dev/net/tun"
_TUN_NUMBER: Final = os.makedev(10, 200)
_ACCOUNTS: Final = {
    "passwd": f"root:x:0:0:root:/root:/bin/sh\n{NAME}:x:{UID}:{UID}::{HOME}:/bin/sh\n",
    "group": f"root:x:0:\n{NAME}:x:{UID}:\n",
    "subuid": f"{NAME}:{SUBORDINATE.start}:{len(SUBORDINATE)}\n",
    "subgid": f"{NAME}:{SUBORDINATE.start}:{len(SUBORDINATE)}\n",
}


def command(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the command line that runs a command as the user."""
    return ("setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", "--", *argv)


def environment(path: str) -> dict[str, str]:
    """Return the environment of the user's login, with `path` as the PATH."""
    return {
        "PATH": f"{_BIN}:{path}",
        "HOME": HOME,
        "USER": NAME,
        "LOGNAME": NAME,
        "TMPDIR": _SCRATCH,  # the machine's is read-only where the kernel refuses an overlay
        "XDG_RUNTIME_DIR": RUN,
        "XDG_CACHE_HOME": f"{HOME}/.cache",
        "XDG_CONFIG_HOME": f"{HOME}/.config",
        "XDG_DATA_HOME": f"{HOME}/.local/share",
    }


def obstacle() -> str:
    """Return the reason why this sandbox cannot have a rootless user, or an empty text."""
    for kind in ("uid", "gid"):
        with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
            if not maps_every_id(file, SUBORDINATE.stop - 1):
                return (
                    f"this sandbox has no {kind}s up to {SUBORDINATE.stop - 1}, which an ordinary "
                    "user's containers need: give yourself subordinate ids "
                    "(`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 NAME`), "
                    "install newuidmap (Debian: uidmap), or run as root"
                )
    if not os.path.exists(_TUN):
        return (
            f"{_TUN} is missing, and rootless runtimes need it for networking: run `modprobe tun`"
        )
    if not _open_to_all(_TUN) and in_user_namespace():
        return (
            f"{_TUN}, which rootless runtimes need for networking, is not writable for all users: "
            f"run `chmod 666 {_TUN}`, or run as root"
        )
    return ""


def cgroup_obstacle(command: str) -> str:
    """Return the reason why a runtime cannot make cgroups in this sandbox, or an empty text."""
    if not in_user_namespace() or os.access("/sys/fs/cgroup", os.W_OK):
        return ""
    return (
        f"{command} creates cgroups, but none is delegated to this user: run in a scope "
        "(`systemd-run --user --scope -p Delegate=yes …`), or as root"
    )


def maps_every_id(rows: Iterable[str], last: int) -> bool:
    """Return True if the rows of a uid_map(5) map every id from 0 to `last`."""
    wanted = 0
    for first, _, count in sorted(tuple(map(int, row.split())) for row in rows):
        if first <= wanted:
            wanted = max(wanted, first + count)
    return wanted > last


# --- inside the host -----------------------------------------------------------


def create_user() -> None:
    """Create the user: account, subordinate ids, directories, and access to /dev/net/tun.

    Every group may open ICMP sockets, which systemd allows too: user-mode network stacks send echo
    requests as the user (icmp(7)).
    """
    Path("/proc/sys/net/ipv4/ping_group_range").write_text(f"0 {SUBORDINATE.stop - 1}")
    for name, content in _ACCOUNTS.items():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"/etc/{name}")  # a link to the machine's own
        Path("/etc", name).write_text(content, encoding="ascii")
    for directory in (_BIN, _DEV, _SCRATCH, RUN):
        Path(directory).mkdir(parents=True)
    mount("tmpfs", _BIN, "tmpfs", 0, "mode=755")  # /run itself is mounted nosuid
    for program in PROGRAMS[:2]:
        found = shutil.which(program)
        assert found is not None, "looked for before"
        shutil.copyfile(found, f"{_BIN}/{program}")
        os.chmod(f"{_BIN}/{program}", 0o4755)  # noqa: S103 # its usual mode
    _open_tun()
    mount("", "/", flags=MS_REC | MS_SHARED)  # as on every machine: mounts propagate into the host


def chown_home() -> None:
    """Make the user the owner of the home directory and of all files in it."""
    for directory, _, names in os.walk(HOME):
        if not directory.startswith((_BIN, _DEV)):
            for path in (directory, *(f"{directory}/{name}" for name in names)):
                os.chown(path, UID, UID)
    os.chmod(RUN, 0o700)


def _open_tun() -> None:
    """Let the user open /dev/net/tun if the machine allows only root to open it."""
    if _open_to_all(_TUN):
        return
    mount("tmpfs", _DEV, "tmpfs", 0, "mode=755")
    os.mknod(f"{_DEV}/tun", 0o020666, _TUN_NUMBER)
    os.chmod(f"{_DEV}/tun", 0o666)  # noqa: S103 # its usual mode
    mount(f"{_DEV}/tun", _TUN, flags=MS_BIND)


def _open_to_all(path: str) -> bool:
    return os.stat(path).st_mode & 0o006 == 0o006
