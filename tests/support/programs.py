"""Programs that tests start and watch through a pipe or on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
WITHIN = 30.0
"""Timeout in seconds for an output or an exit, on the slowest machine."""


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which a program imports this checkout from any directory."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **more}


def python(source: str, *args: str) -> list[str]:
    """Return the command line that runs the Python text `source`."""
    return [sys.executable, "-c", source, *args]


def run(argv: Sequence[str], *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program until it ends.

    Raise `subprocess.TimeoutExpired` if it exceeds the time limit.
    """
    return subprocess.run(
        argv,
        input=stdin,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


def until_interrupted(say: str) -> None:
    """Print a text to standard error and wait for a signal, which may come at any moment.

    If a signal came just before pause(2), Python would only set a flag, and pause would wait
    forever.
    """
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    os.write(2, f"{say}\n".encode())
    select.select([woken], [], [])


_ON_TERMINAL = "import os, sys; os.login_tty(0); os.execvp(sys.argv[1], sys.argv[1:])"


def _reset_signals() -> None:
    """Reset signals as a shell does for a foreground job.

    Below `&` or nohup some signals are ignored.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Watched:
    """A running program in its own process group, with its output.

    On a terminal, it leads the session and the terminal's foreground process group.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        terminal: bool = False,
        env: Mapping[str, str] | None = None,
        at: str | None = None,
    ) -> None:
        mine, its = pty.openpty() if terminal else os.pipe()
        if terminal:
            argv = python(_ON_TERMINAL, *argv)
            # Otherwise a key such as Ctrl-C discards the output printed at the same moment.
            settings = termios.tcgetattr(its)
            settings[3] |= termios.NOFLSH
            termios.tcsetattr(its, termios.TCSANOW, settings)
        self.output = ""
        self._fd = mine
        self.process = subprocess.Popen(
            argv,
            env=environment() if env is None else env,
            cwd=at,
            stdin=its if terminal else subprocess.DEVNULL,
            stdout=its,
            stderr=its,
            start_new_session=not terminal,
            preexec_fn=_reset_signals,  # noqa: PLW1509 # the callers have no threads
        )
        os.close(its)

    def expect(self, text: str) -> str:
        """Read output until it contains `text`, and return the output up to the text.

        Raise `AssertionError` with all output if the program ends or the time limit is reached.
        """
        deadline = time.monotonic() + WITHIN
        while text not in self.output:
            assert self._read(deadline), f"no {text!r} in {self.output!r}"
        before, _, self.output = self.output.partition(text)
        return before + text

    def type(self, text: str) -> None:
        """Send a text to the program as if it was typed on its terminal."""
        os.write(self._fd, text.encode())

    def end(self, *, within: float = WITHIN) -> int:
        """Read until every process has closed the output.

        Return the exit code, or -N for signal N.
        """
        deadline = time.monotonic() + within
        while self._read(deadline):
            pass
        return self.process.wait(deadline - time.monotonic())

    def _read(self, deadline: float) -> bool:
        """Read more output; return `False` at its end.

        Raise `TimeoutError` at the deadline.
        """
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"nothing more after {self.output!r}")
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: the last process has closed the terminal
            return False
        self.output += data.decode(errors="replace")
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)


_CONFINED = """
import ctypes, json, os, struct, sys
from harness.sandbox import namespaces
from linux import syscalls

settings = json.loads(sys.argv[1])
ids = namespaces.Ids.of_caller()
waiting, go = os.pipe()
made, tell = os.pipe()
helper = os.getpid()
if os.fork() == 0:
    os.close(go)
    os.read(made, 1)
    ids.write(helper)
    os._exit(0)
syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
os.write(tell, b"!")
_, status = os.wait()
assert status == 0
for name, value in settings["limits"].items():
    with open(f"/proc/sys/user/max_{name}_namespaces", "w") as file:
        file.write(str(value))
for path in settings["masked"]:
    syscalls.mount("tmpfs", path, "tmpfs")
for capability in settings["without"]:
    syscalls.prctl(syscalls.PR_CAPBSET_DROP, capability)
for number in settings["denied"]:  # seccomp(2): load the number, compare, EPERM or go on
    code = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000))
    rules = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(rules)))
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(22, 2, ctypes.addressof(program))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
os.execvp(sys.argv[2], sys.argv[2:])
"""

ALL_BUT_SETFCAP = [number for number in range(41) if number != 31]
"""Capabilities without which root is like an ordinary user, except that it can map its ids."""
PIDFD_OPEN = 434
"""System call number of pidfd_open(2), the same on every architecture."""


def confined(
    argv: Sequence[str],
    *,
    limits: Mapping[str, int] | None = None,
    masked: Sequence[str] = (),
    without: Sequence[int] = (),
    denied: Sequence[int] = (),
) -> list[str]:
    """Return the command line that runs `argv` as root of a new, restricted user namespace.

    `limits` are numbers of namespaces by kind (`net`, `pid`, `mnt`, `user`, …). `masked` are
    directories that are covered, as containers do. `without` are the removed capabilities. `denied`
    are the numbers of system calls that a filter answers with EPERM.
    """
    settings = {
        "limits": limits or {},
        "masked": list(masked),
        "without": list(without),
        "denied": list(denied),
    }
    return python(_CONFINED, json.dumps(settings), *argv)
