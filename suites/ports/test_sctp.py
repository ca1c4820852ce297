"""SCTP, where the kernel speaks it: asked with bare packets, which need no listener."""

from __future__ import annotations

from scapy.layers.sctp import SCTP, SCTPChunkInit

from harness.marks import requirement
from harness.model import ATTACKER, HOST, Family, Publish
from harness.packets import craft
from harness.packets.craft import send_packet
from harness.scene import Scene
from suites.ports.shop import INSIDE, OWN, home


@requirement("PUB-13")
def test_what_begins_an_association_is_led_to_the_container(fair: Scene, family: Family) -> None:
    """From whoever calls, as it was sent but for the address and the port; no other port is."""
    web = fair.container("web", home(family), ports=(Publish(OWN, INSIDE, "sctp"),))
    host, own = fair.world.address(HOST, family), web.net.address(family)
    attacker = fair.world.address(ATTACKER, family)
    ends = craft.ip(family, src=attacker, dst=host)
    begins = SCTPChunkInit(init_tag=7, a_rwnd=1500, n_out_streams=1, n_in_streams=1, init_tsn=1)
    with web.net.capture("eth0") as wire:
        for port in (OWN - 1, OWN, OWN + 1, INSIDE):
            send_packet(fair.place(ATTACKER), ends / SCTP(sport=port, dport=port, tag=0) / begins)
        fair.settle()
    arrived = craft.ip(family, src=attacker, dst=own)
    wire.expect_one(arrived / SCTP(sport=OWN, dport=INSIDE, tag=0) / SCTPChunkInit(init_tag=7))
    assert len(wire.matching(arrived / SCTP())) == 1


@requirement("PUB-13")
def test_it_is_kept_apart_from_other_transports(fair: Scene, family: Family) -> None:
    """A port over SCTP is refused to the next container, and over TCP is free."""
    fair.container("web", home(family), ports=(Publish(OWN, INSIDE, "sctp"),))
    fair.refusal("late", home(family), ports=(Publish(OWN, INSIDE, "sctp"),))
    fair.container("beside", home(family), ports=(Publish(OWN, INSIDE, "tcp"),))
