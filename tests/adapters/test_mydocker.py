"""Tests of the adapter for the embedded runtime, mydocker."""

from __future__ import annotations

from tests.support.programs import python, run

IN_A_HOST = """
import sys
from ipaddress import IPv6Network

from harness.sandbox import sandbox
from harness.adapters import registry
from harness.model.plan import CAST
from harness.model.plan import Bridge, ContainerSpec, NetworkSpec, Publish
from harness.world.build import World

OURS = ("harness.", "linux.", "runtime.")

def known():
    return {name for name in sys.modules if name.startswith(OURS)}

def use(factory, world):
    before = world.host.call(known)
    runtime = factory(world.host)
    runtime.start()
    runtime.network(NetworkSpec("own", ipv6=True, subnet6=IPv6Network("fd00:5::/64")))
    runtime.run(ContainerSpec("first", Bridge("own"), ports=(Publish(8080, 80),)))
    runtime.run(ContainerSpec("second", Bridge()))
    runtime.connect("second", "own", aliases=("too",))
    for item in CAST.containers:
        runtime.run(item)
    runtime.exec("first", ["true"])
    runtime.stop_container("first")
    runtime.start_container("first")
    runtime.prune()
    runtime.repair()
    runtime.stop()
    print(sorted(world.host.call(known) - before))

def main():
    factory = registry.find("mydocker")
    with World.build() as world:
        use(factory, world)
    return 0

sys.exit(sandbox.run(main))
"""
LISTED = "import sys; {}; print(*sys.modules)"


def test_host_process_imports_no_further_modules() -> None:
    """A process in the host imports no modules of its own.

    In a host without a byte-code cache, each import would compile the module.
    """
    done = run(python(IN_A_HOST))
    assert done.stdout == "[]\n", done.stderr


def test_modules_of_host_processes_are_imported_before_the_host_starts() -> None:
    """The modules of the DNS daemon are imported before a host starts.

    Otherwise the daemon would compile them in each host.
    """
    theirs = "import runtime.daemon.daemon"
    needed, known = (
        set(run(python(LISTED.format(modules))).stdout.split())
        for modules in (theirs, "import harness.adapters.mydocker")
    )
    ours = {name for name in needed if name.startswith(("linux.", "runtime."))}
    assert ours
    assert ours <= known
