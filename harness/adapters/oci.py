"""Bare OCI runtimes, crun and runc, with CNI plugins for their networks.

Such a runtime starts a bundle in namespaces and knows no networks, images or names. What
an engine would do around it (`oci_engine`, `bundle`, `cni`) is as little as it can be: a
network namespace, wired by CNI's reference plugins, is given to the runtime by its path.
So the suites look at the pair: the runtime's namespaces, and the plugins' networks.

What cannot be expressed is refused, not imitated. Names are not claimed: nobody resolves
them. Nor are restarts: a container of this kind is deleted once it has stopped, and
`start_container` runs its bundle anew.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, ParamSpec, TypeVar

from harness.adapters import bundle, cni, dialects, furnish, image
from harness.adapters.cli import version_in
from harness.adapters.cni import CniBroken, CniError
from harness.adapters.hostside import killed_after, together
from harness.adapters.memory import Memory
from harness.adapters.oci_engine import Engine
from harness.adapters.oci_networks import Refused
from harness.adapters.oci_records import Broken
from harness.adapters.protocol import (
    Completed,
    Facts,
    Feature,
    HostHandle,
    NetworkFacts,
    RuntimeBroken,
    RuntimeRefused,
)
from harness.dialect import Dialect
from harness.model import ContainerSpec, NetworkSpec

P = ParamSpec("P")
T = TypeVar("T")

FEATURES: Final = frozenset(
    {
        Feature.BRIDGE,
        Feature.HOST,
        Feature.NONE,
        Feature.CONTAINER,
        Feature.NETWORKS,
        Feature.IPV6,
        Feature.PUBLISH,
        Feature.STATIC_ADDRESS,
        Feature.SYSCTL,
    }
)
FOR_EVER: Final = (
    *("sh", "-c"),
    f'trap "exit 0" TERM INT; while :; do read -r _ <> {bundle.FOR_EVER}; done',
)
"""What a container runs whose plan names no command: it lasts, and ends on SIGTERM.

All by itself: a runtime of this kind returns so early that a child of it would come after.
"""
CNI: Final = "cni"
"""Under which name the plugins' choices are in the table of dialects."""
_BOUND: Final = 10.0
"""Seconds that a program may take to tell its version."""
_AT_ONCE: Final = 8
"""How many containers are removed at the same time."""
_ABSENT: Final = re.compile(r"executable file|no such file|not found", re.I)
"""What runtimes say of a command that is not there, whatever they exit with."""
_NOT_THERE: Final = 127


