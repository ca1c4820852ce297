"""Registry of adapters: built-in ones, entry points of other packages, and TOML descriptions.

An adapter is requested by its name, or by the path of a TOML file that describes a
Docker-compatible command line. `NAME@/path` takes the runtime's programs from the folder `/path`,
into which a package was unpacked. Two versions can thus be compared without installing either of
them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Set
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final, cast

from harness.model.dialect import DESCRIPTION_SUFFIX, split_runtime_name

if TYPE_CHECKING:
    from harness.adapters.protocol import AdapterFactory

GROUP: Final = "netmodes.adapters"
DEFAULT: Final = "mydocker"
"""The runtime that is part of this package."""
_BUILT_IN: Final = {
    "bwrap": "harness.adapters.bare.runtimes.bwrap:FACTORY",
    "containerd": "harness.adapters.bare.runtimes.containerd:FACTORY",
    "crun": "harness.adapters.bare.runtimes.oci:CRUN",
    "crun-by-hand": "harness.adapters.bare.runtimes.oci:CRUN_BY_HAND",
    "docker": "harness.adapters.docker_cli.docker:SPEC",
    "docker-rootless": "harness.adapters.docker_cli.docker:ROOTLESS",
    "docker-runsc": "harness.adapters.docker_cli.gvisor:DOCKER",
    "lxc": "harness.adapters.bare.runtimes.lxc:FACTORY",
    "mydocker": "harness.adapters.mydocker:MydockerAdapter",
    "mydocker-cli": "harness.adapters.docker_cli.mydocker:SPEC",
    "nspawn": "harness.adapters.bare.runtimes.nspawn:FACTORY",
    "podman": "harness.adapters.docker_cli.podman:CRUN",
    "podman-rootless": "harness.adapters.docker_cli.podman:PASTA",
    "podman-rootless-bridge": "harness.adapters.docker_cli.podman:BRIDGE",
    "podman-rootless-slirp4netns": "harness.adapters.docker_cli.podman:SLIRP",
    "podman-runc": "harness.adapters.docker_cli.podman:RUNC",
    "podman-runsc": "harness.adapters.docker_cli.gvisor:PODMAN",
    "runc": "harness.adapters.bare.runtimes.oci:RUNC",
    "runc-by-hand": "harness.adapters.bare.runtimes.oci:RUNC_BY_HAND",
    "runsc": "harness.adapters.bare.runtimes.runsc:RUNSC",
}


class UnknownRuntime(LookupError):
    """No adapter has the requested name; the message lists the known names."""


class DoesNotLoad(UnknownRuntime):
    """The adapter of another package cannot be loaded; the message gives the reason."""


class NotInstalled(UnknownRuntime):
    """The adapter exists, but its runtime is not installed; the message says how to install it."""


def names() -> list[str]:
    """Return every name that `find` knows."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def find(name: str) -> AdapterFactory:
    """Return the factory of the adapters called `name`; import its module on demand.

    Raises `UnknownRuntime` for an unknown name, an unreadable description, or a runtime that cannot
    run here. Raises `NotInstalled` if programs of the runtime are missing.
    """
    factory = load(name)
    absent = missing(factory)
    if absent:
        raise NotInstalled(f"{missing_message(absent)}. {_remedy(factory)}")
    if reason := obstacle(factory):
        raise UnknownRuntime(reason)
    return factory


def load(name: str) -> AdapterFactory:
    """Return the same factory as `find`, even if programs of the runtime are missing."""
    plain, at, prefix = split_runtime_name(name)
    if plain.endswith(DESCRIPTION_SUFFIX):
        from harness.adapters.docker_cli import toml_spec

        try:
            found: AdapterFactory = toml_spec.load(plain)
        except toml_spec.DescriptionError as error:
            raise UnknownRuntime(str(error)) from error
    else:
        found = _load(plain)
    if at:
        found = _from_prefix(name, found, prefix)
    named: AdapterFactory = found.with_name(name) if hasattr(found, "with_name") else found
    return named


# --- optional members of a factory, which a third-party class may lack ------------------------


