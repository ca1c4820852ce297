"""Matrices of promises or observations with an entry for each cell, and their comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from harness.model.plan import Cell, Family, Observation, Promise, Protocol

Entry = Promise | Observation
E = TypeVar("E", Promise, Observation)


class MatrixConflict(ValueError):
    """Two matrices have different entries for one cell; the message names the cell."""


class Matrix(Mapping[Cell, E]):
    """An immutable mapping from `Cell` to `Promise`, or to `Observation`.

    An observed and a promised matrix are equal if they have the same cells and every promise admits
    its observation. Two promised matrices, or two observed ones, are equal if their entries are.
    The order of cells has no effect on comparisons.

    `origin` is the scene in which the observations were made, so that a caller can probe its cells
    again. Comparisons ignore `origin`.
    """

    __slots__ = ("_entries", "origin")

    def __init__(
        self, entries: Mapping[Cell, E] | Iterable[tuple[Cell, E]] = (), *, origin: object = None
    ) -> None:
        self._entries: dict[Cell, E] = dict(entries)
        self.origin = origin

    def __getitem__(self, cell: Cell) -> E:
        return self._entries[cell]

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Matrix):
            return NotImplemented
        return not diff(self, other)

    __hash__ = None  # type: ignore[assignment] # equality is admission: no hash possible

    def __repr__(self) -> str:
        return f"<Matrix of {len(self)} cells>"

    def select(
        self,
        *,
        source: str | None = None,
        target: str | None = None,
        protocol: Protocol | None = None,
        family: Family | None = None,
    ) -> Matrix[E]:
        """Return a matrix of the cells that have all of the given properties."""
        return Matrix(
            (
                (cell, entry)
                for cell, entry in self.items()
                if source in (None, cell.source)
                and target in (None, cell.target)
                and protocol in (None, cell.protocol)
                and family in (None, cell.family)
            ),
            origin=self.origin,
        )

    def restrict(self, cells: Iterable[Cell]) -> Matrix[E]:
        """Return a matrix of those `cells` that this matrix has, in the order of this matrix."""
        wanted = frozenset(cells)
        kept = ((cell, entry) for cell, entry in self.items() if cell in wanted)
        return Matrix(kept, origin=self.origin)

    def merge(self, other: Matrix[E]) -> Matrix[E]:
        """Return a matrix with the cells of both matrices.

        Raises `MatrixConflict` if they have different entries for one cell.
        """
        for cell, entry in other.items():
            if self.get(cell, entry) != entry:
                raise MatrixConflict(f"{cell}: {self[cell]} here, {entry} there")
        return Matrix({**self, **other}, origin=self.origin or other.origin)


@dataclass(frozen=True, slots=True)
class Difference:
    """A cell in which two matrices differ, with its entry in each, or `None` without one."""

    cell: Cell
    left: Entry | None
    right: Entry | None

    @property
    def promise(self) -> Promise | None:
        """The cell's promise, or `None` if neither matrix has one."""
        return next((e for e in (self.left, self.right) if isinstance(e, Promise)), None)

    @property
    def observation(self) -> Observation | None:
        """The cell's observation, or `None` if neither matrix has one."""
        return next((e for e in (self.left, self.right) if isinstance(e, Observation)), None)


AnyMatrix = Matrix[Promise] | Matrix[Observation]


def diff(left: AnyMatrix, right: AnyMatrix) -> tuple[Difference, ...]:
    """Return the cells in which the two matrices differ.

    Their order is that of the promised matrix, or of `left` if the two are of one kind. Cells that
    exist only in the other matrix come last.
    """
    first, second = (right, left) if _promises(right) else (left, right)
    return tuple(
        Difference(cell, left.get(cell), right.get(cell))
        for cell in dict.fromkeys([*first, *second])
        if not agree(left.get(cell), right.get(cell))
    )


def requirements(left: AnyMatrix, right: AnyMatrix) -> tuple[frozenset[str], frozenset[str]]:
    """Return the requirements that the differing cells contradict, and those of the other cells.

    A requirement of both kinds of cells is in the first set only.
    """
    wrong = {item.promise.requirement for item in diff(left, right) if item.promise}
    entries = (*left.values(), *right.values())
    named = {entry.requirement for entry in entries if isinstance(entry, Promise)}
    return frozenset(wrong), frozenset(named - wrong)


def _promises(matrix: AnyMatrix) -> bool:
    return isinstance(next(iter(matrix.values()), None), Promise)


def agree(left: Entry | None, right: Entry | None) -> bool:
    """Return whether two entries of a cell agree.

    A promise and an observation agree if the promise admits the observation. Two promises, or two
    observations, agree if they are equal.
    """
    match left, right:
        case (Promise() as promise, Observation() as seen):
            return promise.admits(seen)
        case (Observation() as seen, Promise() as promise):
            return promise.admits(seen)
        case _:
            return left == right


# --- in words ----------------------------------------------------------------

_AXES = {"source": "from {}", "target": "to {}", "protocol": "by {}", "family": "over IPv{}"}


Tell = Callable[[Sequence[Difference]], Mapping[Cell, Sequence[str]]]
"""Function from wrong cells to further lines about each cell."""


