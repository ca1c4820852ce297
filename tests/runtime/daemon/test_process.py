"""Tests of the process of the DNS daemon, which is detached from its caller."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import dns.message
import pytest

from runtime.daemon import daemon
from runtime.engine import Engine
from tests.runtime.conftest import FOR_EVER
from tests.runtime.daemon.dns_client import RESOLVER, ask, reply_values
from tests.runtime.support.inspection import netns, processes_titled, until


def test_daemon_process_is_detached_from_its_caller(engine: Engine, root: Path, lan: str) -> None:
    """The daemon has its own session, works in `/`, writes into its log, and ends when unused."""
    web = engine.run("base", FOR_EVER, network=lan)
    assert reply_values(ask(web, web.name)) == {"10.9.0.2"}
    (pid,) = processes_titled(b"mydocker-daemon")
    assert os.getsid(pid) != os.getsid(0)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    opened = sorted(os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2))
    assert opened == ["/dev/null", *[f"{root}/daemon.log"] * 2]
    engine.remove(web.id, force=True)
    assert not processes_titled(b"mydocker-daemon")


def test_daemon_survives_a_client_that_closes_early(engine: Engine, lan: str) -> None:
    """A client that closes its connection before the replies does not end the daemon (SIGPIPE)."""
    web = engine.run("base", FOR_EVER, network=lan)
    query = dns.message.make_query(web.name, "A").to_wire()
    assert reply_values(ask(web, web.name)) == {"10.9.0.2"}
    (before,) = processes_titled(b"mydocker-daemon")
    with netns(web) as space:
        for _ in range(20):
            with space.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.connect((RESOLVER, 53))
                client.sendall((len(query).to_bytes(2, "big") + query) * 20)
    assert reply_values(ask(web, web.name)) == {"10.9.0.2"}
    assert processes_titled(b"mydocker-daemon") == {before}


def test_daemon_writes_its_own_error_into_the_log(
    engine: Engine, root: Path, lan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon writes its own error into its log, not to its caller's stderr.

    The daemon is a fork of its caller, and never returns into the caller's code.
    """

    def broken(root: str, listening: int) -> None:
        raise RuntimeError(f"broken in {root}, {os.fstat(listening).st_mode:o}")

    monkeypatch.setattr(daemon, "main", broken)
    engine.run("base", FOR_EVER, network=lan)
    log = root / "daemon.log"
    error = f"RuntimeError: broken in {root}, 14"
    until(lambda: log.exists() and error in log.read_text(), "the log has the error")
