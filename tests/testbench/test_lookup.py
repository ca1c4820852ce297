"""Names as the C library of another place has them, and the host's files in other words."""

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

__all__ = ["host"]  # the fixture is the world's tests'

HOSTS = "/etc/hosts"


def refuses() -> None:
    """Fail with words."""
    raise LookupError("nothing there")


def hangs() -> None:
    """Come to no end by oneself."""
    signal.pause()


def ends() -> None:
    """End without a word."""
    os._exit(3)


def test_names_are_those_of_the_other_root(host: HostMachine) -> None:
    """By its hosts file; a family that the name does not have is no address, with a reason."""
    assert inside(host.pid, by_name, "localhost", 4).addresses == {ip_address("127.0.0.1")}
    assert inside(host.pid, by_name, "host", 4).addresses == {ip_address("127.0.1.1")}
    assert inside(host.pid, by_name, "host").addresses == {ip_address("127.0.1.1")}
    assert inside(host.pid, by_address, "127.0.1.1") == "host"
    assert inside(host.pid, by_address, "192.0.2.1") == ""
    missing = inside(host.pid, by_name, "nobody", 4)
    assert missing.addresses == set()
    assert missing.reason


def test_the_caller_stays_where_it_is(host: HostMachine) -> None:
    """Root, namespaces and hostname are its own afterwards."""

    def where() -> tuple[os.stat_result, str, str]:
        return os.stat("/"), os.readlink("/proc/self/ns/net"), socket.gethostname()

    root, *before = where()
    assert inside(host.pid, socket.gethostname) == "host"
    now, *after = where()
    assert after == before
    assert os.path.samestat(now, root)


def test_a_failure_is_told(host: HostMachine) -> None:
    """With the other side's words; for a process that is not there too."""
    with pytest.raises(RuntimeError, match="nothing there"):
        inside(host.pid, refuses)
    with pytest.raises(RuntimeError, match="No such"):
        inside(1 << 22, refuses)


def test_an_end_without_a_word_is_told(host: HostMachine) -> None:
    """As what it is."""
    with pytest.raises(RuntimeError, match="ended"):
        inside(host.pid, ends)


def test_what_takes_too_long_is_ended(host: HostMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an error that names it."""
    monkeypatch.setattr(lookup, "BOUND", 0.05)
    with pytest.raises(TimeoutError, match="hangs"):
        inside(host.pid, hangs)


def test_a_file_says_something_else_for_a_while(host: HostMachine) -> None:
    """Then what it said before, also after a failure; one that was not there is gone again."""
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
    """What a file says."""
    with open(path, encoding="utf-8") as file:
        return file.read()
