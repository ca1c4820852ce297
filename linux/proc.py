"""What the kernel tells of one process: proc_pid_stat(5).

The command's name may hold spaces and parentheses; what follows the last of these is fields.
"""

from __future__ import annotations

import ctypes
import os
import select
from typing import Final, NamedTuple, Self


def ended_within(handle: int, milliseconds: int | None) -> bool:
    """Wait for the end of the process behind a pidfd; false when the time is over.

    Pid 1 of a pid namespace ends after every other process in it (pid_namespaces(7)).
    """
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(milliseconds))


def pidfd(pid: int, born: int) -> int | None:
    """A handle on exactly the process that was started; `None` when it has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if process_born(pid) != born:
        os.close(handle)
        return None
    return handle


def process_born(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when it is gone or a zombie."""
    return born(f"/proc/{pid}")


_STATE, _PPID, _TTY, _FLAGS, _MINFLT, _UTIME, _STIME, _STARTTIME = 0, 1, 4, 6, 7, 11, 12, 19
_SIGNAL, _ARG_START, _ARG_END = 28, 45, 46
_ENDED: Final = (b"Z", b"X")


class ProcessStat(NamedTuple):
    """The name of a process's command, and the fields behind it, the third of the page first."""

    command: bytes
    fields: list[bytes]

    @classmethod
    def of(cls, process: str) -> Self:
        """By its directory in proc(5). `FileNotFoundError` or `ProcessLookupError`: it has gone."""
        command, _, rest = read(f"{process}/stat").partition(b"(")[2].rpartition(b")")
        return cls(command, rest.split())

    @property
    def ended(self) -> bool:
        """Whether nobody but who collects it has anything to do with it any more."""
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
        """Those of the kernel: PF_… of linux/sched.h."""
        return int(self.fields[_FLAGS])

    @property
    def faults(self) -> int:
        """The pages that it was the first to touch, or to write to, and that were in memory."""
        return int(self.fields[_MINFLT])

    @property
    def ticks(self) -> int:
        """Clock ticks of processor time that it has had."""
        return int(self.fields[_UTIME]) + int(self.fields[_STIME])

    @property
    def born(self) -> int:
        """When it was started, in clock ticks since boot: what tells two with one pid apart."""
        return int(self.fields[_STARTTIME])

    @property
    def pending(self) -> int:
        """The signals that wait for it, a bit for each."""
        return int(self.fields[_SIGNAL])

    @property
    def arguments(self) -> tuple[int, int]:
        """Where in its memory its command line begins and ends; zeros for who may not know."""
        return int(self.fields[_ARG_START]), int(self.fields[_ARG_END])


def born(process: str) -> int:
    """When a process was started; 0 when it has gone, or has ended and waits to be collected.

    And when it may not be looked at: it is somebody else's by then.
    """
    try:
        found = ProcessStat.of(process)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return 0 if found.ended else found.born


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


_IN_MODIFY = 0x2
_libc = ctypes.CDLL(None, use_errno=True)


class FileWatch:
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


_LIST: Final = "/proc/thread-self/net/protocols"


def protocol_available(name: str) -> bool:
    """Whether there are sockets of a protocol, by its name in `/proc/net/protocols`: `SCTP`.

    Now: a module that nobody has loaded yet does not count, and asking loads none.
    """
    with open(_LIST, encoding="ascii") as file:
        return any(line.split(maxsplit=1)[0] == name for line in file)
