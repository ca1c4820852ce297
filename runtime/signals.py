"""Signals by the names that people write: `TERM`, `SIGTERM`, `15`, `SIGRTMIN+3`."""

from __future__ import annotations

import re
import signal
from typing import Final

from runtime.errors import InvalidError

_REAL_TIME: Final = r"RT(MIN|MAX)([+-]\d+)?"


def number_of(asked: str, text: str) -> int:
    """The number of a signal; `InvalidError` where there is none of that name."""
    name = text.upper().removeprefix("SIG")
    number = _number(name)
    if number not in signal.valid_signals():
        raise InvalidError(asked, f"there is no signal {text!r}", remedy="kill -l")
    return number


def _number(name: str) -> int:
    if name.isdigit():
        return int(name)
    if found := re.fullmatch(_REAL_TIME, name):
        return int(signal.Signals[f"SIGRT{found[1]}"]) + int(found[2] or 0)
    return int(getattr(signal.Signals, f"SIG{name}", 0))
