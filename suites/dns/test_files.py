"""`/etc/hosts` and `/etc/hostname`, as the runtime declares them."""

from __future__ import annotations

from collections import defaultdict
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import FAMILIES, Bridge, Family
from harness.model.topology import Address
from harness.plugin.marks import requirement
from harness.testbench import lookup
from harness.testbench.container import Container
from harness.testbench.scene import Scene
from suites.dns import ALIAS, SHARED
from suites.support.dns import held, looked_up
from suites.support.features import has_ipv6

SHORT: Final = 12
"""Hexadecimal digits of a short id."""
ASKED_FOR: Final = (("db", IPv4Address("192.0.2.7")), ("six", IPv6Address("2001:db8:7::7")))
"""Names for `/etc/hosts`, and addresses that nobody has."""

some: Final = pytest.mark.parametrize(
    "name",
    [
        pytest.param("plain", id="bridge"),
        pytest.param("web", id="user-defined", marks=requirement("NET-4")),
        pytest.param("both", id="on-two-networks", marks=requirement("NET-3")),
    ],
)


@requirement("FILE-1", "CTR-5")
def test_who_has_joined_is_called_the_same_by_the_kernel(town: Scene) -> None:
    """As itself or as whom it joined, and its file says what the kernel does."""
    called = lookup.hostname(town.world.host, town["guest"])
    assert town["guest"].read("/etc/hostname") == f"{called}\n"
    themselves = [(town[name].started.id[:SHORT], name) for name in ("plain", "guest")]
    assert any(called in names for names in themselves)


@requirement("FILE-1")
@some
def test_the_hostname_is_as_declared(town: Scene, runtime: Adapter, name: str) -> None:
    """The short id, or the name; the kernel says the same to whoever asks inside."""
    container = town[name]
    wanted = {"short-id": container.started.id[:SHORT], "name": name}[runtime.dialect.hostname]
    assert container.read("/etc/hostname") == f"{wanted}\n"
    assert lookup.hostname(town.world.host, container) == wanted


@requirement("FILE-1")
@some
def test_its_own_names_stand_at_its_addresses_as_declared(
    town: Scene, runtime: Adapter, name: str
) -> None:
    """At each address that it has, those that are declared, and at no other address."""
    container = town[name]
    aliases = {ALIAS, SHARED} if name == "web" else set()
    called = {
        "hostname": {container.read("/etc/hostname").strip()},
        "name": {name},
        "aliases": aliases,
    }
    declared = set().union(*(called[kind] for kind in runtime.dialect.hosts_names))
    undeclared = set().union(*called.values()) - declared
    addresses = set().union(*(held(town, name, family) for family in FAMILIES))
    lines = hosts(container)
    assert {address for address, names in lines.items() if names & declared} == addresses
    for address in addresses:
        assert declared <= lines[address]
    assert not set().union(*lines.values()) & undeclared


@requirement("FILE-1")
@some
def test_of_the_hosts_own_file_it_has_what_is_declared(
    town: Scene, runtime: Adapter, name: str
) -> None:
    """All of its names but the loopback's own, where a container's file begins with it, or none."""
    own = set().union(*_lines(town.world.host.call(_text, "/etc/hosts")).values())
    beyond = {item for item in own if not item.endswith(("localhost", "loopback"))}
    assert beyond, "the host has names that could be passed on"
    passed_on = set().union(*hosts(town[name]).values()) & beyond
    assert passed_on == (beyond if runtime.dialect.hosts_base == "host" else set())


@requirement("FILE-1")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("plain", id="bridge"),
        pytest.param("web", id="user-defined", marks=requirement("NET-4")),
        pytest.param("both", id="on-two-networks", marks=requirement("NET-3")),
        pytest.param("guest", id="container", marks=requirement("CTR-5")),
    ],
)
def test_localhost_is_itself(town: Scene, name: str) -> None:
    """In each family that its loopback has, by the file and by the C library."""
    assert_localhost_is_itself(town, name)
    for address in {item.ip for item in town[name].net.interfaces("lo")}:
        family: Family = 4 if address.version == 4 else 6
        assert looked_up(town, name, "localhost", family).addresses == {address}


