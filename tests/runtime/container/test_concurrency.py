"""Tests of concurrent calls from many processes; no daemon coordinates them."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import ConflictError, MydockerError
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import links, nothing_left

MANY = 50


def _at_once(jobs: Sequence[Callable[[], None]]) -> list[int]:
    """Run each job in its own process, all started at the same moment; return their exit codes."""
    gate, opener = os.pipe()
    children = []
    for job in jobs:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                os.close(opener)
                os.read(gate, 1)
                job()
                code = 0
            except MydockerError:
                code = 2
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(pid)
    os.close(gate)
    os.close(opener)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


def test_fifty_concurrent_starts_get_distinct_addresses(engine: Engine, root: Path) -> None:
    """Fifty concurrent starts get distinct addresses; one of them creates the default network."""
    assert _at_once([partial(_start, root)] * MANY) == [0] * MANY
    found = engine.containers()
    endpoints = [item.state.endpoints[0] for item in found]
    assert all(item.running for item in found)
    assert {item.address for item in endpoints} == {
        f"172.17.0.{number}/16" for number in range(1, MANY + 1)
    }
    assert len({item.mac for item in endpoints}) == MANY
    bridge = links()["docker0"].ifindex
    assert all(links()[item.veth].master == bridge for item in endpoints)


def test_concurrent_starts_and_removals_keep_addresses_unique(engine: Engine, root: Path) -> None:
    """Addresses stay unique while containers start and are removed in parallel.

    Nothing is left at the end.
    """
    engine.run("base", FOR_EVER, name="stays")
    with nothing_left(root):
        for number in range(8):
            engine.run("base", FOR_EVER, name=f"old{number}")
        jobs = [partial(_start, root)] * 8
        jobs += [partial(_remove, root, f"old{number}") for number in range(8)]
        assert _at_once(jobs) == [0] * 16
        found = [item for item in engine.containers() if item.name != "stays"]
        assert len({item.state.endpoints[0].address for item in found}) == len(found) == 8
        for item in found:
            engine.remove(item.id, force=True)


def test_one_of_several_concurrent_creations_with_one_name_succeeds(
    engine: Engine, root: Path
) -> None:
    """Of several concurrent creations with one name, one succeeds and the others fail."""
    codes = _at_once([partial(_start, root, name="web")] * 6)
    assert sorted(codes) == [0, 2, 2, 2, 2, 2]
    assert [item.name for item in engine.containers()] == ["web"]


def test_one_of_several_concurrent_removals_succeeds(engine: Engine, root: Path) -> None:
    """Of several concurrent removals of a container, one succeeds and none crashes."""
    engine.run("base", FOR_EVER, name="web")
    codes = _at_once([partial(_remove, root, "web")] * 6)
    assert codes.count(0) == 1
    assert set(codes) == {0, 2}
    assert engine.containers() == []


def test_concurrent_starts_of_a_container_make_one_pid_1(engine: Engine, root: Path) -> None:
    """All concurrent starts of a container succeed, and the container has one pid 1."""
    engine.create("base", FOR_EVER, name="web")
    pids = root / "pids"

    def start() -> None:
        pid = Engine(root).start("web").state.pid
        with open(pids, "a", encoding="ascii") as file:
            file.write(f"{pid}\n")

    assert _at_once([start] * 6) == [0] * 6
    assert len(set(pids.read_text().split())) == 1


def test_concurrently_created_networks_do_not_overlap(engine: Engine, root: Path) -> None:
    """The subnets of networks that are created at the same time do not overlap."""
    assert _at_once([partial(_network, root, name) for name in "abcdef"]) == [0] * 6
    assert len({item.subnet for item in engine.networks()}) == 7


def test_concurrent_starts_without_a_free_address_are_refused(engine: Engine, root: Path) -> None:
    """Concurrent starts beyond the five free addresses of a /29 are refused.

    A refused start leaves nothing.
    """
    engine.network_create("small", subnet="10.9.0.0/29")
    codes = _at_once([partial(_start, root, network="small")] * 8)
    assert sorted(codes) == [0] * 5 + [2] * 3
    assert len(engine.containers()) == 5
    with nothing_left(root), pytest.raises(ConflictError, match=r"10\.9\.0\.0/29"):
        engine.run("base", FOR_EVER, network="small")


def _start(root: Path, *, name: str = "", network: str = "bridge") -> None:
    Engine(root).run("base", FOR_EVER, name=name, network=network)


def _remove(root: Path, name: str) -> None:
    Engine(root).remove(name, force=True)


def _network(root: Path, name: str) -> None:
    Engine(root).network_create(name)
