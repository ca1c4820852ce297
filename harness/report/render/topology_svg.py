"""Layout of the drawing of a world (pure): boxes and lines on a grid.

```
attacker ───── LAN ─────┬───── r1 ─ r2 ─ r3 ───── internet
┌ host ─────────────────┴──────────────────────────────────┐
│ (containers in the host's namespace)                     │
│ ══ docker0 ══════════   ══ br0 ══════                    │
│  [c1 + joiner]  [c2]     [ns1] [ns2]     [without network]│
└──────────────────────────────────────────────────────────┘
```
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from harness.model.plan import ATTACKER, BR0, GATEWAY, HOST, INTERNET, NS1, NS2
from harness.report.schema import Stage, StagedContainer, StagedNetwork

WIDTH: Final = 1000
_MARGIN, _GAP = 24, 14
_LEAF_WIDTH, _LEAF_HEIGHT, _JOINER = 160, 62, 34
_LAN, _HOST_TOP = 62, 128
_BAR = 30
_BAR_TO_LEAF = 26

Kind = Literal["outside", "host", "shared", "container", "joiner", "bystander", "bridge", "alone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A labelled box. `name` is the name in cells, empty if cells do not name it."""

    name: str
    kind: Kind
    x: int
    y: int
    width: int
    height: int
    label: str
    notes: tuple[str, ...] = ()

    @property
    def middle(self) -> int:
        """Horizontal centre, where lines end."""
        return self.x + self.width // 2


@dataclass(frozen=True, slots=True)
class Line:
    """A link."""

    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The whole drawing; a box on top of another comes later."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    routers: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """A bridge and its ports, placed at 0, 0."""

    bar: Box | None
    leaves: tuple[Box, ...]
    lines: tuple[Line, ...]
    width: int
    height: int

    def moved(self, x: int, y: int) -> _Group:
        def shift(box: Box) -> Box:
            return replace(box, x=box.x + x, y=box.y + y)

        lines = tuple(Line(i.x1 + x, i.y1 + y, i.x2 + x, i.y2 + y) for i in self.lines)
        bar = None if self.bar is None else shift(self.bar)
        return replace(self, bar=bar, leaves=tuple(map(shift, self.leaves)), lines=lines)


def draw(stage: Stage) -> Drawing:
    """Return the drawing of a world with its containers."""
    sharing = [item for item in stage.containers if item.mode == HOST]
    groups = _placed(_groups(stage), _HOST_TOP + (100 if sharing else 58))
    bottom = max((_bottom(group) for group in groups), default=_HOST_TOP + 90)
    height = bottom + 2 * _MARGIN
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
    boxes = [*outside, host, *_shared(sharing)]
    for group in groups:
        boxes += [*filter(None, [group.bar]), *group.leaves]
        wires += group.lines
    return Drawing(
        width=WIDTH,
        height=height,
        boxes=tuple(boxes),
        lines=tuple(wires),
        routers=tuple(routers),
    )


def _outside(stage: Stage) -> tuple[list[Box], list[Line], list[tuple[int, int, str]]]:
    """Return attacker, LAN, routers and internet."""
    side, top, tall = 190, 28, 68
    right = WIDTH - _MARGIN - side
    attacker = Box(
        name=ATTACKER,
        kind="outside",
        x=_MARGIN,
        y=top,
        width=side,
        height=tall,
        label=ATTACKER,
        notes=_world(stage, ATTACKER),
    )
    internet = replace(
        attacker, name=INTERNET, x=right, label=INTERNET, notes=_world(stage, INTERNET)
    )
    count = max(stage.routers, 1)
    first, last = WIDTH // 2 + 60, right - 46
    step = (last - first) // max(count - 1, 1)
    shown = range(1, count + 1) if count <= 8 else (1, count)
    routers = [(first + (number - 1) * step, _LAN, f"r{number}") for number in shown]
    wires = [
        Line(_MARGIN + side, _LAN, right, _LAN),
        Line(WIDTH // 2 - 60, _LAN, WIDTH // 2 - 60, _HOST_TOP),
    ]
    return [attacker, internet], wires, routers


def _shared(sharing: Sequence[StagedContainer]) -> list[Box]:
    """Return the containers in the host's namespace."""
    return [
        Box(
            name=item.name,
            kind="shared",
            x=2 * _MARGIN + number * (_LEAF_WIDTH + 30 + _GAP),
            y=_HOST_TOP + 46,
            width=_LEAF_WIDTH + 30,
            height=_JOINER,
            label=item.name,
        )
        for number, item in enumerate(sharing[:4])
    ]


