"""Tests of the runtime's own output, which is extracted from failures."""

from __future__ import annotations

import pytest

from harness.adapters.protocol import RuntimeBroken, RuntimeRefused
from harness.plugin.worker_notes import runtime_output
from tests.report.projects import WORKERS, last_report, run

NO = RuntimeRefused("run web", "Error: no address left")


def raised(error: BaseException, *, on_account_of: BaseException | None = None) -> BaseException:
    """Return the error, raised while another error was handled."""
    error.__context__ = on_account_of
    return error


def test_runtime_output_is_taken_from_refusals() -> None:
    """Runtime output is extracted from the exceptions of refused commands, without the command."""
    assert runtime_output(NO) == ("Error: no address left",)


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("Error: no address left"),
        OSError("Error: no address left"),
        ExceptionGroup("Error: no address left", [NO, AssertionError("1 of 2 cells is wrong")]),
        raised(RuntimeRefused("run web", "no"), on_account_of=AssertionError("1 cell is wrong")),
        raised(AssertionError("1 cell is wrong"), on_account_of=RuntimeRefused("run web", "no")),
        raised(ExceptionGroup("both", [NO]), on_account_of=OSError("of the harness")),
        RuntimeRefused("run web", ""),
        RuntimeBroken("run web: it crashed.\nThe end of its log: Error: no address left"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_failure_with_a_second_cause_has_no_runtime_output(error: BaseException) -> None:
    """A failure has no runtime output if it has a second cause, or only quotes the output."""
    assert runtime_output(error) == ()


def test_each_refusal_is_counted_once() -> None:
    """Each refusal of the runtime is counted once.

    Refusals may be in an exception group, nested, or chained, also in a circle.
    """
    other = RuntimeRefused("run other", "Error: no name")
    other.__cause__ = other
    again = RuntimeRefused("run again", "Error: no address left")
    group = ExceptionGroup("three", [NO, ExceptionGroup("two", [other, again])])
    assert runtime_output(group) == ("Error: no address left", "Error: no name")
    assert runtime_output(raised(RuntimeRefused("stop web", "Error: gone"), on_account_of=NO)) == (
        "Error: gone",
        "Error: no address left",
    )


def test_refusal_in_a_suppressed_context_is_not_counted() -> None:
    """A refusal in a context that `raise … from None` suppresses is not counted."""
    error = raised(RuntimeRefused("run web", "Error: no"), on_account_of=KeyError("web"))
    error.__suppress_context__ = True
    assert runtime_output(error) == ("Error: no",)


FAILING = '''
import pytest
from hypothesis import given, settings, strategies as st
from harness.adapters.protocol import RuntimeBroken, RuntimeRefused
from harness.plugin.marks import requirement

TIMES = iter(range(1000))

@pytest.fixture(scope="module")
def refused(): raise RuntimeRefused("run shop", "Error: no address left\\nat \\x1b[1mall")

@requirement("BR-1")
def test_setup(refused): pass

@requirement("BR-1")
def test_setup_too(refused): pass

@requirement("BR-1")
def test_call(): raise RuntimeRefused("run web", "Error: no address left")

@requirement("BR-1")
def test_breakdown(): raise RuntimeBroken("run web: it crashed")

@requirement("BR-1")
def test_quoted():
    """Error: no address left"""
    assert "gone" in str(RuntimeRefused("run web", "Error: no address left"))

@requirement("BR-1")
@given(st.integers())
def test_each_time(number): raise RuntimeRefused("run web", "Error: no address left")

@requirement("BR-1")
@given(st.integers())
def test_once(number):
    if not next(TIMES): raise RuntimeRefused("run web", "Error: no address left")
'''


@WORKERS
def test_report_has_sanitised_runtime_output(project: pytest.Pytester, workers: list[str]) -> None:
    """The report has the sanitised runtime output.

    A property test that fails repeatedly has its output once.
    """
    project.makepyfile(test_it=FAILING)
    run(project, "-p", "no:cacheprovider", *workers)
    found = {
        test.id.partition("::")[2]: [failure.said for failure in test.failures]
        for test in last_report(project).tests
    }
    assert found == {
        "test_setup": [("Error: no address left\nat all",)],
        "test_setup_too": [("Error: no address left\nat all",)],
        "test_call": [("Error: no address left",)],
        "test_breakdown": [()],
        "test_quoted": [()],
        "test_each_time": [("Error: no address left",)],
        "test_once": [("Error: no address left",)],
    }
