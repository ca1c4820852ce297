"""What makes adapters of a described command line, and knows of it before there is a host."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.adapters import furnish, ordinary
from harness.adapters.cli import CliAdapter
from harness.adapters.cli_spec import CliSpec
from harness.adapters.protocol import Feature, HostHandle


@dataclass(frozen=True, slots=True)
class CliFactory:
    """Makes adapters of one description."""

    spec: CliSpec

    @property
    def features(self) -> frozenset[Feature]:
        """What the description claims."""
        return self.spec.features

    def at(self, prefix: str) -> CliFactory:
        """The same, with those of its programs that a folder has taken from there."""
        spec = self.spec
        found = furnish.brought(prefix, spec.required)
        daemons = tuple(
            replace(item, command=furnish.located(item.command, found)) for item in spec.daemons
        )
        command = furnish.located(spec.command, found)
        return CliFactory(replace(spec, prefix=prefix, command=command, daemons=daemons))

    @property
    def required(self) -> tuple[str, ...]:
        """The programs without which nothing goes."""
        own = self.spec.required
        return (*own, *ordinary.PROGRAMS) if self.spec.rootless else own

    def brought(self) -> list[str]:
        """Which of its programs come from the prefix."""
        prefix = self.spec.prefix
        own = furnish.named(prefix, self.spec.required)
        return [*own, *furnish.lying(prefix, self.spec.helpers)] if prefix else own

    def sought(self) -> list[str]:
        """All of which some may come from it, and the others are the installed ones."""
        return [*self.spec.required, *furnish.lying("", self.spec.helpers)]

    def missing(self) -> list[str]:
        """The programs that are not on the PATH, or not in the prefix."""
        return furnish.absent(self.spec.prefix, self.required)

    def obstacle(self) -> str:
        """Why it cannot be tried where this run is, though it is there; or an empty text."""
        if self.spec.rootless:
            return ordinary.obstacle()
        return ordinary.without_cgroups(self.spec.command[0]) if self.spec.cgroups else ""

    def __call__(self, host: HostHandle, /) -> CliAdapter:
        """Make the adapter that drives the runtime in this host."""
        return CliAdapter(host, self.spec)
