"""The cast after a veth was moved into `container06-none` by hand, in a matrix.

It is then a container on the bridge like any other, though the runtime had no
part in it and knows nothing of it.
"""

from __future__ import annotations

import pytest

from harness.model.plan import (
    ALONE,
    ATTACKER,
    CONTAINER01,
    CONTAINER02,
    HOST,
    INTERNET,
    JOINER,
    NS1,
)
from harness.plugin.marks import requirement
from harness.testbench.scene import Scene


@requirement("ATT-3")
def test_after_the_manual_attach_it_reaches_what_a_bridged_container_reaches(
    attached: Scene,
) -> None:
    """The veth moved in by hand serves as well as the runtime's own."""
    row = attached.promised().select(source=ALONE)
    assert attached.observed(row) == row


@requirement("ATT-3", "BR-4", "BR-27")
@pytest.mark.parametrize("source", [CONTAINER01, CONTAINER02, JOINER, HOST])
def test_after_the_manual_attach_others_reach_it(attached: Scene, source: str) -> None:
    """Its peers and the host find it on the bridge, by the address given by hand."""
    column = attached.promised().select(source=source, target=ALONE)
    assert attached.observed(column) == column


@requirement("BR-9")
@pytest.mark.parametrize("source", [NS1, INTERNET, ATTACKER])
def test_after_the_manual_attach_outsiders_still_do_not_reach_it(
    attached: Scene, source: str
) -> None:
    """What keeps outsiders from the bridge keeps them from what was attached by hand."""
    column = attached.promised().select(source=source, target=ALONE)
    assert attached.observed(column) == column
