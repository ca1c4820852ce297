"""A pytest plugin that checks whether a container runtime keeps its promises about networking."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__version__ = "0.1.0"


def moved(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Return a module's `__getattr__` for names that have moved to other modules.

    `names` maps each former name to `module:name`. The old import works for one release, with a
    `DeprecationWarning` that names the new import.
    """

    def find(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        import importlib
        import warnings

        home, _, new = names[name].partition(":")
        new = new or name
        told = f"{module}.{name} has moved: use `from {home} import {new}`"
        warnings.warn(told, DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(home), new)

    return find
