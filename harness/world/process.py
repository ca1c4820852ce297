"""Commands and daemons, started from within the host by its server."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final


class OutputTooLong(OSError):
    """A command printed more than anybody reads, and was ended; the message has how it began."""


@dataclass(frozen=True, slots=True)
class CompletedCommand:
    """A finished command. `seconds` is wall time, `at` when it began, as `time.time` has it."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class ExecCommand:
    """A command line to be run in the host, with what is added to its environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


_SAID = 2000


def run(
    argv: Sequence[str], stdin: bytes, env: Mapping[str, str], timeout: float
) -> CompletedCommand:
    """Run a command to the end of its output.

    After `timeout` seconds its whole process group is killed and `TimeoutError` tells
    what it had said. Whatever has left the group is not waited for. One that prints without
    end is killed so too, with `OutputTooLong`.
    """
    at, began = time.time(), time.perf_counter()
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(env),
        start_new_session=True,
    ) as process:
        try:
            out, err = heard(process, stdin, timeout)
        except subprocess.TimeoutExpired as late:
            kill(process.pid)
            said = (late.output or b"") + (late.stderr or b"")
            raise TimeoutError(
                f"{shlex.join(argv)} did not end within {timeout} s, or left something behind that "
                f"holds its output, and was killed; it said: "
                f"{said.decode(errors='replace')[-_SAID:]!r}"
            ) from None
        except OutputTooLong as error:
            kill(process.pid)
            raise OutputTooLong(f"{shlex.join(argv)} {error}, and was killed") from None
    return CompletedCommand(
        argv=tuple(argv),
        returncode=process.returncode,
        stdout=out.decode(errors="replace"),
        stderr=err.decode(errors="replace"),
        seconds=time.perf_counter() - began,
        at=at,
    )


def spawn(
    argv: Sequence[str], log: str, env: Mapping[str, str], stdin: int = -1, stdout: int = -1
) -> int:
    """Start a daemon as a child of the host's init, which reaps it; its pid in the host.

    Its input is empty and its output goes to the log where no descriptor is given. Raises
    what starting it raises.
    """
    read, write = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            os.write(write, pickle.dumps(_start(argv, log, env, stdin, stdout)))
        finally:
            os._exit(0)  # so the daemon's parent is gone
    os.close(write)
    with open(read, "rb") as pipe:
        told = pickle.load(pipe)  # noqa: S301 # from our own child
    os.waitpid(middle, 0)
    if isinstance(told, Exception):
        raise told
    return int(told)


def talk(argv: Sequence[str], log: str, env: Mapping[str, str]) -> tuple[int, int, int, int]:
    """Start a command as `spawn` does, with pipes; its pid, our own and our ends of the pipes.

    What we write to the first is its input, what we read from the second its output.
    """
    its_input, ours = os.pipe()
    theirs, its_output = os.pipe()
    try:
        pid = spawn(argv, log, env, its_input, its_output)
    except BaseException:
        os.close(ours)
        os.close(theirs)
        raise
    finally:
        os.close(its_input)
        os.close(its_output)
    return pid, os.getpid(), ours, theirs


def kill(pid: int) -> None:
    """Kill what was started here, and what that has started in turn."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def hang_up(*descriptors: int) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


def _start(
    argv: Sequence[str], log: str, env: Mapping[str, str], stdin: int, stdout: int
) -> int | Exception:
    try:
        with open(log, "ab") as file:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if stdin < 0 else stdin,
                stdout=file if stdout < 0 else stdout,
                stderr=file,
                env=_environment(env),
                start_new_session=True,
            ).pid
    except Exception as error:  # raised where it was asked for
        return error


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    path = os.environ.get("PATH", "")
    return {**os.environ, "PATH": f"{path}:/usr/sbin:/usr/bin:/sbin:/bin", **extra}


MOST: Final = 4 << 20
"""Bytes of a command's output, and of its error output, that are kept: no answer is so long."""
_PIECE: Final = 1 << 16
_HOSTSIDE_SAID: Final = 200


def together(verb: Callable[[str], object], names: Sequence[str], *, most: int) -> None:
    """Do the same to all of them, up to `most` at a time; then raise the first failure."""
    with ThreadPoolExecutor(min(len(names), most)) as pool:
        going = [pool.submit(verb, name) for name in names]
    for gone in going:
        gone.result()


def heard(process: subprocess.Popen[bytes], stdin: bytes, seconds: float) -> tuple[bytes, bytes]:
    """What a process prints until it has ended, as its method `communicate` tells it.

    Raises `OutputTooLong` where that is more than `MOST`, and `TimeoutExpired` with what it has
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
        began = bytes(text[:_HOSTSIDE_SAID]).decode(errors="replace")
        raise OutputTooLong(f"printed more than {MOST >> 20} MiB, which begin with {began!r}")
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
