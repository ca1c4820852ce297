"""The id mappings of the host's ordinary user."""

from __future__ import annotations

import pytest

from harness.adapters.support import rootless


@pytest.mark.parametrize(
    ("rows", "last", "enough"),
    [
        (["0 0 4294967295"], 65535, True),
        (["0 1000 1", "1 100000 65536"], 65535, True),
        (["1 100000 65535", "0 1000 1"], 65535, True),
        (["0 1000 1"], 65535, False),
        (["0 1000 1", "2 100000 65536"], 65535, False),
        (["0 1000 1", "1 100000 65534"], 65535, False),
        ([], 0, False),
    ],
)
def test_uid_map_covers_every_id_up_to_the_last(
    rows: list[str], last: int, *, enough: bool
) -> None:
    """Order and pieces do not matter; a gap does."""
    assert rootless.maps_every_id(rows, last) == enough
