"""Fixtures of a conformance run.

A worker process builds one world and starts one runtime in it. A scene is the networks and
containers of a test. Each test has its own `scene`. Tests of a module that change nothing share the
scene `cast`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest

from harness.adapters.protocol import Adapter, AdapterFactory
from harness.faults import selection
from harness.model.plan import ALONE, CAST, HOST, INTERNET
from harness.model.topology import Topology
from harness.report.recorder import RECORDER, describe_runtime, describe_stage
from harness.sandbox import sandbox
from harness.testbench.netns_view import NetnsView, view_of
from harness.testbench.packets.capture import TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.leak_guard import guarded

RuntimeStarter = Callable[[World], AbstractContextManager[Adapter]]


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Yield this worker's world: the namespaces of host, LAN, routers, internet, ns1 and ns2."""
    if not sandbox.inside():
        pytest.fail(
            "a world needs the sandbox, and this run is outside of it: leave out --sandbox=never, "
            "and start workers on other machines with `netmodes python`; `netmodes doctor` checks "
            "the machine",
            pytrace=False,
        )
    with World.build(Topology()) as built:
        built.probe = request.config.getoption("probe")
        yield built


@pytest.fixture(scope="session")
def start_runtime(request: pytest.FixtureRequest) -> RuntimeStarter:
    """Return a function that runs the runtime under test in another world, as a context manager.

    A leak or a change in that world is a violation, as it is in the shared world.
    """
    factory = selection.factory(request.config)

    @contextmanager
    def start(world: World) -> Iterator[Adapter]:
        world.probe = request.config.getoption("probe")
        with (
            _running(factory, world) as adapter,
            guarded(world, adapter.dialect),
        ):
            yield adapter

    return start


@contextmanager
def _running(factory: AdapterFactory, world: World) -> Iterator[Adapter]:
    adapter = factory(world.host)
    adapter.start()
    try:
        yield adapter
    finally:
        adapter.stop()


@pytest.fixture(scope="session")
def runtime(world: World, request: pytest.FixtureRequest) -> Iterator[Adapter]:
    """Yield the runtime under test, which runs on the world's host."""
    with _running(selection.factory(request.config), world) as adapter:
        request.config.stash[RECORDER].runtime = describe_runtime(adapter)
        yield adapter


@pytest.fixture
def scene(world: World, runtime: Adapter) -> Iterator[Scene]:
    """Yield an empty scene; its networks and containers are removed after the test."""
    with Scene(world, runtime) as made:
        yield made


@pytest.fixture(scope="module")
def cast(world: World, runtime: Adapter, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Yield the scene of the reference plan, which has one container in each mode.

    The tests of a module share the scene and must not change it.
    """
    recorder, title = request.config.stash[RECORDER], "the cast"
    with Scene(
        world, runtime, CAST, claimed_only=True, record=partial(recorder.add, title)
    ) as made:
        recorder.set_stage(title, partial(describe_stage, made))
        yield made


@pytest.fixture(scope="module")
def attached(world: World, runtime: Adapter, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Yield the reference plan's scene, with a veth pair attached to `container06-none` by hand.

    The tests of a module share the scene and must not change it.
    """
    recorder, title = request.config.stash[RECORDER], f"{ALONE}, attached by hand"
    with Scene(
        world, runtime, CAST, claimed_only=True, record=partial(recorder.add, title)
    ) as made:
        made.attach(ALONE)
        recorder.set_stage(title, partial(describe_stage, made))
        yield made


@pytest.fixture(scope="session")
def host(world: World) -> NetnsView:
    """Return the host's network namespace."""
    return view_of(world, HOST)


@pytest.fixture(scope="session")
def internet(world: World) -> NetnsView:
    """Return the internet's network namespace."""
    return view_of(world, INTERNET)


@pytest.fixture(scope="session")
def wires(world: World) -> Iterator[TapPool]:  # noqa: ARG001 # closed before the world is
    """Yield the packet taps in the world's namespaces; each is opened once, for all tests."""
    with TapPool() as opened:
        yield opened
