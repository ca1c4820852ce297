"""Filter of the system calls that Docker's default profile denies (seccomp(2)).

The rules are those calls of the profile that the kernel permits without a capability, or with one
that any process has in a user namespace of its own. The caller builds the program with libseccomp,
because a library loaded inside the container would be the image's. pyseccomp is not used: its
import starts processes to find the library, which takes longer than the start of a container.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import lru_cache
from typing import Final

from linux.syscalls import PR_SET_SECCOMP, SECCOMP_MODE_FILTER, prctl

_SYS_ADMIN: Final = 1 << 21
_SYS_ADMIN_CALLS: Final = (
    *("bpf", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie"),
    *("mount", "mount_setattr", "move_mount", "open_tree", "perf_event_open", "quotactl"),
    *("quotactl_fd", "setdomainname", "sethostname", "setns", "umount", "umount2", "unshare"),
)
"""Calls that CAP_SYS_ADMIN permits; without it they only serve in a new user namespace."""
_DENIED: Final = (
    *("add_key", "keyctl", "request_key", "userfaultfd", "kexec_file_load", "kexec_load"),
    *("io_uring_enter", "io_uring_register", "io_uring_setup", "nfsservctl", "pivot_root"),
    *("swapoff", "swapon", "sysfs", "_sysctl", "uselib", "ustat", "vm86", "vm86old"),
)
_AF_VSOCK: Final = 40
_CLONE_NAMESPACES: Final = 0x7E020000

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_EQ, _MASKED_EQ = 4, 7
_COMPATIBLE: Final = {"x86_64": (0x40000003, 0x4000003E), "aarch64": (0x40000028,)}
"""Architectures whose programs the machine's kernel also executes (seccomp_arch_add(3))."""


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


@lru_cache
def program(capabilities: int) -> bytes:
    """Return the filter for a container with these capabilities; empty without libseccomp."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return b""
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_ALLOW))
    try:
        for architecture in _COMPATIBLE.get(os.uname().machine, ()):
            _check(library.seccomp_arch_add(context, architecture))

        def deny(name: str, *comparisons: _Comparison, number: int = errno.EPERM) -> None:
            call = library.seccomp_syscall_resolve_name(name.encode())
            if call != -1:  # an older library does not know each call
                found = (_Comparison * len(comparisons))(*comparisons)
                action = _ERRNO | number
                result = library.seccomp_rule_add_array(
                    context, action, call, len(comparisons), found
                )
                _check(result)

        for name in _DENIED:
            deny(name)
        deny("socket", _Comparison(0, _EQ, _AF_VSOCK, 0))
        if not capabilities & _SYS_ADMIN:
            for name in _SYS_ADMIN_CALLS:
                deny(name)
            flags = int(os.uname().machine == "s390x")
            for bit in range(_CLONE_NAMESPACES.bit_length()):
                if one := _CLONE_NAMESPACES & 1 << bit:
                    deny("clone", _Comparison(flags, _MASKED_EQ, one, one))
            deny("clone3", number=errno.ENOSYS)  # its flags are in memory; programs then use clone
        return _exported(library, context)
    finally:
        library.seccomp_release(context)


def _exported(library: ctypes.CDLL, context: ctypes.c_void_p) -> bytes:
    memory = os.memfd_create("seccomp")
    try:
        _check(library.seccomp_export_bpf(context, memory))
        return os.pread(memory, os.fstat(memory).st_size, 0)
    finally:
        os.close(memory)


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, f"libseccomp: {os.strerror(-result)}")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def load(found: bytes) -> None:
    """Filter all further system calls of this process and its children.

    Needs CAP_SYS_ADMIN in the user namespace. Empty bytes change nothing.
    """
    if found:
        request = _Program(len(found) // 8, found)
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(request))
