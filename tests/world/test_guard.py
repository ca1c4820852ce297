"""Tests of the leak guard, which names leaks and changed bystanders.

`tests/world/test_snapshot.py` covers each kind of kernel state.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path
from typing import NoReturn

import pytest

from harness.model.dialect import Dialect
from harness.model.plan import CAST, FAMILIES, HOST, INTERNET, NS1, NS2, Bridge, Family
from harness.testbench.listener import TRANSPORTS, ask_echo_service
from harness.testbench.scene import Scene
from harness.world.build import NEAR, World
from harness.world.leak_guard import BOUND, BYSTANDER, LEFT_BEHIND, LeakGuard, Violation
from harness.world.state.processes import Surroundings, ends, running
from linux import netns, nftables, rtnetlink
from linux.conntrack import Conntrack, Flow
from linux.netlink import Netlink, Request
from linux.netns import NetNS
from linux.syscalls import MS_BIND, mount, umount
from runtime.engine import Engine
from runtime.network import endpoint

Plant = Callable[[World], Callable[[World], object]]
"""Function that leaves a leak in a world, and returns a function that removes the leak."""

SOON = 0.1
"""Time limit in seconds; it may be short, because no leak of these tests ends by itself."""
TABLE = nftables.Table("inet", "leak")


def netlink(plant: list[Request], undo: list[Request], *, place: str = HOST) -> Plant:
    """Return a function that leaves a leak by rtnetlink; the function's result removes the leak."""

    def planted(world: World) -> Callable[[World], object]:
        _send(world.namespaces[place], plant)
        return lambda world: _send(world.namespaces[place], undo)

    return planted


def _send(space: NetNS, requests: list[Request]) -> None:
    with Netlink(space) as opened:
        opened.send(requests)


def sysctls(key: str, value: int, *, place: str = HOST) -> Plant:
    """Return a function that changes a sysctl; the function's result restores the value."""

    def planted(world: World) -> Callable[[World], object]:
        before = netns.read_sysctls(world.namespaces[place], [key])[key]
        netns.write_sysctls(world.namespaces[place], {key: value})
        return lambda world: netns.write_sysctls(world.namespaces[place], {key: before})

    return planted


def a_mount(world: World) -> Callable[[World], object]:
    """Mount a file system in the host."""
    world.host.call(_mounted)
    return lambda world: world.host.call(umount, "/run/leak")


def _mounted() -> None:
    os.makedirs("/run/leak", exist_ok=True)
    mount("tmpfs", "/run/leak", "tmpfs")


def a_process(world: World) -> Callable[[World], object]:
    """Start a child process of the host's init."""
    pid = world.host.spawn(["sleep", "1000"], log="/run/leak.log")
    return lambda world: world.host.call(os.kill, pid, signal.SIGKILL)


def a_descriptor(world: World) -> Callable[[World], object]:
    """Open a descriptor in the host's server, which keeps a netns without processes alive."""
    fd = world.host.call(_namespace_kept)
    return lambda world: world.host.call(os.close, fd)


def _namespace_kept() -> int:
    return NetNS.new().fd


def a_namespace(world: World) -> Callable[[World], object]:
    """Make a netns that a mount keeps alive, as `ip netns add` does."""
    world.host.call(_namespace_named)
    return lambda world: world.host.call(umount, "/run/netns-leak")


def _namespace_named() -> None:
    with NetNS.new() as space:
        os.close(os.open("/run/netns-leak", os.O_CREAT | os.O_CLOEXEC))
        mount(f"/proc/self/fd/{space.fd}", "/run/netns-leak", flags=MS_BIND)


LEAKS: dict[str, Plant] = {
    "host: link leak0: new": netlink(
        [rtnetlink.add_veth("leak0", "leak1")], [rtnetlink.del_link("leak0")]
    ),
    "host: mount tmpfs on /run/leak: new": a_mount,
    "(sleep): new": a_process,
    "host: descriptor of net:[": a_descriptor,
    "host: mount nsfs on /run/netns-leak: new": a_namespace,
}

