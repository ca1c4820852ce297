"""Whether a packet is like a template, and where not. Pure, over scapy's packets.

A template promises only what it sets. Its layers must follow each other in the
packet as they do in the template; other layers may come before and after:

```python
IP(src="198.51.100.7") / UDP(dport=4242)
IP(src=IPv4Network("172.17.0.0/16"))              # any of these addresses
IP(ttl=[63, 64]) / TCP(dport=(1, 1023), flags="S")  # one of, from to
UDP() / b"hello"                                  # the payload, byte for byte
IP() / ICMP(type=3, code=4) / IP(dst="…")         # what an ICMP error quotes
```
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import zip_longest
from typing import Any, Final

from scapy.base_classes import Net
from scapy.packet import Packet, Raw

_CHECKSUMS: Final = frozenset({"chksum", "cksum"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that is not as the template has it; `field` is empty for a missing layer."""

    layer: str
    field: str = ""
    wanted: object = None
    found: object = None

    def __str__(self) -> str:
        if not self.field:
            return f"there is no {self.layer} there"
        return f"{self.layer}.{self.field} is {self.found}, not {self.wanted}"


def differences(
    template: Packet, packet: Packet, *, unfinished_checksum: bool = False
) -> tuple[Difference, ...]:
    """How `packet` differs from `template`, at the place where it differs least; empty if not.

    With `unfinished_checksum` the checksums above IP are not compared: a network
    card would have filled them in.
    """
    wanted = list(template.iterpayloads())
    present = list(packet.iterpayloads())
    # A template begins with a layer of that very kind: an IPerror, which is quoted, is no IP.
    places = [n for n, layer in enumerate(present) if type(layer) is type(wanted[0])] or [0]
    found = (
        tuple(_compare(wanted, present[place:], unfinished_checksum=unfinished_checksum))
        for place in places
    )
    return min(found, key=distance)


def distance(found: Sequence[Difference]) -> tuple[int, int]:
    """How far off a packet is: layers that are missing count more than fields."""
    return sum(not difference.field for difference in found), len(found)


def describe(template: Packet) -> str:
    """A template as one would write it: `IP(src=192.0.2.1) / UDP(dport=53)`."""
    layers = []
    for layer in template.iterpayloads():
        fields = ", ".join(f"{name}={value}" for name, value in _promised(layer))
        layers.append(f"{type(layer).__name__}({fields})")
    return " / ".join(layers)


def _compare(
    wanted: Sequence[Packet], present: Sequence[Packet], *, unfinished_checksum: bool
) -> Iterator[Difference]:
    for layer, other in zip_longest(wanted, present[: len(wanted)]):
        kind = type(layer)
        if kind is Raw:
            # Whatever scapy takes a payload for, it is bytes to who asks for bytes.
            load = b"" if other is None else other.load if type(other) is Raw else bytes(other)
            if load != layer.load:
                yield Difference("Raw", "load", layer.load, load)
        elif not isinstance(other, kind):
            yield Difference(kind.__name__)
        else:
            for name, value in _promised(layer):
                if unfinished_checksum and name in _CHECKSUMS and layer.name != "IP":
                    continue
                found = other.getfieldval(name)
                if not _admits(layer, name, value, found):
                    yield Difference(kind.__name__, name, value, found)


def _promised(layer: Packet) -> Iterator[tuple[str, Any]]:
    """The fields that were set by hand: scapy puts copies of mutable defaults beside them."""
    untouched = type(layer)().fields
    for name, value in layer.fields.items():
        copied = name in untouched and untouched[name] == value and not _says_something(value)
        if value is not None and not copied:
            yield name, value


def _says_something(value: object) -> bool:
    """Whether a default of packets was set after all, though to what the default is."""
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, Packet) and any(_promised(item)) for item in items)


def _admits(layer: Packet, name: str, wanted: Any, found: Any) -> bool:
    if isinstance(wanted, Packet):
        several = found if isinstance(found, list) else [found]
        return any(isinstance(item, Packet) and not differences(wanted, item) for item in several)
    if isinstance(wanted, list) and not isinstance(found, list):
        return any(_admits(layer, name, item, found) for item in wanted)
    if isinstance(wanted, list) and all(isinstance(item, Packet) for item in wanted):
        return all(_admits(layer, name, item, found) for item in wanted)
    return _is_in(layer, name, wanted, found)


def _is_in(layer: Packet, name: str, wanted: Any, found: Any) -> bool:
    match wanted:
        case (int() as first, int() as last) if isinstance(found, int):
            return first <= found <= last
        case Net():
            return found in wanted
        case IPv4Network() | IPv6Network():
            return ip_address(found) in wanted
        case IPv4Address() | IPv6Address():
            return ip_address(found) == wanted
        case _:
            # A MAC in capitals and a name without its final dot are the same on the wire.
            field = layer.get_field(name)
            return bool(wanted == found or field.i2m(layer, wanted) == field.i2m(layer, found))