def missing(factory: AdapterFactory) -> list[str]:
    """Return the programs of a runtime that this machine does not have."""
    ask = cast("Callable[[], list[str]]", getattr(factory, "missing", list))
    return ask()


def missing_message(absent: list[str]) -> str:
    """Return a message about `missing` programs; it tells absent files from not executable ones."""
    inert = [name for name in absent if "/" in name and os.path.exists(name)]
    gone = [name for name in absent if name not in inert]
    blocked = [f"{name} exists but is not executable" for name in inert]
    return "; ".join([*([f"not installed: {', '.join(gone)} not found"] if gone else []), *blocked])


def obstacle(factory: AdapterFactory) -> str:
    """Return the reason why the runtime cannot run in this sandbox, or an empty text."""
    return str(getattr(factory, "obstacle", str)())


def how_to_install(factory: AdapterFactory) -> str:
    """Return the command that installs a runtime, or an empty text."""
    return str(getattr(factory, "install", ""))


def provenance(factory: AdapterFactory) -> str:
    """Return a text: which programs come from a folder, and which are the installed ones."""
    return str(getattr(factory, "provenance", str)())


def _prefix(factory: AdapterFactory) -> str:
    return str(getattr(factory, "prefix", ""))


def _load(name: str) -> AdapterFactory:
    for point in entry_points(group=GROUP):
        if point.name == name:
            return _loaded(point)
    if name in _BUILT_IN:
        return cast("AdapterFactory", EntryPoint(name, _BUILT_IN[name], GROUP).load())
    raise UnknownRuntime(
        f"unknown adapter {name!r}; the known ones are {', '.join(names())} "
        "and any TOML file that describes a Docker-like command line, such as acme.toml"
    )


def _loaded(point: EntryPoint) -> AdapterFactory:
    """Import an adapter of another package; raise `DoesNotLoad` for any failure."""
    try:
        found = point.load()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise DoesNotLoad(
            f"{point.name!r}, which is {point.value}, does not load: {why}"
        ) from error
    if not (hasattr(found, "features") and callable(found)):
        raise DoesNotLoad(
            f"{point.name!r}, which is {point.value}, is {found!r}, not an adapter class "
            "with `features` or a CliSpec"
        )
    if why := _misclaimed(found.features):
        raise DoesNotLoad(f"{point.name!r}, which is {point.value}, {why}")
    return cast("AdapterFactory", found)


def _misclaimed(claimed: object) -> str:
    """Return the mistake in an adapter's `features`, or an empty text.

    A misspelt feature would silently skip every requirement that needs the correct one.
    """
    from harness.model.features import Feature

    if not isinstance(claimed, Set):
        return f"has the features {claimed!r}, which is not a set of features"
    unknown = sorted(repr(word) for word in claimed if word not in set(Feature))
    if not unknown:
        return ""
    return f"claims the unknown feature {', '.join(unknown)}; known: {', '.join(Feature)}"


def _from_prefix(name: str, factory: Any, prefix: str) -> AdapterFactory:
    refused = f"{name!r} does not support programs from another folder"
    if not hasattr(factory, "with_prefix"):
        raise UnknownRuntime(f"{refused}: it has no programs")
    try:
        found = factory.with_prefix(prefix)
    except ValueError as error:
        raise UnknownRuntime(f"{refused}: {error}") from None
    if not os.path.isdir(prefix) or not os.path.isabs(prefix):
        raise UnknownRuntime(
            f"{name!r}: no folder {prefix!r}. Give an absolute path, such as "
            "docker@/opt/docker-28, to what `dpkg -x PACKAGE.deb FOLDER` has unpacked"
        )
    if not found.from_prefix():
        raise UnknownRuntime(
            f"{name!r}: {prefix} contains none of {', '.join(factory.required)}, neither itself "
            f"nor in usr/bin or similar, so the installed programs would be tested"
        )
    return cast("AdapterFactory", found)


def _remedy(factory: AdapterFactory) -> str:
    if prefix := _prefix(factory):
        return f"netmodes searches {prefix} and the PATH"
    if install := how_to_install(factory):
        return f"Try: {install}"
    return "`netmodes vendors` lists the runtimes"