@requirement("FILE-1")
@pytest.mark.parametrize("network", ["", pytest.param("own", marks=requirement("NET-4"))])
def test_what_was_asked_for_is_there(scene: Scene, network: str) -> None:
    """A hostname and more lines for hosts; no other container has them."""
    mode = Bridge(scene.network(network).name) if network else Bridge()
    asking = scene.container("asking", mode, hostname="box", hosts=ASKED_FOR)
    scene.container("another", mode)
    assert asking.read("/etc/hostname") == "box\n"
    assert lookup.hostname(scene.world.host, asking) == "box"
    for name, address in ASKED_FOR:
        family: Family = 4 if address.version == 4 else 6
        assert name in hosts(asking)[address]
        assert looked_up(scene, "asking", name, family).addresses == {address}
        assert looked_up(scene, "another", name, family).addresses == set()
        assert address not in hosts(scene["another"])


@requirement("FILE-1", "NET-3")
def test_they_follow_its_connections(scene: Scene) -> None:
    """Its name stands at the addresses that it has now; what was asked for stays, and that is all.

    Whoever else is on the network is no matter of theirs.
    """
    for network in ("town", "village"):
        scene.network(network, ipv6=has_ipv6(scene.runtime))
    scene.container("villager", Bridge("village"))
    mover = scene.container("mover", Bridge("town"), hosts=ASKED_FOR)
    before, hostname = hosts(mover), mover.read("/etc/hostname")
    for change in (scene.connect, scene.disconnect):
        change("mover", "village")
        called = lookup.hostname(scene.world.host, mover)
        at = {address for address, names in hosts(mover).items() if called in names}
        assert at == held(scene, "mover", 4) | held(scene, "mover", 6)
        assert all(name in hosts(mover)[address] for name, address in ASKED_FOR)
        assert not any("villager" in names for names in hosts(mover).values())
        assert mover.read("/etc/hostname") == hostname
        assert_localhost_is_itself(scene, "mover")
        assert_readable(mover)
    assert hosts(mover) == before


@requirement("FILE-1", "LIFE-7")
@pytest.mark.parametrize("network", ["", pytest.param("own", marks=requirement("NET-4"))])
def test_they_outlast_a_restart(scene: Scene, network: str) -> None:
    """Started again, a container is called the same, and what was asked for is there."""
    dual = has_ipv6(scene.runtime)
    mode = Bridge(scene.network(network, ipv6=dual).name) if network else Bridge()
    asking = scene.container("asking", mode, hostname="box", hosts=ASKED_FOR)
    asking.stop()
    asking.start()
    assert asking.read("/etc/hostname") == "box\n"
    assert lookup.hostname(scene.world.host, asking) == "box"
    lines = hosts(asking)
    own = held(scene, "asking", 4) | held(scene, "asking", 6)
    assert {address for address, names in lines.items() if "box" in names} == own
    for name, address in ASKED_FOR:
        assert name in lines[address]
    assert_localhost_is_itself(scene, "asking")
    assert_readable(asking)


@requirement("FILE-1")
def test_whoever_runs_inside_can_read_them(town: Scene) -> None:
    """They are files of root's, with the mode of such files."""
    assert_readable(town["plain"])


@requirement("FILE-1")
@pytest.mark.parametrize("network", ["", pytest.param("own", marks=requirement("NET-4"))])
def test_what_is_written_into_them_stays_inside(scene: Scene, network: str) -> None:
    """Neither the host nor another container on the network sees it."""
    mode = Bridge(scene.network(network).name) if network else Bridge()
    scene.containers(writer=mode, reader=mode)
    mark = "# written inside"
    for name in ("hosts", "hostname", "resolv.conf"):
        done = scene["writer"].exec("sh", "-c", f"echo '{mark}' >>/etc/{name}")
        assert done.returncode == 0, done
        assert mark in scene["writer"].read(f"/etc/{name}")
        assert mark not in scene["reader"].read(f"/etc/{name}")
        assert mark not in scene.world.host.call(_text, f"/etc/{name}")


def assert_localhost_is_itself(scene: Scene, name: str) -> None:
    """Every address of its loopback has that name."""
    called = {address for address, names in hosts(scene[name]).items() if "localhost" in names}
    assert {item.ip for item in scene[name].net.interfaces("lo")} <= called


def assert_readable(container: Container) -> None:
    """Whoever is who in there can read each of the files."""
    for name in ("hosts", "hostname", "resolv.conf"):
        assert oct(container.mode(f"/etc/{name}") & 0o777) == oct(0o644)


def hosts(container: Container) -> dict[Address, set[str]]:
    """Its `/etc/hosts`: the names at each address."""
    return _lines(container.read("/etc/hosts"))


def _lines(text: str) -> dict[Address, set[str]]:
    """The names at each address in a text as hosts(5) has it."""
    found: dict[Address, set[str]] = defaultdict(set)
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if address:
            found[ip_address(address)].update(names)
    return dict(found)


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
