"""Adapter for any Docker-compatible command line, from a description of it (`CliSpec`).

A command that exits with an error and a message has *refused* the request. A command is *broken* if
a signal ends it, or if it exceeds its time limit, prints nothing or prints garbage. A broken
command is an error of the test run. The error has the command, its output and the daemon's log.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from harness.adapters import dialects
from harness.adapters.docker_cli import arguments, output
from harness.adapters.docker_cli.output import UnreadableOutput
from harness.adapters.docker_cli.spec import CliSpec
from harness.adapters.protocol import (
    ContainerInfo,
    HostHandle,
    NetworkInfo,
    RuntimeBroken,
    RuntimeRefused,
)
from harness.adapters.support import image, programs, rootless
from harness.adapters.support.daemon import Daemons
from harness.adapters.support.inspect_cache import InspectCache
from harness.adapters.support.program import is_crash_report
from harness.model.plan import DEFAULT_NETWORK, ContainerSpec, NetworkSpec
from harness.model.topology import Interface
from harness.world import process
from harness.world.process import CompletedCommand, ExecCommand, OutputTooLong
from linux import rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.syscalls import mount

_HOME: Final = "/run/netmodes"
_PREPARED: Final = "/run/netmodes/prepared"
"""Marks a host in which `prepare_host` is done."""
_NOT_EXECUTABLE: Final = (126, 127)
"""Exit codes of `exec` for a command that cannot be executed or is missing."""
_KILLED: Final = 124
"""Exit code of timeout(1) for a command that it has ended."""
_SAID: Final = 2000
_KEPT: Final = 100


class CliAdapter:
    """Adapter that drives a runtime by its command line, inside the host."""

    def __init__(self, host: HostHandle, spec: CliSpec) -> None:
        self._host, self._spec, self._words = host, spec, spec.words
        self._home = rootless.HOME if spec.rootless else _HOME
        self._env = environment(spec)
        self._cache = InspectCache(host)
        self._daemons = Daemons(host, spec.daemons, self._env, spec.timeout)
        self.commands: deque[CompletedCommand] = deque(maxlen=_KEPT)
        """The last commands and their output, as evidence of a failure."""
        self.name = spec.name
        self.features = spec.features
        prepare_host(host, spec)
        self.version = spec.known_version or self._ask_version()
        dialect = spec.dialect or dialects.composed(*spec.table_entries(self.version))
        self.dialect = self._daemons.allow_restarts(dialect)

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment to set in the host; empty for a rootless runtime."""
        return {} if self._spec.rootless else self._env

    # --- up and down -----------------------------------------------------------

    def start(self) -> None:
        """Start the daemons that are not running, and load the image if it is missing."""
        self._start_daemons()
        self._run_checked("list containers", *self._words.containers)
        if self._spec.load_image and not self._cache.image:
            self._run_checked("load the test image", *self._words.load, image.archive(self._host))
            self._cache.image = True

    def _start_daemons(self) -> None:
        self._cache.forget()
        self._daemons.start()

    def stop(self) -> None:
        """Remove all containers and networks and stop the daemons, the last one first."""
        self._cache.forget()
        if self._words.reset:
            self._run_checked("reset", *self._words.reset)
        else:
            self.prune()
        self._daemons.stop()

    # --- networks --------------------------------------------------------------

    def network(self, spec: NetworkSpec) -> NetworkInfo:
        """Call `network create`."""
        words = arguments.network(self._spec, spec)
        self._run_checked(f"create network {spec.name}", *self._words.network_create, *words)
        return self.network_facts(spec.name)

    def network_facts(self, name: str) -> NetworkInfo:
        """Call `network inspect`; read a gateway that it does not report from the bridge."""
        if known := self._cache.networks.get(name):
            return known
        if name == DEFAULT_NETWORK and self.dialect.default_network != "bridge":
            # Each container has its own tap, which can be neither inspected nor shared.
            return NetworkInfo(name, self._spec.default_network, None)
        own = arguments.network_name(self._spec, name)
        request = f"inspect network {name}"
        done = self._run_checked(request, *self._words.network_inspect, own)
        try:
            found, subnets = output.network(self._spec, done.stdout)
        except UnreadableOutput as garbage:
            raise self._broken(request, done, f"its output is {garbage}") from None
        if len(found.gateways) < len(subnets) and found.interface:
            where = f"/proc/{self.bridges_at() or 'self/ns/net'}"
            held = self._host.call(_addresses, where, found.interface, tuple(subnets))
            found = replace(found, gateways=held)
        found = replace(found, name=name)
        if found.gateways:
            self._cache.networks[name] = found
        return found

    def bridges_at(self) -> str:
        """Return the path of the bridges' netns below /proc of the host; `""` for the host's."""
        pid_file, path = self._spec.bridges_at
        return (
            f"{self._host.call(Path.read_text, Path(pid_file)).strip()}/{path}" if pid_file else ""
        )

    def remove_network(self, name: str) -> None:
        """Call `network rm`."""
        self._cache.networks.pop(name, None)
        own = arguments.network_name(self._spec, name)
        self._run_checked(f"remove network {name}", *self._words.network_remove, own)

    def connect(self, name: str, network: str, *, aliases: Sequence[str] = ()) -> ContainerInfo:
        """Call `network connect`."""
        self._cache.containers.pop(name, None)
        words = [word for alias in aliases for word in ("--alias", alias)]
        own = arguments.network_name(self._spec, network), self._spec.named(name)
        self._run_checked(f"connect {name} to {network}", *self._words.connect, *words, *own)
        return self.inspect(name)

    def disconnect(self, name: str, network: str) -> ContainerInfo:
        """Call `network disconnect`."""
        self._cache.containers.pop(name, None)
        own = arguments.network_name(self._spec, network), self._spec.named(name)
        self._run_checked(f"disconnect {name} from {network}", *self._words.disconnect, *own)
        return self.inspect(name)

    # --- containers ------------------------------------------------------------

    def run(self, spec: ContainerSpec) -> ContainerInfo:
        """Call `run -d`, or `create`, `network connect` and `start`; remove a refused container."""
        request, words = f"run {spec.name}", arguments.container(self._spec, spec)
        self._cache.containers.pop(spec.name, None)
        self._cache.joins(spec)
        with self._removed_on_refusal(spec.name) as cid_option:
            if not spec.also:
                done = self._run_checked(request, *self._words.run, *cid_option, *words)
            else:
                self._run_checked(request, *self._words.create, *cid_option, *words)
                for network in spec.also:
                    own = arguments.network_name(self._spec, network)
                    self._run_checked(
                        request, *self._words.connect, own, self._spec.named(spec.name)
                    )
                done = self._run_checked(request, *self._words.start, self._spec.named(spec.name))
            facts = self._inspect(spec.name)
        warnings = tuple(line for line in done.stderr.splitlines() if line.strip())
        return replace(facts, warnings=warnings)

    @contextlib.contextmanager
    def _removed_on_refusal(self, name: str) -> Iterator[Sequence[str]]:
        """Yield options that write the new container's id; remove the container on a refusal."""
        option, path = self._words.cidfile, f"{self._home}/cid-{os.getpid()}-{name}"
        try:
            yield (option, path) if option else ()
        except RuntimeRefused:
            if option and (made := self._host.call(_read_and_remove, path)):
                with contextlib.suppress(RuntimeRefused):
                    self._run_checked(f"remove {name}", *self._words.remove, made)
            raise
        if option:
            self._host.call(_read_and_remove, path)

    def inspect(self, name: str) -> ContainerInfo:
        """Call `inspect`, or return the cached result while the container's pid 1 lives."""
        return self._cache.container(name) or self._inspect(name)

    def _inspect(self, name: str) -> ContainerInfo:
        request = f"inspect {name}"
        done = self._run_checked(request, *self._words.inspect, self._spec.named(name))
        try:
            facts = output.container(self._spec, done.stdout)
        except UnreadableOutput as garbage:
            raise self._broken(request, done, f"its output is {garbage}") from None
        if facts.name == self._spec.named(name):
            facts = replace(facts, name=name)
        self._cache.keep(name, facts)
        return facts

    def exec(self, name: str, argv: Sequence[str], *, timeout: float = 30) -> CompletedCommand:
        """Call `exec`; a missing command exits with 127, as in a shell."""
        request = f"exec in {name}"
        words = (*self._words.execute, self._spec.named(name), *argv)
        done = self._command(request, words, timeout=timeout)
        if done.returncode and done.returncode not in _NOT_EXECUTABLE:
            self._cache.containers.pop(name, None)
            running = self.inspect(name).running  # refused for an unknown container
            if not running and done.stderr.strip():
                raise RuntimeRefused(request, done.stderr.strip())
        return replace(done, argv=tuple(argv))

    def exec_command(self, name: str, argv: Sequence[str]) -> ExecCommand:
        """Return the `exec -i --privileged` command line that runs a command in a container."""
        words = (*self._words.converse, self._spec.named(name), *argv)
        return ExecCommand(self._line(*words), self._env)

    def stop_container(self, name: str) -> None:
        """Call `stop`."""
        self._cache.containers.pop(name, None)
        self._run_checked(f"stop {name}", *self._words.stop, self._spec.named(name))

    def start_container(self, name: str) -> ContainerInfo:
        """Call `start`."""
        self._cache.containers.pop(name, None)
        self._run_checked(f"start {name}", *self._words.start, self._spec.named(name))
        return self.inspect(name)

    def remove(self, *names: str) -> None:
        """Call `rm -f` with many containers per command, joining containers before joined ones."""
        for name in names:
            self._cache.containers.pop(name, None)
        for some in self._cache.joiners_first(names):
            own = (self._spec.named(name) for name in some)
            self._run_checked(f"remove {', '.join(some)}", *self._words.remove, *own)

    def prune(self) -> None:
        """Remove every container, and every network except the runtime's own."""
        self._cache.forget()
        before: list[str] = []
        while found := self._run_checked("list containers", *self._words.containers).stdout.split():
            try:
                self._run_checked("remove all containers", *self._words.remove, *found)
            except RuntimeRefused:
                if found == before:
                    raise
            before = found
        self._run_checked("remove all networks", *self._words.network_prune)

    # --- trouble ---------------------------------------------------------------

    def repair(self) -> None:
        """Repair the rules as documented: with a command, or else by restarting the last daemon."""
        if self._words.repair:
            self._run_checked("repair", *self._words.repair)
        elif self._daemons.pids:
            self._host.call(process.end, self._daemons.pids[-1], self._spec.timeout)
            self.start()

    def crash(self, spec: ContainerSpec, *, after: float) -> None:
        """Call `run -d`, and send SIGKILL to that process and to the last daemon."""
        self.network_facts(DEFAULT_NETWORK)  # to be cached while the daemon is down
        words = self._line(*self._words.run, *arguments.container(self._spec, spec))
        log = f"/run/netmodes/{self.name}-crash.log"
        pid = self._host.spawn(words, log=log, env=self._env)
        self._host.call(process.wait_for_end, pid, after)
        for victim in (pid, *self._daemons.pids[-1:]):
            self._host.call(process.end, victim, 0.0)

    # --- one command -----------------------------------------------------------

    def _run_checked(self, request: str, *words: str) -> CompletedCommand:
        """Run a command that must succeed, or raise `RuntimeRefused` with its output."""
        done = self._command(request, words, timeout=self._spec.timeout)
        if not done.returncode:
            return done
        message = done.stderr.strip() or done.stdout.strip()
        if not message:
            raise self._broken(request, done, f"it exited with {done.returncode} without a message")
        self._cache.forget()
        raise RuntimeRefused(request, message)

    def _line(self, *words: str) -> tuple[str, ...]:
        line = (*self._spec.command, *words)
        return rootless.command(line) if self._spec.rootless else line

    def _command(self, request: str, words: Sequence[str], *, timeout: float) -> CompletedCommand:
        """Run a command to its end; raise `RuntimeBroken` if it hangs, crashes or is killed."""
        argv = self._line(*words)
        at, began = time.time(), time.perf_counter()
        try:
            done = self._host.run(argv, env=self._env, timeout=timeout)
        except OSError as error:
            seconds = time.perf_counter() - began
            killed = isinstance(error, TimeoutError | OutputTooLong)
            code = _KILLED if killed else _NOT_EXECUTABLE[0]
            self.commands.append(CompletedCommand(argv, code, "", str(error), seconds, at))
            if killed:
                raise self._broken(request, None, str(error)) from None
            raise self._broken(request, None, f"{argv[0]} cannot be executed: {error}") from None
        self.commands.append(done)
        if done.returncode < 0:
            raise self._broken(request, done, f"it was ended by signal {-done.returncode}")
        if done.returncode and is_crash_report(done.stderr):
            raise self._broken(request, done, "it crashed")
        if done.returncode and self._daemons.ended:
            broken = self._broken(request, done, "its daemon has ended and is restarted")
            self._start_daemons()
            raise broken
        return done

    def _broken(self, request: str, done: CompletedCommand | None, why: str) -> RuntimeBroken:
        self._cache.forget()
        lines = [f"{request}: {why}."]
        if done is not None:
            lines.append(f"The command was {shlex.join(done.argv)} ({done.seconds:.1f} s).")
            for name, text in (("output", done.stdout), ("error output", done.stderr)):
                if text:
                    lines.append(f"Its {name}: {text[-_SAID:].strip()}")
        lines += self._daemons.hints(self._spec.called or self.name)
        return RuntimeBroken("\n".join(lines))

    def _ask_version(self) -> str:
        done = self._command("ask for the version", self._words.version, timeout=self._spec.timeout)
        found = re.search(programs.VERSION, done.stdout)
        if done.returncode or not found:
            raise self._broken("ask for the version", done, "its output contains no version")
        return found[0]


