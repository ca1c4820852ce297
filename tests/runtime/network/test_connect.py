"""Tests of `network connect` and `disconnect` for running and stopped containers.

Some of the calls are killed half-way.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from runtime import store
from runtime.container import networking
from runtime.engine import Engine
from runtime.errors import (
    ConflictError,
    InvalidError,
    MydockerError,
    NotFoundError,
    UnsupportedError,
)
from runtime.network import bridge, etc_files, manager
from runtime.network import endpoint as plug
from runtime.records import Address, ContainerRecord, EndpointRecord
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import links, netns, network, nothing_left
from tests.runtime.support.killing import killed_at, steps

LAN, DMZ = "10.9.0.0/24", "10.8.0.0/24"


@pytest.fixture
def lan(engine: Engine) -> str:
    """Create a network with both address families, and another one whose name sorts first."""
    engine.network_create("lan", subnet=LAN, subnet6="fd00:9::/64")
    engine.network_create("dmz", subnet=DMZ)
    return "lan"


def _inside(container: ContainerRecord) -> Any:
    with netns(container) as space:
        return network(space)


def _defaults(container: ContainerRecord) -> set[str]:
    return {via for destination, via in _inside(container).routes if destination == "None"}


def _named(container: ContainerRecord, name: str) -> EndpointRecord:
    return next(item for item in container.state.endpoints if item.network == name)


def test_connect_adds_an_interface_to_a_running_container(engine: Engine, lan: str) -> None:
    """A connect adds an interface that is up and has the requested addresses.

    The addresses are announced to the network. The interface eth0 is unchanged.
    """
    web = engine.run("base", FOR_EVER, name="web")
    before = _inside(web)
    found = engine.network_connect(
        lan, "web", ip="10.9.0.77", ip6="fd00:9::77", mac="02:00:00:00:00:77"
    )
    endpoint = _named(found, lan)
    assert endpoint == EndpointRecord(
        network=lan,
        interface="eth1",
        veth=endpoint.veth,
        mac="02:00:00:00:00:77",
        address="10.9.0.77/24",
        gateway="10.9.0.1",
        address6="fd00:9::77/64",
        gateway6="fd00:9::1",
    )
    after = _inside(web)
    assert set(after.links) - set(before.links) == {("eth1", endpoint.mac, True)}
    assert set(after.addresses) - set(before.addresses) == {"10.9.0.77/24", "fd00:9::77/64"}
    hosts = engine.exec("web", ["cat", "/etc/hosts"]).stdout.decode()
    assert f"10.9.0.77\t{web.config.hostname}\n" in hosts
    assert f"172.17.0.1\t{web.config.hostname}\n" in hosts
    assert engine.inspect("web").state.endpoints == found.state.endpoints


def test_disconnect_removes_interface_lease_and_names(engine: Engine, lan: str, root: Path) -> None:
    """A disconnect removes the interface, the lease, the DNS name and the line in /etc/hosts.

    The address is free again.
    """
    web = engine.run("base", FOR_EVER, name="web")
    inside = _inside(web)
    engine.network_connect(lan, "web")
    engine.network_disconnect(lan, "web")
    with nothing_left(root):
        taken = _named(engine.network_connect(lan, "web", aliases=["www"]), lan)
        assert taken.address == "10.9.0.2/24"
        left = engine.network_disconnect(lan, "web")
        assert [item.network for item in left.state.endpoints] == ["bridge"]
    assert _inside(web) == inside
    assert "10.9.0" not in engine.exec("web", ["cat", "/etc/hosts"]).stdout.decode()
    other = engine.run("base", FOR_EVER, network=lan, ip=taken.address.partition("/")[0])
    assert _named(other, lan).address == taken.address
    assert engine.network_inspect(lan).ready


def test_connect_updates_hosts_file_of_joining_containers(engine: Engine, lan: str) -> None:
    """After a connect the hosts files of joining containers have both names at each address.

    This includes a container that joins the netns through another joining container.
    """
    web = engine.run("base", FOR_EVER, name="web")
    first = engine.run("base", FOR_EVER, name="first", network="container:web")
    second = engine.run("base", FOR_EVER, name="second", network="container:first")
    engine.network_connect(lan, "web")
    for change, addresses in (
        (engine.network_connect, {"172.17.0.1", "10.9.0.2", "fd00:9::2", "10.8.0.2"}),
        (engine.network_disconnect, {"172.17.0.1", "10.9.0.2", "fd00:9::2"}),
    ):
        change("dmz", "web")
        for joiner in (first, second):
            lines = engine.exec(joiner.id, ["cat", "/etc/hosts"]).stdout.decode().splitlines()
            names = f"{web.config.hostname} {joiner.config.hostname}"
            assert {line.partition("\t")[0] for line in lines if line.endswith(names)} == addresses


def test_connect_succeeds_while_a_joining_container_is_removed(
    engine: Engine, lan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connect succeeds while another process removes a joining container.

    The removal comes just before the files of the joining container are written.
    """
    engine.run("base", FOR_EVER, name="web")
    joiner = engine.run("base", FOR_EVER, name="joiner", network="container:web")
    write = etc_files.write

    def write_too_late(directory: str, name: str, text: str) -> None:
        if directory.endswith(joiner.id):
            engine.remove(joiner.id, force=True)
        write(directory, name, text)

    monkeypatch.setattr(etc_files, "write", write_too_late)
    assert _named(engine.network_connect(lan, "web"), lan).address == "10.9.0.2/24"
    assert [item.name for item in engine.containers()] == ["web"]


