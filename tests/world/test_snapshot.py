"""Tests of snapshots, which contain every kind of kernel state except fluctuating values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, ip_address

import pytest

from harness.testbench.listener import TRANSPORTS, Listener
from harness.testbench.netns_view import NetnsView, fixed, iproute
from harness.world.state.netlink_dump import Dumps, Raw
from harness.world.state.snapshot import StateChange as Told
from harness.world.state.snapshot import differences
from linux import netns, nftables, rtnetlink
from linux.netlink import NLM_F_CREATE, Netlink, Request
from linux.netns import NetNS
from tests.world.pair import PORT, pair

TABLE = nftables.Table("inet", "operator")
StateChange = Callable[[NetNS], None]


@pytest.fixture
def ends() -> Iterator[tuple[NetNS, NetNS]]:
    """Make two namespaces with a veth pair between them.

    Duplicate address detection is off, so IPv6 addresses are usable at once.
    """
    with pair(["192.0.2.1/24"], ["192.0.2.2/24"]) as both:
        for space, address in zip(both, ("2001:db8::1/64", "2001:db8::2/64"), strict=True):
            for key, value in (("disable_ipv6", 1), ("accept_dad", 0), ("disable_ipv6", 0)):
                netns.write_sysctls(space, {f"net.ipv6.conf.eth0.{key}": value})
            netlink(rtnetlink.add_address(PORT, IPv6Interface(address)))(space)
        yield both


def netlink(*requests: Request) -> StateChange:
    """Return a change of the kernel's state by rtnetlink."""

    def change(space: NetNS) -> None:
        with Netlink(space) as opened:
            opened.send(requests)

    return change


def rules(*requests: Request) -> StateChange:
    """Return a change of the nftables rules by nfnetlink."""

    def change(space: NetNS) -> None:
        with nftables.Nft(space) as opened:
            opened.apply(requests)

    return change


def sysctls(key: str, value: int) -> StateChange:
    """Return a change of the kernel's state that sets a sysctl to another value."""
    return lambda space: netns.write_sysctls(space, {f"net.{key}": value})


def forwarding_entry(space: NetNS) -> None:
    """Make a bridge with a permanent forwarding entry."""
    netlink(rtnetlink.add_bridge("x", index=90), rtnetlink.set_link(PORT, master=90))(space)
    with iproute(space) as ip:
        ip.fdb("add", ifindex=PORT, lladdr="02:00:00:00:00:98", flags=rtnetlink.NTF_MASTER)


def discipline(space: NetNS) -> None:
    """Attach a clsact queueing discipline, to which filters can be added."""
    with iproute(space) as ip:
        ip.tc("add", "clsact", index=PORT)


CHAIN = (nftables.add_table(TABLE), nftables.add_chain(TABLE, "input", hook="input"))
CHANGES: dict[str, StateChange] = {
    "link x": netlink(rtnetlink.add_bridge("x")),
    "link eth0: mtu": netlink(rtnetlink.set_link(PORT, mtu=1400)),
    "link eth0: address": netlink(rtnetlink.set_link(PORT, mac="02:00:00:00:00:99")),
    "link lo: flags": netlink(rtnetlink.set_link(rtnetlink.LO, up=False)),
    "address 192.0.2.9/24": netlink(rtnetlink.add_address(PORT, IPv4Interface("192.0.2.9/24"))),
    "address 2001:db8::9/64": netlink(rtnetlink.add_address(PORT, IPv6Interface("2001:db8::9/64"))),
    "route 198.51.100.0/24": netlink(
        rtnetlink.add_route(IPv4Network("198.51.100.0/24"), via=ip_address("192.0.2.2"))
    ),
    "route ::/0 of eth0 in table 99": netlink(
        rtnetlink.add_route(None, via=ip_address("2001:db8::2"), table=99)
    ),
    "route 10.0.0.0/8": netlink(rtnetlink.add_blackhole(IPv4Network("10.0.0.0/8"))),
    "rule 7 of IPv4": netlink(rtnetlink.add_rule(4, iif="eth0", table=99, priority=7)),
    "nft table inet operator": rules(nftables.add_table(TABLE)),
    "nft chain inet operator input": rules(*CHAIN),
    "nft rule inet operator input": rules(
        *CHAIN,
        nftables.add_rule(TABLE, "input", nftables.iifname("eth0"), nftables.verdict("drop")),
    ),
    "nft rule inet operator input it is: new": rules(
        *CHAIN, nftables.add_rule(TABLE, "input", nftables.verdict("drop"), comment="it is")
    ),
    "forwarding entry 02:00:00:00:00:98 of x: new": forwarding_entry,
    "discipline ffff: of eth0: new": discipline,
    "neighbour 192.0.2.7 of eth0": netlink(
        rtnetlink.add_neighbour(PORT, ip_address("192.0.2.7"), "02:00:00:00:00:07")
    ),
    "sysctl net.ipv4.ip_default_ttl: value was 64, is 63": sysctls("ipv4.ip_default_ttl", 63),
    "sysctl net.ipv4.conf.eth0.route_localnet: value was 0, is 1": sysctls(
        "ipv4.conf.eth0.route_localnet", 1
    ),
    "sysctl net.ipv6.conf.eth0.accept_ra_mtu: value was 1, is 0": sysctls(
        "ipv6.conf.eth0.accept_ra_mtu", 0
    ),
    "sysctl net.ipv6.conf.default.accept_ra: value was 1, is 2": sysctls(
        "ipv6.conf.default.accept_ra", 2
    ),
    "sysctl net.ipv4.neigh.eth0.gc_stale_time": sysctls("ipv4.neigh.eth0.gc_stale_time", 7),
}


