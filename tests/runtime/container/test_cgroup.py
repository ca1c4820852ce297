"""Tests of resource limits and pause.

They take effect, or the error names the missing requirement and no cgroup is left.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linux.proc import process_born
from runtime.container import cgroup, processes
from runtime.engine import Engine
from runtime.errors import ConflictError, InvalidError, UnsupportedError
from runtime.records import ContainerRecord
from runtime.store import Store
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import nothing_left, until
from tests.runtime.support.killing import Step, killed_at


def _cgroups(name: str) -> list[Path]:
    """Return the cgroups that match a pattern, in each directory where one can be made."""
    return [
        path
        for item in cgroup.hierarchies()
        for parent in item.parents
        for path in Path(parent).glob(name)
    ]


def _no_cgroup_left() -> bool:
    """Return True if no empty container cgroup is left, by this test or any other."""
    return all(_occupied(path) for path in _cgroups("mydocker-*"))


def _occupied(path: Path) -> bool:
    try:
        return bool((path / "cgroup.procs").read_text())
    except OSError:
        return True  # just removed


def _result_or_refusal(controller: str, ask: Callable[[], Any]) -> Any:
    """Return the result of `ask`; `None` if it is refused correctly and leaves no cgroup."""
    try:
        return ask()
    except UnsupportedError as error:
        message = str(error)
    assert f"'{controller}'" in message
    until(_no_cgroup_left, "no cgroup is left")
    return None


def _read(found: ContainerRecord, file: str) -> list[str]:
    """Return the content of that file in each of the container's cgroups that has it."""
    paths = [path / file for path in _cgroups(f"mydocker-{found.id[:12]}")]
    return [path.read_text().strip() for path in paths if path.exists()]


_LIMITS: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    (
        "memory",
        {"memory": 64 << 20},
        {"memory.max": "67108864", "memory.limit_in_bytes": "67108864"},
    ),
    ("cpu", {"cpus": 0.5}, {"cpu.max": "50000 100000", "cpu.cfs_quota_us": "50000"}),
    ("pids", {"pids_limit": 8}, {"pids.max": "8"}),
]


@pytest.mark.parametrize(("controller", "options", "files"), _LIMITS)
def test_resource_limit_is_in_the_cgroup_or_refused(
    engine: Engine, root: Path, controller: str, options: dict[str, Any], files: dict[str, str]
) -> None:
    """A cgroup with the limit contains the container's processes, and ends with the container."""
    engine.wait(engine.run("base", ["true"], network="none", auto_remove=True).id)
    with nothing_left(root):
        found = _result_or_refusal(
            controller, lambda: engine.run("base", FOR_EVER, network="none", **options)
        )
        if found is not None:
            assert any(_read(found, file) == [value] for file, value in files.items())
            members = _read(found, "cgroup.procs")[0].split()
            assert set(map(int, members)) == set(processes.of(found.state.pid))
            engine.remove(found.id, force=True)
        until(_no_cgroup_left, "no cgroup is left")


def test_pids_limit_stops_further_processes(engine: Engine, root: Path) -> None:
    """A script cannot start twenty processes under a limit of eight; without the limit it can."""
    script = "for i in $(seq 20); do sleep 1000000 & done; echo all"
    free = engine.run("base", ["sh", "-c", script], network="none")
    assert engine.wait(free.id) == 0
    found = _result_or_refusal(
        "pids",
        lambda: engine.run("base", ["sh", "-c", script], network="none", pids_limit=8),
    )
    if found is not None:
        assert engine.wait(found.id) != 0
        assert b"fork" in b"".join(item.data for item in engine.logs(found.id))


def test_container_without_limits_has_no_own_cgroup(engine: Engine) -> None:
    """A container without limits stays in the caller's cgroup."""
    web = engine.run("base", FOR_EVER, network="none")
    own = Path("/proc/self/cgroup").read_text()
    assert Path(f"/proc/{web.state.pid}/cgroup").read_text() == own
    assert _cgroups(f"mydocker-{web.id[:12]}") == []


