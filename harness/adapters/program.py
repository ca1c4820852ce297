"""A program in the host that is asked for something: to its end, with its words told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

BOUND: Final = 30.0
"""Seconds that one command may take."""


class Refused(Exception):
    """An orderly no; the message tells why."""


class Broken(Exception):
    """A runtime crashed, hung or did not do what it said."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program with its global options, and the PATH on which it is found."""

    command: tuple[str, ...]
    path: str

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, whatever it exits with; `Broken` when there is none."""
        return self._ended(words, subprocess.PIPE)

    def ask(self, *words: str, log: Path) -> None:
        """A command that has to succeed; what it starts goes on writing to `log`.

        `Refused` with its words when it says no, `Broken` when it says nothing.
        """
        with log.open("wb") as file:
            done = self._ended(words, file)
        said = log.read_text(encoding="utf-8", errors="replace").strip()
        if done.returncode < 0 or (done.returncode and not said):
            raise Broken(f"{' '.join(done.args)} exited with {done.returncode}; it said {said!r}")
        if done.returncode:
            raise Refused(said)

    def _ended(
        self, words: tuple[str, ...], output: int | IO[bytes]
    ) -> subprocess.CompletedProcess[str]:
        argv = (*self.command, *words)
        try:
            return subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                env=self.environment(),
                timeout=BOUND,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Broken(f"{' '.join(argv)} did not end within {BOUND:g} s") from None

    def environment(self) -> Mapping[str, str]:
        """What it is started with."""
        return {**os.environ, "PATH": self.path}
