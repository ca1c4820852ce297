"""Sysctls under `net.` of one network namespace.

`/proc/sys/net` shows the namespace of the *thread that opens the file*, so
reading and writing go through a handle on the namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from linux.netns import NetNS


def path(key: str) -> str:
    """The file of a sysctl."""
    # Dots separate; an interface name with a dot is written with a slash (sysctl.d(5)).
    return "/proc/sys/" + key.translate(str.maketrans("./", "/."))


def write(netns: NetNS, values: Mapping[str, str | int]) -> None:
    """Set sysctls such as `net.ipv4.ip_forward`; `OSError` names the one that is refused.

    An empty value empties a list or a mask.
    """
    with netns.entered():
        for key, value in values.items():
            try:
                with open(path(key), "w", encoding="ascii") as file:
                    file.write(f"{value}\n")
            except OSError as error:  # one that comes from writing does not tell the file
                raise OSError(error.errno, f"{key} = {value}: {error.strerror}") from error


def read(netns: NetNS, keys: Iterable[str]) -> dict[str, str]:
    """The values of sysctls, white space folded; `OSError` names the one that is not there."""
    found = {}
    with netns.entered():
        for key in keys:
            with open(path(key), encoding="ascii") as file:
                found[key] = " ".join(file.read().split())
    return found