CHANGES: dict[str, Plant] = {
    "host: link eth0: mtu was": netlink(
        [rtnetlink.set_link(NEAR, mtu=1400)], [rtnetlink.set_link(NEAR, mtu=1500)]
    ),
    "host: sysctl net.ipv6.conf.all.accept_ra: value was 1, is 0": sysctls(
        "net.ipv6.conf.all.accept_ra", 0
    ),
    "ns1: address 10.99.0.1/24 of eth0: new": netlink(
        [rtnetlink.add_address(NEAR, IPv4Interface("10.99.0.1/24"))],
        [rtnetlink.del_address(NEAR, IPv4Interface("10.99.0.1/24"))],
        place=NS1,
    ),
    "ns2: sysctl net.ipv4.ip_default_ttl: value was 64, is 63": sysctls(
        "net.ipv4.ip_default_ttl", 63, place=NS2
    ),
}


def test_closed_namespace_descriptor_is_no_leak(world: World) -> None:
    """A namespace that a server briefly holds open at the start of a test is no leak."""
    let_go = a_descriptor(world)
    with LeakGuard(world) as guard:
        guard.begin()
        let_go(world)
        guard.check()


@pytest.mark.parametrize("told", LEAKS)
def test_leak_guard_names_leftover_and_repairs_nothing(
    guard: LeakGuard, world: World, told: str
) -> None:
    """The guard reports a leftover as a violation of LIFE-1, and does not remove it."""
    _assert_found(guard, world, LEAKS[told], told, LEFT_BEHIND)


@pytest.mark.parametrize("told", CHANGES)
def test_leak_guard_names_changed_bystander_state(
    guard: LeakGuard, world: World, told: str
) -> None:
    """The guard reports changed state of a bystander as a violation of BYS-1."""
    _assert_found(guard, world, CHANGES[told], told, BYSTANDER)


def _assert_found(guard: LeakGuard, world: World, plant: Plant, told: str, broken: str) -> None:
    # As after the start of a runtime: its residue excuses none of these.
    guard.allow(Dialect())
    undo = None
    try:
        with pytest.raises(Violation) as raised, guard.holding(bound=SOON):
            undo = plant(world)
        assert raised.value.broken == (broken,)
        assert told in str(raised.value)
    finally:
        if undo is not None:
            undo(world)


def test_leak_guard_names_leftover_cgroup(world: World, tmp_path: Path) -> None:
    """The guard reports a leftover cgroup below the given directory.

    The test uses an ordinary directory, as not every user has a cgroup.
    """
    surroundings = Surroundings(world.host.pid, tmp_path)
    before = dict(surroundings.things(surroundings.take()))
    (tmp_path / "leak" / "deeper").mkdir(parents=True)
    after = dict(surroundings.things(surroundings.take()))
    assert after.keys() - before.keys() == {"cgroup leak", "cgroup leak/deeper"}


def test_process_that_ends_during_a_scan_is_skipped(tmp_path: Path) -> None:
    """A process that ends during a scan of /proc is skipped.

    Its name is unknown, so it could not be compared with the runtime's exceptions.
    """
    for pid in ("7", "8", "9"):
        (tmp_path / pid).mkdir()
    (tmp_path / "8" / "comm").write_text("conmon\n")
    (tmp_path / "self").mkdir()
    assert running(str(tmp_path), {7: "podman"}) == {7: "podman", 8: "conmon"}


@pytest.mark.parametrize(
    ("state", "flags", "pending", "found"),
    [("S", 0, 0, False), ("Z", 0, 0, True), ("R", 4, 0, True), ("D", 0, 256, True)],
    ids=["asleep", "a zombie", "exiting", "to be killed"],
)
def test_ending_process_is_recognised_by_proc_stat(
    tmp_path: Path, state: str, flags: int, pending: int, *, found: bool
) -> None:
    """An ending process is recognised by fields 3, 9 and 31 of proc_pid_stat(5).

    The name of the process does not matter.
    """
    rest = [state, *["1", "2", "3", "4", "5"], str(flags), *["7"] * 21, str(pending), *["0"] * 21]
    (tmp_path / "stat").write_text(f"41 (a) (b c) {' '.join(rest)}\n")
    assert ends(str(tmp_path)) == found


@pytest.mark.parametrize("family", FAMILIES)
def test_guard_reports_flows_and_neighbours_of_removed_container(
    guard: LeakGuard, scene: Scene, family: Family
) -> None:
    """Conntrack flows and neighbour entries of a removed container's address are leaks."""
    scene.network("lan", ipv6=True)
    scene.container("stays", Bridge("lan"))
    bridge = scene.runtime.network_facts("lan").interface
    with pytest.raises(Violation) as raised, guard.holding(bound=SOON):  # noqa: PT012 # its end raises
        guest = scene.container("guest", Bridge("lan")).net
        address = guest.address(family)
        for transport in TRANSPORTS:
            ask_echo_service(guest, scene.world.address(INTERNET, family), transport)
        scene.world.host.call(_remove_and_remember, "guest")
    scene.forget("guest")
    told = str(raised.value)
    assert f"host: neighbour {address} of {bridge}: new" in told
    assert f"host: flow from {address} port " in told


