"""Whose root the caller is: user_namespaces(7)."""

from __future__ import annotations

from typing import Final

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
