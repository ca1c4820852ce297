"""What a container may and may not do: capabilities, hidden paths.

The threat model is Docker's default without seccomp: root inside has the
fourteen default capabilities, in a bounding set that no exec can exceed.
"""

from __future__ import annotations

import os
from typing import Final

from linux.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    PR_CAPBSET_DROP,
    capget,
    capset,
    mount,
    prctl,
)

_CAPABILITIES: Final = {
    "chown": 0,
    "dac_override": 1,
    "fowner": 3,
    "fsetid": 4,
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "setpcap": 8,
    "net_bind_service": 10,
    "net_raw": 13,
    "sys_chroot": 18,
    "mknod": 27,
    "audit_write": 29,
    "setfcap": 31,
}
DEFAULT_CAPABILITIES: Final = sum(1 << number for number in _CAPABILITIES.values())
"""Docker's default set, as a bit set (capabilities(7))."""

_HIDDEN: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_READ_ONLY: Final = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)
_LOCKED_DOWN: Final = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC


def hide_paths() -> None:
    """Cover what tells too much about the host, and make the rest of its knobs read-only.

    Needs the container's own `/dev/null`.
    """
    for path in _HIDDEN:
        try:
            mount("/dev/null", path, flags=MS_BIND)
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            mount("tmpfs", path, "tmpfs", _LOCKED_DOWN, "size=0")
    for path in _READ_ONLY:
        if os.path.exists(path):
            mount(path, path, flags=MS_BIND)
            mount("", path, flags=MS_BIND | MS_REMOUNT | _LOCKED_DOWN)


def drop_capabilities(*, guarded: bool) -> None:
    """Keep the default set, for this process and all it will ever execute.

    A `guarded` process keeps one capability more, the highest it has. That makes
    it a stranger to the container: without that capability nobody inside may
    trace it or look through its /proc directory (ptrace(2), "Ptrace access mode
    checking"), while the host's tools can.
    """
    held = capget()
    beyond = held & ~DEFAULT_CAPABILITIES
    for number in range(held.bit_length()):
        if not DEFAULT_CAPABILITIES >> number & 1:
            prctl(PR_CAPBSET_DROP, number)
    guard = 1 << (beyond.bit_length() - 1) if guarded and beyond else 0
    capset(held & DEFAULT_CAPABILITIES | guard)
