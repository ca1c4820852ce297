"""Whose root the caller is: user_namespaces(7)."""

from __future__ import annotations

import fcntl
import os
from typing import Final

_NS_GET_USERNS: Final = 0xB701
"""ioctl_ns(2)."""
_EVERY_ID: Final = [b"0", b"0", b"4294967295"]


def in_user_namespace() -> bool:
    """Whether the caller, root here, is somebody else outside: its ids are mapped.

    False where the kernel has no such namespaces.
    """
    try:
        with open("/proc/self/uid_map", "rb", buffering=0) as file:
            return file.read().split() != _EVERY_ID
    except FileNotFoundError:
        return False


def owner(descriptor: int) -> tuple[int, int]:
    """Device and inode of the user namespace to which another namespace belongs.

    Raises `OSError` (EPERM) for one outside the caller's own.
    """
    found = fcntl.ioctl(descriptor, _NS_GET_USERNS)
    try:
        status = os.fstat(found)
    finally:
        os.close(found)
    return status.st_dev, status.st_ino
