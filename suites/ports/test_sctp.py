"""SCTP, where the kernel speaks it: asked with bare packets, which need no listener."""

from __future__ import annotations

from scapy.layers.sctp import SCTP, SCTPChunkInit

from harness.model.plan import ATTACKER, Publish
from harness.plugin.marks import requirement
from harness.testbench.packets import craft
from harness.testbench.packets.craft import send_packet
from suites.ports.published import INSIDE, PublishNetwork


@requirement("PUB-13")
def test_what_begins_an_association_is_led_to_the_container(fair: PublishNetwork) -> None:
    """From whoever calls, as it was sent but for the address and the port; no other port is."""
    web = fair.container("web", Publish(fair.port, INSIDE, "sctp"))
    attacker = fair.scene.place(ATTACKER)
    begins = SCTPChunkInit(init_tag=7, a_rwnd=1500, n_out_streams=1, n_in_streams=1, init_tsn=1)
    for family in fair.families:
        source, own = fair.scene.world.address(ATTACKER, family), web.net.address(family)
        ends = craft.ip(family, src=source, dst=fair.own(family))
        with web.net.capture("eth0") as wire:
            for port in (fair.port - 1, fair.port, fair.port + 1, INSIDE):
                send_packet(attacker, ends / SCTP(sport=port, dport=port, tag=0) / begins)
            fair.scene.settle()
        arrived = craft.ip(family, src=source, dst=own)
        wire.expect_one(
            arrived / SCTP(sport=fair.port, dport=INSIDE, tag=0) / SCTPChunkInit(init_tag=7)
        )
        assert len(wire.matching(arrived / SCTP())) == 1


@requirement("PUB-13")
def test_it_is_kept_apart_from_other_transports(fair: PublishNetwork) -> None:
    """A port over SCTP is refused to the next container, and over TCP is free."""
    fair.container("web", Publish(fair.port, INSIDE, "sctp"))
    fair.scene.refusal("late", fair.home, ports=(Publish(fair.port, INSIDE, "sctp"),))
    fair.container("other", Publish(fair.port, INSIDE, "tcp"))
