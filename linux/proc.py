"""Processes and files of /proc: stat fields, pidfds, small files, watches on files.

pyroute2 has no part of it.
"""

from __future__ import annotations

import ctypes
import os
import select
from typing import Final, NamedTuple, Self


def ended_within(handle: int, milliseconds: int | None) -> bool:
    """Wait for the end of the process behind a pidfd; return False after a timeout.

    Pid 1 of a pid namespace ends after every other process in it (pid_namespaces(7)).
    """
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(milliseconds))


def pidfd(pid: int, born: int) -> int | None:
    """Open a pidfd of the process with that pid and start time; `None` when it has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if process_born(pid) != born:
        os.close(handle)
        return None
    return handle


def process_born(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 for a zombie or none."""
    return born(f"/proc/{pid}")


_STATE, _PPID, _TTY, _FLAGS, _MINFLT, _UTIME, _STIME, _STARTTIME = 0, 1, 4, 6, 7, 11, 12, 19
_SIGNAL, _ARG_START, _ARG_END = 28, 45, 46
_ENDED: Final = (b"Z", b"X")


class ProcessStat(NamedTuple):
    """A process's command and its fields from the third on: proc_pid_stat(5).

    The command may contain spaces and parentheses; the fields follow the last parenthesis.
    """

    command: bytes
    fields: list[bytes]

    @classmethod
    def of(cls, process: str) -> Self:
        """Read `stat` of a process; `FileNotFoundError` or `ProcessLookupError` if it ended."""
        command, _, rest = read(f"{process}/stat").partition(b"(")[2].rpartition(b")")
        return cls(command, rest.split())

    @property
    def ended(self) -> bool:
        """Whether it is a zombie or dead."""
        return self.fields[_STATE] in _ENDED

    @property
    def parent(self) -> int:
        """The pid of its parent."""
        return int(self.fields[_PPID])

    @property
    def terminal(self) -> int:
        """The device number of its controlling terminal."""
        return int(self.fields[_TTY])

    @property
    def flags(self) -> int:
        """The kernel's flags: PF_… of linux/sched.h."""
        return int(self.fields[_FLAGS])

    @property
    def faults(self) -> int:
        """Minor page faults: pages that were in memory."""
        return int(self.fields[_MINFLT])

    @property
    def ticks(self) -> int:
        """Processor time in clock ticks."""
        return int(self.fields[_UTIME]) + int(self.fields[_STIME])

    @property
    def born(self) -> int:
        """Start time in clock ticks since boot, which tells processes of one pid apart."""
        return int(self.fields[_STARTTIME])

    @property
    def pending(self) -> int:
        """Pending signals as a bit set."""
        return int(self.fields[_SIGNAL])

    @property
    def arguments(self) -> tuple[int, int]:
        """Begin and end of its command line in its memory; zeros without permission."""
        return int(self.fields[_ARG_START]), int(self.fields[_ARG_END])


def born(process: str) -> int:
    """Return when a process started; 0 when it has ended, also when it is a zombie.

    A process that may not be read has another user's pid by now, so it is 0 too.
    """
    try:
        found = ProcessStat.of(process)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return 0 if found.ended else found.born


_PIECE: Final = 1 << 16


def read(path: str) -> bytes:
    """Read a whole file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = piece = os.read(fd, _PIECE)
        while len(piece) == _PIECE:  # a short read is the end
            piece = os.read(fd, _PIECE)
            data += piece
        return data
    finally:
        os.close(fd)


def write(path: str, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file; `mode`, less the umask, is that of a new one."""
    _put(path, data, os.O_CREAT | os.O_TRUNC, mode)


def overwrite(path: str, data: bytes) -> None:
    """Write into an existing file without truncating it, as /proc and /sys require."""
    _put(path, data, 0, 0)


def _put(path: str, data: bytes, flags: int, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, mode)
    try:
        written = os.write(fd, data)
        while written < len(data):
            written += os.write(fd, data[written:])
    finally:
        os.close(fd)


_IN_MODIFY = 0x2
_libc = ctypes.CDLL(None, use_errno=True)


class FileWatch:
    """An inotify(7) watch on one file; `fd` becomes readable after a write to the file."""

    def __init__(self, path: str) -> None:
        self.fd = _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
        try:
            added = _libc.inotify_add_watch(self.fd, os.fsencode(path), _IN_MODIFY)
            _check(added, f"inotify_add_watch({path})")
        except OSError:
            os.close(self.fd)
            raise

    def drain(self) -> None:
        """Discard pending events, so that `fd` becomes readable at the next write."""
        try:
            while os.read(self.fd, 4096):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close the watch."""
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


_LIST: Final = "/proc/thread-self/net/protocols"


def protocol_available(name: str) -> bool:
    """Return True if `/proc/net/protocols` lists a protocol such as `SCTP`.

    A kernel module that is not loaded does not count, and is not loaded by this call.
    """
    with open(_LIST, encoding="ascii") as file:
        return any(line.split(maxsplit=1)[0] == name for line in file)
