"""The mark that links a test to the requirement catalogue.

A separate module, because test modules import it also in other runs than conformance runs.
"""

from __future__ import annotations

import pytest


def requirement(*ids: str) -> pytest.MarkDecorator:
    """Mark a test with the requirements that it checks: `@requirement("BR-7")`.

    The ids are those of `suites/requirements.toml`.

    An unknown id is an error when the test is collected. The plugin skips a test as unsupported
    if its requirements need a feature that the runtime does not claim.
    """
    return pytest.mark.requirement(*ids)
