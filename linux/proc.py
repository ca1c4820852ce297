"""Functions for processes and files of /proc: stat, pidfds, small files, watches on files.

pyroute2 has no functions for these.
"""

from __future__ import annotations

import os
import select
from typing import Final, NamedTuple, Self

from linux.syscalls import check, libc


def ended_within(handle: int, milliseconds: int | None) -> bool:
    """Wait until the process of a pidfd ends; return False if it does not end in time.

    Pid 1 of a pid namespace ends after every other process in that namespace (pid_namespaces(7)).
    """
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(milliseconds))


def pidfd(pid: int, born: int) -> int | None:
    """Open a pidfd of the process with that pid and start time; `None` if the process has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if process_born(pid) != born:
        os.close(handle)
        return None
    return handle


def process_born(pid: int) -> int:
    """Return a process's start time in clock ticks since boot; 0 for a zombie or no process."""
    return born(f"/proc/{pid}")


class ProcessStat(NamedTuple):
    """The fields of `/proc/PID/stat` for one process: proc_pid_stat(5).

    `ended` is true for a zombie. `terminal` is a device number, `flags` are PF_… of linux/sched.h,
    `faults` the minor page faults, `pending` the pending signals as a bit set. `ticks` (processor
    time) and `born` (start since boot) are in clock ticks; `born` distinguishes processes with the
    same pid. `arguments` are the addresses in memory where the command line begins and ends; both
    are 0 without permission to read them.
    """

    command: bytes
    ended: bool
    parent: int
    terminal: int
    flags: int
    faults: int
    ticks: int
    born: int
    pending: int
    arguments: tuple[int, int]

    @classmethod
    def of(cls, process: str) -> Self:
        """Read `stat` of a process; `FileNotFoundError` or `ProcessLookupError` if it has ended."""
        # The command may contain spaces and parentheses; the fields follow the last parenthesis.
        command, _, rest = read(f"{process}/stat").partition(b"(")[2].rpartition(b")")
        state, *fields = rest.split()
        numbers = [0, *map(int, fields)]
        return cls(
            command,
            state in (b"Z", b"X"),
            parent=numbers[1],
            terminal=numbers[4],
            flags=numbers[6],
            faults=numbers[7],
            ticks=numbers[11] + numbers[12],
            born=numbers[19],
            pending=numbers[28],
            arguments=(numbers[45], numbers[46]),
        )


def born(process: str) -> int:
    """Return the start time of a process; 0 if it has ended, even if it is a zombie.

    A process that the caller may not read belongs to another user. Its pid was then reused, and the
    result is 0 too.
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
    """Write a file; `mode`, reduced by the umask, is the mode of a new file."""
    _put(path, data, os.O_CREAT | os.O_TRUNC, mode)


def overwrite(path: str, data: bytes) -> None:
    """Write to an existing file without truncating it, which /proc and /sys require."""
    _put(path, data, 0, 0)


def _put(path: str, data: bytes, flags: int, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, mode)
    try:
        written = os.write(fd, data)
        while written < len(data):
            written += os.write(fd, data[written:])
    finally:
        os.close(fd)


_IN_MODIFY: Final = 0x2


class FileWatch:
    """An inotify(7) watch on one file; `fd` becomes readable after a write to the file."""

    def __init__(self, path: str) -> None:
        self.fd = check(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
        try:
            added = libc.inotify_add_watch(self.fd, os.fsencode(path), _IN_MODIFY)
            check(added, f"inotify_add_watch({path})")
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


def protocol_available(name: str) -> bool:
    """Return True if `/proc/net/protocols` lists a protocol such as `SCTP`.

    A protocol whose kernel module is not loaded is not listed. The function does not load the
    module.
    """
    with open("/proc/thread-self/net/protocols", encoding="ascii") as file:
        return any(line.split(maxsplit=1)[0] == name for line in file)
