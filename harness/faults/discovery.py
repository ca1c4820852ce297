"""The faults of a run: those that come with the harness, and those of `-p` modules."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from types import ModuleType

import harness.faults.shelf
from harness.faults.catalogue import Fault, Faults, collect
from harness.requirements import Catalogue


def built_in() -> Iterator[ModuleType]:
    """The modules of `harness.faults.shelf`, loaded."""
    package = harness.faults.shelf
    for found in sorted(item.name for item in pkgutil.iter_modules(package.__path__)):
        yield importlib.import_module(f"{package.__name__}.{found}")


def discover(requirements: Catalogue, others: Iterable[object] = ()) -> Faults:
    """Every fault there is; `others` are pytest's plugins, of which modules may have some.

    Raises `FaultError` for one that is declared wrongly, or twice.
    """
    own = list(built_in())
    theirs = [item for item in others if isinstance(item, ModuleType) and _has_faults(item)]
    modules = {module.__name__: module for module in (*own, *theirs)}
    return collect(modules.values(), requirements)


def _has_faults(module: ModuleType) -> bool:
    return any(isinstance(item, Fault) for item in vars(module).values())
