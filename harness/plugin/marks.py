"""The `requirement` mark, which links a test to the requirement catalogue.

The mark has its own module because test modules import it in every pytest run, not only in
conformance runs.
"""

from __future__ import annotations

import pytest


def requirement(*ids: str) -> pytest.MarkDecorator:
    """Mark a test with the requirements that it checks: `@requirement("BR-7")`.

    The ids are those of `suites/requirements.toml`. An unknown id is an error when the test is
    collected. If the requirements need a feature that the runtime's adapter does not declare, the
    plugin skips the test as unsupported.
    """
    return pytest.mark.requirement(*ids)
