"""Host files in a container: directories, single files, named volumes.

`source:target[:ro]`, as with Docker's `-v`: a source with a slash is a path of the host, any
other source is the name of a volume. Sources are opened before the host's file system is left,
and mounted afterwards, so that the target is resolved inside the new root and no symbolic link
of the image leads out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from linux.syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY, move_mount, open_tree, restrict_tree
from runtime.errors import InvalidError
from runtime.store import NAME

_PROTECTED: Final = ("/proc", "/sys")
"""Directories where a mount would undo the protection of the host's kernel settings."""


class Bind(NamedTuple):
    """One `-v` option: source (a host path or a volume's name), target, and access."""

    source: str
    target: str
    read_only: bool = False

    @property
    def volume(self) -> bool:
        """True if the source is the name of a volume."""
        return "/" not in self.source

    def __str__(self) -> str:
        return f"{self.source}:{self.target}{':ro' if self.read_only else ''}"


def parse(asked: str, text: str) -> Bind:
    """Parse `source:target[:ro|:rw]`; `InvalidError` names the malformed part."""
    source, target, *rest = [*text.split(":"), ""]
    mode = rest[0] if rest else ""
    bind = Bind(source, os.path.normpath(target) if target else "", mode == "ro")
    wrong = ""
    if not source or not target or len(rest) > 2 or mode not in ("", "ro", "rw"):
        wrong = "is not source:target[:ro]"
    elif not target.startswith("/"):
        wrong = f"has the target {target!r}, which is not absolute"
    elif _forbidden(bind.target):
        wrong = f"cannot be: {bind.target} is the container's own"
    elif bind.volume and not NAME.fullmatch(source):
        wrong = f"names a volume {source!r}, which is malformed"
    elif not bind.volume and not source.startswith("/"):
        wrong = f"has the source {source!r}, which is not absolute"
    if wrong:
        raise InvalidError(asked, f"-v {text} {wrong}", remedy="-v /here:/there, or -v name:/there")
    return bind


def _forbidden(target: str) -> bool:
    return target == "/" or any(f"{target}/".startswith(f"{path}/") for path in _PROTECTED)


class DetachedMount(NamedTuple):
    """A source as a detached mount (open_tree(2))."""

    tree: int
    target: str
    directory: bool


def take(binds: Sequence[Bind]) -> list[DetachedMount]:
    """Open every source, with the mounts below it, for `put`.

    A device in a source cannot be opened inside. Raise `InvalidError` if a source does not exist.
    """
    found = []
    for source, target, read_only in binds:
        try:
            tree = open_tree(source, recursive=True)
        except OSError as error:
            raise InvalidError(
                f"mount {source} at {target}",
                str(os.strerror(error.errno or 0)),
                remedy=f"mkdir -p {source}",
            ) from error
        restrict_tree(tree, MOUNT_ATTR_NODEV | (MOUNT_ATTR_RDONLY if read_only else 0))
        found.append(DetachedMount(tree, target, stat.S_ISDIR(os.fstat(tree).st_mode)))
    return found


def put(taken: Iterable[DetachedMount]) -> None:
    """Attach the detached mounts inside the current root, outer targets first."""
    for tree, target, directory in sorted(taken, key=lambda item: item.target.count("/")):
        asked = f"mount something at {target}"
        path = os.path.realpath(target)
        if _forbidden(path):
            raise InvalidError(asked, f"in this image it leads to {path}")
        try:
            _make_mount_point(path, directory=directory)
            if os.path.isdir(path) != directory:
                kinds = ("a file", "a directory") if directory else ("a directory", "a file")
                raise InvalidError(asked, "it is {}, and the source is {}".format(*kinds))
            move_mount(tree, path)
        except OSError as error:
            raise InvalidError(asked, str(os.strerror(error.errno or 0))) from error
        finally:
            os.close(tree)


def _make_mount_point(path: str, *, directory: bool) -> None:
    if not os.path.exists(path):
        os.makedirs(path if directory else os.path.dirname(path), exist_ok=True)
        if not directory:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
