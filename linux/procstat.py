"""What the kernel tells of one process: proc_pid_stat(5).

The command's name may hold spaces and parentheses; what follows the last of these is fields.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

from linux import files

_STATE, _PPID, _TTY, _FLAGS, _MINFLT, _UTIME, _STIME, _STARTTIME = 0, 1, 4, 6, 7, 11, 12, 19
_SIGNAL, _ARG_START, _ARG_END = 28, 45, 46
_ENDED: Final = (b"Z", b"X")


class Stat(NamedTuple):
    """The name of a process's command, and the fields behind it, the third of the page first."""

    command: bytes
    fields: list[bytes]

    @classmethod
    def of(cls, process: str) -> Self:
        """By its directory in proc(5). `FileNotFoundError` or `ProcessLookupError`: it has gone."""
        command, _, rest = files.read(f"{process}/stat").partition(b"(")[2].rpartition(b")")
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
        found = Stat.of(process)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return 0 if found.ended else found.born
