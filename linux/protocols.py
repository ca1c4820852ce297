"""Which transport protocols the kernel speaks."""

from __future__ import annotations

from typing import Final

_LIST: Final = "/proc/thread-self/net/protocols"


def spoken(name: str) -> bool:
    """Whether there are sockets of a protocol, by its name in `/proc/net/protocols`: `SCTP`.

    Now: a module that nobody has loaded yet does not count, and asking loads none.
    """
    with open(_LIST, encoding="ascii") as file:
        return any(line.split(maxsplit=1)[0] == name for line in file)
