"""Confinement of a container: capabilities, hidden paths.

The threat model is Docker's default, with the filter of `runtime.init.seccomp`: root inside has the
fourteen default capabilities, or the requested ones, in a bounding set that no exec can
exceed. A user that adds capabilities such as SYS_ADMIN trusts the container.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
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
from runtime.errors import InvalidError

_NAMES: Final = (
    *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid"),
    *("setuid", "setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin"),
    *("net_raw", "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace"),
    *("sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time"),
    *("sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap"),
    *("mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read"),
    *("perfmon", "bpf", "checkpoint_restore"),
)
"""Every capability by its number (capabilities(7), linux/capability.h)."""
_ALL: Final = (1 << len(_NAMES)) - 1
_DEFAULT: Final = (
    *("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *("net_bind_service", "net_raw", "sys_chroot", "mknod", "audit_write", "setfcap"),
)
DEFAULT_CAPABILITIES: Final = sum(1 << _NAMES.index(name) for name in _DEFAULT)
"""Docker's default set, as a bit set (capabilities(7))."""

_HIDDEN: Final = (
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
)
_READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_LOCKED_DOWN: Final = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC


def hide_paths() -> None:
    """Cover paths that reveal too much about the host, and make other kernel settings read-only.

    Needs the container's own `/dev/null`, which no bind mount may have covered (CVE-2025-31133).
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


def capabilities(asked: str, add: Iterable[str], drop: Iterable[str]) -> int:
    """Return a container's capabilities as a bit set: the default set with the requested changes.

    Names are as Docker takes them: `NET_ADMIN`, `CAP_NET_ADMIN`, `ALL`, in any case. A capability
    that is both added and dropped is dropped; `ALL` applies before names.
    """
    found, added, dropped = DEFAULT_CAPABILITIES, 0, 0
    for name in add:
        bits = _bits(asked, name)
        found, added = (bits, added) if bits == _ALL else (found, added | bits)
    for name in drop:
        bits = _bits(asked, name)
        found, dropped = (0, dropped) if bits == _ALL else (found, dropped | bits)
    return (found | added) & ~dropped


def _bits(asked: str, name: str) -> int:
    plain = name.lower().removeprefix("cap_")
    if plain == "all":
        return _ALL
    if plain not in _NAMES:
        raise InvalidError(asked, f"unknown capability {name!r}", remedy="man 7 capabilities")
    return 1 << _NAMES.index(plain)


def drop_capabilities(*, guarded: bool, wanted: int = DEFAULT_CAPABILITIES) -> None:
    """Limit this process, and all that it executes, to the default set and the `wanted` set.

    A `guarded` process keeps one further capability, the highest it has. Without that
    capability no process in the container may trace the guarded process or read its /proc
    directory (ptrace(2), "Ptrace access mode checking"), while the host's tools can.
    """
    held, kept = capget(), DEFAULT_CAPABILITIES | wanted
    extra = held & ~kept
    _bound(held, kept)
    guard = 1 << (extra.bit_length() - 1) if guarded and extra else 0
    capset(held & kept | guard)


def forbid(wanted: int) -> None:
    """Limit all that the caller executes to the `wanted` set.

    Call it before the process becomes the container's user, which may not do this.
    """
    _bound(capget(), wanted)


def _bound(held: int, kept: int) -> None:
    for number in range(held.bit_length()):
        if not kept >> number & 1:
            prctl(PR_CAPBSET_DROP, number)
