"""What adapters do inside the host, whatever runtime they drive."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from harness.adapters.protocol import SaidTooMuch

MOST: Final = 4 << 20
"""Bytes of a command's output, and of its error output, that are kept: no answer is so long."""
_PIECE: Final = 1 << 16
_SAID: Final = 200


def together(verb: Callable[[str], object], names: Sequence[str], *, most: int) -> None:
    """Do the same to all of them, up to `most` at a time; then raise the first failure."""
    with ThreadPoolExecutor(min(len(names), most)) as pool:
        going = [pool.submit(verb, name) for name in names]
    for gone in going:
        gone.result()


def heard(process: subprocess.Popen[bytes], stdin: bytes, seconds: float) -> tuple[bytes, bytes]:
    """What a process prints until it has ended, as its method `communicate` tells it.

    Raises `SaidTooMuch` where that is more than `MOST`, and `TimeoutExpired` with what it has
    said after so many seconds. It still runs then.
    """
    output, errors = bytearray(), bytearray()
    ends = time.monotonic() + seconds
    with selectors.DefaultSelector() as open_ones:
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            open_ones.register(process.stdin, selectors.EVENT_WRITE)
        for pipe, text in ((process.stdout, output), (process.stderr, errors)):
            if pipe is not None:
                open_ones.register(pipe, selectors.EVENT_READ, text)
        while open_ones.get_map():
            for key, _ in open_ones.select(max(0.0, ends - time.monotonic())):
                if key.fileobj is not process.stdin:
                    if not _hear(key.fd, key.data):
                        open_ones.unregister(key.fileobj)
                elif not (stdin := stdin[_say(key.fd, stdin) :]):
                    open_ones.unregister(key.fileobj)
                    process.stdin.close()
            if time.monotonic() > ends:
                raise subprocess.TimeoutExpired(process.args, seconds, bytes(output), bytes(errors))
    process.wait(max(0.0, ends - time.monotonic()))
    return bytes(output), bytes(errors)


def _hear(pipe: int, text: bytearray) -> int:
    """Read on, as far as there is something; nothing at the end of it."""
    piece = os.read(pipe, _PIECE)
    text += piece
    if len(text) > MOST:
        began = bytes(text[:_SAID]).decode(errors="replace")
        raise SaidTooMuch(f"printed more than {MOST >> 20} MiB, which begin with {began!r}")
    return len(piece)


def _say(pipe: int, words: bytes) -> int:
    """Write as much as fits; all of it, where nobody listens any more."""
    try:
        return os.write(pipe, words[: select.PIPE_BUF])
    except BrokenPipeError:
        return len(words)


def wait_for_end(pid: int, seconds: float) -> None:
    """Wait so long for the end of a process; one that is not there has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([handle], [], [], seconds)
    finally:
        os.close(handle)


def children(pid: int) -> list[int]:
    """The processes that a process has started, and not yet collected."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return [int(item) for item in text.split()]
    return []


def kill_with_children(pid: int) -> None:
    """Kill a process, and whatever it has started that is still its own.

    Not by its group: that is the caller's, who may be killed with all that he has started.
    """
    below = children(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for child in below:
        kill_with_children(child)


def killed_after(seconds: float, work: Callable[[], object], *, group: bool = False) -> None:
    """Do the work in a process that is killed after so many seconds, if it is not through before.

    With `group` the commands that it has started are killed with it.
    """
    pid = os.fork()
    if not pid:
        try:
            if group:
                os.setsid()
            work()
        finally:
            os._exit(0)
    # Nobody but us collects it: until then its pid is nobody else's.
    wait_for_end(pid, seconds)
    try:
        if group:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it was through before
    finally:
        os.waitpid(pid, 0)
