"""Tests of published ports on the host: parsed, reserved, redirected and released.

The suites test reachability; these tests are about mydocker's state.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from linux.netlink import NetlinkError
from linux.netns import NetNS
from linux.nftables import Nft, Table, add_chain, del_table
from runtime import store
from runtime.container import lifecycle, networking, start
from runtime.engine import Engine
from runtime.errors import ConflictError, InvalidError, MydockerError, UnsupportedError
from runtime.init import status_pipe
from runtime.network import firewall, ports
from runtime.records import ContainerRecord
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import netns, nothing_left, tables, until
from tests.runtime.support.killing import Step, killed_at, steps

# --- reserved ------------------------------------------------------------------------


def _free(port: int, kind: int = socket.SOCK_STREAM, address: str = "") -> bool:
    """Return whether a server with SO_REUSEADDR could listen on the port."""
    with socket.socket(socket.AF_INET, kind) as server:
        if kind == socket.SOCK_STREAM:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((address, port))
            if kind == socket.SOCK_STREAM:
                server.listen()
        except OSError:
            return False
    return True


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_published_port_is_reserved_while_the_container_runs(engine: Engine, kind: str) -> None:
    """No process can listen on a published port of any address until the container stops."""
    number = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    web = engine.run("base", FOR_EVER, publish=[f"8080:80/{kind}"])
    assert [(item.address, item.host_port, item.port) for item in web.state.ports] == [
        ("0.0.0.0", 8080, 80)
    ]
    assert not _free(8080, number)
    assert not _free(8080, number, "127.0.0.1")
    assert _free(8080, socket.SOCK_DGRAM if kind == "tcp" else socket.SOCK_STREAM)
    engine.stop(web.id, timeout=0)
    assert _free(8080, number)
    assert engine.inspect(web.id).state.ports == ()


def test_kernel_releases_published_port_when_pid_1_is_killed(engine: Engine) -> None:
    """The kernel releases a published port and its rules when pid 1 is killed.

    No mydocker process has to run.
    """
    web = engine.run("base", FOR_EVER, publish=["8080:80"])
    assert ports.table(web.id) in tables()
    os.kill(web.state.pid, signal.SIGKILL)
    until(lambda: _free(8080), "the port is free")
    until(lambda: ports.table(web.id) not in tables(), "the rules are gone")


def test_flush_does_not_change_rules_of_published_ports(engine: Engine) -> None:
    """An operator cannot delete the table of published ports.

    Repair restores the table of networks.
    """
    web = engine.run("base", FOR_EVER, publish=["8080:80"])
    with Nft() as nft:
        with pytest.raises(NetlinkError, match="not permitted"):
            nft.apply([del_table(ports.table(web.id))])
        nft.apply([del_table(firewall.TABLE)])
    assert tables() == [ports.table(web.id)]
    engine.repair()
    assert set(tables()) == {firewall.TABLE, ports.table(web.id)}


def test_time_wait_connections_do_not_block_a_published_port(engine: Engine) -> None:
    """Connections of a host's server in TIME_WAIT do not block a published port."""
    with socket.create_server(("127.0.0.1", 8080)) as server:
        client = socket.create_connection(("127.0.0.1", 8080))
        accepted, _ = server.accept()
        accepted.close()
        client.close()
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("", 8080))
    engine.run("base", FOR_EVER, publish=["8080:80"])


def test_relayed_connections_do_not_block_a_published_port(engine: Engine) -> None:
    """TIME_WAIT connections of an earlier container's relay do not block a published port."""
    engine.network_create("lan", ipv6=True)
    serve = "while :; do echo hello | nc -l -p 80; done"
    web = engine.run("base", ["sh", "-c", serve], network="lan", publish=["8080:80"])

    def answered() -> bool:
        """Return whether the container answers; until it listens, the relay resets connections."""
        with suppress(ConnectionResetError), socket.create_connection(("::1", 8080)) as client:
            return client.makefile("rb").read() == b"hello\n"  # to the end: the container closes
        return False

    until(answered, "the container serves")
    engine.stop(web.id, timeout=0)
    with socket.socket(socket.AF_INET6) as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("::1", 8080))
    engine.start(web.id)