@pytest.mark.parametrize("told", CHANGES)
def test_snapshot_difference_names_the_change(ends: tuple[NetNS, NetNS], told: str) -> None:
    """The difference of two snapshots names each change.

    Parsed snapshots are compared, and also dumps, message by message as in the guard.
    """
    with Dumps(ends[0]) as dumps:
        before, raw = fixed("one", ends[0]).snapshot(), dumps.take()
        CHANGES[told](ends[0])
        after = fixed("one", ends[0]).snapshot()
        for lines in (before.changes(after), map(str, differences(raw, dumps.take()))):
            found = list(lines)
            assert any(told in line for line in found), found


def test_snapshot_difference_names_removed_address_as_gone(ends: tuple[NetNS, NetNS]) -> None:
    """The difference of two snapshots names a removed address as gone."""
    place = fixed("one", ends[0])
    before = place.snapshot()
    netlink(rtnetlink.del_address(PORT, IPv6Interface("2001:db8::1/64")))(ends[0])
    lines = before.changes(place.snapshot())
    assert "address 2001:db8::1/64 of eth0: gone" in lines


def test_snapshot_notices_nft_table_removed_with_its_owner(ends: tuple[NetNS, NetNS]) -> None:
    """A snapshot detects that a table was removed at the end of its owner.

    The kernel does not increase the ruleset's generation in this case.
    """
    with Dumps(ends[0]) as dumps:
        before = dumps.take()
        with nftables.Nft(ends[0]) as owner:
            owner.apply([nftables.add_table(TABLE, owned=True)])
            there = dumps.take()
            assert _of_nft(before, there) == ["new"]
        assert _of_nft(there, dumps.take()) == ["gone"]
        assert _of_nft(before, dumps.take()) == []


def test_snapshot_notices_duplicate_policy_rule(ends: tuple[NetNS, NetNS]) -> None:
    """A snapshot detects a second policy rule that is identical to the first."""
    once = rtnetlink.add_rule(4, iif="eth0", table=99, priority=7)
    netlink(once)(ends[0])
    with Dumps(ends[0]) as dumps:
        before = dumps.take()
        netlink(once._replace(flags=NLM_F_CREATE))(ends[0])
        after = dumps.take()
    assert [change.how for change in _of_rules(before, after)] == ["new"]
    assert [change.how for change in _of_rules(after, before)] == ["gone"]


def _of_rules(before: Raw, after: Raw) -> list[Told]:
    return [item for item in differences(before, after) if item.thing.startswith("rule 7 ")]


