"""Terminals: a pair in the container, its master at the caller, bytes in between."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runtime.errors import unheard

_CHUNK = 4096


def take_control(slave: int) -> None:
    """Make it the controlling terminal of the calling session leader."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def send(channel: int, master: int) -> None:
    """Hand a descriptor to whoever holds the other end of a Unix socket."""
    import socket  # already there in whoever inherited the channel: no import after a fork

    with socket.socket(fileno=os.dup(channel)) as sock:
        socket.send_fds(sock, [b"m"], [master])


def receive(channel: int) -> int:
    """The descriptor that `send` sent; -1 when the sender has gone."""
    import socket

    with socket.socket(fileno=os.dup(channel)) as sock:
        _, found, _, _ = socket.recv_fds(sock, 1, 1)
    if not found:
        return -1
    os.set_inheritable(found[0], False)
    return found[0]


def copy_size(source: int, master: int) -> None:
    """Give the container's terminal the size of the caller's."""
    if os.isatty(source):
        fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Pass every key on as it is; the terminal's settings come back at the end."""
    if not os.isatty(fd):
        yield
        return
    saved = termios.tcgetattr(fd)
    attributes = termios.tcgetattr(fd)
    # cfmakeraw(3)
    attributes[0] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    attributes[1] &= ~termios.OPOST
    attributes[2] = attributes[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    attributes[3] &= ~(
        termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
    )
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)


def relay(
    master: int, stdin: int, stdout: int, *, record: Callable[[bytes], None] = lambda _: None
) -> None:
    """Carry bytes both ways until the container's side of the terminal closes.

    Follows the caller's window size. What comes out is also given to `record`.
    `OutputError` when `stdout` takes no more.
    """
    copy_size(stdin, master)
    before = signal.signal(signal.SIGWINCH, lambda *_: copy_size(stdin, master))
    poll = select.poll()
    poll.register(master, select.POLLIN)
    poll.register(stdin, select.POLLIN)
    try:
        with raw(stdin):
            while True:
                for fd, _ in poll.poll():
                    if fd == stdin:
                        data = os.read(stdin, _CHUNK)
                        if data:
                            _write_all(master, data)
                        else:
                            poll.unregister(stdin)
                            _write_all(master, b"\x04")  # end of input, as a terminal says it
                    else:
                        try:
                            data = os.read(master, _CHUNK)
                        except OSError:  # EIO: the last process closed it
                            return
                        record(data)
                        _show(stdout, data)
    finally:
        signal.signal(signal.SIGWINCH, before)


def _show(stdout: int, data: bytes) -> None:
    try:
        _write_all(stdout, data)
    except OSError as error:
        raise unheard("show what is written to the terminal", error.errno or 0) from error


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
