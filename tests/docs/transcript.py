"""Run the console blocks of a page in one lab and compare the output.

In a block that is fenced as `console`, a line that begins with `$ ` is a command. A line that
begins with `> ` continues the command. All other lines are output. All commands of a page run in
one shell, so variables, functions and changes stay. Standard error is part of the output.

Values that differ from run to run are compared by *identity*. Values that are equal on the page
must be equal in the output, and values that differ must differ. Examples are ids, pids, inode
numbers, MACs that the kernel draws, and names made of them.
"""

from __future__ import annotations

import difflib
import re
import secrets
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.labs import LAB
from tests.support.programs import ROOT, environment

PAGE = ROOT / "docs" / "four-modes.md"
WITHIN = 110.0
"""Time limit in seconds for a whole page, some fifty programs, on a busy machine."""
REGENERATE = "python -m tests.docs.regenerate"

_VARYING = re.compile(
    r"""
      (?P<inode> (?<=:\[) \d{8,} (?=\]) )
    | (?P<id>    \b [0-9a-f]{64} \b | \b (?!0{12}) [0-9a-f]{12} \b )
    | (?P<pid>   (?<="Pid":\s) \d+ | (?<=/proc/) \d+ )
    | (?P<mac>   \b (?!02:42:) (?:[0-9a-f]{2}:){5} [0-9a-f]{2} \b )
    | (?P<veth>  \b veth [0-9a-f]{11} \b )
    | (?P<index> (?<=@if) \d+ )
    | (?P<took>  \d+\.\d+ [ ] ms )
    | (?P<age>   (?: Less[ ]than[ ]a | \d+ | About[ ]an? ) [ ] (?:second|minute)s? (?:[ ]ago)? )
    """,
    re.VERBOSE,
)
_MEASURED = frozenset({"took", "age"})
"""Kinds of values that count as equal, whatever they are."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a page, with its output on the lines from `first` to before `last`."""

    command: str
    output: tuple[str, ...]
    first: int
    last: int


def steps(page: str) -> list[Step]:
    """Return the commands of a page, in order.

    Raise `ValueError` if output comes before the first command of a block.
    """
    found: list[Step] = []
    lines = page.splitlines()
    number = 0
    while number < len(lines):
        number += 1
        if lines[number - 1] == "```console":
            end = lines.index("```", number)
            found += _block(lines, number, end)
            number = end + 1
    return found


def _block(lines: Sequence[str], start: int, end: int) -> Iterable[Step]:
    number = start
    while number < end:
        if not lines[number].startswith("$ "):
            raise ValueError(f"line {number + 1}: output without a command: {lines[number]!r}")
        command = [lines[number][2:]]
        number += 1
        while number < end and lines[number].startswith("> "):
            command.append(lines[number][2:])
            number += 1
        first = number
        while number < end and not lines[number].startswith("$ "):
            number += 1
        yield Step("\n".join(command), tuple(lines[first:number]), first, number)


def perform(commands: Sequence[str], *, setting: str = "") -> list[tuple[str, ...]]:
    """Return the output of each command, all run in order in one shell of a new lab.

    The command `setting` is run first, and its output is not returned. Raise `RuntimeError`, with
    the output so far, if the shell ends before the last command. Raise `subprocess.TimeoutExpired`
    after `WITHIN` seconds.
    """
    mark = f"-- {secrets.token_hex(8)} --"
    parts = ["exec 2>&1", setting]
    parts += [f"{{ {command}\n}} </dev/null; echo '{mark}'" for command in commands]
    done = subprocess.run(
        [*LAB, "--", "sh"],
        input="\n".join(parts) + "\n",
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    printed = done.stdout.split(f"{mark}\n")
    if len(printed) != len(commands) + 1:
        raise RuntimeError(f"the shell ended early, {done.returncode}: {printed[-1]}{done.stderr}")
    return [tuple(line.rstrip() for line in text.splitlines()) for text in printed[:-1]]


def plain(outputs: Iterable[Sequence[str]]) -> list[list[str]]:
    """Return the outputs with each varying value replaced by a number.

    Equal values of a kind, such as pids, get the same number.
    """
    seen: dict[str, list[str]] = {}

    def name(match: re.Match[str]) -> str:
        kind = match.lastgroup or ""
        if kind in _MEASURED:
            return f"<{kind}>"
        known = seen.setdefault(kind, [])
        value = match.group()
        if kind == "id":
            value = value[:12]  # the short form equals the long one
        if value not in known:
            known.append(value)
        return f"<{kind} {known.index(value) + 1}>"

    # A column is as wide as its widest value.
    return [
        [re.sub(r" {2,}", "  ", _VARYING.sub(name, line).rstrip()) for line in output]
        for output in outputs
    ]


def differences(page: str, outputs: Sequence[Sequence[str]]) -> str:
    """Return a diff of the outputs that differ between page and run, empty if none differs."""
    shown, came = plain(step.output for step in steps(page)), plain(outputs)
    found = []
    for step, before, after in zip(steps(page), shown, came, strict=True):
        if before != after:
            diff = difflib.unified_diff(
                before, after, "on the page", "in the lab", lineterm="", n=9
            )
            found.append("\n".join([f"line {step.first}: $ {step.command}", *diff]))
    return "\n\n".join(found)


def rewritten(page: str, outputs: Sequence[Sequence[str]]) -> str:
    """Return the page, in which the outputs are replaced by the new ones."""
    lines = page.splitlines()
    for step, output in reversed(list(zip(steps(page), outputs, strict=True))):
        lines[step.first : step.last] = output
    return "\n".join(lines) + "\n"


def read(path: Path = PAGE) -> str:
    """Return the text of the page."""
    return path.read_text(encoding="utf-8")
