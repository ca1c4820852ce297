"""Tests of a full disk: containers keep running, and lists and removal still work."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from linux.netns import NetNS
from linux.proc import process_born
from linux.syscalls import mount, umount
from runtime.cli import main
from runtime.container.lifecycle import StateCache
from runtime.engine import Engine
from runtime.errors import NoRoomError, UnsupportedError
from runtime.store import Store, read_json, write_json
from tests.runtime.conftest import FOR_EVER
from tests.runtime.container.container_files import run_attached
from tests.runtime.support.inspection import until

LISTENING = "trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done"
TALKING = "while ! test -e /dev/shm/go; do echo and so on; echo >> /dev/shm/spoken; done; exit 6"
PIPEFUL = (1 << 16) // len("and so on\n")
"""Above this number of lines pid 1 has read some of them."""


@pytest.fixture
def small(root: Path) -> Iterator[Path]:
    """Mount a small file system."""
    made = root / "small"
    made.mkdir()
    mount("tmpfs", str(made), "tmpfs", 0, "size=1m")
    yield made
    umount(str(made))


@pytest.fixture
def engine(small: Path, host: NetNS) -> Iterator[Engine]:
    """Make an engine on the small file system; remove all containers at the end."""
    made = Engine(small)
    yield made
    made.teardown()


@contextmanager
def full(small: Path) -> Iterator[None]:
    """Fill the disk while the body runs; `fill` also takes the space that is freed meanwhile."""
    fill(small)
    yield
    (small / "filler").unlink()


def fill(small: Path) -> None:
    """Fill the disk completely."""
    with suppress(OSError), open(small / "filler", "ab", 0) as filler:
        while filler.write(bytes(4096)):
            pass
    assert not os.statvfs(small).f_bfree


def test_container_keeps_running_when_a_full_disk_stops_its_log(
    engine: Engine, small: Path
) -> None:
    """A container keeps running when a full disk stops its log.

    Lines that find no room are lost; later lines are logged once there is room again.
    """
    web = engine.run("base", ["sh", "-c", TALKING], name="web", network="none")

    def written_bytes() -> int:
        return int(engine.exec("web", ["wc", "-c", "/dev/shm/spoken"]).stdout.split()[0])

    with full(small):
        before = written_bytes()
        until(lambda: written_bytes() > before + PIPEFUL, "pid 1 has read the lost lines")
        assert engine.inspect("web").running
        entries = list(engine.logs("web"))
    until(lambda: len(list(engine.logs("web"))) > len(entries), "output is logged again")
    engine.exec("web", ["touch", "/dev/shm/go"])
    assert engine.wait("web") == 6
    assert {item.data for item in engine.logs("web")} == {b"and so on\n"}
    assert process_born(web.state.pid) == 0


def test_attached_client_gets_all_output_on_a_full_disk(engine: Engine, small: Path) -> None:
    """An attached client gets all of the output although the disk is full."""
    out, writer = os.pipe()
    script = "while ! test -e /dev/shm/go; do sleep 0.01; done; seq 10000"
    found = run_attached(engine, ["sh", "-c", script], writer)
    os.close(writer)
    engine.exec(found.id, ["touch", "/dev/shm/go"])
    with full(small), open(out, "rb") as file:
        assert file.read() == b"".join(b"%d\n" % number for number in range(1, 10001))
        assert engine.wait(found.id) == 0


@pytest.mark.parametrize("network", ["bridge", "none"])
def test_exit_code_is_recorded_on_a_full_disk(engine: Engine, small: Path, network: str) -> None:
    """The exit code and the time of the end are recorded on a full disk.

    The space for this record was allocated at the start.
    """
    web = engine.run("base", ["sh", "-c", LISTENING], name="web", network=network)
    until(lambda: any(engine.logs("web")), "the command listens")
    with full(small):
        os.kill(web.state.pid, signal.SIGTERM)
        assert engine.wait("web") == 6
        state = Engine(small).inspect("web").state
        assert (state.status, state.exit_code) == ("exited", 6)
        assert state.finished > web.state.started


def test_exit_record_of_an_earlier_run_is_not_reused(engine: Engine) -> None:
    """A start clears the exit record that an earlier run left."""
    web = engine.run("base", ["sh", "-c", "test -e /x && exec sleep 1000; touch /x; exit 3"])
    assert engine.wait(web.id) == 3
    web = engine.start(web.id)
    os.kill(web.state.pid, signal.SIGKILL)
    until(lambda: process_born(web.state.pid) == 0, "pid 1 is gone")
    assert engine.inspect(web.id).state.exit_code == 137


ENDINGS: dict[str, Callable[[Engine], object]] = {
    "stop": lambda engine: engine.stop("web", timeout=0),
    "kill": lambda engine: engine.kill("web"),
    "rm -f": lambda engine: engine.remove("web", force=True),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_container_can_be_ended_and_removed_on_a_full_disk(
    engine: Engine, small: Path, how: str
) -> None:
    """A container and its network can be ended and removed on a full disk.

    Each step is visible to other calls.
    """
    engine.network_create("lan")
    engine.run("base", FOR_EVER, name="web", network="lan")
    engine.run("base", FOR_EVER, name="other", network="lan")
    with full(small):
        ENDINGS[how](engine)
        fill(small)
        if how != "rm -f":
            until(lambda: engine.inspect("web").state.status == "exited", "the container has ended")
            assert "lan" in [item.name for item in Engine(small).networks()]
            fill(small)
            engine.remove("web")
        assert [item.name for item in Engine(small).containers()] == ["other"]
        engine.remove("other", force=True)
        engine.network_remove("lan")


def test_failed_start_on_a_full_disk_leaves_the_container_usable(
    engine: Engine, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that fails on a full disk leaves a container that can be listed and removed.

    The error names the full disk; the container can also be stopped.
    """
    engine.create("base", FOR_EVER, name="new")
    engine.run("base", FOR_EVER, name="web")
    with full(small):
        with pytest.raises(UnsupportedError, match="start container 'new': No space") as caught:
            engine.start("new")
        assert "a disk is full" in caught.value.cause
        assert "`df`" in caught.value.remedy
        # Others take the space that is freed when the container stops.
        monkeypatch.setattr("runtime.container.networking.etc_files.write", _raise_full_disk)
        with pytest.raises(UnsupportedError, match="start container 'web': No space"):
            engine.restart("web", timeout=0)
        monkeypatch.undo()
        states = {item.name: item.state.status for item in Engine(small).containers()}
        assert states == {"new": "created", "web": "exited"}
        engine.remove("new", "web")
        assert engine.containers() == []


