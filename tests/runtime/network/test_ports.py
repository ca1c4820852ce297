"""Tests of published ports as users write them: valid ones are parsed, others refused."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import InvalidError
from runtime.network.ports import PROTOCOLS, PortRequest, Protocol, parse

LAST = 65535


@st.composite
def ranges(draw: st.DrawFn, *, length: int = 0) -> range:
    """Draw one port or several in a row, or `length` of them."""
    length = length or draw(st.integers(1, 50))
    first = draw(st.integers(1, LAST - length + 1))
    return range(first, first + length)


def written(ports: range) -> str:
    """Format a range as users write it; one port is a range too."""
    return f"{ports[0]}-{ports[-1]}" if len(ports) > 1 else str(ports[0])


addresses = st.none() | st.ip_addresses()
protocols = st.none() | st.sampled_from(PROTOCOLS)


@given(data=st.data(), inside=ranges(), address=addresses, protocol=protocols)
def test_port_ranges_map_in_order(
    data: st.DataObject, inside: range, address: object, protocol: Protocol | None
) -> None:
    """The ports of two ranges map in order.

    The address and protocol are the given ones or the defaults.
    """
    outside = data.draw(ranges(length=len(inside)))
    text = f"{written(outside)}:{written(inside)}"
    if address is not None:
        host = f"[{address}]" if ip_address(str(address)).version == 6 else str(address)
        text = f"{host}:{text}"
    text += f"/{protocol}" if protocol else ""
    at = "" if address is None else str(address)
    assert parse("run", text) == [
        PortRequest(protocol or "tcp", at, one, one, other)
        for one, other in zip(outside, inside, strict=True)
    ]


@given(inside=ranges(), protocol=protocols)
def test_port_without_host_port_accepts_any_host_port(
    inside: range, protocol: Protocol | None
) -> None:
    """A port whose host port is absent, empty or 0 accepts any host port."""
    tail = written(inside) + (f"/{protocol}" if protocol else "")
    wanted = [PortRequest(protocol or "tcp", "", 0, 0, port) for port in inside]
    for head in ("", ":", "0:"):
        assert parse("run", head + tail) == wanted


@given(outside=ranges(), inside=st.integers(1, LAST))
def test_one_port_may_have_a_range_of_host_ports(outside: range, inside: int) -> None:
    """A single container port is published on any free port of its range of host ports."""
    found = parse("run", f"{written(outside)}:{inside}")
    assert found == [PortRequest("tcp", "", outside[0], outside[-1], inside)]


@given(outside=ranges(), inside=ranges())
def test_port_ranges_of_different_length_are_refused(outside: range, inside: range) -> None:
    """Only a single container port may have a longer range of host ports."""
    if len(inside) in (1, len(outside)):
        return
    with pytest.raises(InvalidError, match="do not fit"):
        parse("run", f"{written(outside)}:{written(inside)}")


@given(text=st.text(alphabet=st.sampled_from("0123456789:-/[].tcpudsx \u0663\uff18\n")) | st.text())
def test_arbitrary_port_text_is_parsed_or_refused(text: str) -> None:
    """Any text is refused or parsed to ports that exist, in ASCII digits."""
    try:
        found = parse("run", text)
    except InvalidError:
        return
    assert text.isascii()
    for wanted in found:
        assert wanted.protocol in PROTOCOLS
        assert 0 <= wanted.low <= wanted.high <= LAST
        assert 1 <= wanted.port <= LAST
        assert not wanted.address or ip_address(wanted.address)


@pytest.mark.parametrize("text", ["\uff18\uff10", "80:\u0663", "\uff11-\uff12:1-2"])
def test_port_in_non_ascii_digits_is_refused(text: str) -> None:
    """A port in non-ASCII digits is refused, although int() accepts it."""
    with pytest.raises(InvalidError, match="not a port"):
        parse("run", text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("80", [PortRequest("tcp", "", 0, 0, 80)]),
        ("80/udp", [PortRequest("udp", "", 0, 0, 80)]),
        ("80/UDP", [PortRequest("udp", "", 0, 0, 80)]),
        ("8080:80", [PortRequest("tcp", "", 8080, 8080, 80)]),
        ("0:80", [PortRequest("tcp", "", 0, 0, 80)]),
        ("127.0.0.1:8080:80/sctp", [PortRequest("sctp", "127.0.0.1", 8080, 8080, 80)]),
        ("127.0.0.1::80", [PortRequest("tcp", "127.0.0.1", 0, 0, 80)]),
        ("[::1]:8080:80", [PortRequest("tcp", "::1", 8080, 8080, 80)]),
        ("[0:0::1]:80", [PortRequest("tcp", "::1", 0, 0, 80)]),
        ("[::]:53:53/udp", [PortRequest("udp", "::", 53, 53, 53)]),
        (
            "8000-8001:80-81",
            [PortRequest("tcp", "", 8000, 8000, 80), PortRequest("tcp", "", 8001, 8001, 81)],
        ),
        ("8000-8009:80", [PortRequest("tcp", "", 8000, 8009, 80)]),
        ("80-81", [PortRequest("tcp", "", 0, 0, 80), PortRequest("tcp", "", 0, 0, 81)]),
        ("65535:1", [PortRequest("tcp", "", 65535, 65535, 1)]),
    ],
)
def test_port_options_have_dockers_meaning(text: str, wanted: list[PortRequest]) -> None:
    """Address, host port, port and protocol, single or in ranges, have Docker's meaning."""
    assert parse("run", text) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a port"),
        ("a:80", "not a port"),
        ("٨٠:80", "not a port"),
        ("80:", "not a port"),
        ("1.2.3.4:80", "not a port"),
        ("70000", "not a port"),
        ("80:65536", "not a port"),
        ("9-1:1", "not a port"),
        ("8000-8001:80-89", "2 ports of the host do not fit 10"),
        ("80:80/xyz", "unknown protocol 'xyz'"),
        ("80/", "unknown protocol ''"),
        ("1:2:3:4", "malformed"),
        ("::1:80:80", "malformed"),
        ("[::1]80:80", "malformed"),
        ("300.1.1.1:80:80", "address is malformed"),
        ("[1.2.3.4]:80:80", "not an IPv6 address"),
        ("[fe80::1%eth0]:80:80", "not an IPv6 address"),
    ],
)
def test_malformed_port_is_refused_with_its_text(text: str, message: str) -> None:
    """The error for a malformed port quotes the text and names the mistake."""
    with pytest.raises(InvalidError, match=message) as refused:
        parse("run web", text)
    assert f"publish {text!r}" in str(refused.value)
