"""The positive control of a host that is held to be unchanged."""

from __future__ import annotations

from harness.model.topology import START_TTL
from harness.testbench.netns_view import Place
from harness.world.state.snapshot import Snapshot


def a_change_would_show(host: Place, before: Snapshot) -> None:
    """Change one sysctl of the host, see that it shows, and put it back."""
    host.tune({"net.ipv4.ip_default_ttl": 61})
    assert before.changes(Snapshot.of(host)), "what is changed must show"
    host.tune({"net.ipv4.ip_default_ttl": START_TTL})
