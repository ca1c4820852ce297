"""A runtime that only a TOML file knows: its containers are real, and so are its failures."""

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
from harness.adapters.support import daemon
from harness.adapters.support.daemon import DaemonSpec
from harness.model.plan import HOST, Bridge, ContainerSpec, Joined, Nothing
from harness.testbench.scene import Scene
from harness.world.build import World
from tests.adapters.acme import acme, describe
from tests.adapters.unasked import Unasked

BOUND: Final = 20.0
"""Seconds in which a runtime that hangs for ever must have been given up, on a busy machine."""


@pytest.fixture(scope="module")
def own_world() -> Iterator[World]:
    """Build a world for runtimes that fail."""
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
    """Return the adapter of a runtime with a built-in failure."""
    adapter = acme(folder, trick=trick, timeout=timeout)(own_world.host)
    assert isinstance(adapter, CliAdapter)
    return adapter


# --- it works ------------------------------------------------------------------


def test_its_containers_keep_what_the_oracle_promises(scene: Scene) -> None:
    """On the default network, on one of their own, and without any."""
    lan = scene.network("lan", ipv6=True)
    scene.containers(a=Bridge(), b=lan, c=lan, d=Nothing())
    assert scene.observed() == scene.promised()


def test_it_is_asked_in_its_own_words(scene: Scene) -> None:
    """`launch` starts, `destroy` removes, `forget` takes a network away."""
    network = scene.network("lan")
    assert scene.container("web", Bridge(network.name)).facts().running
    scene.remove("web")
    with pytest.raises(RuntimeRefused, match="web"):
        scene.runtime.inspect("web")
    scene.remove_network("lan")
    with pytest.raises(RuntimeRefused, match="lan"):
        scene.runtime.network_facts("lan")


def test_a_refusal_carries_what_was_asked_and_the_runtimes_words(scene: Scene) -> None:
    """And leaves nothing."""
    refused = scene.refusal("joiner", Joined("nobody"))
    assert refused.asked == "run joiner"
    assert "nobody" in refused.said
    with pytest.raises(RuntimeRefused):
        scene.runtime.inspect("joiner")


def test_a_command_inside_has_its_own_exit_code(scene: Scene) -> None:
    """Which is no refusal: not even 127, for one that is not there; a stopped container's is."""
    web = scene.container("web")
    assert web.exec("sh", "-c", "echo said; exit 7").returncode == 7
    assert web.exec("sh", "-c", "echo said").stdout == "said\n"
    assert web.exec("/no/such/command").returncode == 127
    web.stop()
    with pytest.raises(RuntimeRefused, match="exec in web"):
        web.exec("true")


def test_what_was_told_is_asked_again_once_the_container_has_ended(scene: Scene) -> None:
    """By itself, without a verb; a name that is taken again is another container's."""
    web = scene.container("web")
    first = web.facts()
    assert web.facts() == first
    scene.world.host.call(os.kill, first.pid, signal.SIGKILL)
    deadline = time.monotonic() + BOUND
    while web.facts().running:
        assert time.monotonic() < deadline
    web.start()
    assert web.facts().pid != first.pid
    assert scene.place(HOST).links()


# --- it breaks -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("trick", "words"),
    [
        ('[ "$1" = inspect ] && kill -SEGV $$', "it was ended by signal 11"),
        ('[ "$1" = inspect ] && echo hello && exit 0', "it printed what is no JSON"),
        ('[ "$1" = inspect ] && echo "[]" && exit 0', "it printed what is no list of one object."),
        (
            '[ "$1" = inspect ] && echo "[{}]" && exit 0',
            "it printed what is no description of a container: there is no 'State'.",
        ),
        ('[ "$1" = inspect ] && exit 3', "it exited with 3 and said nothing"),
        ('[ "$1" = inspect ] && echo "panic: oh" >&2 && exit 2', "it crashed"),
    ],
    ids=["crash", "garbage", "empty", "half", "silence", "panic"],
)
def test_a_breakdown_is_an_error_with_its_words(
    own_world: World, tmp_path: Path, trick: str, words: str
) -> None:
    """Told with what was asked, the command line, what it printed, and what to try."""
    runtime = broken(own_world, tmp_path, trick)
    with pytest.raises(RuntimeBroken) as raised:
        runtime.inspect("web")
    told = str(raised.value)
    assert told.startswith("inspect web: ")
    assert words in told
    assert f"It was {tmp_path}/acmectl inspect web" in told
    assert f"`netmodes lab --runtime {tmp_path}/acme.toml` gives a shell" in told


def test_a_runtime_that_hangs_is_given_up(own_world: World, tmp_path: Path) -> None:
    """After the time that the description gives it, with what it had said until then."""
    runtime = broken(own_world, tmp_path, '[ "$1" = run ] && echo thinking && sleep 600', timeout=1)
    began = time.monotonic()
    with pytest.raises(RuntimeBroken, match=r"run web: .*did not end within 1 s.*thinking"):
        runtime.run(ContainerSpec("web"))
    assert time.monotonic() - began < BOUND


