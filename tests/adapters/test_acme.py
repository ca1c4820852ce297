"""Tests of a runtime that a TOML file describes, with real containers and real failures."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from harness.adapters import registry
from harness.adapters.bare.adapter import BareFactory
from harness.adapters.bare.linux_bridge import BRIDGE, DEFAULT, VethBridge
from harness.adapters.docker_cli.adapter import CliAdapter
from harness.adapters.protocol import RuntimeBroken, RuntimeRefused
from harness.adapters.support.daemon import DaemonSpec
from harness.model.plan import HOST, Bridge, ContainerSpec, Joined, Nothing
from harness.testbench.scene import Scene
from harness.world import process
from harness.world.build import World
from tests.adapters.acme import Unasked, acme, describe

BOUND: Final = 20.0
"""Time limit in seconds to give up a runtime that hangs, on a busy machine."""


@pytest.fixture(scope="module")
def own_world() -> Iterator[World]:
    """Build a separate world for runtimes that fail."""
    with World.build() as built:
        yield built


@pytest.fixture
def scene(own_world: World, tmp_path: Path) -> Iterator[Scene]:
    """Build a scene with the described runtime."""
    adapter = acme(tmp_path)(own_world.host)
    adapter.start()
    with Scene(own_world, adapter) as made:
        yield made
    adapter.stop()


def broken(own_world: World, folder: Path, trick: str, *, timeout: int = 30) -> CliAdapter:
    """Return the adapter of a runtime that fails as `trick` says."""
    adapter = acme(folder, trick=trick, timeout=timeout)(own_world.host)
    assert isinstance(adapter, CliAdapter)
    return adapter


# --- success -------------------------------------------------------------------


def test_described_runtime_keeps_the_oracles_promises(scene: Scene) -> None:
    """A runtime described in TOML keeps the oracle's promises in several modes.

    The containers are on the default network, on a user-defined network and in mode none.
    """
    lan = scene.network("lan", ipv6=True)
    scene.containers(a=Bridge(), b=lan, c=lan, d=Nothing())
    assert scene.observed() == scene.promised()


def test_described_runtime_is_called_by_its_own_commands(scene: Scene) -> None:
    """The adapter calls a runtime by the commands in its description.

    Here they are `launch`, `destroy` and `forget`.
    """
    network = scene.network("lan")
    assert scene.container("web", Bridge(network.name)).facts().running
    scene.remove("web")
    with pytest.raises(RuntimeRefused, match="web"):
        scene.runtime.inspect("web")
    scene.remove_network("lan")
    with pytest.raises(RuntimeRefused, match="lan"):
        scene.runtime.network_facts("lan")


def test_refusal_carries_request_and_runtime_message(scene: Scene) -> None:
    """The error for a refused start has the request and the runtime's message.

    No container is left.
    """
    refused = scene.refusal("joiner", Joined("nobody"))
    assert refused.asked == "run joiner"
    assert "nobody" in refused.said
    with pytest.raises(RuntimeRefused):
        scene.runtime.inspect("joiner")


def test_exec_returns_exit_code_of_the_command(scene: Scene) -> None:
    """`exec` returns the exit code of the command, 127 for a missing command.

    Only `exec` in a stopped container is a refusal.
    """
    web = scene.container("web")
    assert web.exec("sh", "-c", "echo said; exit 7").returncode == 7
    assert web.exec("sh", "-c", "echo said").stdout == "said\n"
    assert web.exec("/no/such/command").returncode == 127
    web.stop()
    with pytest.raises(RuntimeRefused, match="exec in web"):
        web.exec("true")


def test_inspect_cache_is_dropped_at_the_end_of_the_container(scene: Scene) -> None:
    """The result of `inspect` is cached until the container ends, even if it ends by itself.

    A new container with the same name is inspected anew.
    """
    web = scene.container("web")
    first = web.facts()
    assert web.facts() == first
    scene.world.host.call(os.kill, first.pid, signal.SIGKILL)
    deadline = time.monotonic() + BOUND
    while web.facts().running:
        assert time.monotonic() < deadline
    web.start()
    assert web.facts().pid != first.pid
    assert scene.netns(HOST).links()


# --- failures ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trick", "words"),
    [
        ('[ "$1" = inspect ] && kill -SEGV $$', "it was ended by signal 11"),
        ('[ "$1" = inspect ] && echo hello && exit 0', "its output is not JSON"),
        ('[ "$1" = inspect ] && exit 3', "it exited with 3 without a message"),
        ('[ "$1" = inspect ] && echo "panic: oh" >&2 && exit 2', "it crashed"),
    ],
    ids=["crash", "garbage", "silence", "panic"],
)
def test_crash_is_an_error_with_command_and_output(
    own_world: World, tmp_path: Path, trick: str, words: str
) -> None:
    """If the runtime crashes, the error has the request, command line, output and a hint."""
    runtime = broken(own_world, tmp_path, trick)
    with pytest.raises(RuntimeBroken) as raised:
        runtime.inspect("web")
    told = str(raised.value)
    assert told.startswith("inspect web: ")
    assert words in told
    assert f"The command was {tmp_path}/acmectl inspect web" in told
    assert f"`netmodes lab --runtime {tmp_path}/acme.toml` gives a shell" in told


@pytest.mark.parametrize(
    ("does", "timeout", "words"),
    [
        ("echo thinking; sleep 600", 1, r"did not end within 1 s.*thinking"),
        ("exec yes", 600, r"acmectl launch .* printed more than"),
    ],
    ids=["hangs", "endless output"],
)
def test_command_that_never_ends_is_killed(
    own_world: World, tmp_path: Path, does: str, timeout: int, words: str
) -> None:
    """A command that never ends is killed at the time limit; the error has its output.

    The log has the command and the exit code of timeout(1).
    """
    runtime = broken(own_world, tmp_path, f'[ "$1" = run ] && {does}', timeout=timeout)
    began = time.monotonic()
    with pytest.raises(RuntimeBroken, match=rf"^run web: .*{words}"):
        runtime.run(ContainerSpec("web"))
    assert time.monotonic() - began < BOUND
    assert "launch" in runtime.commands[-1].argv
    assert runtime.commands[-1].returncode == 124


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('scratch = ["/no/such/directory"]', r"/no/such/directory(.|\n)*`scratch` needs"),
        ('files = { "/usr/acme.conf" = "" }', r"Read-only file system: '/usr/acme.conf'"),
    ],
)
def test_error_for_an_impossible_path_says_which_are_possible(
    own_world: World, tmp_path: Path, more: str, words: str
) -> None:
    """The error for an impossible path in `scratch` or `files` says which paths are possible."""
    path = describe(tmp_path, command="true")
    Path(path).write_text(Path(path).read_text().replace("[words]", f"{more}\n[words]"))
    own_world.host.call(Path("/run/netmodes/prepared").unlink, missing_ok=True)
    with pytest.raises(RuntimeBroken, match=words):
        registry.find(path)(own_world.host)


def test_non_executable_program_is_an_error(own_world: World, tmp_path: Path) -> None:
    """If the runtime's program is not executable, the error has the kernel's reason."""
    factory = acme(tmp_path)
    (tmp_path / "acmectl").write_text("neither a script nor a binary")
    runtime = factory(own_world.host)
    with pytest.raises(RuntimeBroken, match=r"acmectl cannot be executed: .*Exec format error"):
        runtime.inspect("web")


# --- daemon ----------------------------------------------------------------------

# A daemon that only listens; the runtime's command does not use the daemon.
_LISTEN: Final = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); "
    "print('listening', flush=True); [s.accept() for _ in iter(int, 1)]"
)
_DAEMON: Final = """
[[daemon]]
command = {command}
socket = "{socket}"
"""


def listening(folder: Path) -> str:
    """Return the TOML table of a daemon that listens."""
    socket = f"/run/{folder.name}.sock"
    return _DAEMON.format(command=["python3", "-c", _LISTEN, socket], socket=socket)


def test_daemon_that_exits_at_start_is_an_error_with_its_log(
    own_world: World, tmp_path: Path
) -> None:
    """If a daemon exits at its start, the error has the daemon's log, which gives the reason."""
    command = ["sh", "-c", "echo no licence; exit 1"]
    more = _DAEMON.format(command=command, socket="/run/nobody.sock")
    runtime = acme(tmp_path, more=more)(own_world.host)
    with pytest.raises(RuntimeBroken, match=r"ended before it listened(.|\n)*no licence"):
        runtime.start()


