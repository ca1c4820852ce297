"""Start and end commands and daemons inside the host; the host's server runs these functions."""

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final


class OutputTooLong(OSError):
    """A command printed too much and was killed; the message quotes the beginning of its output."""


@dataclass(frozen=True, slots=True)
class CompletedCommand:
    """Result of a finished command.

    `seconds` is the time it took. `at` is the time of its start, in seconds since the epoch.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class ExecCommand:
    """Command line to run in the host, and variables to add to its environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


_SHOWN = 2000


def run(
    argv: Sequence[str], stdin: bytes, env: Mapping[str, str], timeout: float
) -> CompletedCommand:
    """Run a command and return its output.

    After `timeout` seconds its whole process group is killed, and a `TimeoutError` quotes the
    output so far. Processes that have left the group are not awaited. A command that prints without
    end is killed in the same way and raises `OutputTooLong`.
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
            out, err = read_output(process, stdin, timeout)
        except (subprocess.TimeoutExpired, OutputTooLong) as error:
            kill(process.pid)
            if isinstance(error, OutputTooLong):
                raise OutputTooLong(f"{shlex.join(argv)} {error}, and was killed") from None
            output = (error.output or b"") + (error.stderr or b"")
            raise TimeoutError(
                f"{shlex.join(argv)} did not end within {timeout} s, or left a process behind that "
                f"holds its output, and was killed; its output was "
                f"{output.decode(errors='replace')[-_SHOWN:]!r}"
            ) from None
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
    """Start a daemon as a child of the host's init, which reaps it; return its pid in the host.

    Without `stdin` and `stdout` the daemon's input is empty and its output goes to the log. Raises
    the error if the program cannot be started.
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
        answer = pickle.load(pipe)  # noqa: S301 # from our own child
    os.waitpid(middle, 0)
    if isinstance(answer, Exception):
        raise answer
    return int(answer)


def talk(argv: Sequence[str], log: str, env: Mapping[str, str]) -> tuple[int, int, int, int]:
    """Start a command as `spawn` does, with pipes for its input and output.

    Returns the command's pid, the pid of this process, and this process's ends of the pipes. The
    first end writes the command's input, the second reads its output.
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
    """Kill the process group of a process that this module started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def close_all(*descriptors: int) -> None:
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
    except Exception as error:  # raised by `spawn`
        return error


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    path = os.environ.get("PATH", "")
    return {**os.environ, "PATH": f"{path}:/usr/sbin:/usr/bin:/sbin:/bin", **extra}


_OUTPUT_LIMIT: Final = 4 << 20
"""Limit of a command's output and of its error output, in bytes; real output is shorter."""
_PIECE: Final = 1 << 16


def read_output(
    process: subprocess.Popen[bytes], stdin: bytes, seconds: float
) -> tuple[bytes, bytes]:
    """Return all output of a process, as `subprocess.Popen.communicate` does.

    Raises `OutputTooLong` after too much output. Raises `TimeoutExpired` with the output so far
    after `seconds`. The process still runs in both cases.
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
                    if not _read_into(key.data, key.fd):
                        open_ones.unregister(key.fileobj)
                elif not (stdin := stdin[_write(key.fd, stdin) :]):
                    open_ones.unregister(key.fileobj)
                    process.stdin.close()
            if time.monotonic() > ends:
                raise subprocess.TimeoutExpired(process.args, seconds, bytes(output), bytes(errors))
    process.wait(max(0.0, ends - time.monotonic()))
    return bytes(output), bytes(errors)


def _read_into(text: bytearray, pipe: int) -> int:
    """Append the available bytes; return their number, which is 0 at the end of the file."""
    piece = os.read(pipe, _PIECE)
    text += piece
    if len(text) > _OUTPUT_LIMIT:
        began = bytes(text[:200]).decode(errors="replace")
        limit = _OUTPUT_LIMIT >> 20
        raise OutputTooLong(f"printed more than {limit} MiB, which begin with {began!r}")
    return len(piece)


def _write(pipe: int, data: bytes) -> int:
    """Write as many bytes as the pipe takes; if its reader is gone, count all as written."""
    try:
        return os.write(pipe, data[: select.PIPE_BUF])
    except BrokenPipeError:
        return len(data)


def wait_for_end(pid: int, seconds: float) -> None:
    """Wait up to `seconds` for a process to end; return at once if it does not exist."""
    with contextlib.suppress(ProcessLookupError), _pidfd(pid) as handle:
        select.select([handle], [], [], seconds)


_KILL: Final = 10.0
"""Bound on the end of a killed process, in seconds."""


def end(pid: int, grace: float) -> bool:
    """Send a process SIGTERM, and SIGKILL if it still runs after `grace` seconds.

    With a `grace` of 0 only SIGKILL is sent. Returns whether the process has ended, within 10
    seconds after SIGKILL.
    """
    with contextlib.suppress(ProcessLookupError), _pidfd(pid) as handle:
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, _KILL)):
            if seconds:
                signal.pidfd_send_signal(handle, number)
                if select.select([handle], [], [], seconds)[0]:
                    return True
        return False
    return True


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, including those that it has not reaped yet."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return [int(item) for item in text.split()]
    return []


def kill_with_children(pid: int) -> None:
    """Kill a process and all its descendants one by one.

    Killing the process group would also kill the caller, which is in the same group.
    """
    below = children(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for child in below:
        kill_with_children(child)


def killed_after(seconds: float, work: Callable[[], object], *, group: bool = False) -> None:
    """Call `work` in a child process, and kill the child after `seconds`.

    With `group` the commands that the child has started are killed too.
    """
    pid = os.fork()
    if not pid:
        try:
            if group:
                os.setsid()
            work()
        finally:
            os._exit(0)
    # Only this process reaps the child: until then the kernel does not reuse its pid.
    wait_for_end(pid, seconds)
    with contextlib.suppress(ProcessLookupError):  # it has already ended
        (os.killpg if group else os.kill)(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
