"""Published SCTP ports, tested with crafted packets and without a listener."""

from __future__ import annotations

from scapy.layers.sctp import SCTP, SCTPChunkInit

from harness.model.plan import ATTACKER, Publish
from harness.plugin.marks import requirement
from harness.testbench.packets import craft
from harness.testbench.packets.craft import send_packet
from suites.ports.published import INSIDE, PublishNetwork


@requirement("PUB-13")
def test_sctp_init_to_published_port_is_forwarded_to_the_container(
    publish_network: PublishNetwork,
) -> None:
    """An SCTP INIT to a published port reaches the container, with address and port translated.

    Other SCTP ports are closed.
    """
    web = publish_network.container("web", Publish(publish_network.port, INSIDE, "sctp"))
    attacker = publish_network.scene.netns(ATTACKER)
    begins = SCTPChunkInit(init_tag=7, a_rwnd=1500, n_out_streams=1, n_in_streams=1, init_tsn=1)
    for family in publish_network.families:
        source, own = publish_network.scene.world.address(ATTACKER, family), web.net.address(family)
        ends = craft.ip(family, src=source, dst=publish_network.own(family))
        with web.net.capture("eth0") as wire:
            for port in (
                publish_network.port - 1,
                publish_network.port,
                publish_network.port + 1,
                INSIDE,
            ):
                send_packet(attacker, ends / SCTP(sport=port, dport=port, tag=0) / begins)
            publish_network.scene.settle()
        arrived = craft.ip(family, src=source, dst=own)
        wire.expect_one(
            arrived
            / SCTP(sport=publish_network.port, dport=INSIDE, tag=0)
            / SCTPChunkInit(init_tag=7)
        )
        assert len(wire.matching(arrived / SCTP())) == 1


@requirement("PUB-13")
def test_published_sctp_port_is_separate_from_tcp_port(publish_network: PublishNetwork) -> None:
    """Another container cannot publish a published SCTP port, but can publish it over TCP."""
    publish_network.container("web", Publish(publish_network.port, INSIDE, "sctp"))
    publish_network.scene.refusal(
        "late", publish_network.home, ports=(Publish(publish_network.port, INSIDE, "sctp"),)
    )
    publish_network.container("other", Publish(publish_network.port, INSIDE, "tcp"))
