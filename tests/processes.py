"""Processes and what they hold, looked at through /proc: a test sees its own family only."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def family() -> set[int]:
    """This process and all its descendants, whatever namespaces they are in."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has gone, or is going
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(name))
    found, new = set(), {os.getpid()}
    while new:
        found |= new
        new = {child for parent in new for child in children.get(parent, [])}
    return found


def network_namespaces() -> set[str]:
    """Every network namespace that somebody of the family is in or has open."""
    found = set()
    for pid in family():
        folder = Path(f"/proc/{pid}")
        with contextlib.suppress(OSError):
            for link in (folder / "ns" / "net", *(folder / "fd").iterdir()):
                with contextlib.suppress(FileNotFoundError):  # what was needed for looking
                    found.add(os.readlink(link))
    return {link for link in found if link.startswith("net:")}
