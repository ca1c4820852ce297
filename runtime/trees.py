"""Removing a directory with all that is in it, however deep somebody made it."""

from __future__ import annotations

import os
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(path: str) -> None:
    """Remove a directory; one that is not there is no failure.

    A container can make directories so deep that a recursion, or a path, does
    not reach the end. So each is moved up to the top before its turn comes. What
    a killed call leaves is as removable as before.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        while names := os.listdir(top):
            for name in names:
                _remove_one(top, name)
    finally:
        os.close(top)
    os.rmdir(path)


def _remove_one(top: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=top)
    except IsADirectoryError:
        directory = os.open(name, _DIRECTORY, dir_fd=top)
        try:
            for inner in os.listdir(directory):
                try:
                    os.unlink(inner, dir_fd=directory)
                except IsADirectoryError:
                    unused = os.urandom(16).hex()
                    os.rename(inner, unused, src_dir_fd=directory, dst_dir_fd=top)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=top)
