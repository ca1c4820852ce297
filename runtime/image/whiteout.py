"""How a layer says that something of the layers below is gone: in a tar, and on disk.

In a tar an empty file `.wh.NAME` says that NAME is gone, and `.wh..wh..opq` that
everything in its directory is (OCI image specification, "Image Layer Filesystem
Changeset"). On disk the overlay wants a character device 0:0 called NAME, and an
extended attribute of the directory (Documentation/filesystems/overlayfs.rst).
Both can be made in a user namespace: the device since Linux 5.8, and `user.*`
attributes stand in for the `trusted.*` ones that only the host's root may set.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from linux.syscalls import in_user_namespace

PREFIX: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"
RESERVED: Final = ".wh..wh."
"""Names that AUFS kept for itself; old layers still have them."""


def attribute() -> str:
    """The extended attribute that marks an opaque directory here."""
    return f"{'user' if in_user_namespace() else 'trusted'}.overlay.opaque"


def is_whiteout(status: os.stat_result) -> bool:
    """Whether a file is the overlay's mark that a name is gone."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def make(directory: int, name: str) -> None:
    """Say that `name` is gone from an open directory."""
    os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)


def is_opaque(directory: int, mark: str) -> bool:
    """Whether an open directory hides everything below it; `mark` is `attribute()`."""
    try:
        return os.getxattr(directory, mark) == b"y"
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise
        return False


def make_opaque(directory: int, mark: str) -> None:
    """Hide everything below an open directory.

    Whiteouts in it have nothing to hide any more, and would be listed as files.
    """
    os.setxattr(directory, mark, b"y")
    with os.scandir(directory) as found:
        for item in found:
            if is_whiteout(item.stat(follow_symlinks=False)):
                os.unlink(item.name, dir_fd=directory)
