"""Mode none with a veth end that is moved into the container manually, without the runtime."""

from __future__ import annotations

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import (
    ALONE,
    BR0,
    BY_NAME,
    CONTAINER01,
    CONTAINER02,
    DEFAULT_NETWORK,
    GATEWAY,
    HOST,
    INTERNET,
    LOOPBACK,
    NS1,
    NS2,
    SELF,
    Cell,
    Outcome,
    Protocol,
    cells,
)
from harness.model.topology import START_TTL
from harness.plugin.marks import requirement
from harness.testbench import container
from harness.testbench.attach import last_address
from harness.testbench.listener import ask_echo_service
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from linux.rtnetlink_dump import Route

ON_LINK = (SELF, LOOPBACK, CONTAINER01, CONTAINER02, GATEWAY, HOST, BR0)
ONE_ROUTER_AWAY = (NS1, NS2)


@requirement("ATT-2")
def test_later_process_sees_manually_attached_interface(attached: Scene) -> None:
    """A process that starts after a manual attach sees eth0 in addition to lo."""
    seen = container.view(attached[ALONE])
    assert seen.interfaces == {"lo", "eth0"}
    assert seen.netns == attached[ALONE].net.identity[1]


@requirement("ATT-2")
def test_manually_attached_interface_keeps_its_setup(attached: Scene, runtime: Adapter) -> None:
    """A manually attached interface has exactly the address and default route that were set."""
    network = runtime.network_facts(DEFAULT_NETWORK)
    inside = attached[ALONE].net
    eth0 = inside.links()["eth0"]
    assert eth0.up
    assert eth0.carrier
    assert inside.interfaces("eth0") == [last_address(gateway) for gateway in network.gateways]
    assert {route for route in inside.routes() if route.via} == {
        Route(None, gateway.ip, eth0.ifindex, gateway.version) for gateway in network.gateways
    }


@requirement("ATT-3")
def test_manually_attached_container_reaches_promised_targets(attached: Scene) -> None:
    """A manually attached container reaches the promised targets by ICMP, UDP and TCP.

    The targets are itself, peers, bridge, host, bystanders and the internet.
    """
    row = attached.promised().select(source=ALONE)
    assert attached.observed(row) == row


@requirement("ATT-3")
@pytest.mark.parametrize(
    ("targets", "ttl"),
    [(ON_LINK, START_TTL), (ONE_ROUTER_AWAY, START_TTL - 1)],
    ids=["on-link", "behind-one-router"],
)
def test_replies_to_manually_attached_container_have_ttl_64_minus_routers(
    attached: Scene, targets: tuple[str, ...], ttl: int
) -> None:
    """Replies to a manually attached container have TTL 64 on link and 63 behind one router.

    Replies from the host's own addresses have TTL 64.
    """
    pings = list(cells((ALONE,), targets, (Protocol.ICMP,), (4,)))
    seen = attached.observed(pings)
    assert {cell.target: seen[cell].ttl for cell in pings} == dict.fromkeys(targets, ttl)


@requirement("ATT-3")
def test_internet_reply_to_manually_attached_container_has_ttl_64_minus_routers(
    attached: Scene, runtime: Adapter
) -> None:
    """The internet's reply to a manually attached container has TTL 64 minus one per router.

    The container sends to a name if it has a resolver, otherwise to an address.
    """
    ping = Cell(ALONE, BY_NAME if runtime.dialect.none_resolver else INTERNET, Protocol.ICMP, 4)
    seen = attached.observed([ping])[ping]
    assert seen.outcome is Outcome.REPLY
    assert seen.ttl == START_TTL - 1 - attached.world.topology.routers


@requirement("ATT-3")
def test_masquerade_of_manually_attached_container_is_as_declared(
    attached: Scene, internet: NetnsView, runtime: Adapter
) -> None:
    """The internet sees the host's or the attached container's address, as the runtime declares."""
    address = internet.address(4)
    assert address is not None
    exchange = ask_echo_service(attached[ALONE].net, address, "udp")
    own = attached[ALONE].net.address(4)
    assert exchange.own[0] == own
    seen = attached.world.address(HOST, 4) if runtime.dialect.attached_masquerade else own
    assert exchange.seen[0] == seen
