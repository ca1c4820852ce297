"""Tests of the network modes: the netns, its contents, and refused options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linux import rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS
from runtime.engine import Engine
from runtime.errors import ConflictError, InvalidError, MydockerError, NotFoundError
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import links, namespace, netns, network, nothing_left


def test_mode_bridge_has_address_and_default_route(engine: Engine) -> None:
    """Mode bridge gives `lo` and `eth0`, both up, with one default route.

    `eth0` has the address 172.17.0.1/16 and the MAC of that address.
    """
    web = engine.run("base", FOR_EVER)
    with netns(web) as inside:
        seen = network(inside)
    assert seen.links == [
        ("eth0", "02:42:ac:11:00:01", True),
        ("lo", "00:00:00:00:00:00", True),
    ]
    assert seen.addresses == ["127.0.0.1/8", "172.17.0.1/16", "::1/128"]
    assert [route for route in seen.routes if route[0] != "::1/128"] == [
        ("172.17.0.0/16", "None"),
        ("None", "172.17.42.1"),
    ]


def test_ipv4_network_has_no_ipv6_address(engine: Engine) -> None:
    """On an IPv4 network `eth0`, its peer and the bridge have no IPv6 address.

    Not even a link-local address is there; `lo` keeps ::1.
    """
    web = engine.run("base", FOR_EVER)
    for space in (netns(web), NetNS.own()):
        with space, Netlink(space) as netlink:
            every = {str(item.address.ip) for item in rtnetlink_dump.addresses(netlink)}
            assert {item for item in every if ":" in item} == {"::1"}
    with netns(web) as inside, inside.entered():
        assert Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").read_text() == "1\n"


def test_joining_container_resolves_both_names(engine: Engine) -> None:
    """A joining container resolves both containers' names to the shared address.

    Both containers have the same resolvers.
    """
    engine.run("base", FOR_EVER, name="web", hostname="web", dns=["192.0.2.1"])
    engine.run("base", FOR_EVER, name="one", network="container:web")
    hostname = engine.exec("one", ["hostname"]).stdout.decode().strip()
    hosts = engine.exec("one", ["cat", "/etc/hosts"]).stdout.decode()
    assert f"172.17.0.1\tweb {hostname}\n" in hosts
    assert engine.exec("one", ["cat", "/etc/resolv.conf"]).stdout == b"nameserver 192.0.2.1\n"


def test_joining_container_keeps_lo_after_the_owner_stops(engine: Engine) -> None:
    """A joining container keeps the netns with `lo` after the owner of the netns stops.

    The veth pair and the address are released.
    """
    web = engine.run("base", FOR_EVER, name="web")
    joiner = engine.run("base", FOR_EVER, network="container:web")
    shared = namespace(joiner, "net")
    for kind in ("uts", "ipc", "cgroup"):
        assert namespace(joiner, kind) not in (namespace(web, kind), namespace(None, kind))
    engine.stop("web")
    assert namespace(joiner, "net") == shared
    assert list(links(netns(joiner))) == ["lo"]
    assert web.state.endpoints[0].veth not in links()
    assert engine.run("base", FOR_EVER).state.endpoints[0].address == "172.17.0.1/16"


Case = tuple[Callable[[Engine], object], type[MydockerError], str]


def _run(**options: Any) -> Callable[[Engine], object]:
    return lambda engine: engine.run("base", FOR_EVER, **options)


def _joins_stopped(engine: Engine) -> object:
    return engine.run("base", FOR_EVER, network="container:stopped")


REFUSED: dict[str, Case] = {
    "unknown container": (_run(network="container:nope"), NotFoundError, "nope"),
    "stopped container": (_joins_stopped, NotFoundError, "stopped is not running"),
    "unknown network": (
        _run(network="nope"),
        NotFoundError,
        "(?s)'nope'.* no such mode.*bridge, none",
    ),
    "unknown mode": (_run(network="host:1"), InvalidError, "host:1"),
    "name taken": (_run(name="stopped"), ConflictError, "stopped"),
    "address outside": (_run(ip="10.0.0.1"), InvalidError, r"10\.0\.0\.1"),
    "gateway's address": (_run(ip="172.17.42.1"), ConflictError, r"172\.17\.42\.1"),
    "network's address": (_run(ip="172.17.0.0"), InvalidError, r"172\.17\.0\.0"),
    "no IPv6 here": (_run(ip6="fd00::1"), InvalidError, "fd00::1"),
    "unknown sysctl": (_run(sysctls={"net.ipv4.nope": "1"}), InvalidError, r"net\.ipv4\.nope"),
    "no such image": (lambda engine: engine.run("nope", FOR_EVER), NotFoundError, "nope"),
    "no such command": (lambda engine: engine.run("base", ["nope"]), MydockerError, "nope"),
    "not executable": (lambda engine: engine.run("base", ["/etc/passwd"]), MydockerError, "Perm"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=list(REFUSED))
def test_refused_start_names_its_cause_and_leaves_nothing(
    engine: Engine, root: Path, case: Case
) -> None:
    """A refused start names its cause and leaves nothing of the attempt.

    No link, address, lease, process, mount, descriptor or file is left.
    """
    attempt, kind, message = case
    engine.run("base", FOR_EVER, name="stopped")
    engine.stop("stopped")
    with nothing_left(root), pytest.raises(kind, match=message):
        attempt(engine)
    assert engine.run("base", FOR_EVER).state.endpoints[0].address == "172.17.0.1/16"


def test_sysctls_are_set_in_the_container_only(engine: Engine) -> None:
    """Sysctls of a container are set in its namespaces only.

    Sysctls of the network are set from outside the container's file system, those of IPC from
    inside.
    """
    wanted = {"net.ipv4.conf.eth0.arp_ignore": "1", "kernel.shmmni": "1234"}
    web = engine.run("base", FOR_EVER, sysctls=wanted)
    shown = engine.exec(
        web.id,
        ["cat", "/proc/sys/net/ipv4/conf/eth0/arp_ignore", "/proc/sys/kernel/shmmni"],
    )
    assert shown.stdout.split() == [b"1", b"1234"]
    assert Path("/proc/sys/kernel/shmmni").read_text().strip() != "1234"
