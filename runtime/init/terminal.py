"""Terminals: the container's terminal, its master in the caller, and the relay of bytes."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runtime.errors import output_lost
from runtime.init import status_pipe

_CHUNK = 4096


def take_control(slave: int) -> None:
    """Make a terminal the controlling terminal of the calling session leader."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def send(channel: int, master: int) -> None:
    """Send a descriptor to the process at the other end of a Unix socket."""
    status_pipe.send_descriptors(channel, [master])


def receive(channel: int) -> int:
    """Return the descriptor sent by `send`; -1 if the sender has exited."""
    _, found = status_pipe.receive_descriptors(channel)
    return found[0] if found else -1


def copy_size(source: int, master: int) -> None:
    """Give the container's terminal the size of the caller's."""
    if os.isatty(source):
        fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Set the terminal to raw mode; restore its settings at the end."""
    if not os.isatty(fd):
        yield
        return
    saved = termios.tcgetattr(fd)
    attributes = termios.tcgetattr(fd)
    # cfmakeraw(3)
    attributes[0] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP)
    attributes[0] &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
    attributes[1] &= ~termios.OPOST
    attributes[2] = attributes[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    attributes[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON)
    attributes[3] &= ~(termios.ISIG | termios.IEXTEN)
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)


def relay(
    master: int, stdin: int, stdout: int, *, record: Callable[[bytes], None] = lambda _: None
) -> None:
    """Relay bytes both ways until the container's side of the terminal closes.

    Window size changes of the caller are passed on. The output also goes to `record`. Raise
    `OutputError` when `stdout` accepts no more output.
    """
    copy_size(stdin, master)
    before = signal.signal(signal.SIGWINCH, lambda *_: copy_size(stdin, master))
    os.set_blocking(master, False)
    typed = _Input(stdin, master)
    try:
        with raw(stdin):
            while True:
                for fd, event in typed.poll():
                    if fd == stdin:
                        typed.read()
                        continue
                    if event & select.POLLOUT:
                        typed.write()
                    if event != select.POLLOUT:
                        try:
                            data = os.read(master, _CHUNK)
                        except OSError:  # EIO: the last process closed it
                            return
                        record(data)
                        _show(stdout, data)
    finally:
        signal.signal(signal.SIGWINCH, before)


class _Input:
    """Typed input that the program has not read yet; meanwhile only output is relayed.

    A program may read no further input before its output has been read.
    """

    def __init__(self, stdin: int, master: int) -> None:
        self._stdin, self._master = stdin, master
        self._ended, self._pending = False, b""

    def poll(self) -> list[tuple[int, int]]:
        """Wait for the next events."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN | (select.POLLOUT if self._pending else 0))
        if not self._pending and not self._ended:
            poll.register(self._stdin, select.POLLIN)
        return poll.poll()

    def read(self) -> None:
        """Read typed input."""
        self._pending = os.read(self._stdin, _CHUNK)
        if not self._pending:
            self._ended, self._pending = True, b"\x04"  # end of input on a terminal

    def write(self) -> None:
        """Write as much input as the terminal takes.

        Drop the input once all processes of the container have closed the terminal.
        """
        try:
            self._pending = self._pending[os.write(self._master, self._pending) :]
        except BlockingIOError:
            return
        except OSError:
            self._ended, self._pending = True, b""


def _show(stdout: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(stdout, data) :]
    except OSError as error:
        raise output_lost("show the output of the terminal", error.errno or 0) from error
