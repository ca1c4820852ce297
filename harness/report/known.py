"""Which versions of a runtime have been looked at: those that its expectation file is about."""

from __future__ import annotations

from pathlib import Path

from packaging.specifiers import SpecifierSet

from harness import expectations
from harness.adapters import registry


def unseen(runtime: str, version: str | None, folder: Path) -> str:
    """That no version like this one has been looked at, in a sentence; else an empty text.

    `folder` has the suites' own expectation files. Of a runtime without one, or whose file names
    no versions, nothing is said, nor of one that somebody else has described.
    """
    name, _, _ = registry.parted(runtime)
    own, file = expectations.as_version(version), folder / f"{name}.toml"
    if own is None or not file.is_file():
        return ""
    listed = expectations.loads(file.read_text(encoding="utf-8"))
    known = sorted({item.versions for item in listed if item.versions and item.runtime == name})
    if not known or any(SpecifierSet(item).contains(own, prereleases=True) for item in known):
        return ""
    return (
        f"{name} {version} has not been looked at: what fails has been explained of "
        f"{' and '.join(known)}, and here it may be a choice of this version's that nobody has "
        f"declared (`netmodes vendors {runtime}`, docs/adapters.md)"
    )
