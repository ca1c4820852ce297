"""How long the property suites look: `--profile smoke`, `gate` or `explore`.

A profile bounds how many topologies are tried and how many steps a history has.
`gate` draws the same ones in every run, and so does each profile in a run that is held against
an expectation file and in one that tries faults, so that their verdicts do not change by
themselves; there nothing is shrunk, which takes minutes and tells of what is known. Else the others
draw new ones each time, and find again what once failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

if TYPE_CHECKING:
    import hypothesis

    from harness.model import Plan


class Effort(NamedTuple):
    """How many examples, and how many steps each of them has at most."""

    examples: int
    steps: int
    derandomized: bool = False


PROFILES: Final = {
    "smoke": Effort(6, 10),
    "gate": Effort(40, 20, derandomized=True),
    "explore": Effort(1000, 50),
}
DEFAULT: Final = "smoke"


def chosen(config: pytest.Config) -> hypothesis.settings:
    """The settings of the profile of this run."""
    import hypothesis  # takes its time, and few tests draw anything

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
    """Write the plan of what fails in the body, the smallest such, to be built again.

    `plan` gives the plan that was live last. The error tells where the file is and
    what to do with it.
    """
    try:
        yield
    except Exception as error:
        from harness import planfile  # every run imports this module, and few fail

        path = directory / f"{name}.toml"
        path.write_text(planfile.dumps(plan()), encoding="utf-8")
        error.add_note(f"to play with what was built: netmodes lab --plan {path}")
        raise
