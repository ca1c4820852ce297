"""Router advertisements to the host: a forwarding kernel ignores them unless accept_ra is 2."""

from __future__ import annotations

from ipaddress import ip_interface
from pathlib import Path

from pyroute2 import IPRoute

from linux import rtnetlink
from linux.netlink import Netlink
from runtime.engine import Engine


def test_host_keeps_accepting_router_advertisements(engine: Engine) -> None:
    """The host starts to forward IPv6; at the end its setting is as before, if still possible."""
    with Netlink() as netlink:
        for index, name in ((90, "up.90"), (91, "up91"), (92, "aside")):
            netlink.send([rtnetlink.add_bridge(name, index=index)])
            own = ip_interface(f"2001:db8:{index}::1/64")
            netlink.send([rtnetlink.add_address(index, own)])
    with IPRoute() as ipr:
        for index in (90, 91):
            via = f"2001:db8:{index}::2"
            ipr.route("add", dst=f"2001:db8:{index + 10}::/64", gateway=via, oif=index, proto=9)
    assert [accepts(name) for name in ("up.90", "up91", "aside")] == ["1", "1", "1"]
    engine.network_create("four")
    assert accepts("up.90") == "1"
    engine.network_create("lan", ipv6=True)
    assert [accepts(name) for name in ("up.90", "up91", "aside")] == ["2", "2", "1"]
    with Netlink() as netlink:
        netlink.send([rtnetlink.del_link("up91")])
    engine.teardown()
    assert accepts("up.90") == "1"


def accepts(link: str) -> str:
    """Return whether a link of the host accepts router advertisements."""
    return Path(f"/proc/sys/net/ipv6/conf/{link}/accept_ra").read_text().strip()
