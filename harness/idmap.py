"""Who the caller is in the user namespace of a sandbox: user_namespaces(7).

Outside an ordinary user, inside root. With the subordinate ids of /etc/subuid and
/etc/subgid, where `newuidmap` and `newgidmap` are installed, there are other users
inside as well; without them there is root alone, which is enough for mydocker.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from linux import syscalls

_CAP_NET_ADMIN, _CAP_NET_RAW, _CAP_SYS_ADMIN = 12, 13, 21


def privileged() -> bool:
    """Whether the caller can make all other namespaces without a user namespace."""
    held = syscalls.capget()
    return all(held >> bit & 1 for bit in (_CAP_NET_ADMIN, _CAP_NET_RAW, _CAP_SYS_ADMIN))


@dataclass(frozen=True, slots=True)
class Ids:
    """A caller to be mapped to root."""

    uid: int
    gid: int
    name: str

    @classmethod
    def of_caller(cls) -> Ids:
        """The ids of this process; a uid that has no name goes by its number."""
        uid = os.geteuid()
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = f"uid{uid}"
        return cls(uid, os.getegid(), name)

    def write(self, pid: int) -> None:
        """Write the maps of `pid`, which has just made its user namespace.

        Raises `OSError` when the kernel refuses even the map of one id.
        """
        if not self._write_range(pid, "newuidmap", "/etc/subuid", self.uid):
            Path(f"/proc/{pid}/uid_map").write_text(f"0 {self.uid} 1\n")
        if not self._write_range(pid, "newgidmap", "/etc/subgid", self.gid):
            # Unprivileged, a group can only be mapped after setgroups(2) is given up.
            Path(f"/proc/{pid}/setgroups").write_text("deny")
            Path(f"/proc/{pid}/gid_map").write_text(f"0 {self.gid} 1\n")

    def _write_range(self, pid: int, tool: str, table: str, own: int) -> bool:
        """Map root and the subordinate range; whether that could be done."""
        found = shutil.which(tool)
        subordinate = _subordinate(table, self.name, self.uid)
        if found is None or subordinate is None:
            return False
        first, count = subordinate
        argv = [found, str(pid), "0", str(own), "1", "1", str(first), str(count)]
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0


def _subordinate(table: str, name: str, uid: int) -> tuple[int, int] | None:
    """First id and length of the first range that `table` grants: subuid(5)."""
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
