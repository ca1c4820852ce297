"""The image that every runtime's containers are made of: mydocker's `base`, as an archive.

It is put together from what this machine has, by mydocker, and saved in the form that
`docker load` takes (https://github.com/moby/docker-image-spec/blob/main/spec.md). So
nothing is ever pulled, and all runtimes are compared on the same files.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from harness.adapters.protocol import HostHandle, RuntimeBroken

NAME: Final = "base"
ARCHIVE: Final = "/run/netmodes/base.tar"
"""Where the archive is in the host."""
_ROOT: Final = "/run/netmodes/images"
_PACKAGES: Final = str(Path(__file__).parents[3])


def archive(host: HostHandle) -> str:
    """The archive's path in the host, where it is made when it is not there yet."""
    words = [sys.executable, "-m", "runtime", "save", "-o", ARCHIVE, NAME]
    done = host.run(words, env={"PYTHONPATH": _PACKAGES, "MYDOCKER_ROOT": _ROOT})
    if done.returncode:
        raise RuntimeBroken(
            f"the test image could not be made: mydocker said {done.stderr.strip()!r}. "
            "Try `mydocker save -o base.tar base` by hand"
        )
    host.call(os.chmod, ARCHIVE, 0o644)  # an ordinary user loads it too
    return ARCHIVE
