"""Profiles that set the effort of the property suites: `--profile smoke`, `gate` or `explore`.

A profile limits the number of topologies, and the number of steps in each history. `gate` draws the
same examples in every run. Other profiles do so only in a run with known deviations (an expectation
file, faults): their verdicts must not change between runs, and shrinking takes minutes. Otherwise
each run draws new examples, and replays those that failed before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

if TYPE_CHECKING:
    import hypothesis

    from harness.model.plan import Plan


class Effort(NamedTuple):
    """Maximum number of examples, and of steps in each example.

    If `derandomized` is true, every run draws the same examples.
    """

    examples: int
    steps: int
    derandomized: bool = False


PROFILES: Final = {
    "smoke": Effort(6, 10),
    "gate": Effort(40, 20, derandomized=True),
    "explore": Effort(1000, 50),
}

DEFAULT: Final = "smoke"

RUN_DEFAULTS: Final[Mapping[str, str]] = {"probe": "netns", "profile": DEFAULT}
"""Options that decide what a test does, with their defaults."""


def chosen(config: pytest.Config) -> hypothesis.settings:
    """Return Hypothesis settings for the profile that this run has chosen."""
    import hypothesis  # slow to import, and few tests draw anything

    effort = PROFILES[config.getoption("profile")]
    known = any(config.getoption(name, None) for name in ("expect", "write_expect", "try"))
    same = effort.derandomized or known
    usual = hypothesis.settings()
    left_out = {hypothesis.Phase.explain, *([hypothesis.Phase.shrink] if known else [])}
    return hypothesis.settings(
        usual,
        database=None if same else usual.database,
        max_examples=effort.examples,
        stateful_step_count=effort.steps,
        derandomize=same,
        deadline=None,  # an example is as slow as its containers
        print_blob=True,
        report_multiple_bugs=False,
        phases=[phase for phase in hypothesis.Phase if phase not in left_out],
        suppress_health_check=list(hypothesis.HealthCheck),
    )


@contextmanager
def replayable(plan: Callable[[], Plan], directory: Path, name: str) -> Iterator[None]:
    """Write the plan to a file if the body fails, so that the failure can be rebuilt.

    `plan` returns the last plan that was live, which is the smallest that fails. The error names
    the file, and the command that builds the plan.
    """
    try:
        yield
    except Exception as error:
        from harness.model import plan_file  # every run imports this module, and few fail

        path = directory / f"{name}.toml"
        path.write_text(plan_file.dumps(plan()), encoding="utf-8")
        error.add_note(f"to explore this scene, run: netmodes lab --plan {path}")
        raise
