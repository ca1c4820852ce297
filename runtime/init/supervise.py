"""Pid 1's working life: pass signals on, keep the log, reap, write the exit code."""

from __future__ import annotations

import json
import os
import select
import signal
from typing import Final, NoReturn

from runtime.store import now

_CHUNK: Final = 4096
"""At most as much as a pipe takes in one go without blocking once poll(2) says so (PIPE_BUF)."""
_LINE: Final = 16384
"""A longer line is split in the log, as Docker does."""
UNWRITTEN: Final = b" " * 48
"""An exit record before there is one. It has the room that one takes, which may be gone later."""

_OWN: Final = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGABRT),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS),
}
"""What nobody can catch, and what is about this process itself; all others are passed on."""
_HANDLED: Final = (*(signal.valid_signals() - _OWN), signal.SIGCHLD)


def entry(stream: str, data: bytes) -> bytes:
    """One line of the log. Bytes that are no UTF-8 survive as surrogates and come back the same."""
    text = data.decode(errors="surrogateescape")
    return json.dumps({"log": text, "stream": stream, "time": now()}).encode() + b"\n"


def append(log: int, line: bytes) -> None:
    """Write a line to the end of a log, all of it or nothing: it is lost where there is no room.

    A full disk is no reason for a container to end.
    """
    try:
        written = os.write(log, line)
        if written < len(line):
            os.ftruncate(log, os.fstat(log).st_size - written)
    except OSError:
        return


class OutputStream:
    """One output stream of the command: where it is read, and who else wants a copy.

    `copy` is -1 for nobody. A copy that is not taken holds the stream up, as a
    full pipe would. One that cannot be is given up; the pipe `lost` is told of it,
    and whoever listens there leaves, and is given none of the `peers` either.
    """

    def __init__(self, name: str, source: int, copy: int, lost: int = -1) -> None:
        self.name, self.source, self.copy, self.lost = name, source, copy, lost
        self.peers = [self]
        self._line = bytearray()
        self._owed = b""
        os.set_blocking(source, False)

    def wait_for(self) -> tuple[int, int]:
        """What poll(2) should wait for next."""
        return (self.copy, select.POLLOUT) if self._owed else (self.source, select.POLLIN)

    def advance(self, log: int) -> bool:
        """Take one step; false when the stream has ended."""
        if self._owed:
            self._pay(within=0)
            return True
        try:
            data = os.read(self.source, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:  # EIO: the last process closed the terminal
            data = b""
        if not data:
            return False
        self._log(data, log)
        if self.copy >= 0:
            self._owed = data
        return True

    def _pay(self, *, within: int | None = None) -> None:
        """Pass on what is owed, once there is room for it within so many milliseconds.

        There may be none any more: both streams may lead to one pipe. Nobody's signals
        wait for a reader that takes its time.
        """
        poll = select.poll()
        poll.register(self.copy, select.POLLOUT)
        if not poll.poll(within):
            return
        try:
            written = os.write(self.copy, self._owed)
        except BlockingIOError:  # the caller has made it one that does not wait
            return
        except OSError as error:  # its reader has gone (no SIGPIPE in a pid 1), or a disk is full
            for stream in self.peers:
                stream._give_up()
            self._tell(error.errno or 0)
        else:
            self._owed = self._owed[written:]

    def _give_up(self) -> None:
        if self.copy >= 0:
            os.close(self.copy)
        self.copy, self._owed = -1, b""

    def _tell(self, number: int) -> None:
        try:
            os.write(self.lost, f"{self.name} {number}\n".encode())
        except OSError:  # nobody wants to know
            return

    def _log(self, data: bytes, log: int) -> None:
        self._line += data
        while (end := self._line.find(b"\n") + 1) or len(self._line) >= _LINE:
            end = end or _LINE
            append(log, entry(self.name, bytes(self._line[:end])))
            del self._line[:end]

    def finish(self, log: int) -> None:
        """Take what is there now, to the last byte, and close the line."""
        while True:
            while self._owed:
                self._pay()
            try:
                data = os.read(self.source, _CHUNK)
            except OSError:
                break
            if not data:
                break
            self._log(data, log)
            self._owed = data if self.copy >= 0 else b""
        if self._line:
            append(log, entry(self.name, bytes(self._line)))


def hold_signals() -> None:
    """Have signals wait until `supervise` can pass them on.

    Before that a pid 1 loses them: the kernel drops what it has no handler for.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)


def supervise(command: int, streams: list[OutputStream], *, log: int, exit_record: int) -> NoReturn:
    """Look after the container until its command ends, then end with its exit code."""
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    for number in _HANDLED:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    open_streams = list(streams)
    status = _reap(command)  # it may have ended before the handlers were there
    while status is None:
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        waiting = {}
        for stream in open_streams:
            fd, event = stream.wait_for()
            poll.register(fd, event)
            waiting[fd] = stream
        for fd, _ in poll.poll():
            if fd == wake:
                _forward(os.read(wake, 64), command)
                status = _reap(command)
            elif not waiting[fd].advance(log):
                open_streams.remove(waiting[fd])
    for stream in streams:
        stream.finish(log)
    try:
        os.write(exit_record, f"{status} {now()}\n".encode())
    finally:
        os._exit(status)


def _forward(numbers: bytes, command: int) -> None:
    for number in numbers:
        if number != signal.SIGCHLD:
            try:
                os.kill(command, number)
            except ProcessLookupError:
                return


def _reap(command: int) -> int | None:
    """Collect every child that has ended; the command's exit code when it is among them."""
    status = None
    while True:
        try:
            pid, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == command:
            code = os.waitstatus_to_exitcode(raw)
            status = code if code >= 0 else 128 - code
