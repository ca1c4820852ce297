"""Small files, read and written whole, each with the fewest system calls.

`open` would ask of each whether it is a terminal, how long it is and where its
offset stands; that adds up where a container's start reads and writes a dozen.
"""

from __future__ import annotations

import os
from typing import Final

_PIECE: Final = 1 << 16


def read(path: str) -> bytes:
    """All of a file; `OSError` as open(2) has it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = piece = os.read(fd, _PIECE)
        while len(piece) == _PIECE:  # less comes only at the end
            piece = os.read(fd, _PIECE)
            data += piece
        return data
    finally:
        os.close(fd)


def write(path: str, data: bytes, *, mode: int = 0o666) -> None:
    """Make a file that holds `data`, or put that into the one there is; `mode` less the umask."""
    _put(path, data, os.O_CREAT | os.O_TRUNC, mode)


def overwrite(path: str, data: bytes) -> None:
    """Write into a file that is there, as those of /proc and /sys want it."""
    _put(path, data, 0, 0)


def _put(path: str, data: bytes, flags: int, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, mode)
    try:
        written = os.write(fd, data)
        while written < len(data):
            written += os.write(fd, data[written:])
    finally:
        os.close(fd)
