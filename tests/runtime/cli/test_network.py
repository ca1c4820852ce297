"""Tests of commands on networks and ports: Docker's names and output."""

from __future__ import annotations

import json

from linux import rtnetlink
from linux.netlink import Netlink
from tests.runtime.cli.conftest import Command
from tests.runtime.support.inspection import links


def _web(command: Command, *options: str) -> None:
    assert command("run", "-d", "--name", "web", *options, "base", "sleep", "1000")


def test_ps_inspect_and_port_show_published_ports(command: Command) -> None:
    """`ps`, `inspect` and `port` show published ports.

    `HostConfig` has the requested ports, `NetworkSettings` the actual ones.
    """
    command("network", "create", "--ipv6", "lan")
    _web(command, "--net", "lan", "-p", "8080:80", "-p", "127.0.0.1:53:53/udp")
    head, row = command("ps").splitlines()
    assert head.split()[-2:] == ["PORTS", "NAMES"]
    shown = "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:53->53/udp"
    assert shown in row
    assert command("ps", "--format", "{{.Ports}}") == f"{shown}\n"
    (found,) = json.loads(command("inspect", "web"))
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
    assert command("port", "web").splitlines() == [
        "80/tcp -> 0.0.0.0:8080",
        "80/tcp -> [::]:8080",
        "53/udp -> 127.0.0.1:53",
    ]
    assert command("port", "web", "80") == "0.0.0.0:8080\n[::]:8080\n"
    assert command("port", "web", "53/udp") == "127.0.0.1:53\n"
    assert "the port is not published" in command("port", "web", "53")
    command("stop", "-t", "0", "web")
    assert command("port", "web") == ""
    (found,) = json.loads(command("inspect", "web"))
    assert found["NetworkSettings"]["Ports"] == {}
    assert "80/tcp" in found["HostConfig"]["PortBindings"]


def test_publish_all_publishes_exposed_ports(command: Command) -> None:
    """`run -P` publishes the exposed ports, and `port` prints the chosen host ports."""
    _web(command, "-P", "--expose", "80", "--expose", "53/udp")
    rows = command("port", "web").splitlines()
    assert [row.partition(" -> ")[0] for row in rows] == ["80/tcp", "53/udp"]


def test_connect_and_disconnect_print_nothing(command: Command) -> None:
    """`network connect` assigns the requested addresses and alias.

    `connect` and `disconnect` print nothing.
    """
    command("network", "create", "--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64", "lan")
    _web(command)
    options = ("--ip", "10.9.0.7", "--ip6", "fd00:9::7", "--alias", "www")
    assert command("network", "connect", *options, "lan", "web") == ""
    (found,) = json.loads(command("inspect", "web"))
    there = found["NetworkSettings"]["Networks"]["lan"]
    assert (there["IPAddress"], there["GlobalIPv6Address"]) == ("10.9.0.7", "fd00:9::7")
    assert there["Aliases"] == ["www"]
    (lan,) = json.loads(command("network", "inspect", "lan"))
    assert [item["IPv4Address"] for item in lan["Containers"].values()] == ["10.9.0.7/24"]
    subnets = command(
        "network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", "lan"
    )
    assert subnets == "10.9.0.0/24 fd00:9::/64 \n"
    assert command("network", "disconnect", "-f", "lan", "web") == ""
    (found,) = json.loads(command("inspect", "web"))
    assert set(found["NetworkSettings"]["Networks"]) == {"bridge"}
    assert "not connected" in command("network", "disconnect", "lan", "web")


def test_prune_prints_removed_networks(command: Command) -> None:
    """`network prune` prints the removed networks, or nothing; -f has no effect."""
    command("network", "create", "one")
    command("network", "create", "two")
    command("run", "-d", "--net", "one", "base", "sleep", "1000")
    assert command("network", "prune", "-f") == "Deleted Networks:\ntwo\n"
    assert command("network", "prune") == ""
    assert command("network", "rm", "one").startswith("!1 ")


def test_macvlan_network_is_created_and_inspected(command: Command) -> None:
    """A macvlan network has the MTU of the host interface; bridge options are refused."""
    with Netlink() as netlink:
        netlink.send([rtnetlink.add_veth("eth0", "wire", mtu=1400)])
    subnet = ("-d", "macvlan", "--subnet", "198.51.100.0/24", "--gateway", "198.51.100.1")
    assert command("network", "create", *subnet, "-o", "parent=eth0", "lan")
    (found,) = json.loads(command("network", "inspect", "lan"))
    assert (found["Driver"], found["Options"]["parent"]) == ("macvlan", "eth0")
    assert found["Options"]["com.docker.network.driver.mtu"] == "1400"
    rows = [line.split()[1:] for line in command("network", "ls").splitlines()]
    assert ["lan", "macvlan", "local"] in rows
    _web(command, "--net", "lan")
    shown = command("exec", "web", "cat", "/sys/class/net/eth0/mtu", "/proc/net/route")
    assert shown.startswith("1400\n")
    for wrong, message in (
        (("-o", "parent=no"), "interface on this host: no"),
        ((), "needs a parent"),
        (("-o", "parent=eth0", "-o", "icc=false"), "icc=false needs the driver bridge"),
    ):
        assert message in command("network", "create", *subnet, *wrong, "other")
    assert "has no parent" in command("network", "create", "-o", "parent=eth0", "other")
    assert "cannot publish ports" in command("run", "--net", "lan", "-p", "80", "base", "true")
    assert command("rm", "-f", "web") == "web\n"
    assert command("network", "rm", "lan") == "lan\n"
    assert "eth0" in links()


def test_docker_names_of_network_options_are_accepted(command: Command) -> None:
    """Docker's long option names for the MTU and inter-container communication are accepted."""
    given = {
        "com.docker.network.driver.mtu": "1300",
        "com.docker.network.bridge.enable_icc": "false",
    }
    words = [word for key, value in given.items() for word in ("-o", f"{key}={value}")]
    command("network", "create", *words, "lan")
    (found,) = json.loads(command("network", "inspect", "lan"))
    assert given.items() <= found["Options"].items()
    assert "unknown option" in command("network", "create", "-o", "mtu=x", "other")
