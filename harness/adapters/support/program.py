"""Programs that run to their end, with refusals told apart from crashes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from harness.world.process import OutputTooLong, kill_with_children, read_output

BOUND: Final = 30.0
"""Time limit of one command, in seconds."""
_SHOWN: Final = 200
_PANIC: Final = re.compile(r"^(panic: |fatal error: |SIGSEGV|Traceback \(most recent call)", re.M)
"""The first words of a crash report of Go and of Python."""


class ProgramRefused(Exception):
    """An orderly refusal; the message gives the reason."""


class ProgramBroken(Exception):
    """A program crashed, hung, or did not do what it reported."""


class ProgramSilent(ProgramBroken):
    """A program failed without any output."""


def is_crash_report(output: str) -> bool:
    """Return True if the output of a failed program is a crash report."""
    return _PANIC.search(output) is not None


def failure(what: str, how: str, output: str) -> ProgramRefused | ProgramBroken:
    """Return the exception for a failed program, chosen by its output; `how` says how it ended."""
    if not output:
        return ProgramSilent(f"{what} {how} without a message")
    if is_crash_report(output):
        return ProgramBroken(f"{what} crashed with the output {output!r}")
    return ProgramRefused(output)


@dataclass(frozen=True, slots=True)
class Program:
    """A program, its global options, and the PATH that it gets."""

    command: tuple[str, ...]
    path: str

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with any exit code; raise `ProgramBroken` if it hangs."""
        return self._ended(words, subprocess.PIPE)

    def run_checked(self, *words: str, log: Path) -> None:
        """Run a command that must succeed; processes that it leaves behind write to `log`.

        Raises `ProgramRefused` with the command's output if it fails, and `ProgramBroken` if it
        fails without output or crashes.
        """
        with log.open("wb") as file:
            try:
                done = self._ended(words, file)
            except ProgramBroken as error:
                raise ProgramBroken(f"{error}; its output is {_read(log)!r}") from None
        output = _read(log)
        if done.returncode < 0:
            why = f"{shlex.join(done.args)} was ended by signal {-done.returncode}"
            raise ProgramBroken(f"{why}; its output is {output!r}")
        if done.returncode:
            raise failure(shlex.join(done.args), f"exited with {done.returncode}", output)

    def _ended(
        self, words: tuple[str, ...], output: int | IO[bytes]
    ) -> subprocess.CompletedProcess[str]:
        argv = (*self.command, *words)
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment(),
            )
        except OSError as error:
            raise ProgramBroken(f"{argv[0]} cannot be executed: {error}") from None
        with process:
            try:
                out, err = read_output(process, b"", BOUND)
            except (subprocess.TimeoutExpired, OutputTooLong) as error:
                kill_with_children(process.pid)
                late = f"did not end within {BOUND:g} s"
                why = str(error) if isinstance(error, OutputTooLong) else late
                raise ProgramBroken(f"{shlex.join(argv)} {why}, and was killed") from None
        decoded = (text.decode(errors="replace") for text in (out, err))
        return subprocess.CompletedProcess(argv, process.returncode, *decoded)

    def environment(self) -> Mapping[str, str]:
        """Return the environment of the program."""
        return {**os.environ, "PATH": self.path}


def read_pid(path: Path) -> int:
    """Return the pid that a runtime has written to a file; raise `ProgramBroken` without one."""
    return parse_pid(_read(path) if path.exists() else "", str(path))


def parse_pid(text: str, source: str) -> int:
    """Return the pid that the text contains; otherwise raise `ProgramBroken` with `source`."""
    if not text.strip().isdecimal():
        raise ProgramBroken(f"{source} contains {text[:_SHOWN]!r} instead of a pid")
    return int(text)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()
