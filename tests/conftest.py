"""What the tests of the harness need besides Python, and what becomes of them without it."""

from __future__ import annotations

import importlib.util
import shutil

from hypothesis import Phase, settings

# A machine that is busy is no finding: what is slow here is bounded by pytest's time-out.
settings.register_profile("tests", settings(), deadline=None)
settings.load_profile("tests")
settings.register_profile(
    "mutation",
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
)
"""For `tox -e mutation`: the same for every mutant, and none is worth shrinking."""

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
"""Debian's and Fedora's names for it."""
_LACKING = [
    *(() if CHROMIUM else ["chromium (Debian: apt install chromium)"]),
    *(() if importlib.util.find_spec("playwright") else ["the Python package playwright"]),
]

collect_ignore = ["report/test_page.py"] if _LACKING else []


def pytest_report_header() -> str | None:
    """Say which tests are left out, and why."""
    if not _LACKING:
        return None
    return f"tests/report/test_page.py is not collected for want of {' and '.join(_LACKING)}"
