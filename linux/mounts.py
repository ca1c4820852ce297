"""Mounts as file descriptors: taken in one place, put down in another.

A clone of a mount taken *before* pivot_root(2) can be attached *after* it, so
that the target path is resolved inside the new root, where no symbolic link of
a hostile image can lead out. Kernel 5.2 and later; mount_setattr 5.12.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_MOUNT_SETATTR: Final = 442

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}")
    return result


def open_tree(path: str, *, recursive: bool = False) -> int:
    """A detached clone of the mount at `path`, as a descriptor (close-on-exec): open_tree(2)."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    result = _libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
    return _check(result, f"open_tree({path})")


def move_mount(tree: int, target: str) -> None:
    """Attach what `open_tree` gave at `target`: move_mount(2)."""
    result = _libc.syscall(
        _MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH
    )
    _check(result, f"move_mount({tree}, {target})")


def restrict_tree(tree: int, attributes: int) -> None:
    """Add mount attributes to a whole tree before it is attached: mount_setattr(2)."""
    request = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = _AT_EMPTY_PATH | _AT_RECURSIVE
    result = _libc.syscall(_MOUNT_SETATTR, tree, b"", flags, request, len(request))
    _check(result, f"mount_setattr({tree}, {attributes:#x})")


def restrict(path: str, attributes: int) -> None:
    """Add mount attributes to the mount at `path` and everything below it: mount_setattr(2)."""
    request = struct.pack("=QQQQ", attributes, 0, 0, 0)
    result = _libc.syscall(
        _MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), _AT_RECURSIVE, request, len(request)
    )
    _check(result, f"mount_setattr({path}, {attributes:#x})")
