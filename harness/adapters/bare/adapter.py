"""Adapter for runtimes that only start processes in namespaces, with a factory for each.

Such a runtime has no networks, images or names. The modules `engine` and `bundle` and a
`NetworkBackend`, such as `cni_network`, do the minimum of an engine's work for the runtime. The
suites therefore test two things together: the runtime's namespaces and the network backend.

The adapter refuses a request that the runtime has no option for; it does not imitate the option. It
does not declare the feature DNS, because nothing resolves names. It does not declare the feature
restart either: a container is deleted when it stops, and `start_container` starts a new container
on the old root.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from harness.adapters import dialects
from harness.adapters.bare import bundle, cni
from harness.adapters.bare.cni import CniBroken, CniError
from harness.adapters.bare.cni_network import CniBackend
from harness.adapters.bare.engine import BareEngine
from harness.adapters.bare.protocol import BareRuntime, NetworkBackend
from harness.adapters.protocol import (
    ContainerInfo,
    HostHandle,
    NetworkInfo,
    RuntimeBroken,
    RuntimeRefused,
)
from harness.adapters.support import image, programs, rootless
from harness.adapters.support.call_log import CallLog
from harness.adapters.support.daemon import Daemons, DaemonSpec
from harness.adapters.support.inspect_cache import InspectCache
from harness.adapters.support.program import BOUND, Program, ProgramBroken, ProgramRefused
from harness.model.dialect import Dialect
from harness.model.features import Feature
from harness.model.plan import ContainerSpec, NetworkSpec
from harness.world import process
from harness.world.process import CompletedCommand, ExecCommand, OutputTooLong
from linux.syscalls import in_user_namespace

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
"""The features of a runtime that can set sysctls, on networks of CNI's plugins."""
FOR_EVER: Final = (
    *("sh", "-c"),
    f'trap "exit 0" TERM INT; while :; do read -r _ <> {bundle.FOR_EVER}; done',
)
"""Command of a container whose plan has no command: it waits, and ends on SIGTERM.

It has no child process: such a runtime returns so early that a child would start later.
"""
CNI: Final = "cni"
"""The key of the plugins' choices in the table of dialects."""
_PLUGINS: Final = "CNI's plugins"
_AT_ONCE: Final = 8
"""Number of containers that are removed at the same time."""
_ABSENT: Final = re.compile(r"executable file|no such file|not found", re.I)
"""Runtimes' messages about a missing command; the exit code varies."""
_NOT_THERE: Final = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class BareFactory:
    """Factory of the adapters of one bare runtime; `make` makes the runtime from its `Program`.

    `called` is the name by which the runtime was requested, `command` the program with its global
    options. The version is the first match of `version_pattern` in the output of `version_options`.
    `programs` must be on the PATH too; `packages` are the packages that install all programs.
    `files` are written in the host before anything starts.

    `wiring` is the network backend. `dialect_entries` are keys of the table of dialects, such as
    the key of the network backend. The entries of the runtime come after them and take precedence.

    A runtime that is `for_root` does not run in a user namespace. A runtime that makes `cgroups`
    needs a delegated cgroup. A runtime that is not `relocatable` needs libraries of its own
    version. Programs in the folder `prefix` take precedence over installed programs.
    """

    name: str
    command: tuple[str, ...]
    make: Callable[[Program], BareRuntime]
    packages: tuple[str, ...]
    called: str = ""
    version_options: tuple[str, ...] = ("--version",)
    version_pattern: str = programs.VERSION
    programs: tuple[str, ...] = ()
    features: frozenset[Feature] = FEATURES
    wiring: NetworkBackend = field(default_factory=CniBackend)
    dialect_entries: tuple[str, ...] = (CNI,)
    daemons: tuple[DaemonSpec, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    for_root: bool = False
    cgroups: bool = False
    prefix: str = ""
    relocatable: bool = True

    def with_name(self, name: str) -> BareFactory:
        """Return the factory with the name by which it was requested, for messages."""
        return replace(self, called=name)

    def with_prefix(self, prefix: str) -> BareFactory:
        """Return the factory that takes programs and CNI plugins from a folder, if they are there.

        Raises `ValueError` if the programs depend on libraries of their own version.
        """
        if not self.relocatable:
            raise ValueError("CNI plugins need libraries of their own version")
        wiring: Any = replace(self.wiring, prefix=prefix)  # type: ignore[type-var] # a dataclass
        found = programs.found_in(prefix, self.required)
        daemons = tuple(item.resolved(found) for item in self.daemons)
        command = programs.resolved(self.command, found)
        return replace(self, prefix=prefix, command=command, daemons=daemons, wiring=wiring)

    def from_prefix(self) -> list[str]:
        """Return the names of the programs and CNI plugins that come from the prefix."""
        own = programs.names_from(self.prefix, self.required)
        plugins = CNI in self.dialect_entries and cni.folder(self.prefix).startswith(
            f"{self.prefix}/"
        )
        return [*own, _PLUGINS] if plugins and self.prefix else own

    def provenance(self) -> str:
        """Return a text: which programs come from the prefix, and which are the installed ones."""
        wanted = [*self.required, *([_PLUGINS] if CNI in self.dialect_entries else [])]
        return programs.provenance(self.prefix, self.from_prefix(), wanted, self.missing())

    @property
    def required(self) -> tuple[str, ...]:
        """The programs that the runtime needs."""
        return (self.command[0], *(item.command[0] for item in self.daemons), *self.programs)

    def obstacle(self) -> str:
        """Return the reason why the runtime cannot run in this sandbox, or an empty text."""
        if self.for_root and in_user_namespace():
            return (
                f"{self.command[0]} does not run in a user namespace, which an ordinary user's "
                "sandbox is; run as root"
            )
        return rootless.cgroup_obstacle(self.command[0]) if self.cgroups else ""

    @property
    def install(self) -> str:
        """The command that installs the runtime."""
        return f"apt-get install {' '.join((*self.packages, *self.wiring.packages))}"

    def missing(self) -> list[str]:
        """Return the missing programs of the runtime and of its network backend."""
        return [*programs.missing(self.prefix, self.required), *self.wiring.missing()]

    @property
    def version(self) -> str:
        """The version of the installed runtime, or an empty text."""
        argv = [self.command[0], *self.version_options]
        return programs.installed_version(argv, self.prefix, self.version_pattern)

    @property
    def dialect(self) -> Dialect:
        """The dialect of the installed runtime and its network backend."""
        return dialects.composed(*self._named)

    def entries(self) -> list[dialects.DocumentedChoice]:
        """Return the entries of `dialects.toml` behind the dialect."""
        return dialects.entries(*self._named)

    @property
    def _named(self) -> list[tuple[str, str]]:
        """The keys in the table of dialects that apply, each with the version of its program."""
        known = dict.fromkeys((*self.dialect_entries, self.name), self.version)
        if CNI in known:
            known[CNI] = cni.version(self.prefix)
        return list(known.items())

    def __call__(self, host: HostHandle, /) -> BareAdapter:
        """Make the adapter that drives the runtime in this host."""
        return BareAdapter(host, self)


class BareAdapter:
    """Adapter that drives a bare runtime inside the host."""

    def __init__(self, host: HostHandle, factory: BareFactory) -> None:
        self._host, self._factory, self._calls = host, factory, CallLog(host)
        self._path = programs.search_path(factory.prefix)
        program = Program(factory.command, self._path)
        self._engine = BareEngine(factory.make(program), factory.wiring)
        self._cache = InspectCache(host)
        self._daemons = Daemons(host, factory.daemons, {"PATH": self._path}, BOUND)
        self.name, self.features = factory.name, factory.features
        self.version = factory.version
        if not self.version:
            raise RuntimeBroken(
                f"{' '.join((factory.command[0], *factory.version_options))} printed no version; "
                "check that the program runs on this machine"
            )
        self.dialect = self._daemons.allow_restarts(factory.dialect)

    def _call(self, request: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._calls.call(request, function, *args, **kwargs)
        except (ProgramRefused, CniError) as error:
            if self._daemons.ended:  # an unreachable runtime is the expected refusal
                raise self._broken(request, str(error)) from error
            raise RuntimeRefused(request, str(error)) from error
        except (ProgramBroken, CniBroken) as error:
            raise self._broken(request, str(error)) from error

    def _broken(self, request: str, why: str) -> RuntimeBroken:
        self._cache.forget()
        lines = [f"{request}: {why}"]
        ended = self._daemons.ended
        if ended:
            lines.append("Its daemon has ended and is restarted.")
        lines += self._daemons.hints(self._factory.called or self.name)
        if ended:
            self._start_daemons()
        return RuntimeBroken("\n".join(lines))

    @property
    def commands(self) -> Sequence[CompletedCommand]:
        """The last commands and their results, as evidence of a failure."""
        return self._calls.entries

    # --- up and down

    def start(self) -> None:
        """Start the daemons, unpack the image, and prepare the engine.

        The engine removes unfinished containers and creates the default network.

        """
        self._cache.forget()
        self._start_daemons()
        self._call(f"start {self.name}", self._engine.begin, image.archive(self._host))

    def _start_daemons(self) -> None:
        self._host.call(_write, self._factory.files)
        self._daemons.start()

    def stop(self) -> None:
        """Remove all containers and networks and stop the daemons."""
        self.prune()
        self._daemons.stop()

    # --- networks

    def network(self, spec: NetworkSpec) -> NetworkInfo:
        """Create a network with the network backend."""
        return self._call(f"create network {spec.name}", self._engine.wiring.create, spec)

    def network_facts(self, name: str) -> NetworkInfo:
        """Return the network backend's facts about a network."""
        return self._call(f"inspect network {name}", self._engine.wiring.facts, name)

    def remove_network(self, name: str) -> None:
        """Remove a network and its bridge."""
        self._call(f"remove network {name}", self._engine.remove_network, name)

    def connect(self, name: str, network: str, *, aliases: Sequence[str] = ()) -> ContainerInfo:
        """Refuse to connect: a bare runtime's container has fixed networks."""
        raise RuntimeRefused(
            f"connect {name} to {network} as {aliases}", "a bare runtime cannot do this"
        )

    def disconnect(self, name: str, network: str) -> ContainerInfo:
        """Refuse to disconnect: a bare runtime's container has fixed networks."""
        raise RuntimeRefused(f"disconnect {name} from {network}", "a bare runtime cannot do this")

    # --- containers

    def run(self, spec: ContainerSpec) -> ContainerInfo:
        """Prepare a root file system and a connected netns, and start a container in them."""
        self._cache.containers.pop(spec.name, None)
        args = spec.command or FOR_EVER
        facts = self._call(f"run {spec.name}", self._engine.run, spec, args)
        self._cache.joins(spec)
        self._cache.keep(spec.name, facts)
        return facts

    def inspect(self, name: str) -> ContainerInfo:
        """Return the facts about a container; cached facts are used while its pid 1 lives."""
        known = self._cache.container(name)
        if known is None:
            known = self._call(f"inspect {name}", self._engine.inspect, name)
            self._cache.keep(name, known)
        return known

    def exec(self, name: str, argv: Sequence[str], *, timeout: float = 30) -> CompletedCommand:
        """Run a command in a container; a missing command exits with 127, as in a shell."""
        request = f"exec in {name}"
        words = self._call(request, self._engine.exec_words, name)
        try:
            done = self._host.run((*words, *argv), env={"PATH": self._path}, timeout=timeout)
        except (TimeoutError, OutputTooLong) as error:
            raise RuntimeBroken(f"{request}: {error}") from None
        self._calls.keep(done)
        code = done.returncode
        if code and argv and argv[0] in done.stderr and _ABSENT.search(done.stderr):
            code = _NOT_THERE
        return replace(done, argv=tuple(argv), returncode=code)

    def exec_command(self, name: str, argv: Sequence[str]) -> ExecCommand:
        """Return the command line that runs a command in a container."""
        words = self._call(f"exec in {name}", self._engine.exec_words, name)
        return ExecCommand((*words, *argv), {"PATH": self._path})

    def stop_container(self, name: str) -> None:
        """Send SIGTERM and a second later SIGKILL to the container, and disconnect it."""
        self._cache.containers.pop(name, None)
        self._call(f"stop {name}", self._engine.stop, name)

    def start_container(self, name: str) -> ContainerInfo:
        """Start a stopped container again on its old root file system."""
        self._cache.containers.pop(name, None)
        return self._call(f"start {name}", self._engine.start, name)

    def remove(self, *names: str) -> None:
        """Stop, disconnect and remove containers in parallel, joining containers first."""
        for name in names:
            self._cache.containers.pop(name, None)
        for some in self._cache.joiners_first(names):
            self._call(f"remove {', '.join(some)}", partial(_remove, self._engine), tuple(some))

    # --- trouble

    def repair(self) -> None:
        """Repair the rules with the network backend."""
        self._call("repair", self._engine.wiring.repair)

    def crash(self, spec: ContainerSpec, *, after: float) -> None:
        """Start a container in a child process, kill its process tree, then the daemons."""
        crash = partial(_crash, self._engine)
        self._call(f"crash {spec.name}", crash, spec, spec.command or FOR_EVER, after)
        for pid in self._daemons.pids:
            self._host.call(process.end, pid, 0.0)

    def prune(self) -> None:
        """Remove every container and every network but the default one."""
        self._cache.forget()
        self._call("prune", self._engine.prune)


# --- inside the host -----------------------------------------------------------------


def _write(files: Sequence[tuple[str, str]]) -> None:
    for path, content in files:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content, encoding="utf-8")


def _remove(engine: BareEngine, some: Sequence[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        removals = [pool.submit(engine.remove, name) for name in some]
    for removal in removals:
        removal.result()  # all have ended; this raises the first failure


def _crash(engine: BareEngine, spec: ContainerSpec, args: tuple[str, ...], after: float) -> None:
    process.killed_after(after, lambda: engine.run(spec, args), group=True)
