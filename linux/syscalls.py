"""System calls that Python 3.11 does not have.

`os.unshare` and `os.setns` exist since Python 3.12. Callers use the functions of this module on
every version of Python, so that there is only one implementation. Functions are named after their
system calls (section 2 of the manual). They raise `OSError` with the errno, the name of the system
call and its arguments.

pyroute2 is not used because it has few of these system calls, and its import costs more than
starting a container.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import struct
from typing import Final

# clone(2), unshare(2), setns(2)
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

# mount(2), umount2(2)
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SHARED: Final = 1 << 20
MS_STRICTATIME: Final = 1 << 24
MNT_DETACH: Final = 2

# prctl(2)
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
SECCOMP_MODE_FILTER: Final = 2

# openat2(2)
AT_FDCWD: Final = -100
RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

_OPENAT2: Final = 437
_OPENAT2_TRIES: Final = 128
_PIDFD_GETFD: Final = 438
_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}

libc = ctypes.CDLL(None, use_errno=True)
# With argument types, ctypes converts arguments in half the time.
_mount, _prctl = libc.mount, libc.prctl
_mount.argtypes = (ctypes.c_char_p,) * 3 + (ctypes.c_ulong, ctypes.c_char_p)
_prctl.argtypes = (ctypes.c_int,) + (ctypes.c_ulong,) * 4


def check(result: int, what: str) -> int:
    """Return the result of a system call; raise `OSError` if it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces.

    A new user namespace needs a process with only one thread (otherwise EINVAL). A new pid
    namespace is that of later children, not of the caller.
    """
    check(libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, flags: int = 0) -> None:
    """Enter the namespace of `fd`, or several namespaces of the process of a pidfd at once.

    Only the calling thread enters. It can enter a mount namespace only if it shares its root and
    working directory with no other thread.
    """
    check(libc.setns(fd, flags), f"setns({fd}, {flags:#x})")


def sethostname(name: str) -> None:
    """Set the hostname of the caller's UTS namespace.

    Python has this function only in `socket`, whose import takes milliseconds.
    """
    raw = os.fsencode(name)
    check(libc.sethostname(raw, ctypes.c_size_t(len(raw))), f"sethostname({name})")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system, bind a directory, or change the propagation of a mount."""
    result = _mount(
        os.fsencode(source) if source else None,
        os.fsencode(target),
        fstype.encode() if fstype else None,
        flags,
        os.fsencode(data) if data else None,
    )
    shown = f"{source or 'none'} on {target}, type {fstype or '-'}, {flags:#x}, {data or '-'}"
    check(result, f"mount({shown})")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """Unmount `target`, by default even if it is busy: umount2(2)."""
    check(libc.umount2(os.fsencode(target), flags), f"umount({target})")


def pivot_root(new_root: str, put_old: str) -> None:
    """Exchange the root mount of the mount namespace.

    glibc has no function for this system call, so its number is looked up by the machine's
    architecture.
    """
    number = _PIVOT_ROOT[os.uname().machine]
    result = libc.syscall(number, os.fsencode(new_root), os.fsencode(put_old))
    check(result, f"pivot_root({new_root}, {put_old})")


def openat2(directory: int, path: str | bytes, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open `path` below an open directory, close-on-exec.

    If a path is checked before it is opened, another process can change a symbolic link in between.
    With openat2 the kernel itself checks every step that leads out of the directory. It refuses the
    step (RESOLVE_BENEATH: EXDEV) or stays in the directory (RESOLVE_IN_ROOT). Neither Python nor
    glibc has a function for this system call. EAGAIN means that a directory was renamed while a
    `..` was resolved.
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve | RESOLVE_NO_MAGICLINKS)
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError("embedded null byte")
    for _ in range(_OPENAT2_TRIES):
        result = libc.syscall(_OPENAT2, directory, raw, how, len(how))
        if result >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return check(result, f"openat2({os.fsdecode(raw)})")


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Duplicate a descriptor of another process, close-on-exec.

    The caller needs the permissions of ptrace(2). Python has no function for this system call.
    """
    return check(libc.syscall(_PIDFD_GETFD, pidfd, fd, 0), f"pidfd_getfd({pidfd}, {fd})")


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Change an attribute of the calling process or thread."""
    return check(_prctl(option, arg2, arg3, arg4, arg5), f"prctl({option}, {arg2})")


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Let the kernel send a signal to this process when the parent *thread* dies.

    Call this function after every change of credentials, because that clears the setting
    (prctl(2)).
    """
    prctl(PR_SET_PDEATHSIG, number)


_CAP_HEADER: Final = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
_CAP_DATA: Final = struct.Struct("=6I")
"""Effective, permitted and inheritable capabilities: the low 32, then the high 32."""


def capget() -> int:
    """Return the permitted capabilities of the caller as a bit set."""
    data = ctypes.create_string_buffer(_CAP_DATA.size)
    check(libc.capget(_CAP_HEADER, data), "capget")
    _, low, _, _, high, _ = _CAP_DATA.unpack(data)
    return int(low) | int(high) << 32


def capset(bits: int) -> None:
    """Set the effective and permitted capabilities to `bits`, and the inheritable ones to none."""
    low, high = bits & 0xFFFFFFFF, bits >> 32
    data = _CAP_DATA.pack(low, low, 0, high, high, 0)
    check(libc.capset(_CAP_HEADER, data), f"capset({bits:#x})")


_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_MOUNT_SETATTR: Final = 442

_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
_MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8


def open_tree(path: str, *, recursive: bool = False) -> int:
    """Clone the mount at `path` as a detached mount tree, and return its descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    result = libc.syscall(_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags)
    return check(result, f"open_tree({path})")


def move_mount(tree: int, target: str | int) -> None:
    """Attach a mount tree from `open_tree` at `target`, a path or a descriptor."""
    place = (AT_FDCWD, os.fsencode(target)) if isinstance(target, str) else (target, b"")
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    result = libc.syscall(_MOVE_MOUNT, tree, b"", *place, flags)
    check(result, f"move_mount({tree}, {target})")


def restrict_tree(tree: int, attributes: int, *, path: str = "") -> None:
    """Add attributes to a detached mount tree and all mounts below it: mount_setattr(2).

    With AT_FDCWD and `path`, add them to the mounts at and below that path.
    """
    request = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE | (0 if path else _AT_EMPTY_PATH)
    raw = os.fsencode(path)
    result = libc.syscall(_MOUNT_SETATTR, tree, raw, flags, request, len(request))
    check(result, f"mount_setattr({path or tree}, {attributes:#x})")


_NS_GET_USERNS: Final = 0xB701
"""ioctl_ns(2)."""
_EVERY_ID: Final = [b"0", b"0", b"4294967295"]


def in_user_namespace() -> bool:
    """Return True if user ids are mapped, so that root here is another user outside.

    Return False if the kernel has no user namespaces.
    """
    try:
        with open("/proc/self/uid_map", "rb", buffering=0) as file:
            return file.read().split() != _EVERY_ID
    except FileNotFoundError:
        return False


def user_namespace(descriptor: int) -> tuple[int, int]:
    """Return the device and inode of the user namespace that owns a namespace: ioctl_ns(2).

    Raises `OSError` (EPERM) if that user namespace is outside the caller's.
    """
    found = fcntl.ioctl(descriptor, _NS_GET_USERNS)
    try:
        status = os.fstat(found)
    finally:
        os.close(found)
    return status.st_dev, status.st_ino