def test_chosen_host_port_is_free_in_both_families(engine: Engine) -> None:
    """A chosen host port is free in both families and recorded.

    From a range, the first free port is chosen.
    """
    engine.network_create("lan", ipv6=True)
    web = engine.run("base", FOR_EVER, network="lan", publish=["80", "8000-8009:81"])
    by_port: dict[int, set[tuple[str, int]]] = {80: set(), 81: set()}
    for item in web.state.ports:
        by_port[item.port].add((item.address, item.host_port))
    (chosen,) = {port for _, port in by_port[80]}
    assert chosen > 1023
    assert {address for address, _ in by_port[80]} == {"0.0.0.0", "::"}
    assert by_port[81] == {("0.0.0.0", 8000), ("::", 8000)}
    with socket.create_server(("::1", 8001), family=socket.AF_INET6):
        other = engine.run("base", FOR_EVER, network="lan", publish=["8000-8009:81"])
    assert {item.host_port for item in other.state.ports} == {8002}


def test_publish_all_publishes_every_exposed_port(engine: Engine) -> None:
    """With -P each exposed port gets a free host port; without -P it is not published."""
    web = engine.run("base", FOR_EVER, expose=["80", "53/udp"], publish_all=True)
    assert {(item.port, item.protocol) for item in web.state.ports} == {(80, "tcp"), (53, "udp")}
    assert len({item.host_port for item in web.state.ports}) == 2
    assert engine.run("base", FOR_EVER, expose=["80"]).state.ports == ()
    both = engine.run("base", FOR_EVER, expose=["80"], publish=["8080:80"], publish_all=True)
    assert [(item.port, item.host_port) for item in both.state.ports] == [(80, 8080)]


REFUSED: dict[str, tuple[dict[str, Any], type[MydockerError], str]] = {
    "in use by a container": ({"publish": ["8080:80"]}, ConflictError, r"8080/tcp .* in use"),
    "in use by a program": ({"publish": ["9090:80"]}, ConflictError, r"9090/tcp .* in use"),
    "the last of several": ({"publish": ["7000-7005:1-6", "9090:80"]}, ConflictError, "9090"),
    "all of a range": ({"publish": ["8080-8080:80"]}, ConflictError, "8080"),
    "twice": ({"publish": ["7000:80", "7000:81"]}, ConflictError, "7000"),
    "does not have this address": (
        {"publish": ["192.0.2.1:7000:80"]},
        InvalidError,
        "does not have this address",
    ),
    "no IPv6 there": ({"publish": ["[::1]:7000:80"]}, InvalidError, "no IPv6 address"),
    "internal": ({"publish": ["7000:80"], "network": "closed"}, InvalidError, "internal"),
    "malformed": ({"publish": ["x"]}, InvalidError, "'x'"),
    "malformed expose": ({"expose": ["x"]}, InvalidError, "'x'"),
    "host": ({"publish": ["7000:80"], "network": "host"}, InvalidError, "publish"),
    "none": ({"publish_all": True, "network": "none"}, InvalidError, "publish"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=list(REFUSED))
def test_refused_published_port_leaves_nothing(
    engine: Engine, root: Path, case: tuple[dict[str, Any], type[MydockerError], str]
) -> None:
    """The error for a refused published port names the port or the option.

    No container, rule or socket is left.
    """
    options, kind, message = case
    engine.network_create("closed", internal=True)
    engine.run("base", FOR_EVER, publish=["8080:80"])
    with (
        socket.create_server(("127.0.0.1", 9090)),
        nothing_left(root),
        pytest.raises(kind, match=message),
    ):
        engine.run("base", FOR_EVER, **options)
    assert _free(7000)


def test_sctp_port_is_published_with_kernel_support(engine: Engine) -> None:
    """An SCTP port is published only if the kernel supports SCTP.

    Without that support no process could listen on the port.
    """
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        with pytest.raises(UnsupportedError, match="does not support sctp"):
            engine.run("base", FOR_EVER, publish=["8080:80/sctp"])
    else:
        web = engine.run("base", FOR_EVER, publish=["8080:80/sctp"])
        assert [item.protocol for item in web.state.ports] == ["sctp"]


def test_too_many_ports_on_the_ipv6_loopback_are_refused(
    engine: Engine, lan: str, root: Path
) -> None:
    """Too many ports on `::1` are refused with a remedy, and nothing is left."""
    ports = "8000-8299:80-379"
    with (
        nothing_left(root),
        pytest.raises(UnsupportedError, match="300 ports on the IPv6 loopback"),
    ):
        engine.run("base", FOR_EVER, network=lan, publish=[ports])
    engine.run("base", FOR_EVER, network=lan, publish=[f"0.0.0.0:{ports}"])


def test_ports_are_reserved_if_one_message_cannot_carry_all_descriptors(engine: Engine) -> None:
    """All published ports are reserved, even if one message cannot carry their descriptors."""
    web = engine.run("base", FOR_EVER, publish=["8000-8299:80-379"])
    assert len(web.state.ports) == 300
    for port in range(8000, 8300):
        with socket.socket() as opened, pytest.raises(OSError, match="in use"):
            opened.bind(("0.0.0.0", port))
    moved = engine.network_create("more", subnet="10.99.0.0/24")
    assert len(engine.network_connect(moved.name, web.id).state.ports) == 300


# --- redirected -----------------------------------------------------------------------


def _called(web: ContainerRecord) -> str:
    """Return the client address that a listener on port 80 sees when the host connects.

    Return `""` if the connection is refused.
    """
    with netns(web) as space, space.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("", 80))
        listener.listen()
        listener.settimeout(10)
        try:
            with socket.create_connection(("127.0.0.1", 8080), 10):
                accepted, caller = listener.accept()
        except ConnectionRefusedError:
            return ""
        accepted.close()
        return str(caller[0])


