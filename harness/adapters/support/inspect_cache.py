"""Cache of `inspect` results.

Suites inspect containers often, and each `inspect` costs a process or two. A cached result about a
running container is valid while the container's pid 1 lives, and until a verb changes the
container. The start time of pid 1 shows whether its pid was reused (proc(5)).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from harness.adapters.protocol import ContainerInfo, HostHandle, NetworkInfo
from harness.model.plan import ContainerSpec, Joined
from linux import proc


@dataclass(slots=True)
class InspectCache:
    """Cache of one adapter; each verb that changes a container removes the container's entry."""

    host: HostHandle
    containers: dict[str, tuple[ContainerInfo, int]] = field(default_factory=dict)
    networks: dict[str, NetworkInfo] = field(default_factory=dict)
    image: bool = False
    _homes: dict[str, str] = field(default_factory=dict)

    def keep(self, name: str, facts: ContainerInfo) -> None:
        """Cache the facts about a container if it runs."""
        started = self._started(facts.pid) if facts.running else 0
        if started:
            self.containers[name] = facts, started

    def container(self, name: str) -> ContainerInfo | None:
        """Return the cached facts about a container if its pid 1 still lives."""
        facts, started = self.containers.get(name, (None, 0))
        if facts is None or self._started(facts.pid) != started:
            self.containers.pop(name, None)
            return None
        return facts

    def joins(self, spec: ContainerSpec) -> None:
        """Remember which container a joining container has joined."""
        self._homes.pop(spec.name, None)
        if isinstance(spec.mode, Joined):
            self._homes[spec.name] = spec.mode.container

    def joiners_first(self, names: Sequence[str]) -> Iterator[list[str]]:
        """Yield containers in groups, joining containers before the joined ones."""
        left = dict.fromkeys(names)
        while left:
            joined = {self._homes.get(name) for name in left}
            ready = [name for name in left if name not in joined] or list(left)
            yield ready
            for name in ready:
                del left[name]

    def forget(self) -> None:
        """Clear the cache."""
        self.containers.clear()
        self.networks.clear()

    def _started(self, pid: int) -> int:
        """Return the start time of a process of the host; 0 if it has ended or is a zombie."""
        return proc.born(f"/proc/{self.host.pid}/root/proc/{pid}")
