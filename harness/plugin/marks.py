"""The mark that links a test to the requirement catalogue.

A module of its own: test modules import it, also in runs that are no conformance runs.
"""

from __future__ import annotations

import pytest


def requirement(*ids: str) -> pytest.MarkDecorator:
    """Mark a test with the requirements that it checks: `@requirement("BR-7")`.

    The ids are those of `suites/requirements.toml`.

    An unknown id is an error when the test is collected. A test whose rows need a feature that the
    runtime does not declare is skipped as unsupported, by the plugin.
    """
    return pytest.mark.requirement(*ids)