def test_so_is_one_that_prints_without_end(own_world: World, tmp_path: Path) -> None:
    """Before its time, and before it has taken all memory."""
    runtime = broken(own_world, tmp_path, '[ "$1" = inspect ] && exec yes', timeout=600)
    began = time.monotonic()
    with pytest.raises(RuntimeBroken, match=r"^inspect web: .*acmectl inspect web printed more"):
        runtime.inspect("web")
    assert time.monotonic() - began < BOUND


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('scratch = ["/no/such/directory"]', r"/no/such/directory(.|\n)*`scratch` needs"),
        ('files = { "/usr/acme.conf" = "" }', r"Read-only file system: '/usr/acme.conf'"),
    ],
)
def test_what_cannot_be_made_in_the_host_is_named(
    own_world: World, tmp_path: Path, more: str, words: str
) -> None:
    """With what can."""
    path = describe(tmp_path, command="true")
    Path(path).write_text(Path(path).read_text().replace("[words]", f"{more}\n[words]"))
    own_world.host.call(Path("/run/netmodes/prepared").unlink, missing_ok=True)
    with pytest.raises(RuntimeBroken, match=words):
        registry.find(path)(own_world.host)


def test_a_program_that_is_no_program_is_an_error(own_world: World, tmp_path: Path) -> None:
    """The kernel's words tell which, and why."""
    factory = acme(tmp_path)
    (tmp_path / "acmectl").write_text("neither a script nor a binary")
    runtime = factory(own_world.host)
    with pytest.raises(RuntimeBroken, match=r"acmectl cannot be executed: .*Exec format error"):
        runtime.inspect("web")


# --- its daemon ------------------------------------------------------------------

# A daemon that only listens: what the command line does has no need of it.
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
    """Return the table of a daemon that listens."""
    socket = f"/run/{folder.name}.sock"
    return _DAEMON.format(command=["python3", "-c", _LISTEN, socket], socket=socket)


def test_a_daemon_that_ends_at_once_is_an_error_with_its_log(
    own_world: World, tmp_path: Path
) -> None:
    """What it wrote before it ended tells why."""
    command = ["sh", "-c", "echo no licence; exit 1"]
    more = _DAEMON.format(command=command, socket="/run/nobody.sock")
    runtime = acme(tmp_path, more=more)(own_world.host)
    with pytest.raises(RuntimeBroken, match=r"ended before anybody listened(.|\n)*no licence"):
        runtime.start()


def test_a_daemon_that_never_listens_is_given_up(own_world: World, tmp_path: Path) -> None:
    """And killed."""
    more = _DAEMON.format(command=["sh", "-c", "exec sleep 600"], socket="/run/nobody.sock")
    runtime = acme(tmp_path, more=more, timeout=1)(own_world.host)
    began = time.monotonic()
    with pytest.raises(RuntimeBroken, match=r"was not listening on /run/nobody.sock after 1 s"):
        runtime.start()
    assert time.monotonic() - began < BOUND


def test_a_daemon_that_has_ended_is_started_anew(own_world: World, tmp_path: Path) -> None:
    """The verb that met it is an error with its log, and the next one goes on."""
    trick = f'[ "$1" = inspect ] && [ ! -e {tmp_path}/up ] && echo no answer >&2 && exit 1'
    runtime = acme(tmp_path, more=listening(tmp_path), trick=trick)(own_world.host)
    runtime.start()
    pids = own_world.host.call(_called, "python3")
    assert len(pids) == 1
    daemon.kill(own_world.host, pids[0], BOUND)
    with pytest.raises(RuntimeBroken, match=r"its daemon has ended(.|\n)*listening"):
        runtime.inspect("web")
    own_world.host.run(["touch", f"{tmp_path}/up"])
    assert runtime.run(ContainerSpec("web")).running
    runtime.stop()
    assert own_world.host.call(_called, "python3") == []


def test_so_is_that_of_a_bare_runtime(own_world: World, tmp_path: Path) -> None:
    """Whose no, meanwhile, is that it cannot be reached."""
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
    daemon.kill(own_world.host, pid, BOUND)
    with pytest.raises(RuntimeBroken, match=r"nobody(.|\n)*Its daemon has ended(.|\n)*listening"):
        adapter.inspect("nobody")
    with pytest.raises(RuntimeRefused, match="nobody"):
        adapter.inspect("nobody")
    adapter.stop()
    assert own_world.host.call(_called, "python3") == []


def _called(name: str) -> list[int]:
    """Return the pids of processes of a program with `listen` in their arguments."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        words = [b""]
        with contextlib.suppress(OSError):  # it has just ended
            words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
        if words[0] == name.encode() and b"s.listen" in b" ".join(words):
            found.append(int(pid))
    return found
