"""Sysctls of the netns that the calling thread is in.

`/proc/sys/net` shows the netns of the process that opens a file in it. To write a sysctl of another
netns, the thread has to enter that netns first (`NetNS.entered`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from linux import proc
from linux.netns import sysctl_path
from runtime.errors import InvalidError
from runtime.store import read_json, write_json

_NO_SUCH_VALUE: Final = "the sysctl does not take such a value"
_OF_THE_MACHINE: Final = "it belongs to the whole machine, not to a namespace"
_CAUSES: Final = {
    errno.ENOENT: "this kernel, or a network namespace of it, has no such sysctl",
    errno.EINVAL: _NO_SUCH_VALUE,
    errno.ERANGE: _NO_SUCH_VALUE,
    errno.EACCES: _OF_THE_MACHINE,
    errno.EPERM: _OF_THE_MACHINE,
}
"""Reasons why a sysctl cannot be written, by the kernel's error."""


def read(name: str) -> str:
    """Return a sysctl's value; `FileNotFoundError` if the kernel has no such sysctl."""
    return proc.read(sysctl_path(name)).decode("ascii").strip()


def write(name: str, value: str) -> None:
    """Write a sysctl; `OSError` if the kernel refuses."""
    proc.overwrite(sysctl_path(name), value.encode())


def apply(wanted: Mapping[str, str]) -> None:
    """Write several sysctls; `InvalidError` names the one that the kernel refuses."""
    for name, value in wanted.items():
        try:
            write(name, value)
        except OSError as error:
            cause = _CAUSES.get(error.errno or 0, "")
            asked = f"set the sysctl {name}={value}"
            raise InvalidError(asked, str(error.strerror), cause) from error


class BorrowedSysctls:
    """Sysctls of the host that mydocker changed, with their original values.

    Hold the root's lock around each call.
    """

    def __init__(self, root: str) -> None:
        self._path = f"{root}/sysctls.json"

    def ensure(self, name: str, value: str) -> None:
        """Set a sysctl unless it has that value; record the original value first."""
        found = read(name)
        if found != value:
            write_json(self._path, {name: found, **self._changed()})
            write(name, value)

    def restore(self) -> None:
        """Restore the changed sysctls; skip those of a link that is gone."""
        changed = self._changed()
        for name, value in changed.items():
            with suppress(FileNotFoundError):
                write(name, value)
        if changed:
            os.unlink(self._path)

    def _changed(self) -> dict[str, str]:
        try:
            changed: dict[str, str] = read_json(self._path)
        except FileNotFoundError:
            return {}
        return changed
