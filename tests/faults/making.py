"""Faults, modules of faults and catalogues of requirements for tests."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from harness.faults.fault import Fault, fault
from harness.faults.target import FaultContext
from harness.model.requirements import Catalogue, parse


def catalogue(*ids: str, history: str = "") -> Catalogue:
    """Return a catalogue with these requirements.

    The first requirement lists the bug reports `history`.
    """
    rows = "\n".join(
        f'[[section.requirement]]\nid = "{id_}"\nlevel = "MUST"\nstatement = "It holds."\n'
        + (f'history = ["{history}"]\n' if history and id_ == ids[0] else "")
        for id_ in ids
    )
    links = '[links]\n"moby#{}" = "https://github.com/moby/moby/issues/{}"\n'
    return parse(f'{links}\n[[section]]\nname = "all"\n{rows}')


def harmless(id_: str = "harmless", *, violates: tuple[str, ...] = ("AB-1",), **more: Any) -> Fault:
    """Return a fault that does nothing."""

    @fault(id_, violates=violates, moment=more.pop("moment", "host-ready"), **more)
    def does_nothing(site: FaultContext) -> None:  # every fault takes a context
        """Do nothing."""

    return does_nothing


def module(name: str, *faults: Fault) -> ModuleType:
    """Return a module that has these faults."""
    made = ModuleType(name)
    for number, item in enumerate(faults):
        setattr(made, f"fault{number}", item)
    return made