def test_connect_skips_joining_containers_of_an_earlier_netns(engine: Engine, lan: str) -> None:
    """A connect does not update a joining container that runs since before the restart.

    Such a container is still in the netns that its owner had before the restart.
    """
    engine.run("base", FOR_EVER, name="web")
    joiner = engine.run("base", FOR_EVER, name="joiner", network="container:web")
    engine.stop("web", timeout=0)
    engine.start("web")
    before = engine.exec(joiner.id, ["cat", "/etc/hosts"]).stdout
    engine.network_connect(lan, "web")
    assert engine.exec(joiner.id, ["cat", "/etc/hosts"]).stdout == before
    engine.stop("joiner", timeout=0)
    engine.network_disconnect(lan, "web")


def test_connect_to_ipv6_network_is_refused_with_ipv6_disabled(
    engine: Engine, lan: str, root: Path
) -> None:
    """A connect to an IPv6 network is refused if a sysctl disables IPv6 in the container.

    The error names the sysctl; nothing of the attempt is left.
    """
    off = {"net.ipv6.conf.default.disable_ipv6": "1"}
    web = engine.run("base", FOR_EVER, name="web", sysctls=off)
    before = _inside(web)
    with nothing_left(root), pytest.raises(UnsupportedError) as caught:
        engine.network_connect(lan, "web")
    assert str(caught.value) == (
        "cannot assign fd00:9::2/64 to eth1: IPv6 is disabled in the container\n"
        "  likely cause: net.ipv6.conf.eth1.disable_ipv6 is 1, as "
        "net.ipv6.conf.default.disable_ipv6 was\n"
        f"  try: enable IPv6 inside, or use a network without IPv6 instead of {lan}"
    )
    assert _inside(web) == before
    assert [item.network for item in engine.inspect("web").state.endpoints] == ["bridge"]


