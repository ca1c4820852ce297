"""Waiting for a file to grow: inotify(7)."""

from __future__ import annotations

import ctypes
import os
from typing import Self

_IN_MODIFY = 0x2
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """A watch on one file; `fd` becomes readable when the file has been written to."""

    def __init__(self, path: str) -> None:
        self.fd = _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
        try:
            added = _libc.inotify_add_watch(self.fd, os.fsencode(path), _IN_MODIFY)
            _check(added, f"inotify_add_watch({path})")
        except OSError:
            os.close(self.fd)
            raise

    def drain(self) -> None:
        """Take what has been noticed, so that `fd` tells about the next write only."""
        try:
            while os.read(self.fd, 4096):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Give the watch back."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check(result: int, what: str) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}")
    return result
