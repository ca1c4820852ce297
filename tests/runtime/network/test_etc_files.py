"""Tests of a container's resolv.conf and hosts file."""

from __future__ import annotations

import pytest

from runtime.network.etc_files import extra_hosts, resolv_conf

STUB = "nameserver 127.0.0.53\noptions edns0\nsearch example.com\n"


@pytest.mark.parametrize(
    ("host", "behind", "expected"),
    [
        ("nameserver 192.0.2.1\n", "", "nameserver 192.0.2.1\n"),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.1\n", "", "nameserver 192.0.2.1\n"),
        (STUB, "nameserver 192.0.2.9\n", "nameserver 192.0.2.9\n"),
        (STUB, "", "options edns0\nsearch example.com\n"),
        ("nameserver ::1\nnameserver fe80::1%eth0\n", "", "nameserver fe80::1%eth0\n"),
        ("# nameserver 127.0.0.1\nnameserver x\n", "", "# nameserver 127.0.0.1\nnameserver x\n"),
        ("", "", "\n"),
    ],
)
def test_resolv_conf_excludes_resolvers_on_the_host_loopback(
    host: str, behind: str, expected: str
) -> None:
    """resolv.conf omits resolvers on the host's loopback, which a container cannot reach.

    Instead, resolv.conf lists the resolvers behind the host's stub.
    """
    assert resolv_conf(host, behind) == expected


def test_extra_hosts_are_lines_of_the_hosts_file() -> None:
    """An extra host is a line of the hosts file, the address first (hosts(5)).

    An IPv6 address keeps its colons.
    """
    assert extra_hosts(["db:192.0.2.7", "six:2001:db8::7"]) == "192.0.2.7\tdb\n2001:db8::7\tsix\n"
