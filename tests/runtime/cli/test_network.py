"""Commands on networks and ports: Docker's names and output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from linux import rtnetlink
from linux.netlink import Netlink
from runtime.cli import main
from runtime.engine import Engine
from tests.runtime.support.inspection import links

Mydocker = Callable[..., str]


@pytest.fixture
def mydocker(
    engine: Engine,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Mydocker:
    """Return a function that runs a command: its output, or `!`, exit code and error."""
    del engine  # its fixture cleans up
    monkeypatch.setenv("MYDOCKER_ROOT", str(root))

    def run(*argv: str) -> str:
        capfd.readouterr()
        code = main.main(argv)
        captured = capfd.readouterr()
        return f"!{code} {captured.err}" if code else captured.out

    return run


def _web(mydocker: Mydocker, *options: str) -> None:
    assert mydocker("run", "-d", "--name", "web", *options, "base", "sleep", "1000")


def test_published_ports_in_ps_inspect_and_port(mydocker: Mydocker) -> None:
    """`HostConfig` has the requested ports, `NetworkSettings` the actual ones."""
    mydocker("network", "create", "--ipv6", "lan")
    _web(mydocker, "--net", "lan", "-p", "8080:80", "-p", "127.0.0.1:53:53/udp")
    head, row = mydocker("ps").splitlines()
    assert head.split()[-2:] == ["PORTS", "NAMES"]
    shown = "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:53->53/udp"
    assert shown in row
    assert mydocker("ps", "--format", "{{.Ports}}") == f"{shown}\n"
    (found,) = json.loads(mydocker("inspect", "web"))
    assert found["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
    }
    assert found["NetworkSettings"]["Ports"] == {
        "80/tcp": [
            {"HostIp": "0.0.0.0", "HostPort": "8080"},
            {"HostIp": "::", "HostPort": "8080"},
        ],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
    }
    assert mydocker("port", "web").splitlines() == [
        "80/tcp -> 0.0.0.0:8080",
        "80/tcp -> [::]:8080",
        "53/udp -> 127.0.0.1:53",
    ]
    assert mydocker("port", "web", "80") == "0.0.0.0:8080\n[::]:8080\n"
    assert mydocker("port", "web", "53/udp") == "127.0.0.1:53\n"
    assert "it is not published" in mydocker("port", "web", "53")
    mydocker("stop", "-t", "0", "web")
    assert mydocker("port", "web") == ""
    (found,) = json.loads(mydocker("inspect", "web"))
    assert found["NetworkSettings"]["Ports"] == {}
    assert "80/tcp" in found["HostConfig"]["PortBindings"]


def test_publish_all_publishes_exposed_ports(mydocker: Mydocker) -> None:
    """`port` prints the chosen host ports."""
    _web(mydocker, "-P", "--expose", "80", "--expose", "53/udp")
    rows = mydocker("port", "web").splitlines()
    assert [row.partition(" -> ")[0] for row in rows] == ["80/tcp", "53/udp"]


def test_malformed_publish_option_is_refused(mydocker: Mydocker) -> None:
    """The exit code is Docker's, and the error names the value."""
    output = mydocker("run", "-p", "x", "base", "true")
    assert output.startswith("!125 mydocker: ")
    assert "publish 'x'" in output


def test_connect_and_disconnect(mydocker: Mydocker) -> None:
    """Addresses and alias are as requested; both commands print nothing."""
    mydocker("network", "create", "--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64", "lan")
    _web(mydocker)
    options = ("--ip", "10.9.0.7", "--ip6", "fd00:9::7", "--alias", "www")
    assert mydocker("network", "connect", *options, "lan", "web") == ""
    (found,) = json.loads(mydocker("inspect", "web"))
    there = found["NetworkSettings"]["Networks"]["lan"]
    assert (there["IPAddress"], there["GlobalIPv6Address"]) == ("10.9.0.7", "fd00:9::7")
    assert there["Aliases"] == ["www"]
    (lan,) = json.loads(mydocker("network", "inspect", "lan"))
    assert [item["IPv4Address"] for item in lan["Containers"].values()] == ["10.9.0.7/24"]
    subnets = mydocker(
        "network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", "lan"
    )
    assert subnets == "10.9.0.0/24 fd00:9::/64 \n"
    assert mydocker("network", "disconnect", "-f", "lan", "web") == ""
    (found,) = json.loads(mydocker("inspect", "web"))
    assert set(found["NetworkSettings"]["Networks"]) == {"bridge"}
    assert "not connected" in mydocker("network", "disconnect", "lan", "web")


def test_prune_prints_removed_networks(mydocker: Mydocker) -> None:
    """Nothing is printed if nothing is removed; -f has no effect."""
    mydocker("network", "create", "one")
    mydocker("network", "create", "two")
    mydocker("run", "-d", "--net", "one", "base", "sleep", "1000")
    assert mydocker("network", "prune", "-f") == "Deleted Networks:\ntwo\n"
    assert mydocker("network", "prune") == ""
    assert mydocker("network", "rm", "one").startswith("!1 ")


def test_macvlan_network_is_created_and_inspected(mydocker: Mydocker) -> None:
    """It has the MTU of the host interface; options of bridges are refused."""
    with Netlink() as netlink:
        netlink.send([rtnetlink.add_veth("eth0", "wire", mtu=1400)])
    subnet = ("-d", "macvlan", "--subnet", "198.51.100.0/24", "--gateway", "198.51.100.1")
    assert mydocker("network", "create", *subnet, "-o", "parent=eth0", "lan")
    (found,) = json.loads(mydocker("network", "inspect", "lan"))
    assert (found["Driver"], found["Options"]["parent"]) == ("macvlan", "eth0")
    assert found["Options"]["com.docker.network.driver.mtu"] == "1400"
    rows = [line.split()[1:] for line in mydocker("network", "ls").splitlines()]
    assert ["lan", "macvlan", "local"] in rows
    _web(mydocker, "--net", "lan")
    shown = mydocker("exec", "web", "cat", "/sys/class/net/eth0/mtu", "/proc/net/route")
    assert shown.startswith("1400\n")
    for wrong, message in (
        (("-o", "parent=no"), "no interface no"),
        ((), "needs a parent"),
        (("-o", "parent=eth0", "-o", "icc=false"), "icc=false needs a bridge"),
    ):
        assert message in mydocker("network", "create", *subnet, *wrong, "other")
    assert "has no parent" in mydocker("network", "create", "-o", "parent=eth0", "other")
    assert "publish cannot go" in mydocker("run", "--net", "lan", "-p", "80", "base", "true")
    assert mydocker("rm", "-f", "web") == "web\n"
    assert mydocker("network", "rm", "lan") == "lan\n"
    assert "eth0" in links()


def test_docker_names_of_network_options_are_accepted(mydocker: Mydocker) -> None:
    """Docker's long names of MTU and inter-container communication mean the same."""
    long = (
        *("-o", "com.docker.network.driver.mtu=1300"),
        *("-o", "com.docker.network.bridge.enable_icc=false"),
    )
    mydocker("network", "create", *long, "lan")
    (found,) = json.loads(mydocker("network", "inspect", "lan"))
    assert found["Options"]["com.docker.network.driver.mtu"] == "1300"
    assert found["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    assert "no such option" in mydocker("network", "create", "-o", "mtu=x", "other")
