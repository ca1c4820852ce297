"""A program in the host that is asked for something: to its end, with its words told."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from harness.world import process as hostside
from harness.world.process import OutputTooLong

BOUND: Final = 30.0
"""Seconds that one command may take."""
_SHOWN: Final = 200
_PANIC: Final = re.compile(r"^(panic: |fatal error: |SIGSEGV|Traceback \(most recent call)", re.M)
"""How Go's runtime and Python's begin to say that a program crashed."""


class ProgramRefused(Exception):
    """An orderly no; the message tells why."""


class ProgramBroken(Exception):
    """A runtime crashed, hung or did not do what it said."""


class ProgramSilent(ProgramBroken):
    """It ended with an error, and did not say why."""


def crashed(said: str) -> bool:
    """Whether what a program that has failed said is no answer, but how it came to its end."""
    return _PANIC.search(said) is not None


def failure(what: str, how: str, said: str) -> ProgramRefused | ProgramBroken:
    """What it comes to that a program has failed, by what it said; `how` tells of its end."""
    if not said:
        return ProgramSilent(f"{what} {how}; it said nothing")
    if crashed(said):
        return ProgramBroken(f"{what} crashed; it said {said!r}")
    return ProgramRefused(said)


@dataclass(frozen=True, slots=True)
class Program:
    """A program with its global options, and the PATH on which it is found."""

    command: tuple[str, ...]
    path: str

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, whatever it exits with; `ProgramBroken` when there is none."""
        return self._ended(words, subprocess.PIPE)

    def ask(self, *words: str, log: Path) -> None:
        """Run a command that must succeed; processes that it starts go on writing to `log`.

        Raises `ProgramRefused` with its output if it fails, `ProgramBroken` if it fails without
        output or crashes.
        """
        with log.open("wb") as file:
            try:
                done = self._ended(words, file)
            except ProgramBroken as error:
                raise ProgramBroken(f"{error}; it said {_read(log)!r}") from None
        said = _read(log)
        if done.returncode < 0:
            why = f"{shlex.join(done.args)} was ended by signal {-done.returncode}"
            raise ProgramBroken(f"{why}; it said {said!r}")
        if done.returncode:
            raise failure(shlex.join(done.args), f"exited with {done.returncode}", said)

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
                out, err = hostside.heard(process, b"", BOUND)
            except subprocess.TimeoutExpired:
                hostside.kill_with_children(process.pid)
                why = f"{shlex.join(argv)} did not end within {BOUND:g} s, and was killed"
                raise ProgramBroken(why) from None
            except OutputTooLong as error:
                hostside.kill_with_children(process.pid)
                raise ProgramBroken(f"{shlex.join(argv)} {error}, and was killed") from None
        said = (text.decode(errors="replace") for text in (out, err))
        return subprocess.CompletedProcess(argv, process.returncode, *said)

    def environment(self) -> Mapping[str, str]:
        """What it is started with."""
        return {**os.environ, "PATH": self.path}


def told_pid(path: Path) -> int:
    """The pid that a runtime has written to a file; `ProgramBroken` where it is none."""
    return pid_in(_read(path) if path.exists() else "", str(path))


def pid_in(said: str, whose: str) -> int:
    """Return the pid that is the whole output; raise `ProgramBroken` if it is none.

    `whose` names the source of the output.
    """
    if not said.strip().isdecimal():
        raise ProgramBroken(f"{whose} is to tell a pid, and says {said[:_SHOWN]!r}")
    return int(said)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()
