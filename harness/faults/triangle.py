"""Requirements, tests and faults: what is held together by all three, and where one is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.faults.catalogue import Fault
from harness.requirements import Catalogue, Requirement


@dataclass(frozen=True, slots=True)
class Row:
    """One requirement, how many tests check it, and which faults violate it."""

    requirement: Requirement
    tests: int
    faults: tuple[Fault, ...]
    unreplayed: tuple[str, ...]
    """Faults of real runtimes, by name, that the catalogue lists and no fault replays."""

    @property
    def holes(self) -> tuple[str, ...]:
        """What is missing, in words."""
        found = [] if self.tests else ["no test"]
        found += [] if self.faults else ["no fault"]
        found += [f"{name} is not replayed" for name in self.unreplayed]
        return tuple(found)


def rows(requirements: Catalogue, tests: Mapping[str, int], faults: Iterable[Fault]) -> list[Row]:
    """A row for each requirement, in the catalogue's order; `tests` are numbers by id."""
    every = list(faults)
    return [_row(requirement, tests.get(requirement.id, 0), every) for requirement in requirements]


def _row(requirement: Requirement, tests: int, every: list[Fault]) -> Row:
    own = tuple(item for item in every if requirement.id in item.violates)
    replayed = {name for item in every for name in item.history}
    unreplayed = tuple(
        reference.name for reference in requirement.history if reference.name not in replayed
    )
    return Row(requirement, tests, own, unreplayed)


def holes(table: Iterable[Row]) -> Iterator[str]:
    """Each hole, with the id of its requirement."""
    for row in table:
        for hole in row.holes:
            yield f"{row.requirement.id}: {hole}"