def test_too_small_limit_is_refused(engine: Engine) -> None:
    """A limit that is too small for a start, or below the kernel's minimum, is refused."""
    for options in ({"memory": 4096}, {"cpus": 0.001}, {"pids_limit": 1}):
        with pytest.raises(InvalidError):
            engine.create("base", FOR_EVER, **options)


_COUNTER = "i=0; while :; do i=$((i+1)); echo $i > /count; done"


def _counter_path(root: Path, found: ContainerRecord) -> Path:
    """Return the path of the container's counter, which exists once its command runs."""
    return root / "containers" / found.id / "upper" / "count"


def _counter_increases(root: Path, found: ContainerRecord) -> bool:
    """Return True if the counter increases while the test does some work."""
    path = _counter_path(root, found)
    before = path.read_text()
    for _ in range(3000):
        os.sched_yield()
        if path.read_text() not in ("", before):
            return True
    return False


def test_paused_container_runs_no_process(engine: Engine, root: Path) -> None:
    """No process of a paused container runs until unpause.

    Meanwhile `inspect` works, but `exec` is refused.
    """
    web = engine.run("base", ["sh", "-c", _COUNTER], name="web", network="none")
    until(_counter_path(root, web).exists, "the counter increases")
    if _result_or_refusal("freezer", lambda: engine.pause("web")) is None:
        assert not engine.inspect("web").state.paused
        return
    assert engine.inspect("web").state.paused
    assert not _counter_increases(root, web)
    for act in (engine.pause, lambda name: engine.exec(name, ["true"])):
        with pytest.raises(ConflictError, match="paused"):
            act("web")
    engine.unpause("web")
    until(lambda: _counter_increases(root, web), "the counter increases again")
    with pytest.raises(ConflictError, match="not paused"):
        engine.unpause("web")


@pytest.mark.parametrize("end", ["stop", "remove", "kill"])
def test_paused_container_can_be_stopped_killed_or_removed(engine: Engine, end: str) -> None:
    """A frozen container ends in each way, and no cgroup is left."""
    web = engine.run("base", FOR_EVER, name="web", network="none")
    if _result_or_refusal("freezer", lambda: engine.pause("web")) is not None:
        assert _cgroups(f"mydocker-{web.id[:12]}") != []
    match end:
        case "stop":
            assert engine.stop("web").state.exit_code == 128 + signal.SIGTERM
        case "kill":
            engine.kill("web")
            assert engine.wait("web") == 137
        case "remove":
            engine.remove("web", force=True)
    assert process_born(web.state.pid) == 0
    assert _cgroups(f"mydocker-{web.id[:12]}") == []


_PAUSING: dict[str, Step] = {
    "after write_state": (Store, "write_state", True),
    "before freeze": (cgroup.Cgroups, "freeze", False),
    "before thaw": (cgroup.Cgroups, "thaw", False),
}


@pytest.mark.parametrize("step", _PAUSING.values(), ids=list(_PAUSING))
def test_killed_pause_can_be_unpaused(engine: Engine, root: Path, step: Step) -> None:
    """After a killed pause the container can be unpaused and removed; no cgroup is left."""
    web = engine.run("base", ["sh", "-c", _COUNTER], name="web", network="none")
    until(_counter_path(root, web).exists, "the counter increases")

    def pause_and_unpause() -> None:
        Engine(root).pause("web")
        Engine(root).unpause("web")

    killed_at(step, pause_and_unpause)
    engine.unpause("web")
    until(lambda: _counter_increases(root, web), "the counter increases")
    engine.remove("web", force=True)
    assert _cgroups(f"mydocker-{web.id[:12]}") == []


def test_killed_start_with_limits_leaves_no_cgroup(engine: Engine, root: Path) -> None:
    """The next mydocker call ends the processes of the killed start and removes its cgroup."""
    killed_at(
        (cgroup.Cgroups, "limit", False),
        lambda: Engine(root).run("base", FOR_EVER, name="web", network="none", pids_limit=8),
    )
    until(lambda: engine.inspect("web").state.status == "created", "the state is repaired")
    engine.remove("web")
    until(_no_cgroup_left, "no cgroup is left")
