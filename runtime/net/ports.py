"""Published ports as users write them: `[address:][host port:]port[/protocol]`. Pure.

As Docker has it (https://docs.docker.com/engine/network/port-publishing/): without an
address on every address of the host, without a host port on one that is free. Ranges
(`8000-8009:80-89`) go together one by one; a range of host ports for a single port
leaves the choice. IPv6 addresses stand in brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Final, Literal, NamedTuple, cast, get_args

from runtime.errors import InvalidError

Protocol = Literal["tcp", "udp", "sctp"]
PROTOCOLS: Final[tuple[Protocol, ...]] = get_args(Protocol)

_RANGE: Final = r"([0-9]{1,5})(?:-([0-9]{1,5}))?"
_LAST: Final = 65535


class Wanted(NamedTuple):
    """One port to publish, on a host port from `low` to `high`; 0 for whichever is free.

    `address` is the host's, `""` for all of them.
    """

    protocol: Protocol
    address: str
    low: int
    high: int
    port: int


def parse(asked: str, text: str) -> list[Wanted]:
    """The ports that `text` asks for; `InvalidError` tells what is wrong with it."""
    asked = f"{asked}: publish {text!r}"
    written, slash, protocol = text.partition("/")
    protocol = protocol.lower()
    if (protocol if slash else "tcp") not in PROTOCOLS:
        raise InvalidError(asked, f"there is no protocol {protocol!r}", remedy="tcp, udp, sctp")
    six, bracket, rest = written[1:].partition("]:") if written[:1] == "[" else ("", "", written)
    parts = rest.split(":")
    if len(parts) > (2 if bracket else 3) or (written[:1] == "[") != bool(bracket):
        raise InvalidError(asked, "it is malformed", remedy="-p [ADDRESS:][HOST PORT:]PORT[/udp]")
    four = parts[0] if len(parts) == 3 else ""
    host = parts[-2] if len(parts) > 1 else ""
    return list(
        _pairs(
            asked,
            cast("Protocol", protocol or "tcp"),
            _address(asked, six, 6) if bracket else _address(asked, four, 4),
            _range(asked, host) if host not in ("", "0") else None,
            _range(asked, parts[-1]),
        )
    )


def _pairs(
    asked: str, protocol: Protocol, address: str, host: range | None, ports: range
) -> Iterator[Wanted]:
    if host is None:
        for port in ports:
            yield Wanted(protocol, address, 0, 0, port)
    elif len(ports) == 1:
        yield Wanted(protocol, address, host[0], host[-1], ports[0])
    elif len(host) == len(ports):
        for outside, port in zip(host, ports, strict=True):
            yield Wanted(protocol, address, outside, outside, port)
    else:
        raise InvalidError(
            asked, f"{len(host)} ports of the host do not fit {len(ports)} of the container"
        )


def _address(asked: str, text: str, version: int) -> str:
    if not text:
        return ""
    try:
        address = ip_address(text)
    except ValueError as error:
        raise InvalidError(asked, f"the address is malformed: {error}") from None
    if address.version != version or "%" in text:
        raise InvalidError(asked, f"{text} is not an IPv{version} address of the host")
    return str(address)


def _range(asked: str, text: str) -> range:
    found = re.fullmatch(_RANGE, text, re.ASCII)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last <= _LAST:
        raise InvalidError(asked, f"{text!r} is no port or range of ports from 1 to {_LAST}")
    return range(first, last + 1)


def exposed(asked: str, entries: Iterable[str]) -> list[Wanted]:
    """What `-P` publishes of the ports that an image or `--expose` names (`80/tcp`)."""
    found = (wanted for entry in entries for wanted in parse(asked, entry))
    return list(dict.fromkeys(found))
