"""Adapters by name: the built-in ones and those of the entry point group `netmodes.adapters`."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Final, cast

from harness.adapters.protocol import AdapterFactory

GROUP: Final = "netmodes.adapters"
DEFAULT: Final = "mydocker"
"""The runtime that comes with the suites."""
_BUILT_IN: Final = {"mydocker": "harness.adapters.mydocker:MydockerAdapter"}


class UnknownRuntime(LookupError):
    """No adapter goes by that name; the message lists those that there are."""


def names() -> list[str]:
    """Every name `find` knows."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def find(name: str) -> AdapterFactory:
    """What makes the adapter called `name`, given a host. Loads its module only now."""
    for point in entry_points(group=GROUP):
        if point.name == name:
            return cast("AdapterFactory", point.load())
    if name in _BUILT_IN:
        return cast("AdapterFactory", EntryPoint(name, _BUILT_IN[name], GROUP).load())
    raise UnknownRuntime(f"no adapter is called {name!r}; there are: {', '.join(names())}")
