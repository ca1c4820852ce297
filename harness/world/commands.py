"""Commands and daemons, started from within the host by its server."""

from __future__ import annotations

import contextlib
import os
import pickle
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from harness.adapters import hostside
from harness.adapters.protocol import Completed, SaidTooMuch

_SAID = 2000


def run(argv: Sequence[str], stdin: bytes, env: Mapping[str, str], timeout: float) -> Completed:
    """Run a command to the end of its output.

    After `timeout` seconds its whole process group is killed and `TimeoutError` tells
    what it had said. Whatever has left the group is not waited for. One that prints without
    end is killed so too, with `SaidTooMuch`.
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
            out, err = hostside.heard(process, stdin, timeout)
        except subprocess.TimeoutExpired as late:
            kill(process.pid)
            said = (late.output or b"") + (late.stderr or b"")
            raise TimeoutError(
                f"{shlex.join(argv)} did not end within {timeout} s, or left something behind that "
                f"holds its output, and was killed; it said: "
                f"{said.decode(errors='replace')[-_SAID:]!r}"
            ) from None
        except SaidTooMuch as error:
            kill(process.pid)
            raise SaidTooMuch(f"{shlex.join(argv)} {error}, and was killed") from None
    return Completed(
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
