"""Errors that mydocker raises.

An error's text is `cannot <asked>: <happened>`, then the likely cause and what to try.
`exit_code` is the exit code of `mydocker run`, the same as Docker's: 125 for an error of
the runtime itself, 126 for a command that cannot be executed, 127 for a command that does
not exist. For errors with 125 every other command exits with 1.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final


class MydockerError(Exception):
    """A request failed. Nothing half-done is left behind.

    `asked` is the request as a verb phrase, which follows "cannot" in the text.
    """

    exit_code = 125

    def __init__(self, asked: str, happened: str, cause: str = "", remedy: str = "") -> None:
        # All four arguments go to Exception, so that the error survives pickling.
        super().__init__(asked, happened, cause, remedy)
        self.asked, self.happened, self.cause, self.remedy = asked, happened, cause, remedy

    def __str__(self) -> str:
        lines = [f"cannot {self.asked}: {self.happened}"]
        if self.cause:
            lines.append(f"likely cause: {self.cause}")
        if self.remedy:
            lines.append(f"try: {self.remedy}")
        return "\n  ".join(lines)


class NotFoundError(MydockerError):
    """The container, network, image or volume does not exist, or a prefix matches several."""


class ConflictError(MydockerError):
    """A name, an address or a subnet is taken, or an object is in use."""


class InvalidError(MydockerError):
    """The request is malformed or contradicts itself."""


class UnsupportedError(MydockerError):
    """The kernel or the caller's privileges do not allow the request."""


class NoRoomError(UnsupportedError):
    """The disk is full."""


class ExhaustedError(UnsupportedError):
    """The process or the machine has no free file descriptor."""


def is_exhausted(error: OSError) -> bool:
    """Return True if the error means that no file descriptor is free."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def exhausted(asked: str, error: OSError) -> ExhaustedError:
    """Return the error to raise when no file descriptor is free."""
    if error.errno == errno.ENFILE:
        cause, remedy = (
            "the machine has reached its own limit of open files",
            "raise `sysctl fs.file-max`",
        )
    else:
        most = os.sysconf("SC_OPEN_MAX")
        cause = f"a process may have at most {most} open files here"
        remedy = "`ulimit -n` with a higher number; `ulimit -Hn` shows the maximum"
    return ExhaustedError(asked, _reason(error), cause, remedy)


def is_full(error: OSError) -> bool:
    """Return True if the error means that the disk or the quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_room(asked: str, error: OSError) -> NoRoomError:
    """Return the error to raise when the disk is full."""
    return NoRoomError(
        asked,
        _reason(error),
        "the disk with mydocker's state is full",
        "`mydocker rm`, `rmi` or `volume rm`, or point MYDOCKER_ROOT at a larger disk",
    )


@contextmanager
def room_for(asked: str) -> Iterator[None]:
    """Turn an `OSError` of the body into `NoRoomError` or `ExhaustedError`.

    `NoRoomError` means a full disk, `ExhaustedError` that no file descriptor is free.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise no_room(asked, error) from error
        if is_exhausted(error):
            raise exhausted(asked, error) from error
        raise


@contextmanager
def room_or_not() -> Iterator[None]:
    """Ignore an error of the body that means a full disk or quota."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise


def _reason(error: OSError) -> str:
    happened = error.strerror or str(error)
    return happened if error.filename is None else f"{happened}: {error.filename!r}"


def refused(asked: str, error: OSError) -> UnsupportedError:
    """Return the error to raise when the kernel refuses to start a container."""
    if is_exhausted(error):
        return exhausted(asked, error)
    cause = {
        errno.EPERM: "namespaces and mounts need CAP_SYS_ADMIN and CAP_NET_ADMIN here",
        errno.EACCES: "namespaces and mounts need CAP_SYS_ADMIN and CAP_NET_ADMIN here",
        errno.ENOSPC: "a limit on namespaces in /proc/sys/user is reached, or a disk is full",
    }.get(error.errno or 0, "")
    remedy = "`netmodes doctor`, which shows what this machine supports"
    if is_full(error):
        remedy += ", and `df` for the free disk space"
    return UnsupportedError(asked, _reason(error), cause, remedy)


class OutputError(MydockerError):
    """The caller does not get the output of a container; the container keeps running."""

    exit_code = 1


def output_lost(asked: str, number: int, remedy: str = "") -> OutputError:
    """Return the error for output that cannot be written to the caller, by the write's errno."""
    cause = {
        errno.EPIPE: "the process that read the output has exited",
        errno.ENOSPC: "the disk with the output file is full",
        errno.EDQUOT: "the disk with the output file is full",
    }.get(number, "")
    return OutputError(asked, os.strerror(number), cause, remedy)


class CommandError(MydockerError):
    """The container's command could not be executed."""

    exit_code = 126


class CommandNotFoundError(CommandError):
    """The container's command is not in the image."""

    exit_code = 127


REQUIRED_DESCRIPTORS: Final = 32
"""More descriptors than any call opens at a time, not counting published ports."""


def require_free(asked: str) -> None:
    """Raise `ExhaustedError` if fewer than `REQUIRED_DESCRIPTORS` descriptors are free.

    A call that changes something then fails before its first step, not in the middle of a
    cleanup.
    """
    if 0 < _count_open() <= os.sysconf("SC_OPEN_MAX") - REQUIRED_DESCRIPTORS:
        return
    opened: list[int] = []  # some open descriptors may have numbers above the limit: try it
    try:
        opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        opened.extend(os.dup(opened[0]) for _ in range(REQUIRED_DESCRIPTORS - 1))
    except OSError as error:
        raise exhausted(asked, error) from error
    finally:
        for fd in opened:
            os.close(fd)


def _count_open() -> int:
    """Return the number of open descriptors, or 0 on a kernel older than 6.2 (not reported)."""
    try:
        return os.stat("/proc/self/fd").st_size
    except OSError:
        return 0