def test_published_port_stays_reserved_without_a_network(engine: Engine) -> None:
    """A published port stays reserved while its container has no network.

    Connections to the port are refused until the container is connected again.
    """
    web = engine.run("base", FOR_EVER, publish=["8080:80"])
    engine.network_disconnect("bridge", web.id)
    assert not _called(web)
    assert not _free(8080)
    engine.network_connect("bridge", web.id)
    assert _called(web) == "172.17.42.1"


def test_forged_frame_does_not_reach_the_host_loopback(engine: Engine) -> None:
    """A container's forged frame to 127.0.0.1 reaches no service of the host.

    The bridge has `route_localnet`, for connections from the host to published ports. A frame to
    the bridge's own address arrives, as a control. Without the guard rules, the forged frame
    arrives too.
    """
    web = engine.run("base", FOR_EVER, publish=["8080:80"])
    bridge = engine.network_inspect("bridge").bridge
    assert _routes_localnet(bridge)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("", 5353))
        service.settimeout(10)

        def first_word(sender: ContainerRecord) -> bytes:
            with netns(sender) as inside:
                _forge(inside, sender, "127.0.0.1", b"forged")
                _forge(inside, sender, "172.17.42.1", b"control")
            word = service.recv(64)
            if word != b"control":
                assert service.recv(64) == b"control"
            return word

        assert first_word(web) == b"control"
        with Nft() as nft:
            nft.apply([del_table(firewall.TABLE)])  # the container's own guard remains
        assert first_word(web) == b"control"
        other = engine.run("base", FOR_EVER)  # restores the network's guard
        os.kill(web.state.pid, signal.SIGKILL)
        until(lambda: ports.table(web.id) not in tables(), "the rules are gone")
        assert first_word(other) == b"control"
        with Nft() as nft:
            nft.apply([del_table(firewall.TABLE)])
        assert first_word(other) == b"forged"
        engine.containers()
        assert not _routes_localnet(bridge)
        assert first_word(other) == b"control"


def test_route_localnet_is_reset_without_published_ports(engine: Engine) -> None:
    """`route_localnet` of a bridge is reset when its last published port is gone.

    Another bridge with published ports keeps the setting.
    """
    bridges = [engine.network_create(name).bridge for name in ("lan", "dmz")]
    one = engine.run("base", FOR_EVER, network="lan", publish=["8080:80"])
    engine.run("base", FOR_EVER, network="dmz", publish=["8081:80"])
    assert [_routes_localnet(bridge) for bridge in bridges] == [True, True]
    engine.run("base", FOR_EVER, name="two", network="lan", publish=["8082:80"])
    engine.remove(one.id, force=True)
    assert [_routes_localnet(bridge) for bridge in bridges] == [True, True]
    engine.remove("two", force=True)
    assert [_routes_localnet(bridge) for bridge in bridges] == [False, True]


