"""Removing a directory with all that is in it, however deep somebody made it."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(path: str) -> None:
    """Remove a directory; one that is not there is no failure, also when others are at it too.

    A container can make directories so deep that a recursion, or a path, does
    not reach the end. So each is moved up to the top before its turn comes. What
    a killed call leaves is as removable as before.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        while True:
            for name in os.listdir(top):
                with suppress(FileNotFoundError):
                    _remove_one(top, name)
            try:
                os.rmdir(path)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                # Another remover has just moved something up.
            else:
                return
    finally:
        os.close(top)


def _remove_one(top: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=top)
    except IsADirectoryError:
        directory = os.open(name, _DIRECTORY, dir_fd=top)
        try:
            for inner in os.listdir(directory):
                with suppress(FileNotFoundError):
                    _move_up(top, directory, inner)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=top)


def _move_up(top: int, directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        os.rename(name, os.urandom(16).hex(), src_dir_fd=directory, dst_dir_fd=top)
