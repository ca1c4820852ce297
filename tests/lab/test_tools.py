"""Tests of the commands `ip`, `ping` and `inside` that the lab provides."""

from __future__ import annotations

import re

import pytest

from tests.lab.labs import NETMODES, OWN_TOOLS, TOOLS, script
from tests.support.programs import python, run

REFUSED = {
    "ip frob": "ip: the object 'frob' is not one of: link, address, route, netns",
    "ip link frob": "ip: the command 'frob' is not one of: add, set, show, list, delete",
    "ip link set": "ip: the link's name is missing",
    "ip link set nosuch up": "ip: look up link nosuch: No such device",
    "ip link set br0 sideways": "ip: unknown setting 'sideways'",
    "ip link add a type veth": "ip: the other end of the veth pair is missing: give peer name PEER",
    "ip link add br0 type bridge": "ip: add bridge br0: File exists",
    "ip addr add junk dev br0": "ip: 'junk' does not appear to be an IPv4 or IPv6 interface",
    "ip addr add 10.0.0.1/8": "ip: the link's name is missing",
    "ip route add default": "ip: the gateway of the default route is missing: give via ADDRESS",
    "ip route add default via 10.1.1.1": "ip: add route default via 10.1.1.1: Network is "
    "unreachable (Nexthop has invalid gateway)",
    "ip route add default nexthop 10.1.1.1": "ip: 'nexthop' is not one of: via, dev",
    "ip route del 10.0.0.0/8": "ip: remove route 10.0.0.0/8: No such process",
    "ip -n nosuch addr": "ip: No such file or directory",
    "inside nosuch true": "inside: cannot enter the namespace 'nosuch': No such file or directory",
    "inside ../../proc/1/ns/net true": "inside: cannot enter the namespace '../../proc/1/ns/net'",
    "inside ns1 no-such": "inside: no-such: No such file or directory",
    "netmodes ping nosuch.example.com": "nosuch.example.com  no such name: ",
    "netmodes ping -W 0.1 203.0.113.99": "203.0.113.99  no reply within 0.1 s",
    "inside r1 ping -t 1 203.0.113.10": "203.0.113.10  ttl-exceeded from 192.0.2.6, ttl 64, ",
}


def test_mistakes_in_lab_tools_are_explained() -> None:
    """A mistake in the use of a lab tool gets an error with the reason, and an exit code."""
    done = script("\n".join([OWN_TOOLS, *(f"{command} || echo -- $?" for command in REFUSED)]))
    answers = re.split(r"^-- \d+\n", done.stdout, flags=re.MULTILINE)[:-1]
    for (command, expected), answer in zip(REFUSED.items(), answers, strict=True):
        assert answer.startswith(expected), command


@pytest.mark.parametrize("module", ["ip", "ping"])
def test_lab_tools_refuse_to_run_outside_a_lab(module: str) -> None:
    """Outside a lab the lab's tools do not run.

    Their error names `netmodes lab`.
    """
    source = f"""
import sys
from harness.sandbox import namespaces
from harness.lab import {module}
namespaces.MARK = namespaces.MARK / "elsewhere"
sys.exit({module}.main(["203.0.113.10"]))
"""
    done = run(python(source))
    assert done.returncode == 1
    assert "netmodes lab" in done.stderr


LINKS = """
ip link add left type veth peer name right
ip link set right netns ns1 name eth7
ip link set left mtu 1400 address 02:00:00:00:00:07 up
ip -n ns1 link set eth7 up
ip addr add 10.7.0.1/24 dev left
ip -n ns1 addr add 10.7.0.2/24 dev eth7
ip -n ns1 addr add fd07::2/64 dev eth7
ip -n ns1 route add 10.8.0.0/16 via 10.7.0.1
ip -n ns1 route add 10.9.0.0/16 dev eth7
netmodes ping 10.7.0.2
echo --
ip -n ns1 -4 -br addr show eth7
ip -n ns1 route
ip -br link show left
ip -n ns1 -6 route show fd07::/64
ip -n ns1 route del 10.8.0.0/16
ip -n ns1 route del 10.9.0.0/16
ip -n ns1 addr del 10.7.0.2/24 dev eth7
ip -n ns1 -4 -br addr show eth7
ip -n ns1 route
ip link del left
ip -n ns1 -4 -br addr | sed "s/  *[A-Z]* */ /"
"""


SHOWN = """\
eth7 UP 10.7.0.2/24
default via 192.168.2.1 dev eth0 proto static
10.7.0.0/24 dev eth7 proto kernel scope link src 10.7.0.2
10.8.0.0/16 via 10.7.0.1 dev eth7
10.9.0.0/16 dev eth7 scope link
192.168.2.0/24 dev eth0 proto kernel scope link src 192.168.2.10
left UP 02:00:00:00:00:07 <BROADCAST,MULTICAST,UP,LOWER_UP>
fd07::/64 dev eth7 proto kernel metric 256 pref medium
default via 192.168.2.1 dev eth0 proto static
192.168.2.0/24 dev eth0 proto kernel scope link src 192.168.2.10
lo 127.0.0.1/8
eth0 192.168.2.10/24
"""


@pytest.mark.parametrize("tools", TOOLS)
def test_lab_ip_prints_changes_like_iproute2(tools: str) -> None:
    """The lab's `ip` prints new and removed links, addresses and routes as iproute2 does."""
    done = script(f"{TOOLS[tools]}\n{LINKS}")
    lines = re.sub(r"@if\d+", "", done.stdout.partition("--\n")[2]).splitlines()
    assert "".join(f"{' '.join(line.split())}\n" for line in lines) == SHOWN


def test_netmodes_ping_prints_its_usage() -> None:
    """`netmodes ping --help` prints the usage, as for any other command."""
    done = run([*NETMODES, "ping", "--help"])
    assert done.stdout.startswith("usage: netmodes ping ")
