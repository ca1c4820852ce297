"""Tests of a new daemon that serves the containers of a killed one, whatever their state."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack

import dns.exception

from linux.proc import process_born
from runtime.engine import Engine
from runtime.records import ContainerRecord
from tests.runtime.conftest import FOR_EVER
from tests.runtime.daemon.dns_client import RESOLVER, ask, reply_values
from tests.runtime.support.inspection import netns, processes_titled, until

_TITLE = b"mydocker-daemon"


def test_container_without_free_ports_loses_only_its_own_dns(engine: Engine, lan: str) -> None:
    """A container that has bound all its ports loses only its own name resolution."""
    few = {"net.ipv4.ip_local_port_range": "40000 40009"}
    web = engine.run("base", FOR_EVER, name="web", network=lan, sysctls=few)
    db = engine.run("base", FOR_EVER, name="db", network=lan)
    assert reply_values(ask(db, "web")) == {"10.9.0.2"}
    (old,) = processes_titled(_TITLE)
    os.kill(old, signal.SIGKILL)
    until(lambda: not process_born(old), "the old daemon is dead")
    with ExitStack() as stack, netns(web) as space:
        for port in range(40_000, 40_010):
            taken = stack.enter_context(space.socket(socket.AF_INET, socket.SOCK_DGRAM))
            taken.bind((RESOLVER, port))
        engine.containers()
        until(lambda: _answers(db, "web"), "another daemon runs")
        assert reply_values(ask(db, "db")) == {"10.9.0.3"}


def _answers(asker: ContainerRecord, name: str) -> bool:
    try:
        return bool(reply_values(ask(asker, name, patience=0.2)))
    except (ConnectionRefusedError, dns.exception.Timeout):
        return False
