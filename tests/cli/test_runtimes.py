"""Each described runtime that is installed: up, containers in every mode, down, nothing left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.model import oracle
from harness.model.features import Feature
from harness.model.plan import CONTAINER01, HOST, JOINER, ON_HOST, Bridge, Publish
from harness.testbench.listener import Listener, free_port
from harness.testbench.netns_view import until
from harness.testbench.scene import Scene
from tests.adapters.vendors import BY_COMMAND, OWN_STACK, TRIED, claiming, the_cast

OF_THE_KERNEL = tuple(name for name in TRIED if name not in OWN_STACK)
"""Those whose containers have the kernel's network stack."""


@pytest.fixture(scope="module", params=TRIED)
def vendor(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The cast, in a world of its own, by each runtime."""
    with the_cast(request.param) as scene:
        yield scene


def test_it_tells_its_version(vendor: Scene) -> None:
    """As numbers, which its dialect goes by."""
    assert vendor.runtime.version[0].isdigit()
    assert "." in vendor.runtime.version


def test_everybody_is_where_the_mode_says(vendor: Scene) -> None:
    """The host's namespace, another container's where that is claimed, or one of its own."""
    joined = JOINER if Feature.CONTAINER in vendor.runtime.features else CONTAINER01
    own = {name: vendor[name].net.identity for name in (CONTAINER01, ON_HOST, joined)}
    assert own[ON_HOST] == vendor.place(HOST).identity
    assert own[joined] == own[CONTAINER01] != own[ON_HOST]


def test_the_whole_matrix_is_as_promised(vendor: Scene) -> None:
    """By its own dialect; a promise of another one is seen to be broken."""
    assert vendor.observed() == vendor.promised()
    other = replace(vendor.runtime.dialect, bridge_loopback6=not loopback6(vendor.runtime))
    assert vendor.observed() != oracle.promised(vendor.plan, other, vendor.world.topology)


def loopback6(runtime: Adapter) -> bool:
    """Whether a bridged container is declared to have ::1."""
    return runtime.dialect.bridge_loopback6


def test_what_it_tells_of_an_endpoint_is_what_the_kernel_has(vendor: Scene) -> None:
    """Address, MAC and the network by the name that plans have for it."""
    endpoint, inside = vendor[CONTAINER01].endpoint(), vendor[CONTAINER01].net
    assert endpoint.network == "bridge"
    assert endpoint.address in inside.interfaces("eth0")
    assert endpoint.mac == inside.links()["eth0"].mac


@pytest.mark.parametrize("vendor", claiming(Feature.PUBLISH), indirect=True)
def test_a_published_port_is_told_and_answers(vendor: Scene) -> None:
    """Under the number that was asked for."""
    port = free_port(vendor.place(HOST), "tcp")
    web = vendor.container("web", Bridge(), ports=(Publish(port, 8080),))
    assert {item.host_port for item in web.facts().ports} == {port}
    with Listener(web.net, "tcp", port=8080) as ear:
        address = vendor.world.address(HOST, 4)
        assert ear.reached_from(vendor.place("attacker"), at=address, port=port)
    web.remove()


@pytest.mark.parametrize("vendor", claiming(Feature.NETWORKS), indirect=True)
def test_several_networks_and_names_of_one_letter(vendor: Scene) -> None:
    """A container may be on two; a name may be shorter than the runtime would have it."""
    vendor.network("n1")
    vendor.network("n2")
    both = vendor.container("x", Bridge("n1"), also=("n2",))
    assert {item.network for item in both.facts().endpoints} == {"n1", "n2"}
    assert both.facts().name == "x"
    both.remove()
    vendor.remove_network("n1")
    vendor.remove_network("n2")


def test_a_refused_start_leaves_no_container(vendor: Scene) -> None:
    """Not even one that was made and never started."""
    vendor.refusal("late", Bridge(), command=("/no/such/command",))
    with pytest.raises(RuntimeRefused):
        vendor.runtime.inspect("late")


@pytest.mark.parametrize("vendor", OF_THE_KERNEL, indirect=True)
def test_one_that_was_stopped_runs_anew(vendor: Scene) -> None:
    """In the same mode, with its network in place; whether that is claimed or not."""
    again = vendor.container("again", Bridge())
    again.stop()
    assert not again.facts().running
    vendor.runtime.start_container("again")
    assert again.facts().running
    assert again.endpoint().address in again.net.interfaces("eth0")
    again.remove()


@pytest.mark.parametrize("vendor", BY_COMMAND, indirect=True)
def test_what_waits_for_ever_has_no_child(vendor: Scene) -> None:
    """Which would come when `run` has returned, and be taken for something that was left."""
    pid, host = vendor[CONTAINER01].facts().pid, vendor.world.host
    assert pid is not None
    until(
        vendor.place(HOST),
        lambda: host.call(os.readlink, f"/proc/{pid}/fd/0").endswith("ptmx"),
        "it waits at a terminal",
    )
    assert host.call(Path.read_text, Path(f"/proc/{pid}/task/{pid}/children")) == ""


def test_what_a_command_exits_with_is_told(vendor: Scene) -> None:
    """Its own code, or what shells have for one that is not there; and what it said."""
    name = CONTAINER01
    done = vendor.runtime.exec(name, ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert vendor.runtime.exec(name, ["/no/such/command"]).returncode in (126, 127)