def _raise_full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


NEEDING: dict[str, Callable[[Engine], object]] = {
    "create container 'more'": lambda engine: engine.run("base", FOR_EVER, name="more"),
    "create network 'lan'": lambda engine: engine.network_create("lan"),
    "create volume 'v'": lambda engine: engine.volumes.create("v"),
}


@pytest.mark.parametrize("asked", NEEDING)
def test_operation_on_a_full_disk_fails_with_a_remedy(
    engine: Engine, small: Path, asked: str
) -> None:
    """An operation that a full disk stops fails with a remedy and leaves no resource.

    The error also has the request and the kernel's message.
    """
    engine.run("base", FOR_EVER, name="web")
    with full(small):
        with pytest.raises(NoRoomError) as caught:
            NEEDING[asked](engine)
        error = caught.value
        assert (error.asked, error.happened) == (asked, "No space left on device")
        assert "full" in error.cause
        assert "mydocker rm" in error.remedy
        assert [item.name for item in engine.containers()] == ["web"]
    NEEDING[asked](engine)


def test_full_disk_error_names_the_command(
    small: Path, host: NetNS, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error for a full disk names the command, also if no object is involved.

    Objects are containers, networks and volumes.
    """
    monkeypatch.setenv("MYDOCKER_ROOT", str(small))
    monkeypatch.setattr(Engine, "containers", _raise_full_disk)
    assert main.main(["ps", "-a"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "mydocker: cannot run `mydocker ps -a`: No space left on device"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["likely cause", "try"]


def test_containers_can_be_listed_and_removed_on_a_full_disk(engine: Engine, small: Path) -> None:
    """Containers can be listed and removed on a full disk, even without a default network."""
    made = engine.create("base", FOR_EVER, name="new", network="none")
    with full(small):
        assert engine.networks() == []
        assert engine.containers() == [made]
        assert engine.volumes.all() == []
        engine.remove("new")


def test_fitting_record_is_replaced_on_a_full_disk(small: Path) -> None:
    """A record that fits into its old blocks is replaced on a full disk.

    A larger record is not written, and the old one stays.
    """
    path = str(small / "record.json")
    write_json(path, ["x" * 100])
    with full(small):
        for size in (10, 1000, 1):
            write_json(path, ["y" * size])
            assert read_json(path) == ["y" * size]
        with pytest.raises(OSError, match="No space"):
            write_json(path, ["z" * 5000])
        with pytest.raises(OSError, match="No space"):
            write_json(str(small / "another.json"), [])
    assert read_json(path) == ["y"]
    assert os.listdir(small) == ["record.json"]


def test_unwritable_optional_record_causes_no_failure_on_a_full_disk(
    engine: Engine, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mydocker call succeeds even if it cannot write the optional update of a container record.

    The next call comes to the same result without that update.
    """
    web = engine.run("base", FOR_EVER, name="web")
    monkeypatch.setattr("runtime.store._refilled", lambda *_: False)
    with full(small):
        os.kill(web.state.pid, signal.SIGKILL)
        until(lambda: process_born(web.state.pid) == 0, "pid 1 is gone")
        assert [item.name for item in engine.containers()] == ["web"]
        engine.remove("web")
        assert engine.containers() == []


def test_state_cache_notices_state_rewritten_in_place(engine: Engine, small: Path) -> None:
    """The state cache notices a state that is rewritten in place, even right after it was read."""
    made = engine.create("base", FOR_EVER)
    store = Store(str(small))
    cache = StateCache(store)
    with full(small):
        for _ in range(50):
            store.write_state(made.id, made.state._replace(status="starting"))
            assert list(cache.unsettled()) == [made.id]
            store.write_state(made.id, made.state)
            assert list(cache.unsettled()) == []
