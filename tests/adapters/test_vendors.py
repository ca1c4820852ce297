"""Tests of each installed runtime, with containers in every mode that its adapter declares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.adapters.protocol import RuntimeRefused
from harness.model import oracle
from harness.model.features import Feature
from harness.model.plan import CONTAINER01, HOST, JOINER, ON_HOST, Bridge
from harness.testbench.netns_view import until
from harness.testbench.scene import Scene
from tests.adapters.vendors import (
    BY_COMMAND,
    OWN_STACK,
    TRIED,
    assert_published_port_answers,
    claiming,
    the_cast,
)

OF_THE_KERNEL = tuple(name for name in TRIED if name not in OWN_STACK)
"""Runtimes whose containers use the kernel's network stack."""


@pytest.fixture(scope="module", params=TRIED)
def vendor(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Start the reference plan in a world, once for each runtime."""
    with the_cast(request.param) as scene:
        yield scene


def test_runtime_has_a_version(vendor: Scene) -> None:
    """The version of each runtime is numeric, because the dialect depends on it."""
    assert vendor.runtime.version[0].isdigit()
    assert "." in vendor.runtime.version


def test_container_namespace_follows_its_mode(vendor: Scene) -> None:
    """The netns of a container is the host's, the joined container's or a new one.

    A join is tested only if the adapter declares it.
    """
    joined = JOINER if Feature.CONTAINER in vendor.runtime.features else CONTAINER01
    own = {name: vendor[name].net.identity for name in (CONTAINER01, ON_HOST, joined)}
    assert own[ON_HOST] == vendor.netns(HOST).identity
    assert own[joined] == own[CONTAINER01] != own[ON_HOST]


def test_matrix_of_each_runtime_is_as_promised(vendor: Scene) -> None:
    """The matrix of each runtime is as its own dialect promises.

    It differs from the promises of another dialect.
    """
    assert vendor.observed() == vendor.promised()
    own = vendor.runtime.dialect
    other = replace(own, bridge_loopback6=not own.bridge_loopback6)
    assert vendor.observed() != oracle.promised(vendor.plan, other, vendor.world.topology)


def test_endpoint_in_inspect_has_the_kernels_address(vendor: Scene) -> None:
    """An endpoint in `inspect` has the address and MAC that the kernel reports.

    Its network has the name in the plan.
    """
    endpoint, inside = vendor[CONTAINER01].endpoint(), vendor[CONTAINER01].net
    assert endpoint.network == "bridge"
    assert endpoint.address in inside.interfaces("eth0")
    assert endpoint.mac == inside.links()["eth0"].mac


@pytest.mark.parametrize("vendor", claiming(Feature.PUBLISH), indirect=True)
def test_published_port_replies_and_is_reported_by_inspect(vendor: Scene) -> None:
    """A published port replies, and `inspect` reports it with the requested number."""
    assert_published_port_answers(vendor)


@pytest.mark.parametrize("vendor", claiming(Feature.NETWORKS), indirect=True)
def test_container_with_one_letter_name_is_on_two_networks(vendor: Scene) -> None:
    """A container with a one-letter name is connected to two networks.

    Not every runtime allows such a name.
    """
    vendor.network("n1")
    vendor.network("n2")
    both = vendor.container("x", Bridge("n1"), also=("n2",))
    assert {item.network for item in both.facts().endpoints} == {"n1", "n2"}
    assert both.facts().name == "x"
    both.remove()
    vendor.remove_network("n1")
    vendor.remove_network("n2")


def test_refused_start_leaves_no_container(vendor: Scene) -> None:
    """If a start is refused, no container is left, not even in the state created."""
    vendor.refusal("late", Bridge(), command=("/no/such/command",))
    with pytest.raises(RuntimeRefused):
        vendor.runtime.inspect("late")


@pytest.mark.parametrize("vendor", OF_THE_KERNEL, indirect=True)
def test_stopped_container_starts_again(vendor: Scene) -> None:
    """A stopped container can be started again, in the same mode and on the same network.

    This holds even if the adapter does not declare the feature of restarts.
    """
    again = vendor.container("again", Bridge())
    again.stop()
    assert not again.facts().running
    vendor.runtime.start_container("again")
    assert again.facts().running
    assert again.endpoint().address in again.net.interfaces("eth0")
    again.remove()


@pytest.mark.parametrize("vendor", BY_COMMAND, indirect=True)
def test_sleeping_container_has_no_child(vendor: Scene) -> None:
    """A container that sleeps has no child process.

    A child that appears after `run` has returned would count as a leak.
    """
    pid, host = vendor[CONTAINER01].facts().pid, vendor.world.host
    assert pid is not None
    until(
        vendor.netns(HOST),
        lambda: host.call(os.readlink, f"/proc/{pid}/fd/0").endswith("ptmx"),
        "it waits at a terminal",
    )
    assert host.call(Path.read_text, Path(f"/proc/{pid}/task/{pid}/children")) == ""


def test_exec_returns_exit_code_and_output(vendor: Scene) -> None:
    """`exec` returns the exit code and output of a command.

    A missing command has the exit code that a shell returns.
    """
    name = CONTAINER01
    done = vendor.runtime.exec(name, ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert vendor.runtime.exec(name, ["/no/such/command"]).returncode in (126, 127)