def test_snapshot_formats_no_text_if_only_counters_change(
    ends: tuple[NetNS, NetNS], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If only counters and ages have changed, a snapshot formats no text.

    They change all the time, and formatting takes longer than the dump.
    """
    one, other = (fixed(name, space) for name, space in zip(("one", "other"), ends, strict=True))
    netlink(rtnetlink.add_neighbour(PORT, ip_address("192.0.2.77"), "02:00:00:00:00:77"))(ends[0])
    with Dumps(ends[0]) as dumps:
        _exchange_packets(one, other)
        before = dumps.take()
        _exchange_packets(one, other)
        after = dumps.take()
    assert before != after
    monkeypatch.setattr("harness.world.state.snapshot.changes", lambda *_: pytest.fail("words"))
    assert differences(before, after) == []


def _of_nft(before: Raw, after: Raw) -> list[str]:
    """Return only the changes of nft tables, because a new link may still get a route."""
    found = differences(before, after)
    return [change.how for change in found if change.thing.startswith("nft table ")]


def test_snapshot_ignores_counters_and_neighbour_states(ends: tuple[NetNS, NetNS]) -> None:
    """Snapshots ignore counters, neighbour states and cached routes.

    Traffic changes them without a configuration change.
    """
    one, other = (fixed(name, space) for name, space in zip(("one", "other"), ends, strict=True))
    rules(*CHAIN, nftables.add_rule(TABLE, "input", nftables.counter()))(ends[0])
    before = one.snapshot()
    _exchange_packets(one, other)
    assert before.changes(one.snapshot()) == []


def test_snapshot_ignores_the_carrier(ends: tuple[NetNS, NetNS]) -> None:
    """Snapshots ignore a link's carrier, which depends on the peer and changes with a delay."""
    place = fixed("one", ends[0])
    before = place.snapshot()
    netlink(rtnetlink.set_link(PORT, up=False))(ends[1])
    assert not place.links()["eth0"].carrier
    lines = [line for line in before.changes(place.snapshot()) if line.startswith("link ")]
    assert lines == []


def _exchange_packets(one: NetnsView, other: NetnsView) -> None:
    for transport, address in zip(TRANSPORTS, ("192.0.2.1", "2001:db8::1"), strict=True):
        with Listener(one, transport, address=ip_address(address)) as listener:
            assert listener.reached_from(other)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_snapshot_names_link_sysctls_as_in_procfs(ends: tuple[NetNS, NetNS], family: str) -> None:
    """A snapshot names a link's sysctl like its file in procfs.

    The kernel's dump has only a number for it.
    """
    facts = fixed("one", ends[0]).snapshot().facts
    start = f"sysctl net.{family}.conf.eth0."
    told = {key.removeprefix(start): facts[key]["value"] for key in facts if key.startswith(start)}
    files = set(told) - {"tag", "stable_secret", "ndisc_tclass", "medium_id"}
    read = netns.read_sysctls(
        ends[0], [f"net.{family}.conf.eth0.{key}" for key in files - _IN_JIFFIES]
    )
    assert {key: told[key] for key in files - _IN_JIFFIES} == {
        key.rpartition(".")[2]: value for key, value in read.items()
    }


_IN_JIFFIES = {
    "router_solicitation_interval",
    "router_solicitation_delay",
    "router_solicitation_max_interval",
    "router_probe_interval",
    "ioam6_id_wide",
}


def test_snapshot_works_with_few_file_descriptors(
    ends: tuple[NetNS, NetNS], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a low limit of file descriptors, each snapshot opens its files again."""
    space = ends[0]
    with Dumps(space) as roomy:
        with monkeypatch.context() as limited:
            limited.setattr("harness.world.state.netlink_dump._LOW", 1 << 30)
            narrow = Dumps(space)
        with narrow:
            assert narrow.take().sysctls == roomy.take().sysctls
            netns.write_sysctls(space, {"net.ipv4.ip_forward": 1})
            assert dict(narrow.take().sysctls)["net.ipv4.ip_forward"] == b"1\n"


def test_snapshot_notices_change_at_the_end_of_a_long_sysctl(ends: tuple[NetNS, NetNS]) -> None:
    """A snapshot detects a change at the end of a long sysctl value.

    Lists such as ip_local_reserved_ports may have any length.
    """
    key = "net.ipv4.ip_local_reserved_ports"
    ports = ",".join(str(port) for port in range(10001, 10401, 2))
    with Dumps(ends[0]) as dumps:
        netns.write_sysctls(ends[0], {key: ports})
        before = dumps.take()
        netns.write_sysctls(ends[0], {key: f"{ports},20000"})
        changed = [change.thing for change in differences(before, dumps.take())]
    assert changed == [f"sysctl {key}"]