def _groups(stage: Stage) -> list[_Group]:
    groups = [
        _group(
            _bar(network),
            [_leaf(item, stage.containers) for item in stage.containers if _on(item, network)],
        )
        for network in stage.networks
    ]
    bystanders = [
        Box(
            name=name,
            kind="bystander",
            x=0,
            y=0,
            width=_LEAF_WIDTH,
            height=_LEAF_HEIGHT,
            label=name,
            notes=_world(stage, name),
        )
        for name in (NS1, NS2)
        if name in stage.world
    ]
    if bystanders:
        bar = _bar(StagedNetwork(name=BR0, interface=BR0, gateways=_world(stage, BR0)))
        groups.append(_group(replace(bar, name=BR0), bystanders))
    alone = [
        replace(_leaf(item, stage.containers), kind="alone")
        for item in stage.containers
        if not item.networks and not item.joined and item.mode != HOST
    ]
    if alone:
        groups.append(_group(None, alone))
    return groups


def _on(item: StagedContainer, network: StagedNetwork) -> bool:
    return item.networks[:1] == (network.name,)


def _bar(network: StagedNetwork) -> Box:
    label = network.interface or network.name
    if network.interface and network.name not in (network.interface, BR0, "bridge"):
        label = f"{network.interface} ({network.name})"
    return Box(
        name=GATEWAY,
        kind="bridge",
        x=0,
        y=0,
        width=0,
        height=_BAR,
        label=f"{label}, internal" if network.internal else label,
        notes=network.gateways[:1],
    )


def _leaf(item: StagedContainer, all_: Iterable[StagedContainer]) -> Box:
    """Return a container; containers that join it are boxes below its name."""
    joiners = [other.name for other in all_ if other.joined == item.name]
    also = tuple(f"also on {name}" for name in item.networks[1:2])
    notes = (*item.addresses[: 1 if also or item.mode == "none+veth" else 2], *also)
    if item.mode == "none+veth":
        notes = (*notes, "attached by hand")
    return Box(
        name=item.name,
        kind="container",
        x=0,
        y=0,
        width=_LEAF_WIDTH,
        height=_LEAF_HEIGHT + (_JOINER + 8) * len(joiners[:3]),
        label=item.name,
        notes=notes or ("no network",),
    )


def stacked(drawing: Drawing, stage: Stage) -> tuple[Box, ...]:
    """Return every box, the lowest first: the host's box is the first."""
    host = [box for box in drawing.boxes if box.kind == "host"]
    rest = [box for box in drawing.boxes if box.kind != "host"]
    return (*host, *rest, *_joiners(drawing, stage))


def _joiners(drawing: Drawing, stage: Stage) -> tuple[Box, ...]:
    """Return the boxes of the containers that join another's namespace."""
    homes = {box.name: box for box in drawing.boxes if box.kind in ("container", "alone")}
    found = []
    for name, home in homes.items():
        inside = [item for item in stage.containers if item.joined == name]
        for number, item in enumerate(inside[:3]):
            y = home.y + _LEAF_HEIGHT + number * (_JOINER + 8)
            found.append(
                Box(
                    name=item.name,
                    kind="joiner",
                    x=home.x + 6,
                    y=y,
                    width=home.width - 12,
                    height=_JOINER,
                    label=item.name,
                )
            )
    return tuple(found)


def _group(bar: Box | None, leaves: Sequence[Box]) -> _Group:
    """Return boxes side by side below their bridge, wrapped to the width of the host's box."""
    per_row = (WIDTH - 4 * _MARGIN + _GAP) // (_LEAF_WIDTH + _GAP)
    placed, lines, y = [], [], _BAR + _BAR_TO_LEAF
    for start in range(0, len(leaves), per_row):
        row = leaves[start : start + per_row]
        for number, leaf in enumerate(row):
            box = replace(leaf, x=number * (_LEAF_WIDTH + _GAP), y=y)
            placed.append(box)
            if bar:
                lines.append(Line(box.middle, _BAR, box.middle, y))
        y += max(leaf.height for leaf in row) + _GAP
    columns = min(max(len(leaves), 1), per_row)
    width = max(columns * (_LEAF_WIDTH + _GAP) - _GAP, 180 if bar else 0)
    shown = None if bar is None else replace(bar, width=width)
    return _Group(shown, tuple(placed), tuple(lines), width, y - _GAP)


def _placed(groups: Iterable[_Group], top: int) -> list[_Group]:
    """Return boxes side by side, in as many rows as needed."""
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


def _bottom(group: _Group) -> int:
    return max(box.y + box.height for box in (*group.leaves, *filter(None, [group.bar])))


def _world(stage: Stage, name: str) -> tuple[str, ...]:
    return tuple(stage.world.get(name, ()))[:2]
