"""A run in parts on several machines: which part a test file belongs to (pure).

The unit is a file: its tests share what a module sets up.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median


class BadShard(ValueError):
    """`--shard` does not say which part of how many; the message says how to."""


@dataclass(frozen=True, slots=True)
class Part:
    """Part `number`, counted from 1, `of` so many."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse(text: str) -> Part:
    """The part that `2/5` means. Raises `BadShard`."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", text, re.ASCII)
    if not found or int(found[1]) > int(found[2]):
        raise BadShard(f"--shard {text!r}: give k/n with k from 1 to n, such as 2/5")
    return Part(int(found[1]), int(found[2]))


def file_of(node_id: str) -> str:
    """The file that a test is in."""
    return node_id.partition("::")[0]


def assign(node_ids: Iterable[str], of: int, seconds: Mapping[str, float]) -> dict[str, int]:
    """The part, from 1, of every test by its node id.

    By `seconds`, what tests took earlier: the longest file first, each to the part that
    has the least to do so far. A test that is new counts as the median one. Without any
    `seconds`, by a hash of the file's name. Either way the same everywhere, whatever the
    order of `node_ids`.
    """
    tests = list(node_ids)
    files: dict[str, float] = {}
    usual = median(seconds.values()) if seconds else 0.0
    for test in sorted(tests):
        files[file_of(test)] = files.get(file_of(test), 0.0) + seconds.get(test, usual)
    parts = _by_time(files, of) if seconds else {name: _hashed(name, of) for name in files}
    return {test: parts[file_of(test)] for test in tests}


def _by_time(files: Mapping[str, float], of: int) -> dict[str, int]:
    load = [0.0] * of
    parts: dict[str, int] = {}
    for name in sorted(files, key=lambda item: (-files[item], item)):
        least = load.index(min(load))
        load[least] += files[name]
        parts[name] = least + 1
    return parts


def _hashed(name: str, of: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode(errors="replace")).digest()[:8]) % of + 1
