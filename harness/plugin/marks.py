"""The marks that tie tests to the catalogue."""

from __future__ import annotations

import pytest


def requirement(*ids: str) -> pytest.MarkDecorator:
    """Say which rows of `suites/requirements.toml` a test checks: `@requirement("BR-7")`.

    An id that is not in the catalogue is an error when the test is collected. A
    test whose rows need a feature that the runtime does not declare is skipped as
    unsupported, by the plugin.
    """
    return pytest.mark.requirement(*ids)
