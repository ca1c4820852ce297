"""Where the bridges of a runtime's networks are: in the host, or in a namespace of a user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from harness.adapters.protocol import Adapter
from harness.dialect import Dialect
from harness.model import GATEWAY, HOST, Bridge, Plan
from harness.world.host import Host
from linux.netns import NetNS


class _Tells(Protocol):
    def bridges_at(self) -> str:
        """Where below /proc of the host the namespace is."""


def are_apart(plan: Plan, dialect: Dialect) -> bool:
    """Whether there is such a namespace: with a daemon always, else while somebody is in it."""
    if dialect.bridges == "host":
        return False
    if dialect.default_network == "bridge":
        return True
    modes = (plan.home(item.name).mode for item in plan.containers)
    return any(isinstance(mode, Bridge) and mode != Bridge() for mode in modes)


def opened(plan: Plan, runtime: Adapter, host: Host) -> NetNS:
    """A handle on the namespace that has the bridges now, which the caller closes."""
    if not are_apart(plan, runtime.dialect):
        return NetNS.at(f"{host.proc}/1/ns/net")
    tells: _Tells = runtime  # type: ignore[assignment] # who declares it can tell
    return NetNS.at(f"{host.proc}/{tells.bridges_at()}")


def others(plan: Plan, dialect: Dialect, spaces: Mapping[str, NetNS]) -> list[NetNS]:
    """Who may answer in place of a container: whoever has addresses that others have too."""
    found = [spaces[HOST]] if dialect.default_network == "pasta" else []
    return [*found, *([spaces[GATEWAY]] if are_apart(plan, dialect) else [])]
