"""The files `/etc/hosts` and `/etc/hostname` of containers, as the runtime declares them."""

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
"""Requested entries of `/etc/hosts`, with unassigned addresses."""

some: Final = pytest.mark.parametrize(
    "name",
    [
        pytest.param("plain", id="bridge"),
        pytest.param("web", id="user-defined", marks=requirement("NET-4")),
        pytest.param("both", id="on-two-networks", marks=requirement("NET-3")),
    ],
)

networks: Final = pytest.mark.parametrize(
    "network",
    [
        pytest.param("", id="bridge"),
        pytest.param("own", id="user-defined", marks=requirement("NET-4")),
    ],
)


@requirement("FILE-1", "CTR-5")
def test_hostname_file_of_joining_container_matches_kernel_hostname(dns_scene: Scene) -> None:
    """The hostname file of a joining container matches the hostname that the kernel reports."""
    called = lookup.hostname(dns_scene.world.host, dns_scene["guest"])
    assert dns_scene["guest"].read("/etc/hostname") == f"{called}\n"
    themselves = [(dns_scene[name].started.id[:SHORT], name) for name in ("plain", "guest")]
    assert any(called in names for names in themselves)


@requirement("FILE-1")
@some
def test_hostname_of_container_is_as_declared(
    dns_scene: Scene, runtime: Adapter, name: str
) -> None:
    """A container's hostname is its short id or its name, as the runtime declares."""
    container = dns_scene[name]
    wanted = {"short-id": container.started.id[:SHORT], "name": name}[runtime.dialect.hostname]
    assert container.read("/etc/hostname") == f"{wanted}\n"
    assert lookup.hostname(dns_scene.world.host, container) == wanted


@requirement("FILE-1")
@some
def test_own_names_in_hosts_file_are_as_declared(
    dns_scene: Scene, runtime: Adapter, name: str
) -> None:
    """A container's hosts file has, for each of its addresses, exactly the declared names."""
    container = dns_scene[name]
    aliases = {ALIAS, SHARED} if name == "web" else set()
    called = {
        "hostname": {container.read("/etc/hostname").strip()},
        "name": {name},
        "aliases": aliases,
    }
    declared = set().union(*(called[kind] for kind in runtime.dialect.hosts_names))
    undeclared = set().union(*called.values()) - declared
    addresses = set().union(*(held(dns_scene, name, family) for family in FAMILIES))
    lines = hosts(container)
    assert {address for address, names in lines.items() if names & declared} == addresses
    for address in addresses:
        assert declared <= lines[address]
    assert not set().union(*lines.values()) & undeclared


@requirement("FILE-1")
@some
def test_hosts_file_inherits_names_of_the_host_as_declared(
    dns_scene: Scene, runtime: Adapter, name: str
) -> None:
    """A container's hosts file has all names of the host's hosts file or none, as declared.

    The names of loopback addresses are not compared.
    """
    own = set().union(*_lines(dns_scene.world.host.call(_text, "/etc/hosts")).values())
    beyond = {item for item in own if not item.endswith(("localhost", "loopback"))}
    assert beyond, "the host's own file has no name that a container could inherit"
    passed_on = set().union(*hosts(dns_scene[name]).values()) & beyond
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
def test_localhost_resolves_to_loopback(dns_scene: Scene, name: str) -> None:
    """The name localhost resolves to the loopback address in each family that the container has."""
    assert_localhost_is_itself(dns_scene, name)
    for address in {item.ip for item in dns_scene[name].net.interfaces("lo")}:
        family: Family = 4 if address.version == 4 else 6
        assert looked_up(dns_scene, name, "localhost", family).addresses == {address}


@requirement("FILE-1")
@networks
def test_requested_hostname_and_hosts_entries_are_present(scene: Scene, network: str) -> None:
    """A container has the requested hostname and hosts entries, and no other container has them."""
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
def test_hosts_file_follows_connect_and_disconnect(scene: Scene) -> None:
    """Connect and disconnect update a container's own addresses in its hosts file.

    Entries that the user requested stay, and no other line is added. Entries of peers are not
    checked.
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
@networks
def test_requested_hostname_and_hosts_entries_survive_restart(scene: Scene, network: str) -> None:
    """The requested hostname and hosts entries are the same after a container restarts."""
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
def test_hosts_hostname_and_resolv_conf_are_world_readable(dns_scene: Scene) -> None:
    """Every user in a container can read /etc/hosts, /etc/hostname and /etc/resolv.conf."""
    assert_readable(dns_scene["plain"])


@requirement("FILE-1")
@networks
def test_changes_to_hosts_hostname_and_resolv_conf_stay_in_the_container(
    scene: Scene, network: str
) -> None:
    """Changes to a container's hosts, hostname and resolv.conf affect only that container."""
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
    """Assert that every loopback address has the name `localhost`."""
    called = {address for address, names in hosts(scene[name]).items() if "localhost" in names}
    assert {item.ip for item in scene[name].net.interfaces("lo")} <= called


def assert_readable(container: Container) -> None:
    """Assert that each user in the container can read each of the files."""
    for name in ("hosts", "hostname", "resolv.conf"):
        assert oct(container.mode(f"/etc/{name}") & 0o777) == oct(0o644)


def hosts(container: Container) -> dict[Address, set[str]]:
    """Return the names of each address in the container's `/etc/hosts`."""
    return _lines(container.read("/etc/hosts"))


def _lines(text: str) -> dict[Address, set[str]]:
    """Return the names of each address in a text in the format of hosts(5)."""
    found: dict[Address, set[str]] = defaultdict(set)
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if address:
            found[ip_address(address)].update(names)
    return dict(found)


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
