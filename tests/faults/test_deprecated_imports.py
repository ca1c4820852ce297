"""Tests of the imports in the documentation of release 0.1, which other projects may have."""

from __future__ import annotations

import importlib

import pytest

from harness.adapters import protocol
from harness.faults import fault, target
from harness.model import plan
from harness.world import process

MOVED = [
    ("harness.faults.catalogue", "fault", fault.fault),
    ("harness.faults.catalogue", "RULES", fault.RULES),
    ("harness.faults.catalogue", "PLUGGED", fault.PLUGGED),
    ("harness.faults.site", "Site", target.FaultContext),
    ("harness.faults.verb", "Verb", fault.AdapterCall),
    ("harness.adapters.protocol", "Facts", protocol.ContainerInfo),
    ("harness.adapters.protocol", "NetworkFacts", protocol.NetworkInfo),
    ("harness.adapters.protocol", "Completed", process.CompletedCommand),
    ("harness.adapters.protocol", "SaidTooMuch", process.OutputTooLong),
    ("harness.model", "ContainerSpec", plan.ContainerSpec),
    ("harness.model", "Bridge", plan.Bridge),
]
UNCHANGED = ["Adapter", "Endpoint", "ExecCommand", "Feature", "RuntimeBroken", "RuntimeRefused"]


@pytest.mark.parametrize(
    ("module", "name", "new"), MOVED, ids=[f"{row[0]}.{row[1]}" for row in MOVED]
)
def test_moved_name_is_importable_with_a_warning(module: str, name: str, new: object) -> None:
    """A name that has moved can be imported from its old module.

    A warning names the new import.
    """
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{name} has moved: use `from "):
        assert getattr(importlib.import_module(module), name) is new


@pytest.mark.filterwarnings("error::DeprecationWarning")
@pytest.mark.parametrize("name", UNCHANGED)
def test_protocol_name_is_importable_without_a_warning(name: str) -> None:
    """A name of the adapter protocol can be imported from its old module without a warning.

    It has not moved.
    """
    assert hasattr(protocol, name)


def test_unknown_name_of_an_old_module_is_an_attribute_error() -> None:
    """An unknown name in an old module raises Python's own AttributeError."""
    with pytest.raises(AttributeError, match=r"'harness.faults.catalogue' has no attribute 'nope'"):
        importlib.import_module("harness.faults.catalogue").nope  # noqa: B018