def explain(
    left: AnyMatrix, right: AnyMatrix, *, limit: int = 6, tell: Tell | None = None
) -> list[str]:
    """Return lines for an assertion message that explain why two matrices differ.

    The result is empty if they do not differ. The first lines give the properties that the wrong
    cells share. At most `limit` entries follow, then the number of cells left out.

    An entry covers the cells of one source and one target that failed in the same way. It shows the
    promise and the observation, the requirement and the reason. `tell` returns further lines about
    the cells that are shown, and is called only once, with all of these cells.
    """
    wrong = diff(left, right)
    if not wrong:
        return []
    cells = left.keys() | right.keys()
    entries: dict[object, list[Difference]] = {}
    for difference in wrong:
        pair = difference.cell.source, difference.cell.target
        entries.setdefault((pair, _likeness(difference)), []).append(difference)
    lines = [f"{len(wrong)} of {len(cells)} cells are wrong", *_patterns(wrong, cells)]
    ordered = list(entries.values())
    # TCP shows no TTL: of cells that fail in the same way, prefer a cell with a known TTL.
    shown = [max(entry, key=_shown_ttl) for entry in ordered[:limit]]
    more = tell(shown) if tell else {}
    for entry, one in zip(ordered, shown, strict=False):
        lines += _entry_lines(entry, one, _labels(left, right))
        lines += [f"      {printable(line)}" for line in more.get(one.cell, ())]
    rest = [difference for entry in ordered[limit:] for difference in entry]
    if rest:
        sources = dict.fromkeys(printable(difference.cell.source) for difference in rest)
        lines.append(f"  and {len(rest)} more, from {', '.join(sources)}")
    return lines


def printable(text: str) -> str:
    """Return `text` with every control and format character escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _likeness(difference: Difference) -> object:
    """Return a key that is equal for cells that failed in the same way.

    The key does not contain correct TTLs.
    """
    promise, seen = difference.promise, difference.observation
    if promise is None or seen is None:
        return difference.left, difference.right
    ttls = frozenset({seen.ttl, seen.seen_ttl} - {None})
    right = promise.outcome is not seen.outcome or promise.ttl is None or ttls == {promise.ttl}
    return (
        replace(promise, ttl=None),
        replace(seen, ttl=None, seen_ttl=None),
        None if right else (promise.ttl, ttls),
    )


def _patterns(wrong: Sequence[Difference], cells: Collection[Cell]) -> Iterator[str]:
    """Yield the properties that all wrong cells share, and those for which every cell is wrong."""
    if len(wrong) in (1, len(cells)):
        return
    shared, lost = [], []
    for axis, phrase in _AXES.items():
        total = Counter(getattr(cell, axis) for cell in cells)
        amiss = Counter(getattr(difference.cell, axis) for difference in wrong)
        if len(total) == 1:
            continue
        if len(amiss) == 1:
            shared.append(phrase.format(*amiss))
        lost += [phrase.format(value) for value, many in amiss.items() if many == total[value] > 1]
    if shared:
        yield f"all of them {', '.join(map(printable, shared))}"
    if lost:
        yield f"every cell {', '.join(map(printable, lost))}"


def _labels(left: AnyMatrix, right: AnyMatrix) -> tuple[str, str]:
    first, second = _promises(left), _promises(right)
    if first == second:
        return "left", "right"
    return ("promised", "observed") if first else ("observed", "promised")


_READING_ORDER = ("promised", "left", "observed", "right")
_NOTHING = {"promised": "nothing: there is no such cell", "observed": "nothing: never probed"}


def _entry_lines(
    entry: Sequence[Difference], shown: Difference, labels: tuple[str, str]
) -> Iterator[str]:
    sides = dict(zip(labels, (shown.left, shown.right), strict=True))
    yield (
        f"  {printable(shown.cell.source)} → {printable(shown.cell.target)}"
        f" {_channels([difference.cell for difference in entry])}"
    )
    for label in sorted(sides, key=_READING_ORDER.index):
        side = sides[label]
        detail = f" ({side.detail})" if isinstance(side, Observation) and side.detail else ""
        words = _NOTHING.get(label, "nothing") if side is None else f"{side}{detail}"
        yield f"    {label}: {printable(words)}"
    if shown.promise:
        yield f"    {printable(f'{shown.promise.requirement}: {shown.promise.why}')}"


def _shown_ttl(difference: Difference) -> int:
    return difference.promise.ttl or 0 if difference.promise else 0


def _channels(cells: Sequence[Cell]) -> str:
    """Return protocols and address families as text, such as `icmp, udp over IPv4 and IPv6`.

    If not every protocol occurs with every family, list the pairs instead: `icmp/4, udp/6`.
    """
    protocols = dict.fromkeys(cell.protocol for cell in cells)
    families = dict.fromkeys(cell.family for cell in cells)
    if len(cells) < len(protocols) * len(families):
        return ", ".join(f"{cell.protocol}/{cell.family}" for cell in cells)
    return f"{', '.join(protocols)} over {' and '.join(f'IPv{family}' for family in families)}"
