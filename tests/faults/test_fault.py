"""Tests of how faults are declared and collected, and of their error messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.faults.fault import AdapterCall, FaultError, Moment, UnknownFault, collect, fault
from harness.faults.target import FaultContext
from tests.faults.making import catalogue, harmless, module


def acts(site: FaultContext) -> None:
    """Break something."""


def wraps(site: FaultContext, verb: AdapterCall) -> Any:
    """Break something."""


def silent(site: FaultContext) -> None:  # noqa: D103 # that is what it is for
    return None


WRONG: dict[str, tuple[dict[str, Any], Callable[..., Any], str]] = {
    "id": ({"id_": "Bad Id", "moment": "host-ready"}, acts, "lower-case words"),
    "violates": ({"violates": (), "moment": "host-ready"}, acts, "violates no requirement"),
    "neither": ({}, acts, "either `moment`"),
    "both": ({"moment": "host-ready", "around": "run"}, wraps, "either `moment`"),
    "moment": (
        {"moment": "by-and-by"},
        acts,
        "unknown moment 'by-and-by'; the known ones are host-ready",
    ),
    "verb": ({"around": ("run", "pause")}, wraps, "no verb pause; the verbs are connect, crash, "),
    "docstring": ({"moment": "host-ready"}, silent, "the function has no docstring"),
    "arguments": ({"moment": "host-ready"}, wraps, "must take only a site"),
    "around": ({"around": "run"}, acts, "must take only a site and a verb"),
}


@pytest.mark.parametrize(("given", "function", "said"), WRONG.values(), ids=list(WRONG))
def test_error_for_an_invalid_declaration_names_file_and_line(
    given: dict[str, Any], function: Callable[..., Any], said: str
) -> None:
    """The error for an invalid declaration of a fault names file, line and reason."""
    options = {"id_": "some-fault", "violates": ("AB-1",), **given}
    declared: Any = fault
    with pytest.raises(FaultError, match=said) as raised:
        declared(options.pop("id_"), **options)(function)
    assert f"{__file__}:" in str(raised.value)


def test_fault_has_id_and_title_of_its_function() -> None:
    """The function that declares a fault gives the fault's id and title.

    The id is the function's name with hyphens, the title its docstring's first paragraph.
    """

    @fault(violates="AB-1", moment="host-ready")
    def two_lines(site: FaultContext) -> None:
        """Break the first thing.

        This second paragraph is not part of the title.
        """

    assert (two_lines.id, two_lines.violates) == ("two-lines", ("AB-1",))
    assert two_lines.about == "Break the first thing."
    assert two_lines.moments == (Moment.HOST_READY,)


def test_faults_are_collected_from_modules() -> None:
    """Faults are collected in the order of the modules.

    A fault that a module imports from another one is collected once.
    """
    one, other = harmless("one"), harmless("other")
    found = collect([module("a", one, other), module("b", one)], catalogue("AB-1"))
    assert list(found) == [one, other]
    assert found["other"] is other


def test_duplicate_id_names_both_places() -> None:
    """The error for a duplicate fault id names both declarations by file and line."""
    one, other = harmless("same"), harmless("same")
    with pytest.raises(FaultError) as raised:
        collect([module("a", one), module("b", other)], catalogue("AB-1"))
    assert str(raised.value).count("making.py:") == 2


@pytest.mark.parametrize("where", ["violates", "also"])
def test_unknown_requirement_is_an_error(where: str) -> None:
    """The error for an unknown requirement suggests similar ids."""
    options: dict[str, Any] = {"violates": ("AB-1",), where: ("AB1",)}
    with pytest.raises(FaultError, match="no requirement 'AB1': did you mean AB-1"):
        collect([module("a", harmless("it", **options))], catalogue("AB-1"))


def test_unknown_fault_lists_similar_ids() -> None:
    """The error for an unknown fault suggests similar ids, or the command that lists them."""
    found = collect([module("a", harmless("no-masquerade"))], catalogue("AB-1"))
    with pytest.raises(UnknownFault, match="did you mean no-masquerade"):
        found["masquerade"]
    with pytest.raises(UnknownFault, match="netmodes faults --list"):
        found["qqq"]


def test_stacked_decorators_declare_one_fault_each() -> None:
    """Each of several stacked decorators declares a fault with the same function.

    The title of the upper fault ends with its moments.
    """

    @fault("after-restart", violates=("AB-2",), moment=Moment.CONTAINER_RESTARTED)
    @fault("at-start", violates=("AB-1",), moment=Moment.CONTAINER_STARTED)
    def remove_route(site: FaultContext) -> None:
        """Remove the default route."""

    lower, upper = collect([module("a", remove_route)], catalogue("AB-1", "AB-2"))
    assert (lower.id, lower.violates, lower.about) == (
        "at-start",
        ("AB-1",),
        "Remove the default route.",
    )
    assert (upper.id, upper.violates) == ("after-restart", ("AB-2",))
    assert upper.about == "Remove the default route (at container-restarted)."
    assert upper.function is lower.function
