"""Who is in the cast: as many as a runtime claims modes for."""

from __future__ import annotations

import pytest

from harness.cast import CAST, JOINER, ON_HOST, cast


@pytest.mark.parametrize(
    ("on_host", "joined", "without"),
    [
        (True, True, set()),
        (False, True, {ON_HOST}),
        (True, False, {JOINER}),
        (False, False, {ON_HOST, JOINER}),
    ],
)
def test_who_is_in_a_mode_that_is_not_claimed_stays_away(
    without: set[str], *, on_host: bool, joined: bool
) -> None:
    """The others are those that they always are."""
    names = [spec.name for spec in cast(on_host=on_host, joined=joined).containers]
    assert names == [spec.name for spec in CAST.containers if spec.name not in without]