def test_daemon_that_never_listens_is_killed(own_world: World, tmp_path: Path) -> None:
    """A daemon that never listens is killed.

    The error has the daemon's socket and the time limit.
    """
    more = _DAEMON.format(command=["sh", "-c", "exec sleep 600"], socket="/run/nobody.sock")
    runtime = acme(tmp_path, more=more, timeout=1)(own_world.host)
    began = time.monotonic()
    with pytest.raises(RuntimeBroken, match=r"was not listening on /run/nobody.sock after 1 s"):
        runtime.start()
    assert time.monotonic() - began < BOUND


def test_ended_daemon_is_restarted(own_world: World, tmp_path: Path) -> None:
    """The first request after the end of a daemon fails with the daemon's log.

    The daemon is restarted, so the next request succeeds.
    """
    trick = f'[ "$1" = inspect ] && [ ! -e {tmp_path}/up ] && echo no answer >&2 && exit 1'
    runtime = acme(tmp_path, more=listening(tmp_path), trick=trick)(own_world.host)
    runtime.start()
    pids = own_world.host.call(_called, "python3")
    assert len(pids) == 1
    own_world.host.call(process.end, pids[0], 0.0)
    with pytest.raises(RuntimeBroken, match=r"its daemon has ended(.|\n)*listening"):
        runtime.inspect("web")
    own_world.host.run(["touch", f"{tmp_path}/up"])
    assert runtime.run(ContainerSpec("web")).running
    runtime.stop()
    assert own_world.host.call(_called, "python3") == []