def test_flows_of_running_containers_cause_no_conntrack_dump(
    guard: LeakGuard, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard dumps the conntrack table only for flows of removed containers.

    A dump of the whole table takes milliseconds.
    """
    stays = scene.container("stays", Bridge()).net

    def read(*_: object) -> NoReturn:
        pytest.fail("it reads the table")

    with guard.holding():
        guest = scene.container("guest", Bridge())
        ask_echo_service(stays, scene.world.address(INTERNET, 4), "udp")
        assert stays.address(4) in {end for flow in _flows(scene) for end in flow.addresses}
        monkeypatch.setattr("harness.world.leak_guard.Conntrack", read)
        guest.remove()


def _flows(scene: Scene) -> list[Flow]:
    with Conntrack(scene.world.namespaces[HOST]) as conntrack:
        return conntrack.all()


def test_permitted_flows_and_neighbours_of_a_container_are_no_leak(
    guard: LeakGuard, scene: Scene, allow: Callable[..., None]
) -> None:
    """Flows and neighbour entries are no leak if the runtime's dialect permits them.

    Leftover links are always a leak.
    """
    scene.network("lan", ipv6=True)
    scene.container("stays", Bridge("lan"))
    allow(traces="left")
    with guard.holding():
        guest = scene.container("guest", Bridge("lan")).net
        ask_echo_service(guest, scene.world.address(INTERNET, 4), "udp")
        scene.world.host.call(_remove_and_remember, "guest")
    scene.forget("guest")
    with pytest.raises(Violation, match=r"link .*: new"), guard.holding(bound=SOON):
        scene.container("other", Bridge("lan"))


@pytest.mark.parametrize("named", [False, True], ids=["without names", "with names"])
@pytest.mark.parametrize("tables", [("inet leak",), ()], ids=["its own", "another's"])
def test_reordered_rules_in_runtime_tables_are_no_leak(
    guard: LeakGuard,
    world: World,
    allow: Callable[..., None],
    tables: tuple[str, ...],
    *,
    named: bool,
) -> None:
    """Reordered rules in a runtime's own tables are no leak.

    A restarted daemon may reorder them. Changed rules, or reordered rules in other tables, are
    violations.
    """
    _load(world, 80, 443, named=named)
    allow(tables=tables)
    try:
        with (
            contextlib.nullcontext() if tables else pytest.raises(Violation, match="nft rule"),
            guard.holding(bound=BOUND if tables else SOON),
        ):
            _load(world, 443, 80, named=named)
        with pytest.raises(Violation, match="nft rule inet leak"), guard.holding(bound=SOON):
            _load(world, 443, 81, named=named)
    finally:
        with nftables.Nft(world.namespaces[HOST]) as opened:
            opened.apply([nftables.del_table(TABLE)])


def _load(world: World, *ports: int, named: bool) -> None:
    """Load a chain in the host that accepts these ports, in the given order.

    If `named` is true, each rule has a comment.
    """
    with nftables.Nft(world.namespaces[HOST]) as opened:
        opened.apply(
            [nftables.add_table(TABLE), nftables.del_table(TABLE), nftables.add_table(TABLE)]
        )
        rules = [
            nftables.add_rule(
                TABLE,
                "in",
                *(nftables.l4proto("tcp"), nftables.dport(port), nftables.verdict("accept")),
                comment=str(port) if named else "",
            )
            for port in ports
        ]
        opened.apply([nftables.add_chain(TABLE, "in", hook="input", priority=0), *rules])


def _remove_and_remember(name: str) -> None:
    """Remove a container as mydocker does, but keep its flows and neighbour entries."""
    forget = endpoint.forget
    endpoint.forget = lambda *_: None
    try:
        Engine().remove(name, force=True)
    finally:
        endpoint.forget = forget


def test_idle_world_has_no_differences(guard: LeakGuard, world: World, scene: Scene) -> None:
    """Fifty snapshots of a world with containers in every mode are equal."""
    for network in CAST.networks:
        scene.network(network.name)
    for container in CAST.containers:
        scene.container(container.name, container.mode)
    scene.observed()
    with guard.holding() as different:
        assert [lines for _ in range(50) if (lines := different())] == []
