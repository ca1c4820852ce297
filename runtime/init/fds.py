"""Descriptors that one process hands to another, over a Unix socket."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from runtime.errors import UnsupportedError, exhausted, is_exhausted

MOST: Final = 253
"""How many one message can carry: SCM_MAX_FD, unix(7)."""
_CARRIES: Final = b"m"


def give(channel: int, descriptors: Sequence[int]) -> None:
    """Hand them to whoever holds the other end."""
    import socket  # already there in whoever inherited the channel: no import after a fork

    with socket.socket(fileno=os.dup(channel)) as opened:
        for start in range(0, len(descriptors), MOST):
            socket.send_fds(opened, [_CARRIES], descriptors[start : start + MOST])


def take(channel: int) -> tuple[bytes, list[int]]:
    """The next byte from there, and the descriptors that it carries, if it does.

    They have the lowest numbers that are free. No byte: the other end is closed.
    """
    import socket

    with socket.socket(fileno=os.dup(channel)) as opened:
        try:
            word, found, flags, _ = socket.recv_fds(opened, 1, MOST, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return b"", []
    if flags & socket.MSG_CTRUNC:
        raise UnsupportedError(
            "take what is handed over",
            "there are more descriptors than a process may have here",
            remedy="ulimit -n",
        )
    return word, found


def take_until(channel: int, last: bytes) -> list[int] | None:
    """All descriptors that come before a last byte, or `None` when that never comes."""
    taken: list[int] = []
    while True:
        word, found = take(channel)
        if word in (b"", last):
            return taken if word else None
        taken += found


ENOUGH: Final = 32
"""More than any call has open at a time, but for a container's published ports."""

T = TypeVar("T")


def ensure(asked: str) -> None:
    """Make sure that there is room for as many as a call needs; `ExhaustedError` where not."""
    if 0 < _open_now() <= os.sysconf("SC_OPEN_MAX") - ENOUGH:
        return
    opened: list[int] = []  # or some of those that are open have numbers above the limit
    refusal: OSError | None = None
    try:
        opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        opened.extend(os.dup(opened[0]) for _ in range(ENOUGH - 1))
    except OSError as error:
        refusal = error
    for fd in opened:
        os.close(fd)
    if refusal is not None:
        raise exhausted(asked, refusal) from refusal


def _open_now() -> int:
    """How many the caller has open; 0 where the kernel does not tell (before 6.2)."""
    try:
        return os.stat("/proc/self/fd").st_size
    except OSError:
        return 0


def ensured(kind: type[T]) -> type[T]:
    """Have each public call of a class, and what its properties lead to, begin with `ensure`."""
    for name, value in tuple(vars(kind).items()):
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(value, property):
            setattr(kind, name, property(_ensured(name, value.fget)))
        elif callable(value):
            setattr(kind, name, _ensured(name, value))
    return kind


def _ensured(name: str, call: Any) -> Callable[..., Any]:
    asked = "use mydocker" if name == "__init__" else f"mydocker {name.replace('_', ' ')}"

    @functools.wraps(call)
    def begun(*arguments: Any, **options: Any) -> Any:
        ensure(asked)
        try:
            return call(*arguments, **options)
        except OSError as error:  # somebody else has taken what there was
            if not is_exhausted(error):
                raise
            raise exhausted(asked, error) from error

    return begun
