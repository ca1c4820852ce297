"""Tests of name lookups in another root directory, and of changed files of the host."""

from __future__ import annotations

import os
import signal
import socket
from ipaddress import ip_address

import pytest

from harness.testbench import lookup
from harness.testbench.lookup import by_address, by_name, host_file, inside
from harness.world.host import HostMachine
from tests.world.hosts import host

__all__ = ["host"]  # a fixture of the world's tests

HOSTS = "/etc/hosts"


def refuses() -> None:
    """Raise an error with a message."""
    raise LookupError("nothing there")


def hangs() -> None:
    """Never return."""
    signal.pause()


def ends() -> None:
    """Exit without a result."""
    os._exit(3)


def test_names_are_looked_up_in_another_root(host: HostMachine) -> None:
    """Names are looked up in the hosts file of the other root; a failed lookup has a reason."""
    assert inside(host.pid, by_name, "localhost", 4).addresses == {ip_address("127.0.0.1")}
    assert inside(host.pid, by_name, "host", 4).addresses == {ip_address("127.0.1.1")}
    assert inside(host.pid, by_name, "host").addresses == {ip_address("127.0.1.1")}
    assert inside(host.pid, by_address, "127.0.1.1") == "host"
    assert inside(host.pid, by_address, "192.0.2.1") == ""
    missing = inside(host.pid, by_name, "nobody", 4)
    assert missing.addresses == set()
    assert missing.reason


def test_caller_of_a_lookup_keeps_its_namespaces(host: HostMachine) -> None:
    """The caller keeps its root, namespaces and hostname after a lookup."""

    def where() -> tuple[os.stat_result, str, str]:
        return os.stat("/"), os.readlink("/proc/self/ns/net"), socket.gethostname()

    root, *before = where()
    assert inside(host.pid, socket.gethostname) == "host"
    now, *after = where()
    assert after == before
    assert os.path.samestat(now, root)


def test_failure_in_another_root_is_reported(host: HostMachine) -> None:
    """An error of a function in another root has the child's message.

    The error for an unknown process is raised too.
    """
    with pytest.raises(RuntimeError, match="nothing there"):
        inside(host.pid, refuses)
    with pytest.raises(RuntimeError, match="No such"):
        inside(1 << 22, refuses)


def test_child_without_a_result_is_reported(host: HostMachine) -> None:
    """If the child process ends without a result, the error names the function."""
    with pytest.raises(RuntimeError, match="ended"):
        inside(host.pid, ends)


def test_timeout_in_another_root_names_the_function(
    host: HostMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a function in another root exceeds its time limit, the error names function and limit."""
    monkeypatch.setattr(lookup, "BOUND", 0.05)
    with pytest.raises(TimeoutError, match="hangs"):
        inside(host.pid, hangs)


def test_host_file_is_replaced_and_restored(host: HostMachine) -> None:
    """A replaced file of the host is restored, even after an exception.

    A file that did not exist is removed again.
    """
    before = host.call(read, HOSTS)
    with host_file(host, "192.0.2.9 other\n", HOSTS):
        assert inside(host.pid, by_name, "other", 4).addresses == {ip_address("192.0.2.9")}
    with pytest.raises(LookupError), host_file(host, "", HOSTS):
        refuses()
    assert host.call(read, HOSTS) == before
    with host_file(host, "new\n", "/run/somewhere/new"):
        assert host.call(read, "/run/somewhere/new") == "new\n"
    assert not host.call(os.path.exists, "/run/somewhere/new")


def read(path: str) -> str:
    """Return the text of a file."""
    with open(path, encoding="utf-8") as file:
        return file.read()
