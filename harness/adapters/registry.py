"""Adapters by name: the built-in ones, those of the entry point group, and described ones.

A name is that of an adapter, or the path of a TOML file that describes a Docker-shaped
command line. `NAME@/path` takes the runtime's programs from a folder into which a package
was unpacked, so that two versions can be compared without installing either.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Set
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final, cast

from harness.model.dialect import DESCRIPTION_SUFFIX, split_runtime_name

if TYPE_CHECKING:
    from harness.adapters.protocol import AdapterFactory

GROUP: Final = "netmodes.adapters"
DEFAULT: Final = "mydocker"
"""The runtime that comes with the suites."""
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
    "mydocker-cli": "harness.adapters.mydocker:SPEC",
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
    """No adapter goes by that name; the message lists those that there are."""


class DoesNotLoad(UnknownRuntime):
    """A package names an adapter, and it cannot be had; the message tells why."""


class NotInstalled(UnknownRuntime):
    """There is such an adapter, but not the runtime; the message tells how to install it."""


def names() -> list[str]:
    """Every name `find` knows."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def find(name: str) -> AdapterFactory:
    """What makes the adapter called `name`, given a host. Loads its module only now.

    Raises `UnknownRuntime`, also for a description that cannot be read, and `NotInstalled`
    when the runtime's programs are not there.
    """
    factory = load(name)
    absent = missing(factory)
    if absent:
        raise NotInstalled(f"{absence(absent)}. {_remedy(factory)}")
    if reason := obstacle(factory):
        raise UnknownRuntime(reason)
    return factory


def load(name: str) -> AdapterFactory:
    """What `find` finds, whether its programs are there or not."""
    plain, at, prefix = split_runtime_name(name)
    if plain.endswith(DESCRIPTION_SUFFIX):
        from harness.adapters.docker_cli import toml_spec  # who names no file needs none of it

        try:
            found: AdapterFactory = toml_spec.load(plain)
        except toml_spec.DescriptionError as error:
            raise UnknownRuntime(str(error)) from error
    else:
        found = _load(plain)
    return _called(name, _from_prefix(name, found, prefix) if at else found)


def _called(name: str, factory: AdapterFactory) -> AdapterFactory:
    """The same, and it knows by what name it was asked for: its advice has that."""
    from harness.adapters.bare.adapter import BareFactory
    from harness.adapters.docker_cli.adapter import CliFactory

    if isinstance(factory, CliFactory):
        return CliFactory(replace(factory.spec, called=name))
    return replace(factory, called=name) if isinstance(factory, BareFactory) else factory


def missing(factory: AdapterFactory) -> list[str]:
    """The programs that an adapter needs and this machine has not; none where it does not tell."""
    tell = cast("Callable[[], list[str]]", getattr(factory, "missing", list))
    return tell()


def absence(absent: list[str]) -> str:
    """What is said of `missing` programs: a path may lead to what is there, and is no program."""
    inert = [name for name in absent if "/" in name and os.path.exists(name)]
    gone = [name for name in absent if name not in inert]
    told = [f"{name} is there, and cannot be executed" for name in inert]
    return "; ".join([*([f"not installed: there is no {', '.join(gone)}"] if gone else []), *told])


def obstacle(factory: AdapterFactory) -> str:
    """Why an installed runtime cannot be tried in this sandbox; an empty text where it can."""
    return str(getattr(factory, "obstacle", str)())


def how_to_install(factory: AdapterFactory) -> str:
    """What to type where a runtime is missing; `""` where its adapter does not tell."""
    return str(getattr(getattr(factory, "spec", factory), "install", ""))


def provenance(factory: AdapterFactory) -> str:
    """Which of its programs come from a folder, and which do not; an empty text without one."""
    from harness.adapters.bare.adapter import BareFactory
    from harness.adapters.docker_cli.adapter import CliFactory

    prefix = _prefix(factory)
    if not prefix or not isinstance(factory, BareFactory | CliFactory):
        return ""
    own = factory.brought()
    apart = {*own, *factory.missing()}
    others = [name for name in factory.sought() if name.rpartition("/")[2] not in apart]
    told = f"from {prefix}: {', '.join(own)}"
    return f"{told}; as installed: {', '.join(others)}" if others else told


