"""Work of pid 1: forward signals, write the log, reap children, write the exit code."""

from __future__ import annotations

import json
import os
import select
import signal
from typing import Final, NoReturn

from runtime.store import now

_CHUNK: Final = 4096
"""Maximum bytes that a pipe takes without blocking once poll(2) reports room (PIPE_BUF)."""
_LINE: Final = 16384
"""A longer line is split in the log, as Docker does."""
UNWRITTEN: Final = b" " * 48
"""Blank exit record; it allocates the disk space, which may be missing later."""

_OWN: Final = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGABRT),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS),
}
"""Signals that cannot be caught or that concern this process; all others are forwarded."""
_HANDLED: Final = (*(signal.valid_signals() - _OWN), signal.SIGCHLD)


def entry(stream: str, data: bytes) -> bytes:
    """Return one line of the log; invalid UTF-8 is kept as surrogates, without loss."""
    text = data.decode(errors="surrogateescape")
    return json.dumps({"log": text, "stream": stream, "time": now()}).encode() + b"\n"


def append(log: int, line: bytes) -> None:
    """Append a complete line to a log, or drop the line if the disk is full.

    A full disk does not end a container.
    """
    try:
        written = os.write(log, line)
        if written < len(line):
            os.ftruncate(log, os.fstat(log).st_size - written)
    except OSError:
        return


class OutputStream:
    """One output stream of the command: its source, and the caller's copy of it.

    `copy` is -1 if the caller wants no copy. A copy without a reader blocks the stream, as a full
    pipe would. A copy that cannot be written is closed and reported on the pipe `lost`. The process
    that reads `lost` then exits. The copies of the `peers`, which are the streams of the same
    command, are therefore closed too.
    """

    def __init__(self, name: str, source: int, copy: int, lost: int = -1) -> None:
        self.name, self.source, self.copy, self.lost = name, source, copy, lost
        self.peers = [self]
        self._line = bytearray()
        self._pending = b""
        os.set_blocking(source, False)

    def wait_for(self) -> tuple[int, int]:
        """Return the descriptor and the event to wait for with poll(2)."""
        return (self.copy, select.POLLOUT) if self._pending else (self.source, select.POLLIN)

    def advance(self, log: int) -> bool:
        """Take one step; return False when the stream has ended."""
        if self._pending:
            self._write(within=0)
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
            self._pending = data
        return True

    def _write(self, *, within: int | None = None) -> None:
        """Write pending data to the copy, if it takes data `within` this many milliseconds.

        The write may still find no room, because both streams may lead to one pipe. While the copy
        has a slow reader, signals are still forwarded.
        """
        poll = select.poll()
        poll.register(self.copy, select.POLLOUT)
        if not poll.poll(within):
            return
        try:
            written = os.write(self.copy, self._pending)
        except BlockingIOError:  # the caller has set the copy to non-blocking
            return
        except OSError as error:  # its reader has exited (pid 1 ignores SIGPIPE), or a disk is full
            for stream in self.peers:
                stream._close_copy()
            self._report(error.errno or 0)
        else:
            self._pending = self._pending[written:]

    def _close_copy(self) -> None:
        if self.copy >= 0:
            os.close(self.copy)
        self.copy, self._pending = -1, b""

    def _report(self, number: int) -> None:
        try:
            os.write(self.lost, f"{self.name} {number}\n".encode())
        except OSError:  # no process reads the pipe
            return

    def _log(self, data: bytes, log: int) -> None:
        self._line += data
        while (end := self._line.find(b"\n") + 1) or len(self._line) >= _LINE:
            end = end or _LINE
            append(log, entry(self.name, bytes(self._line[:end])))
            del self._line[:end]

    def finish(self, log: int) -> None:
        """Read the stream to its last byte, and end the last line."""
        data = b"more"
        while data:
            while self._pending:
                self._write()
            try:
                data = os.read(self.source, _CHUNK)
            except OSError:
                break
            self._log(data, log)
            self._pending = data if self.copy >= 0 else b""
        if self._line:
            append(log, entry(self.name, bytes(self._line)))


def hold_signals() -> None:
    """Block signals until `supervise` can forward them.

    Without this they would be lost: the kernel drops signals for which pid 1 has no handler.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)


def supervise(command: int, streams: list[OutputStream], *, log: int, exit_record: int) -> NoReturn:
    """Supervise the container until its command ends, then exit with the command's exit code."""
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    for number in _HANDLED:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    open_streams = list(streams)
    status = _reap(command)  # the command may have ended before the handlers were set
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
    """Reap every child that has ended; return the command's exit code if it is among them."""
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
