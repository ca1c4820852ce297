"""Sysctls of a namespace, read and written from outside it."""

from __future__ import annotations

import pytest

from linux import netns, rtnetlink
from linux.netlink import Netlink
from linux.netns import NetNS

FORWARD = "net.ipv4.ip_forward"


def test_sysctl_belongs_to_its_namespace(space: NetNS) -> None:
    """A value written in one namespace is read there and in no other."""
    with NetNS.new() as other, NetNS.own() as own:
        before = netns.read_sysctls(own, [FORWARD])
        netns.write_sysctls(space, {FORWARD: 1, "net.ipv4.ip_default_ttl": "77"})
        netns.write_sysctls(other, {FORWARD: 0})
        assert netns.read_sysctls(space, [FORWARD, "net.ipv4.ip_default_ttl"]) == {
            FORWARD: "1",
            "net.ipv4.ip_default_ttl": "77",
        }
        assert netns.read_sysctls(other, [FORWARD]) == {FORWARD: "0"}
        assert netns.read_sysctls(own, [FORWARD]) == before


def test_white_space_in_sysctl_is_folded(space: NetNS) -> None:
    """A value of several numbers reads as one line with single blanks."""
    netns.write_sysctls(space, {"net.ipv4.ip_local_port_range": "2000 3000"})
    key = "net.ipv4.ip_local_port_range"
    assert netns.read_sysctls(space, [key]) == {key: "2000 3000"}


def test_empty_value_clears_a_mask(space: NetNS) -> None:
    """The value before is not empty."""
    key = "net.ipv6.icmp.ratemask"
    assert netns.read_sysctls(space, [key])[key]
    netns.write_sysctls(space, {key: ""})
    assert netns.read_sysctls(space, [key]) == {key: ""}


def test_slash_in_key_stands_for_a_dot_in_interface_name(space: NetNS) -> None:
    """A slash in a key stands for a dot in a name, as in sysctl.d(5)."""
    with Netlink(space) as netlink:
        netlink.send([rtnetlink.add_bridge("br0.7")])
    key = "net.ipv4.conf.br0/7.forwarding"
    netns.write_sysctls(space, {key: 1})
    assert netns.read_sysctls(space, [key]) == {key: "1"}


def test_missing_sysctl_is_named(space: NetNS) -> None:
    """An unknown key is an error that names it, read or written."""
    with pytest.raises(FileNotFoundError, match=r"net/ipv4/nothing"):
        netns.read_sysctls(space, [FORWARD, "net.ipv4.nothing"])
    with pytest.raises(FileNotFoundError, match=r"net\.ipv4\.nothing = 1: No such file"):
        netns.write_sysctls(space, {"net.ipv4.nothing": 1})


def test_refused_sysctl_value_is_named(space: NetNS) -> None:
    """A value the kernel does not take is an error that names key and value."""
    with pytest.raises(OSError, match=r"net\.ipv4\.ip_default_ttl = 0: Invalid argument"):
        netns.write_sysctls(space, {FORWARD: 1, "net.ipv4.ip_default_ttl": 0})
    assert netns.read_sysctls(space, [FORWARD]) == {FORWARD: "1"}