@dataclass(frozen=True, slots=True)
class OciFactory:
    """Makes adapters of one runtime."""

    name: str
    options: tuple[str, ...] = ()
    features: frozenset[Feature] = FEATURES

    @property
    def install(self) -> str:
        """What to type where something is missing."""
        return f"apt-get install {self.name} containernetworking-plugins iptables"

    def missing(self) -> list[str]:
        """The runtime, the plugins and what they run, where they are not there."""
        found = shutil.which(self.name, path=furnish.search_path())
        return [*([] if found else [self.name]), *cni.missing()]

    @property
    def version(self) -> str:
        """That of the installed runtime; `""` where there is none."""
        path = furnish.search_path()
        if shutil.which(self.name, path=path) is None:
            return ""
        try:
            done = subprocess.run(
                [self.name, "--version"],
                capture_output=True,
                text=True,
                timeout=_BOUND,
                env={"PATH": path},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ""
        return version_in(done.stdout)

    @property
    def dialect(self) -> Dialect:
        """What the installed one does its own way, and the plugins do."""
        return dialects.of(self.name, self.version, upon=(CNI, _plugins()))

    def entries(self) -> list[dialects.Entry]:
        """The same, choice by choice."""
        upon = dialects.entries(CNI, _plugins())
        return [*upon, *dialects.entries(self.name, self.version)]

    def __call__(self, host: HostHandle, /) -> OciAdapter:
        """Make the adapter that drives the runtime in this host."""
        return OciAdapter(host, self)


def _plugins() -> str:
    return cni.version() if cni.folder() else ""


CRUN: Final = OciFactory("crun", ("--cgroup-manager", "cgroupfs"))
RUNC: Final = OciFactory("runc")


class OciAdapter:
    """Drives a bare runtime and the CNI plugins, inside the host."""

    def __init__(self, host: HostHandle, factory: OciFactory) -> None:
        self._host = host
        self._engine = Engine((factory.name, *factory.options), furnish.search_path())
        self._memory = Memory(host)
        self.name, self.features = factory.name, factory.features
        self.version = factory.version
        if not self.version:
            raise RuntimeBroken(f"{factory.name} --version tells no version")
        self.dialect = factory.dialect

    def _call(self, asked: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._host.call(function, *args, **kwargs)
        except (Refused, CniError) as error:
            raise RuntimeRefused(asked, str(error)) from error
        except (Broken, CniBroken) as error:
            raise RuntimeBroken(
                f"{asked}: {error}\n"
                f"`netmodes lab --runtime {self.name}` gives a shell where it can be tried."
            ) from error

    # --- up and down

    def start(self) -> None:
        """Unpack the image, undo what was begun and not finished, have the default network."""
        self._memory.forget()
        self._call(f"start {self.name}", self._engine.begin, image.archive(self._host))

    def stop(self) -> None:
        """Remove everything."""
        self.prune()

    # --- networks

    def network(self, spec: NetworkSpec) -> NetworkFacts:
        """A conf, tried once so that its bridge is there."""
        return self._call(f"create network {spec.name}", _create_network, self._engine, spec)

    def network_facts(self, name: str) -> NetworkFacts:
        """From the conf."""
        return self._call(f"inspect network {name}", self._engine.networks.facts, name)

    def remove_network(self, name: str) -> None:
        """The conf and the bridge."""
        self._call(f"remove network {name}", self._engine.remove_network, name)

    def connect(self, name: str, network: str, *, aliases: Sequence[str] = ()) -> Facts:
        """Not claimed: who is wired is so before it starts."""
        raise RuntimeRefused(f"connect {name} to {network} as {aliases}", "not with a bare runtime")

    def disconnect(self, name: str, network: str) -> Facts:
        """Not claimed."""
        raise RuntimeRefused(f"disconnect {name} from {network}", "not with a bare runtime")

    # --- containers

    def run(self, spec: ContainerSpec) -> Facts:
        """A bundle, a namespace wired by CNI, and `run --detach`."""
        self._memory.containers.pop(spec.name, None)
        args = spec.command or FOR_EVER
        facts = self._call(f"run {spec.name}", self._engine.run, spec, args)
        self._memory.joins(spec)
        self._memory.keep(spec.name, facts)
        return facts

    def inspect(self, name: str) -> Facts:
        """What is on record, while the container's pid 1 lives."""
        known = self._memory.container(name)
        if known is None:
            known = self._call(f"inspect {name}", self._engine.inspect, name)
            self._memory.keep(name, known)
        return known

    def exec(self, name: str, argv: Sequence[str], *, timeout: float = 30) -> Completed:
        """`exec`; a command that is not there exits with 127, as in a shell."""
        asked = f"exec in {name}"
        words = self._call(asked, self._engine.exec_words, name)
        try:
            done = self._host.run((*words, *argv), env={"PATH": self._engine.path}, timeout=timeout)
        except TimeoutError as error:
            raise RuntimeBroken(f"{asked}: {error}") from None
        code = done.returncode
        if code and argv and argv[0] in done.stderr and _ABSENT.search(done.stderr):
            code = _NOT_THERE
        return replace(done, argv=tuple(argv), returncode=code)

    def stop_container(self, name: str) -> None:
        """SIGTERM, and SIGKILL a second later; then off the networks."""
        self._memory.containers.pop(name, None)
        self._call(f"stop {name}", self._engine.stop, name)

    def start_container(self, name: str) -> Facts:
        """Run its bundle anew."""
        self._memory.containers.pop(name, None)
        return self._call(f"start {name}", self._engine.start, name)

    def remove(self, *names: str) -> None:
        """`delete --force`, and off the networks; several at a time, who joined another first."""
        for name in names:
            self._memory.containers.pop(name, None)
        for some in self._memory.joiners_first(names):
            self._call(f"remove {', '.join(some)}", _remove, self._engine, tuple(some))

    # --- trouble

    def repair(self) -> None:
        """There is nothing documented for it: CNI's firewall rules come with each ADD alone."""

    def crash(self, spec: ContainerSpec, *, after: float) -> None:
        """A start in a process of its own, killed with all its children."""
        self._call("crash", _crash, self._engine, spec, spec.command or FOR_EVER, after)

    def prune(self) -> None:
        """Remove every container and every network but the default one."""
        self._memory.forget()
        self._call("prune", self._engine.prune)


# --- inside the host -----------------------------------------------------------------


def _create_network(engine: Engine, spec: NetworkSpec) -> NetworkFacts:
    facts = engine.networks.create(spec)
    try:
        engine.try_out(spec.name)
    except BaseException:
        engine.networks.remove(spec.name)
        raise
    return facts


def _remove(engine: Engine, some: Sequence[str]) -> None:
    together(engine.remove, some, most=_AT_ONCE)


def _crash(engine: Engine, spec: ContainerSpec, args: tuple[str, ...], after: float) -> None:
    killed_after(after, lambda: engine.run(spec, args), group=True)