def test_default_route_uses_the_first_network_by_name(engine: Engine, lan: str) -> None:
    """The default route of each family uses the first network by name that is not internal."""
    engine.network_create("aaa", internal=True, subnet="10.7.0.0/24")
    web = engine.run("base", FOR_EVER, network=lan)
    assert _defaults(web) == {"10.9.0.1", "fd00:9::1"}
    engine.network_connect("bridge", web.id)
    assert _defaults(web) == {"172.17.42.1", "fd00:9::1"}
    engine.network_connect("dmz", web.id)
    engine.network_connect("aaa", web.id)
    assert _defaults(web) == {"172.17.42.1", "fd00:9::1"}
    engine.network_disconnect("bridge", web.id)
    assert _defaults(web) == {"10.8.0.1", "fd00:9::1"}
    engine.network_disconnect(lan, web.id)
    assert _defaults(web) == {"10.8.0.1"}
    engine.network_disconnect("dmz", web.id)
    assert _defaults(web) == set()


def test_stopped_container_can_leave_a_removed_network(engine: Engine, lan: str) -> None:
    """A stopped container can leave a removed network by the network's former name.

    The container can then be started.
    """
    engine.run("base", FOR_EVER, name="web")
    engine.network_connect(lan, "web")
    engine.stop("web", timeout=0)
    engine.network_remove(lan)
    with pytest.raises(NotFoundError, match=lan):
        engine.start("web")
    engine.network_disconnect(lan, "web")
    assert [item.network for item in engine.start("web").state.endpoints] == ["bridge"]


def test_container_with_published_port_starts_without_a_network(engine: Engine) -> None:
    """A container without a network starts, and its published port is not reserved.

    After a connect and restart the port is published.
    """
    engine.run("base", FOR_EVER, name="web", publish=["8080:80"])
    engine.network_disconnect("bridge", "web")
    assert engine.restart("web", timeout=0).state.ports == ()
    engine.network_connect("bridge", "web")
    (published,) = engine.restart("web", timeout=0).state.ports
    assert published.host_port == 8080


