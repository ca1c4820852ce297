"""Announcement of a container's addresses; `suites/layer2` tests that neighbours receive it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import pytest

from linux import rtnetlink_dump
from linux.netlink import Netlink
from runtime.engine import Engine
from runtime.network import endpoint
from runtime.network.endpoint import announce
from runtime.records import Address
from tests.runtime.conftest import FOR_EVER


def test_announcement_leaves_arp_notify_unchanged(engine: Engine, lan: str) -> None:
    """With arp_notify the kernel would announce, but the setting inside stays unchanged."""
    web = engine.run("base", FOR_EVER, network=lan)
    told = engine.exec(web.id, ["cat", "/proc/sys/net/ipv4/conf/eth0/arp_notify"])
    assert told.stdout == b"0\n"


def test_start_opens_no_packet_socket(
    engine: Engine, lan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing a packet socket takes the kernel longer than the rest of a start."""
    opened: list[int] = []
    original = socket.socket.__init__

    def opening(self: socket.socket, family: int = -1, *args: Any, **kwargs: Any) -> None:
        opened.append(family)
        original(self, family, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "__init__", opening)
    engine.run("base", FOR_EVER, network=lan)
    assert socket.AF_NETLINK in opened
    assert socket.AF_PACKET not in opened


def test_announced_ipv6_address_already_accepts_packets(
    engine: Engine, lan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel accepts packets for an IPv6 address a little later than it lists the address."""
    early: list[Address] = []

    def announcing(inside: Netlink, *args: Any) -> None:
        own: Sequence[Address] = args[-1]
        early.extend(
            address for address in own if not rtnetlink_dump.route_to(inside, address).local
        )
        announce(inside, *args)

    monkeypatch.setattr(endpoint, "announce", announcing)
    web = engine.run("base", FOR_EVER)
    for _ in range(30):
        engine.network_connect(lan, web.id)
        engine.network_disconnect(lan, web.id)
    assert early == []