def _prefix(factory: AdapterFactory) -> str:
    """The folder in which its programs are looked for first."""
    return str(getattr(getattr(factory, "spec", factory), "prefix", ""))


def _load(name: str) -> AdapterFactory:
    for point in entry_points(group=GROUP):
        if point.name == name:
            return _factory(_loaded(point))
    if name in _BUILT_IN:
        return _factory(EntryPoint(name, _BUILT_IN[name], GROUP).load())
    raise UnknownRuntime(
        f"no adapter is called {name!r}; there are: {', '.join(names())}, "
        "and any file acme.toml that describes a Docker-shaped command line"
    )


def _loaded(point: EntryPoint) -> object:
    """What somebody else's package has under a name; whatever is wrong with it is told."""
    try:
        found = point.load()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise DoesNotLoad(
            f"{point.name!r}, which is {point.value}, does not load: {why}"
        ) from error
    if not (hasattr(found, "features") and (callable(found) or hasattr(found, "command"))):
        raise DoesNotLoad(
            f"{point.name!r}, which is {point.value}, is {found!r}: an adapter's class is wanted, "
            "which has `features`, or a CliSpec"
        )
    if why := _misclaimed(found.features):
        raise DoesNotLoad(f"{point.name!r}, which is {point.value}, {why}")
    return found


def _misclaimed(claimed: object) -> str:
    """What is wrong with an adapter's `features`; an empty text where nothing is.

    No requirement would be looked at that needs a feature whose name is not spelt so.
    """
    from harness.model.features import Feature

    if not isinstance(claimed, Set):
        return f"has {claimed!r} for its features: a set of them is wanted"
    unknown = sorted(repr(word) for word in claimed if word not in set(Feature))
    if not unknown:
        return ""
    return f"claims {', '.join(unknown)}: there is no such feature; there are: {', '.join(Feature)}"


def _factory(found: object) -> AdapterFactory:
    """An adapter's class as it is, a description as what makes adapters of it."""
    from harness.adapters.docker_cli.spec import CliSpec

    if isinstance(found, CliSpec):
        from harness.adapters.docker_cli.adapter import CliFactory

        return CliFactory(found)
    return cast("AdapterFactory", found)


def _from_prefix(name: str, factory: AdapterFactory, prefix: str) -> AdapterFactory:
    from harness.adapters.bare.adapter import BareFactory
    from harness.adapters.docker_cli.adapter import CliFactory

    why = _rooted(factory)
    if why:
        raise UnknownRuntime(f"{name!r}: its programs cannot be taken from another folder{why}")
    if not os.path.isdir(prefix) or not os.path.isabs(prefix):
        raise UnknownRuntime(
            f"{name!r}: there is no folder {prefix!r}; an absolute path is wanted, as in "
            "docker@/opt/docker-28, of what `dpkg -x PACKAGE.deb FOLDER` unpacks"
        )
    assert isinstance(factory, BareFactory | CliFactory)
    found = factory.at(prefix)
    if not found.brought():
        raise UnknownRuntime(
            f"{name!r}: {prefix} has none of {', '.join(factory.required)}, neither in itself "
            f"nor in usr/bin and the like: what is installed would be tried"
        )
    return found


def _rooted(factory: AdapterFactory) -> str:
    """Why a runtime's programs work only where they are installed; an empty text where not so."""
    from harness.adapters.bare.adapter import BareFactory
    from harness.adapters.docker_cli.adapter import CliFactory

    if isinstance(factory, BareFactory) and not factory.alone:
        return ": they need libraries of their own version"
    return "" if isinstance(factory, BareFactory | CliFactory) else ": it has none"


def _remedy(factory: AdapterFactory) -> str:
    if prefix := _prefix(factory):
        return f"They are looked for in {prefix} and on the PATH"
    if install := how_to_install(factory):
        return f"Try: {install}"
    return "`netmodes vendors` tells what is there"
