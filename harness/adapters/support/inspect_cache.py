"""What a runtime has told and need not be asked again.

Suites look at containers often, and every look would be a process or two. What was told
about a running container holds while its pid 1 lives and no verb has been used on it;
a pid that was given to somebody else is told by the time at which it started (proc(5)).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from harness.adapters.protocol import ContainerInfo, HostHandle, NetworkInfo
from harness.model.plan import ContainerSpec, Joined
from linux import proc


@dataclass(slots=True)
class InspectCache:
    """One adapter's; whoever uses a verb on a container takes it out of `containers`."""

    host: HostHandle
    containers: dict[str, tuple[ContainerInfo, int]] = field(default_factory=dict)
    networks: dict[str, NetworkInfo] = field(default_factory=dict)
    image: bool = False
    _homes: dict[str, str] = field(default_factory=dict)

    def keep(self, name: str, facts: ContainerInfo) -> None:
        """Remember a running container."""
        started = self._started(facts.pid) if facts.running else 0
        if started:
            self.containers[name] = facts, started

    def container(self, name: str) -> ContainerInfo | None:
        """What was told of a container, if that still holds."""
        facts, started = self.containers.get(name, (None, 0))
        if facts is None or self._started(facts.pid) != started:
            self.containers.pop(name, None)
            return None
        return facts

    def joins(self, spec: ContainerSpec) -> None:
        """Remember whom a container joins."""
        self._homes.pop(spec.name, None)
        if isinstance(spec.mode, Joined):
            self._homes[spec.name] = spec.mode.container

    def joiners_first(self, names: Sequence[str]) -> Iterator[list[str]]:
        """Containers in groups: who joined another comes before that one."""
        left = dict.fromkeys(names)
        while left:
            joined = {self._homes.get(name) for name in left}
            ready = [name for name in left if name not in joined] or list(left)
            yield ready
            for name in ready:
                del left[name]

    def forget(self) -> None:
        """Ask about everything anew."""
        self.containers.clear()
        self.networks.clear()

    def _started(self, pid: int) -> int:
        """When a process of the host started; 0 when it has ended, a zombie included."""
        return proc.born(f"/proc/{self.host.pid}/root/proc/{pid}")
