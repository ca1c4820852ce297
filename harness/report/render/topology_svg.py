"""Layout of the SVG drawing of a world: coordinates of labelled boxes and of lines (pure).

```
attacker ───── LAN ─────┬───── r1 ─ r2 ─ r3 ───── internet
┌ host ─────────────────┴──────────────────────────────────┐
│ (containers in the host's namespace)                     │
│ ══ docker0 ══════════   ══ br0 ══════                    │
│  [c1 + joined]  [c2]     [ns1] [ns2]     [without network]│
└──────────────────────────────────────────────────────────┘
```
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from harness.model.plan import ATTACKER, BR0, GATEWAY, HOST, INTERNET, NS1, NS2
from harness.report.schema import Stage, StagedContainer, StagedNetwork

WIDTH: Final = 1000
_MARGIN, _GAP = 24, 14
_LEAF_WIDTH, _LEAF_HEIGHT, _JOINER = 160, 62, 34
_LAN, _HOST_TOP = 62, 128
_BAR, _BAR_TO_LEAF = 30, 26
_JOINERS: Final = 3
"""Maximal number of joining containers that are drawn in a container's box."""

Kind = Literal["outside", "host", "shared", "container", "joiner", "bystander", "bridge", "alone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A labelled box, at 0, 0 until the layout places it. Cells use its `name`."""

    name: str
    kind: Kind
    x: int = 0
    y: int = 0
    width: int = _LEAF_WIDTH
    height: int = _LEAF_HEIGHT
    label: str
    notes: tuple[str, ...] = ()

    @property
    def middle(self) -> int:
        """Horizontal centre of the box, where its lines end."""
        return self.x + self.width // 2


@dataclass(frozen=True, slots=True)
class Line:
    """A link between two boxes."""

    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The complete drawing. Boxes are drawn in order: a later box covers an earlier one."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    routers: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """A bridge and the containers on it, at 0, 0 until the layout places the group."""

    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    width: int
    height: int

    def moved(self, x: int, y: int) -> _Group:
        boxes = tuple(replace(box, x=box.x + x, y=box.y + y) for box in self.boxes)
        lines = tuple(Line(i.x1 + x, i.y1 + y, i.x2 + x, i.y2 + y) for i in self.lines)
        return replace(self, boxes=boxes, lines=lines)


def draw(stage: Stage) -> Drawing:
    """Return the drawing of a world with the containers in it."""
    sharing = [item for item in stage.containers if item.mode == HOST]
    groups = _placed(_groups(stage), _HOST_TOP + (100 if sharing else 58))
    inside = [box for group in groups for box in group.boxes]
    bottom = max((box.y + box.height for box in inside), default=_HOST_TOP + 90)
    host = Box(
        name=HOST,
        kind="host",
        x=_MARGIN,
        y=_HOST_TOP,
        width=WIDTH - 2 * _MARGIN,
        height=bottom + _GAP + 4 - _HOST_TOP,
        label=HOST,
        notes=_world(stage, HOST),
    )
    outside, wires, routers = _outside(stage)
    boxes = (host, *outside, *_shared(sharing), *inside)
    return Drawing(
        width=WIDTH,
        height=bottom + 2 * _MARGIN,
        boxes=(*boxes, *_joiners(boxes, stage)),
        lines=(*wires, *(wire for group in groups for wire in group.lines)),
        routers=tuple(routers),
    )


def _outside(stage: Stage) -> tuple[list[Box], list[Line], list[tuple[int, int, str]]]:
    """Return the boxes, links and routers outside the host: attacker, LAN, internet."""
    side = 190
    right = WIDTH - _MARGIN - side
    boxes = [
        Box(
            name=name,
            kind="outside",
            x=x,
            y=28,
            width=side,
            height=68,
            label=name,
            notes=_world(stage, name),
        )
        for name, x in ((ATTACKER, _MARGIN), (INTERNET, right))
    ]
    count = max(stage.routers, 1)
    first, last = WIDTH // 2 + 60, right - 46
    step = (last - first) // max(count - 1, 1)
    shown = range(1, count + 1) if count <= 8 else (1, count)
    routers = [(first + (number - 1) * step, _LAN, f"r{number}") for number in shown]
    wires = [
        Line(_MARGIN + side, _LAN, right, _LAN),
        Line(WIDTH // 2 - 60, _LAN, WIDTH // 2 - 60, _HOST_TOP),
    ]
    return boxes, wires, routers


def _shared(sharing: Sequence[StagedContainer]) -> Iterator[Box]:
    """Yield a box for each container in the host's network namespace."""
    width = _LEAF_WIDTH + 30
    for number, item in enumerate(sharing[:4]):
        x, y = 2 * _MARGIN + number * (width + _GAP), _HOST_TOP + 46
        yield Box(
            name=item.name, kind="shared", x=x, y=y, width=width, height=_JOINER, label=item.name
        )


def _groups(stage: Stage) -> Iterator[_Group]:
    for network in stage.networks:
        ports = [item for item in stage.containers if item.networks[:1] == (network.name,)]
        yield _group(_bar(network), [_leaf(item, stage.containers) for item in ports])
    bystanders = [
        Box(name=name, kind="bystander", label=name, notes=_world(stage, name))
        for name in (NS1, NS2)
        if name in stage.world
    ]
    if bystanders:
        bar = _bar(StagedNetwork(name=BR0, interface=BR0, gateways=_world(stage, BR0)))
        yield _group(replace(bar, name=BR0), bystanders)
    alone = [
        replace(_leaf(item, stage.containers), kind="alone")
        for item in stage.containers
        if not item.networks and not item.joined and item.mode != HOST
    ]
    if alone:
        yield _group(None, alone)


def _bar(network: StagedNetwork) -> Box:
    label = network.interface or network.name
    if network.interface and network.name not in (network.interface, BR0, "bridge"):
        label = f"{network.interface} ({network.name})"
    label = f"{label}, internal" if network.internal else label
    return Box(name=GATEWAY, kind="bridge", height=_BAR, label=label, notes=network.gateways[:1])


def _leaf(item: StagedContainer, containers: Iterable[StagedContainer]) -> Box:
    """Return the box of a container, with room for boxes of containers that join its namespace."""
    joiners = [other for other in containers if other.joined == item.name][:_JOINERS]
    also = tuple(f"also on {name}" for name in item.networks[1:2])
    notes = (*item.addresses[: 1 if also or item.mode == "none+veth" else 2], *also)
    if item.mode == "none+veth":
        notes = (*notes, "attached by hand")
    return Box(
        name=item.name,
        kind="container",
        height=_LEAF_HEIGHT + (_JOINER + 8) * len(joiners),
        label=item.name,
        notes=notes or ("no network",),
    )


def _joiners(boxes: Iterable[Box], stage: Stage) -> Iterator[Box]:
    """Yield a box for each container that joins another container's namespace."""
    for home in boxes:
        inside = [item.name for item in stage.containers if item.joined == home.name]
        if home.kind in ("container", "alone"):
            for number, name in enumerate(inside[:_JOINERS]):
                x, y = home.x + 6, home.y + _LEAF_HEIGHT + number * (_JOINER + 8)
                width = home.width - 12
                yield Box(
                    name=name, kind="joiner", x=x, y=y, width=width, height=_JOINER, label=name
                )


def _group(bar: Box | None, leaves: Sequence[Box]) -> _Group:
    """Return a bridge with rows of its containers below it, no wider than the host's box."""
    per_row = (WIDTH - 4 * _MARGIN + _GAP) // (_LEAF_WIDTH + _GAP)
    columns = min(max(len(leaves), 1), per_row)
    width = max(columns * (_LEAF_WIDTH + _GAP) - _GAP, 180 if bar else 0)
    boxes, lines, y = [replace(bar, width=width)] if bar else [], [], _BAR + _BAR_TO_LEAF
    for start in range(0, len(leaves), per_row):
        row = leaves[start : start + per_row]
        for number, leaf in enumerate(row):
            box = replace(leaf, x=number * (_LEAF_WIDTH + _GAP), y=y)
            boxes.append(box)
            if bar:
                lines.append(Line(box.middle, _BAR, box.middle, y))
        y += max(leaf.height for leaf in row) + _GAP
    return _Group(tuple(boxes), tuple(lines), width, y - _GAP)


def _placed(groups: Iterable[_Group], top: int) -> list[_Group]:
    """Return the groups placed side by side, in as many rows as needed, the first row at `top`."""
    left, right = 2 * _MARGIN, WIDTH - 2 * _MARGIN
    x, y, tallest = left, top, 0
    placed = []
    for group in groups:
        if x > left and x + group.width > right:
            x, y, tallest = left, y + tallest + 2 * _GAP, 0
        placed.append(group.moved(x, y))
        x += group.width + 2 * _GAP
        tallest = max(tallest, group.height)
    return placed


def _world(stage: Stage, name: str) -> tuple[str, ...]:
    return tuple(stage.world.get(name, ()))[:2]
