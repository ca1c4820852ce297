"""Description of a Docker-compatible command line as data.

Such programs have the same commands (`run`, `exec`, `inspect`, `network create` …) and differ in
details. A description has these details, the daemons, and the files that the runtime needs.
`docs/adapters.md` shows such a description as a TOML file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from harness.adapters.protocol import HostHandle
from harness.adapters.support import programs, rootless
from harness.adapters.support.daemon import DaemonSpec
from harness.model.dialect import Dialect
from harness.model.features import Feature

if TYPE_CHECKING:
    from harness.adapters.docker_cli.adapter import CliAdapter

FOR_EVER = ("sh", "-c", 'trap "exit 0" TERM INT; exec < /dev/ptmx; while :; do read -r _; done')
"""Command of a container whose plan has no command: it waits, and ends on SIGTERM.

A pid 1 ignores a signal without a handler, so that with `sleep` every `stop` would wait for its
time limit. The shell waits without a child, at an unused terminal: on a busy machine a child
could start after `run` has returned and look like a leak.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CliVerbs:
    """First words of each command of the runtime; names, ids and options follow.

    An empty `repair` or `reset` means that the runtime has no such command. `converse` is like
    `execute`, but with standard input and every capability. `host` are further options of `create`
    and `run` in mode host.

    `cidfile` is the option that names a file: `create` and `run` write the container's id there.
    `mtu` and `icc` are the keys of `network create --opt` for the MTU and for traffic between
    containers. They are empty if the runtime has no such key.
    """

    version: tuple[str, ...] = ("--version",)
    load: tuple[str, ...] = ("load", "-i")
    run: tuple[str, ...] = ("run", "-d")
    create: tuple[str, ...] = ("create",)
    start: tuple[str, ...] = ("start",)
    stop: tuple[str, ...] = ("stop", "-t", "1")
    remove: tuple[str, ...] = ("rm", "-f")
    inspect: tuple[str, ...] = ("inspect",)
    execute: tuple[str, ...] = ("exec",)
    converse: tuple[str, ...] = ("exec", "-i", "--privileged")
    containers: tuple[str, ...] = ("ps", "-aq")
    connect: tuple[str, ...] = ("network", "connect")
    disconnect: tuple[str, ...] = ("network", "disconnect")
    network_create: tuple[str, ...] = ("network", "create")
    network_inspect: tuple[str, ...] = ("network", "inspect")
    network_remove: tuple[str, ...] = ("network", "rm")
    network_prune: tuple[str, ...] = ("network", "prune", "-f")
    repair: tuple[str, ...] = ()
    reset: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    cidfile: str = "--cidfile"
    mtu: str = "com.docker.network.driver.mtu"
    icc: str = "com.docker.network.bridge.enable_icc"


@dataclass(frozen=True, slots=True, kw_only=True)
class CliSpec:
    """Description of one runtime, and the factory of its adapters.

    `called` is the requested name, which may be a path or have a prefix. `features` are the
    features that the adapter declares. If `known_version` is empty, the program reports its
    version.

    `dialect` has the documented choices. `None` means the entries of `dialects.toml` for the names
    in `kin`, by default for `name`. Entries are selected by the runtime's version, or by the
    version `like`, which the runtime resembles.

    A runtime that makes `cgroups` needs a delegated cgroup. A `rootless` runtime is started by an
    ordinary user of the host (`support.rootless`), and its bridges are in a netns of that user.
    Then `bridges_at` names a pid file, and the path of the netns below that process's directory in
    proc(5).

    `scratch` directories become empty and writable in the host. `files` are written in the host
    before the first command. Scripts become executable, and `PREFIX` in a file stands for `prefix`.

    `programs` must be on the PATH, and `install` is the command that installs them. `helpers` are
    paths where the runtime itself searches for programs; below the prefix these are searched too.

    Names of containers that are shorter than `shortest_name` are padded. `idle` is the command of a
    container whose plan has no command. `timeout` is the time limit of a command in seconds.
    """

    name: str
    command: tuple[str, ...]
    features: frozenset[Feature]
    called: str = ""
    kin: tuple[str, ...] = ()
    rootless: bool = False
    cgroups: bool = False
    bridges_at: tuple[str, str] = ("", "")
    known_version: str = ""
    like: str = ""
    dialect: Dialect | None = None
    words: CliVerbs = field(default_factory=CliVerbs)
    default_network: str = "bridge"
    image: str = "base"
    load_image: bool = True
    daemons: tuple[DaemonSpec, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    scratch: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    install: str = ""
    prefix: str = ""
    shortest_name: int = 1
    idle: tuple[str, ...] = FOR_EVER
    timeout: float = 30

    def named(self, name: str) -> str:
        """Return the runtime's name for a container or network of a plan."""
        return name.ljust(self.shortest_name, "x") if name else name

    def table_entries(self, version: str) -> list[tuple[str, str]]:
        """Return the keys of the table of dialects that apply, each with the version to look up."""
        return [(name, self.like or version) for name in self.kin or (self.name,)]

    @property
    def version(self) -> str:
        """The version of the installed runtime, or an empty text."""
        argv = [*self.command, *self.words.version]
        return self.known_version or programs.installed_version(argv, self.prefix)

    @property
    def required(self) -> tuple[str, ...]:
        """The programs that the runtime needs."""
        return (self.command[0], *(daemon.command[0] for daemon in self.daemons), *self.programs)

    def with_name(self, name: str) -> CliSpec:
        """Return the description with the name by which it was requested, for messages."""
        return replace(self, called=name)

    def with_prefix(self, prefix: str) -> CliSpec:
        """Return the description with programs from a folder, as far as the folder has them."""
        found = programs.found_in(prefix, self.required)
        daemons = tuple(item.resolved(found) for item in self.daemons)
        command = programs.resolved(self.command, found)
        return replace(self, prefix=prefix, command=command, daemons=daemons)

    def from_prefix(self) -> list[str]:
        """Return the names of the programs that come from the prefix."""
        own = programs.names_from(self.prefix, self.required)
        return [*own, *programs.existing_helpers(self.prefix, self.helpers)] if self.prefix else own

    def provenance(self) -> str:
        """Return a text: which programs come from the prefix, and which are the installed ones."""
        wanted = [*self.required, *programs.existing_helpers("", self.helpers)]
        return programs.provenance(self.prefix, self.from_prefix(), wanted, self.missing())

    def missing(self) -> list[str]:
        """Return the programs that are neither on the PATH nor in the prefix."""
        user = rootless.PROGRAMS if self.rootless else ()
        return programs.missing(self.prefix, (*self.required, *user))

    def obstacle(self) -> str:
        """Return the reason why the runtime cannot run in this sandbox, or an empty text."""
        if self.rootless:
            return rootless.obstacle()
        return rootless.cgroup_obstacle(self.command[0]) if self.cgroups else ""

    def __call__(self, host: HostHandle, /) -> CliAdapter:
        """Make the adapter that drives the runtime in this host."""
        from harness.adapters.docker_cli.adapter import CliAdapter

        return CliAdapter(host, self)
