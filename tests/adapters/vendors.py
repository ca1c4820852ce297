"""Which of the runtimes that this project describes are installed here."""

from __future__ import annotations

from typing import Final

from harness.adapters import registry

ALL: Final = ("crun", "docker", "mydocker-cli", "podman", "podman-runc", "runc")
ABSENT: Final = {name: absent for name in ALL if (absent := registry.missing(registry.load(name)))}
"""Names, and the programs that are missing."""
INSTALLED: Final = tuple(name for name in ALL if name not in ABSENT)
