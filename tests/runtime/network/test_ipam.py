"""Address assignment, for any subnet and any number of neighbours."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ConflictError, InvalidError
from runtime.network.ipam import Leases, address_of, default_gateway, hosts, mac_of, pick
from runtime.records import Address, Network, NetworkConfig


def _v4(bits: int, prefix: int) -> IPv4Network:
    return IPv4Network((bits, prefix), strict=False)


def _v6(bits: int, prefix: int) -> IPv6Network:
    return IPv6Network((bits, prefix), strict=False)


subnets4: st.SearchStrategy[Network] = st.builds(
    _v4, st.integers(0, 2**32 - 1), st.integers(25, 30)
)
subnets6: st.SearchStrategy[Network] = st.builds(
    _v6, st.integers(0, 2**128 - 1), st.integers(121, 126)
)
subnets = subnets4 | subnets6


def _taken(subnet: Network) -> st.SearchStrategy[set[str]]:
    offsets = st.sets(st.integers(0, min(subnet.num_addresses, 40) - 1))
    return offsets.map(lambda found: {str(subnet[number]) for number in found})


@given(st.data(), subnets)
def test_lowest_free_address_is_allocated(data: st.DataObject, subnet: Network) -> None:
    """The address is free, lower than any other free one, and no network or broadcast address."""
    taken = data.draw(_taken(subnet))
    free = [address for address in hosts(subnet) if str(address) not in taken]
    if not free:
        with pytest.raises(ConflictError, match="every address is taken"):
            pick(subnet, taken)
        return
    given_out = pick(subnet, taken)
    assert given_out == free[0]
    assert given_out in subnet
    assert given_out != subnet.network_address
    assert subnet.version == 6 or given_out != subnet.broadcast_address


@given(subnets)
def test_whole_subnet_can_be_allocated(subnet: Network) -> None:
    """As many containers as the subnet has host addresses get one each, and no others."""
    taken: set[str] = set()
    room = min(subnet.num_addresses - (2 if subnet.version == 4 else 1), 50)
    for _ in range(room):
        taken.add(str(pick(subnet, taken)))
    assert len(taken) == room


@given(st.data(), subnets)
def test_requested_address_is_allocated_or_refused(data: st.DataObject, subnet: Network) -> None:
    """A free address inside is given exactly; otherwise the error names the address."""
    taken = data.draw(_taken(subnet))
    wanted = subnet[data.draw(st.integers(0, min(subnet.num_addresses, 40) - 1))]
    if wanted in set(hosts(subnet)) and str(wanted) not in taken:
        assert pick(subnet, taken, requested=wanted) == wanted
    else:
        with pytest.raises((ConflictError, InvalidError), match=str(wanted)):
            pick(subnet, taken, requested=wanted)


@given(subnets)
def test_requested_address_outside_the_subnet_is_refused(subnet: Network) -> None:
    """A container cannot ask for an address of another network."""
    outside = ip_address("198.51.100.1" if subnet.version == 4 else "2001:db8::1")
    if outside in subnet:
        return
    with pytest.raises(InvalidError, match="not in the subnet"):
        pick(subnet, set(), requested=outside)


@given(st.data(), st.builds(_v4, st.integers(0, 2**32 - 1), st.integers(25, 28)))
def test_ip_range_limits_allocation(data: st.DataObject, subnet: IPv4Network) -> None:
    """Only addresses of the range are given out, and none that is reserved."""
    parts = list(subnet.subnets(prefixlen_diff=2))
    part = data.draw(st.sampled_from(parts))
    taken: set[str] = set()
    while True:
        try:
            address = pick(subnet, taken, within=part)
        except ConflictError:
            break
        assert address in part
        taken.add(str(address))
    assert taken == {str(address) for address in part} & {str(item) for item in hosts(subnet)}


@given(st.integers(0, 2**32 - 1))
def test_mac_is_derived_from_the_address(bits: int) -> None:
    """02:42 and the four octets: locally administered, unicast, and convertible back."""
    address = ip_address(bits)
    mac = mac_of(address)
    assert mac.startswith("02:42:")
    assert int(mac[:2], 16) & 0b11 == 0b10
    assert address_of(mac) == str(address)


def test_point_to_point_subnets_have_two_hosts() -> None:
    """Both ends of a /31 and a /127 count (RFC 3021, RFC 6164)."""
    assert [str(item) for item in hosts(IPv4Network("192.0.2.0/31"))] == ["192.0.2.0", "192.0.2.1"]
    assert len(list(hosts(IPv6Network("2001:db8::/127")))) == 2


def test_default_gateway_is_the_first_host_address() -> None:
    """The gateway is .1 or ::1, as users expect."""
    assert str(default_gateway(IPv4Network("10.0.0.0/24"))) == "10.0.0.1"
    assert str(default_gateway(IPv6Network("fd00::/64"))) == "fd00::1"


# --- leases ---------------------------------------------------------------------

NETWORK = NetworkConfig(
    id="0" * 64,
    name="lan",
    bridge="br-lan",
    subnet="10.0.0.0/29",
    gateway="10.0.0.1",
    subnet6="fd00::/64",
    gateway6="fd00::1",
)


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., list[Address]]:
    """Lease addresses of a network with room for five."""
    leases = Leases(str(tmp_path))
    return lambda owner, **options: leases.take(NETWORK, owner, **options)


def test_container_gets_one_address_per_family(take: Callable[..., list[Address]]) -> None:
    """An IPv6 network gives one of both families, and neither is the gateway's."""
    assert [str(item) for item in take("a")] == ["10.0.0.2", "fd00::2"]
    assert [str(item) for item in take("b")] == ["10.0.0.3", "fd00::3"]


def test_released_address_is_allocated_again(
    take: Callable[..., list[Address]], tmp_path: Path
) -> None:
    """The lowest is given first, also after a release, and no other lease changes."""
    for owner in "abc":
        take(owner)
    Leases(str(tmp_path)).release("b")
    assert [str(item) for item in take("d")] == ["10.0.0.3", "fd00::3"]
    assert set(Leases(str(tmp_path)).read().values()) == {"a", "c", "d"}


def test_exhausted_subnet_leaves_no_partial_lease(
    take: Callable[..., list[Address]], tmp_path: Path
) -> None:
    """The sixth container of a /29 is refused, and no partial lease stays."""
    for owner in "abcde":
        take(owner)
    before = Leases(str(tmp_path)).read()
    with pytest.raises(ConflictError, match=r"10\.0\.0\.0/29"):
        take("f")
    assert Leases(str(tmp_path)).read() == before


@pytest.mark.parametrize(
    "mac", ["02:42:0a:00:00:02", "02:42:0a:00:00:01", "5e:00:00:00:00:01"], ids=str
)
def test_mac_is_never_allocated_twice(take: Callable[..., list[Address]], mac: str) -> None:
    """The MAC may be derived from an address, the bridge's, or requested before."""
    take("a")
    if mac.startswith("5e"):
        take("b", mac=mac)
    with pytest.raises(ConflictError, match=mac):
        take("c", mac=mac)


def test_address_with_a_taken_mac_is_skipped(
    take: Callable[..., list[Address]],
) -> None:
    """The MAC of 10.0.0.2 is in use, so the next container gets 10.0.0.3."""
    take("a", ip="10.0.0.6", mac="02:42:0a:00:00:02")
    assert str(take("b")[0]) == "10.0.0.3"
