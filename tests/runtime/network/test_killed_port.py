"""The port of a killed start is free for the next call."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from runtime import store
from runtime.container import lifecycle, networking, start
from runtime.container.options import ContainerOptions
from runtime.engine import Engine
from runtime.errors import ConflictError, UnsupportedError
from runtime.init import status_pipe
from runtime.network import ports as reserve
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import nothing_left
from tests.runtime.support.killing import Step, killed_at, steps

PORTS = ["8080:80", "8080:80/udp"]
STEPS = steps(
    (reserve, "reserve"),
    (start, "rootfs"),
    (start, "start"),
    (status_pipe, "send_descriptors"),
    (lifecycle.Lifecycle, "start"),
    (networking.ContainerNetworking, "attach"),
    (networking.ContainerNetworking, "register"),
    (reserve, "redirect"),
    (status_pipe.InitReport, "pid"),
    (status_pipe.InitReport, "end"),
    (store.Store, "write_state"),
)


@pytest.mark.parametrize("way", ["run", "start"])
@pytest.mark.parametrize("step", STEPS.values(), ids=list(STEPS))
def test_port_of_a_killed_start_is_free_for_the_next_call(
    engine: Engine, lan: str, root: Path, step: Step, way: str
) -> None:
    """The next call waits for the killed container's end; a running container keeps its port."""
    doomed = Engine(root)
    engine.create("base", FOR_EVER, name="next", network=lan, publish=PORTS)
    options: ContainerOptions = {"network": lan, "publish": PORTS}
    web: ContainerOptions = {**options, "name": "web"}
    killed_at(step, lambda: doomed.run("base", FOR_EVER, **web))
    try:
        if way == "start":
            engine.start("next")
        else:
            engine.run("base", FOR_EVER, **options)
    except ConflictError:
        assert engine.inspect("web").running


def test_too_many_ports_on_the_ipv6_loopback_are_refused(
    engine: Engine, lan: str, root: Path
) -> None:
    """The error gives the remedy in words; nothing is left."""
    ports = "8000-8299:80-379"
    with nothing_left(root), pytest.raises(UnsupportedError, match="300 on the IPv6 loopback"):
        engine.run("base", FOR_EVER, network=lan, publish=[ports])
    engine.run("base", FOR_EVER, network=lan, publish=[f"0.0.0.0:{ports}"])


def test_ports_beyond_one_message_are_published(engine: Engine) -> None:
    """Each port is reserved."""
    web = engine.run("base", FOR_EVER, publish=["8000-8299:80-379"])
    assert len(web.state.ports) == 300
    for port in range(8000, 8300):
        with socket.socket() as opened, pytest.raises(OSError, match="in use"):
            opened.bind(("0.0.0.0", port))
    moved = engine.network_create("more", subnet="10.99.0.0/24")
    assert len(engine.network_connect(moved.name, web.id).state.ports) == 300