def test_ended_daemon_of_a_bare_runtime_is_restarted(own_world: World, tmp_path: Path) -> None:
    """The daemon of a bare runtime is restarted after its end.

    A refusal before that is an error, because the daemon could not be reached.
    """
    socket = f"/run/{tmp_path.name}.sock"
    listens = DaemonSpec(command=("python3", "-c", _LISTEN, socket), socket=socket)
    adapter = BareFactory(
        name="acme",
        command=("bash",),
        make=Unasked,
        packages=(),
        wiring=VethBridge(BRIDGE, DEFAULT),
        daemons=(listens,),
    )(own_world.host)
    adapter.start()
    with pytest.raises(RuntimeRefused, match="nobody"):
        adapter.inspect("nobody")
    (pid,) = own_world.host.call(_called, "python3")
    own_world.host.call(process.end, pid, 0.0)
    with pytest.raises(RuntimeBroken, match=r"nobody(.|\n)*Its daemon has ended(.|\n)*listening"):
        adapter.inspect("nobody")
    with pytest.raises(RuntimeRefused, match="nobody"):
        adapter.inspect("nobody")
    adapter.stop()
    assert own_world.host.call(_called, "python3") == []


def _called(name: str) -> list[int]:
    """Return the pids of the processes of a program that have `s.listen` in their arguments."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        words = [b""]
        with contextlib.suppress(OSError):  # the process has just ended
            words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
        if words[0] == name.encode() and b"s.listen" in b" ".join(words):
            found.append(int(pid))
    return found
