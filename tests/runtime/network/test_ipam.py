"""Tests of address assignment in any subnet, with any number of addresses in use."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ConflictError, InvalidError
from runtime.network.ipam import Leases, address_of, mac_of, pick
from runtime.records import Network, NetworkConfig


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
    """The lowest free address is allocated, and never a network or broadcast address."""
    taken = data.draw(_taken(subnet))
    free = [address for address in subnet.hosts() if str(address) not in taken]
    if not free:
        with pytest.raises(ConflictError, match="every address is in use"):
            pick(subnet, taken)
        return
    assert pick(subnet, taken) == free[0]


@given(st.data(), subnets)
def test_requested_address_is_allocated_or_refused(data: st.DataObject, subnet: Network) -> None:
    """A requested free address of the subnet is allocated; the error names any other one."""
    taken = data.draw(_taken(subnet))
    wanted = subnet[data.draw(st.integers(0, min(subnet.num_addresses, 40) - 1))]
    if wanted in set(subnet.hosts()) and str(wanted) not in taken:
        assert pick(subnet, taken, requested=wanted) == wanted
    else:
        with pytest.raises((ConflictError, InvalidError), match=str(wanted)):
            pick(subnet, taken, requested=wanted)


@given(st.data(), st.builds(_v4, st.integers(0, 2**32 - 1), st.integers(25, 28)))
def test_ip_range_limits_allocation(data: st.DataObject, subnet: IPv4Network) -> None:
    """Only addresses of the IP range are allocated, and none that is reserved."""
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
    assert taken == {str(address) for address in part} & {str(item) for item in subnet.hosts()}


@given(st.integers(0, 2**32 - 1))
def test_mac_is_derived_from_the_address(bits: int) -> None:
    """A MAC is 02:42 and the address's four octets, and can be converted back.

    Such a MAC is locally administered and unicast.
    """
    address = ip_address(bits)
    mac = mac_of(address)
    assert mac.startswith("02:42:")
    assert int(mac[:2], 16) & 0b11 == 0b10
    assert address_of(mac) == str(address)


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


Take = Callable[..., list[str]]


@pytest.fixture
def take(tmp_path: Path) -> Take:
    """Lease addresses of a network with room for five, and return them as text."""
    leases = Leases(str(tmp_path))
    return lambda owner, **options: list(map(str, leases.take(NETWORK, owner, **options)))


def test_container_gets_one_address_per_family(take: Take) -> None:
    """A container on an IPv6 network gets one address of each family, never the gateway's."""
    assert take("a") == ["10.0.0.2", "fd00::2"]
    assert take("b") == ["10.0.0.3", "fd00::3"]


def test_released_address_is_allocated_again(take: Take, tmp_path: Path) -> None:
    """A released address is allocated again, the lowest first; other leases stay."""
    for owner in "abc":
        take(owner)
    Leases(str(tmp_path)).release("b")
    assert take("d") == ["10.0.0.3", "fd00::3"]
    assert set(Leases(str(tmp_path)).read().values()) == {"a", "c", "d"}


def test_exhausted_subnet_leaves_no_partial_lease(take: Take, tmp_path: Path) -> None:
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
def test_mac_is_never_allocated_twice(take: Take, mac: str) -> None:
    """No MAC is allocated twice, whether derived, requested, or the bridge's."""
    take("a")
    if mac.startswith("5e"):
        take("b", mac=mac)
    with pytest.raises(ConflictError, match=mac):
        take("c", mac=mac)


def test_address_with_a_taken_mac_is_skipped(
    take: Take,
) -> None:
    """An address whose MAC is in use is skipped.

    The MAC of 10.0.0.2 is in use, so the next container gets 10.0.0.3.
    """
    take("a", ip="10.0.0.6", mac="02:42:0a:00:00:02")
    assert take("b")[0] == "10.0.0.3"
