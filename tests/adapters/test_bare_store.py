"""Records of bare runtimes."""

from __future__ import annotations

from dataclasses import replace

from harness.adapters.bare.store import BareRecord, attachments
from harness.model.plan import Bridge, ContainerSpec

NETWORKS = ("one", "other")


def test_cni_container_id_is_unique_per_container() -> None:
    """A container of the same name has another id; a restart keeps the id."""
    record = BareRecord(ContainerSpec("web", Bridge("one")), (), attached=NETWORKS)
    again = BareRecord(record.spec, (), attached=NETWORKS)
    own, later, others = (
        {item.container for item in attachments(known, "")}
        for known in (record, replace(record, pid=7), again)
    )
    assert len(own) == 1
    assert own == later
    assert not own & others