def _routes_localnet(bridge: str) -> bool:
    return Path(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet").read_text() == "1\n"


def _forge(inside: NetNS, web: ContainerRecord, target: str, word: bytes) -> None:
    """Send a datagram to the bridge's MAC, with any IP destination."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    source = web.state.endpoints[0].address.partition("/")[0]
    frame = Ether(src=web.state.endpoints[0].mac, dst="02:42:ac:11:2a:01")
    frame = frame / IP(src=source, dst=target) / UDP(sport=5353, dport=5353) / word
    with inside.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        wire.send(bytes(frame))


# --- killed ------------------------------------------------------------------------------

STARTING = steps(
    (ports, "reserve"),
    (networking.ContainerNetworking, "_publish"),
    (ports, "redirect"),
    (ports, "dnat_rules"),
    (start, "rootfs"),
    (start, "start"),
    (status_pipe, "send_descriptors"),
    (networking.ContainerNetworking, "attach"),
    (networking.ContainerNetworking, "register"),
    (networking.ConnectedContainer, "close"),
    (lifecycle.Lifecycle, "start"),
    (status_pipe.InitReport, "pid"),
    (status_pipe.InitReport, "end"),
    (store.Store, "write_state"),
)


@pytest.mark.parametrize("step", STARTING.values(), ids=list(STARTING))
def test_port_of_a_killed_start_is_published_or_free(
    engine: Engine, root: Path, step: Step
) -> None:
    """The port of a killed start is either published, or free without any rule."""
    engine.run("base", FOR_EVER, name="first")
    with nothing_left(root):
        killed_at(step, lambda: Engine(root).run("base", FOR_EVER, name="web", publish=["8080:80"]))
        until(lambda: not _starting(engine), "the killed start's child has ended")
        found = {item.name: item for item in engine.containers()}.get("web")
        if found is not None and found.running:
            assert _called(found) == "172.17.42.1"
        else:
            until(lambda: _free(8080), "the port is free")
            until(lambda: tables() == [firewall.TABLE], "the rules are gone")
        if found is not None:
            engine.remove("web", force=True)
        # Name and port are free, with or without remains to remove.
        engine.run("base", FOR_EVER, name="web", publish=["8080:80"])
        engine.remove("web", force=True)
    assert _free(8080)


@pytest.mark.parametrize("way", ["run", "start"])
@pytest.mark.parametrize("step", STARTING.values(), ids=list(STARTING))
def test_port_of_a_killed_start_is_free_for_the_next_start(
    engine: Engine, lan: str, root: Path, step: Step, way: str
) -> None:
    """A start waits for the end of a killed start's container, so that its port is free.

    A running container keeps its port.
    """
    doomed, published = Engine(root), ["8080:80", "8080:80/udp"]
    engine.create("base", FOR_EVER, name="next", network=lan, publish=published)
    killed_at(
        step, lambda: doomed.run("base", FOR_EVER, name="web", network=lan, publish=published)
    )
    try:
        if way == "start":
            engine.start("next")
        else:
            engine.run("base", FOR_EVER, network=lan, publish=published)
    except ConflictError:
        assert engine.inspect("web").running


def _starting(engine: Engine) -> bool:
    return any(item.state.status in ("starting", "removing") for item in engine.containers())


MOVING: dict[str, Callable[[Engine], object]] = {
    "connect": lambda e: e.network_connect("aaa", "web"),
    "disconnect": lambda e: e.network_disconnect("aaa", "web"),
}


@pytest.mark.parametrize(
    "step", steps((networking.ContainerNetworking, "_publish"), (ports, "redirect")).values()
)
def test_next_command_completes_a_killed_move_of_a_port_to_another_network(
    engine: Engine, root: Path, step: Step
) -> None:
    """If a mydocker call that moves a port is killed, the next call completes the move.

    The port then leads to the address in the container's record.
    """
    engine.network_create("aaa", subnet="10.9.0.0/24")
    engine.run("base", FOR_EVER, name="web", publish=["8080:80"])
    for move in MOVING.values():
        killed_at(step, lambda move=move: move(Engine(root)))  # type: ignore[misc] # bound now
        found = engine.inspect("web")
        on = {item.network for item in found.state.endpoints}
        assert _called(found) == ("10.9.0.1" if "aaa" in on else "172.17.42.1")
        if len(on) == 1 and move is MOVING["connect"]:
            move(engine)
    assert Table("inet", f"mydocker-{found.id[:12]}") in tables()
    with Nft() as nft, pytest.raises(NetlinkError):
        nft.apply([add_chain(ports.table(found.id), "mine")])