def environment(spec: CliSpec) -> dict[str, str]:
    """Return the variables to add to the environment of every command and daemon."""
    path = programs.search_path(spec.prefix)
    own = rootless.environment(path) if spec.rootless else {"PATH": path}
    return {**own, **dict(spec.env)}


def prepare_host(host: HostHandle, spec: CliSpec) -> None:
    """Mount the scratch directories and write the files of a description, once per host.

    A file that begins with `#!` is made executable. Raises `RuntimeBroken` if a step fails.
    """
    files = [(path, content.replace(programs.PREFIX, spec.prefix)) for path, content in spec.files]
    try:
        host.call(_prepare, spec.scratch, files, for_user=spec.rootless)
    except OSError as error:
        raise RuntimeBroken(
            f"{spec.name}: cannot create its scratch directories or files in the host: {error}\n"
            "`scratch` needs existing directories; `files` must be below those directories "
            "or below /run, /tmp or /dev/shm."
        ) from None


def _prepare(scratch: Sequence[str], files: Sequence[tuple[str, str]], *, for_user: bool) -> None:
    if os.path.exists(_PREPARED):
        return
    for directory in scratch:
        owner = f",uid={rootless.UID},gid={rootless.UID}" if for_user else ""
        mount("tmpfs", directory, "tmpfs", 0, f"mode=755{owner}")
    if for_user:
        rootless.create_user()
    for path, content in files:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content, encoding="utf-8")
        if content.startswith("#!"):
            Path(path).chmod(0o755)
    if for_user:
        rootless.chown_home()
    Path(_PREPARED).touch()


# --- inside the host -----------------------------------------------------------


def _addresses(where: str, link: str, subnets: Sequence[str]) -> tuple[Interface, ...]:
    """Return the addresses of an interface in these subnets, in the order of the subnets."""
    with NetNS.at(where) as there, Netlink(there) as netlink:
        index = rtnetlink_dump.link(netlink, link).ifindex
        held = [item.address for item in rtnetlink_dump.addresses(netlink, index=index)]
    wanted = [ip_network(subnet) for subnet in subnets]
    return tuple(item for network in wanted for item in held if item.network == network)


def _read_and_remove(path: str) -> str:
    """Read and remove a file; return an empty text if there is no such file."""
    content = ""
    with contextlib.suppress(FileNotFoundError):
        content = Path(path).read_text(encoding="ascii").strip()
        os.unlink(path)
    return content