def test_start_waits_for_the_mac_of_an_ended_macvlan(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start waits until the MAC of an ended container's macvlan is free.

    A netns that has ended keeps its macvlan until the kernel has torn it down.
    """
    with Netlink() as netlink:
        netlink.send([rtnetlink.add_veth("eth0", "wire")])
    engine.network_create(
        "lan", driver="macvlan", parent="eth0", subnet="198.51.100.0/24", gateway="198.51.100.1"
    )
    web = engine.run("base", FOR_EVER, name="web", network="lan")
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        before.close()  # the netns ends now
        sleep(seconds)

    sleep, before = time.sleep, NetNS.at(f"/proc/{web.state.pid}/ns/net")
    engine.stop("web", timeout=0)
    monkeypatch.setattr("runtime.network.macvlan.time.sleep", wait)
    assert engine.start("web").running
    assert waited


def test_network_connections_of_a_container_survive_a_stop(engine: Engine, lan: str) -> None:
    """The networks of a stopped container can change; each start connects all of them in order."""
    web = engine.create("base", FOR_EVER, name="web")
    engine.network_connect(lan, "web", ip="10.9.0.77")
    engine.network_connect("dmz", "web")
    started = engine.start("web")
    assert [(item.network, item.interface) for item in started.state.endpoints] == [
        ("bridge", "eth0"),
        (lan, "eth1"),
        ("dmz", "eth2"),
    ]
    assert _named(started, lan).address == "10.9.0.77/24"
    engine.network_disconnect("bridge", "web")
    engine.stop("web", timeout=0)
    engine.network_disconnect("dmz", "web")
    again = engine.start("web")
    assert [(item.network, item.interface) for item in again.state.endpoints] == [(lan, "eth0")]
    assert set(links()) >= {item.veth for item in again.state.endpoints}
    assert web.id == again.id


def test_container_disconnected_from_its_last_network_has_lo(engine: Engine, lan: str) -> None:
    """A container without its last network keeps running with `lo` and can be connected again."""
    web = engine.run("base", FOR_EVER, network=lan)
    engine.network_disconnect(lan, web.id)
    assert [name for name, _, _ in _inside(web).links] == ["lo"]
    engine.network_connect("dmz", web.id)
    assert _defaults(web) == {"10.8.0.1"}


def test_connect_leaves_foreign_interface_unchanged(engine: Engine, lan: str) -> None:
    """A connect takes the next free name and leaves a foreign interface unchanged."""
    web = engine.run("base", FOR_EVER)
    with netns(web) as space, Netlink(space) as inside:
        inside.send([rtnetlink.add_bridge("eth1")])
    assert _named(engine.network_connect(lan, web.id), lan).interface == "eth2"
    engine.network_disconnect(lan, web.id)
    assert "eth1" in {name for name, _, _ in _inside(web).links}


REFUSED: dict[str, tuple[Callable[[Engine], object], type[MydockerError], str]] = {
    "twice": (lambda e: e.network_connect("bridge", "web"), ConflictError, "already"),
    "unknown network": (lambda e: e.network_connect("no", "web"), NotFoundError, "'no'"),
    "unknown container": (lambda e: e.network_connect("lan", "no"), NotFoundError, "'no'"),
    "host mode": (lambda e: e.network_connect("lan", "onhost"), InvalidError, "mode host"),
    "none": (lambda e: e.network_connect("lan", "alone"), InvalidError, "mode none"),
    "joiner": (lambda e: e.network_connect("lan", "joiner"), InvalidError, "mode container"),
    "address outside": (
        lambda e: e.network_connect("lan", "web", ip="10.1.1.1"),
        InvalidError,
        "not in the subnet",
    ),
    "address taken": (
        lambda e: e.network_connect("lan", "web", ip="10.9.0.1"),
        ConflictError,
        "in use",
    ),
    "no IPv6 there": (
        lambda e: e.network_connect("dmz", "web", ip6="fd00::5"),
        InvalidError,
        "no IPv6",
    ),
    "no address": (lambda e: e.network_connect("lan", "web", ip="x"), InvalidError, "--ip"),
    "no MAC": (lambda e: e.network_connect("lan", "web", mac="x"), InvalidError, "MAC"),
    "alias on the default": (
        lambda e: e.network_connect("bridge", "other", aliases=["a"]),
        InvalidError,
        "alias",
    ),
    "not on it": (lambda e: e.network_disconnect("lan", "web"), NotFoundError, "not connected"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=list(REFUSED))
def test_impossible_connect_or_disconnect_changes_nothing(
    engine: Engine,
    lan: str,
    root: Path,
    case: tuple[Callable[[Engine], object], type[MydockerError], str],
) -> None:
    """A refused connect or disconnect changes neither links nor record.

    The error gives the reason.
    """
    act, kind, message = case
    web = engine.run("base", FOR_EVER, name="web")
    engine.run("base", FOR_EVER, name="onhost", network="host")
    engine.run("base", FOR_EVER, name="alone", network="none")
    engine.run("base", FOR_EVER, name="joiner", network="container:web")
    engine.run("base", FOR_EVER, name="other", network="lan")
    engine.network_connect("dmz", "other")
    engine.network_disconnect("dmz", "other")
    inside, record = _inside(web), engine.inspect("web")
    with nothing_left(root), pytest.raises(kind, match=message):
        act(engine)
    assert (_inside(web), engine.inspect("web")) == (inside, record)


def test_seventeenth_interface_is_refused(engine: Engine) -> None:
    """A container's seventeenth network is refused, and the others stay connected."""
    web = engine.run("base", FOR_EVER)
    for number in range(plug.ENDS):
        engine.network_create(f"n{number}", subnet=f"10.{number}.0.0/24")
        if number < plug.ENDS - 1:
            engine.network_connect(f"n{number}", web.id)
    with pytest.raises(ConflictError, match="16 networks"):
        engine.network_connect(f"n{plug.ENDS - 1}", web.id)
    assert len(engine.inspect(web.id).state.endpoints) == plug.ENDS


def test_unused_networks_are_pruned(engine: Engine, lan: str) -> None:
    """`prune` removes networks except the default one and those of running containers."""
    engine.run("base", FOR_EVER, network=lan)
    assert [item.name for item in engine.network_prune()] == ["dmz"]
    assert [item.name for item in engine.networks()] == ["bridge", "lan"]
    assert engine.network_prune() == []


def test_announcement_leaves_arp_notify_unchanged(engine: Engine, lan: str) -> None:
    """The announcement of an address leaves arp_notify inside the container unchanged.

    With arp_notify the kernel would announce the address itself.
    """
    web = engine.run("base", FOR_EVER, network=lan)
    shown = engine.exec(web.id, ["cat", "/proc/sys/net/ipv4/conf/eth0/arp_notify"])
    assert shown.stdout == b"0\n"


def test_start_opens_no_packet_socket(
    engine: Engine, lan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start opens no packet socket, because closing one takes longer than the other steps."""
    opened: list[int] = []
    original = socket.socket.__init__

    def opening(self: socket.socket, family: int = -1, *args: Any, **kwargs: Any) -> None:
        opened.append(family)
        original(self, family, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "__init__", opening)
    engine.run("base", FOR_EVER, network=lan)
    assert socket.AF_NETLINK in opened
    assert socket.AF_PACKET not in opened


def test_announced_ipv6_address_already_accepts_packets(
    engine: Engine, lan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An IPv6 address is announced only when the kernel accepts packets for it.

    The kernel lists the address a little earlier.
    """
    early: list[Address] = []
    announce = plug.announce

    def announcing(inside: Netlink, *args: Any) -> None:
        own: Sequence[Address] = args[-1]
        early.extend(
            address for address in own if not rtnetlink_dump.route_to(inside, address).local
        )
        announce(inside, *args)

    monkeypatch.setattr(plug, "announce", announcing)
    web = engine.run("base", FOR_EVER)
    for _ in range(30):
        engine.network_connect(lan, web.id)
        engine.network_disconnect(lan, web.id)
    assert early == []


# --- killed ---------------------------------------------------------------------


CHANGING = steps(
    (store.Lock, "take"),
    (store.Store, "write_state"),
    (networking.ContainerNetworking, "_add_endpoints"),
    (manager.Networks, "take"),
    (plug, "attach"),
    (bridge, "wait_until_forwarding"),
    (plug, "unplug"),
    (manager.Networks, "release"),
    (plug, "settle"),
    (networking.ContainerNetworking, "_rewrite_files"),
    (networking.ContainerNetworking, "_apply"),
)


@pytest.mark.parametrize("step", CHANGING.values(), ids=list(CHANGING))
def test_killed_connect_or_disconnect_is_complete_or_undone(
    engine: Engine, root: Path, lan: str, step: Any
) -> None:
    """After a killed connect or disconnect, the next mydocker call completes or undoes it."""
    web = engine.run("base", FOR_EVER, name="web")
    engine.network_connect("dmz", "web")
    engine.network_disconnect("dmz", "web")
    apart = _inside(web)
    for act in ("network_connect", "network_disconnect"):
        if not (act == "network_connect" and step[1] == "unplug"):
            try:
                killed_at(step, lambda act=act: getattr(Engine(root), act)(lan, "web"))  # type: ignore[misc]
            except AssertionError:
                # The step does not occur: a disconnect neither joins nor attaches.
                assert act == "network_disconnect"
        found = engine.inspect("web")
        on = {item.network for item in found.state.endpoints}
        assert on == {item.network for item in found.connections}
        assert set(engine._networks.leases(engine.network_inspect(lan)).values()) == (
            {web.id} if lan in on else set()
        )
        ends = {item.veth for item in found.state.endpoints}
        assert {name for name in links() if name.startswith("veth")} == ends
        assert (_inside(web) == apart) == (lan not in on)
        if act == "network_connect" and lan not in on:
            engine.network_connect(lan, "web")
        if act == "network_disconnect" and lan in on:
            engine.network_disconnect(lan, "web")
    assert _inside(web) == apart
    assert os.listdir(root / "networks" / lan)
