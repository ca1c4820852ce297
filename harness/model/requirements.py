"""The catalogue of requirements for runtimes: each has an id, a level and its sources."""

from __future__ import annotations

import difflib
import importlib.resources
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from importlib.resources.abc import Traversable
from typing import Any

import msgspec

from harness.model.dialect import Dialect

_ID = re.compile(r"[A-Z][A-Z0-9]*-[1-9][0-9]*")
_DIALECT_KEYS = frozenset(item.name for item in fields(Dialect))


class CatalogueError(ValueError):
    """The catalogue is malformed; the message names the entry and the error."""


class UnknownRequirement(LookupError):
    """No requirement has this id; the message suggests similar ids."""


class Level(StrEnum):
    """Level of obligation of a requirement, in the words of RFC 2119."""

    MUST = "MUST"
    SHOULD = "SHOULD"


@dataclass(frozen=True, slots=True)
class Reference:
    """Source of a requirement, or of a past bug of a runtime.

    `url` is `None` if the source is not published.
    """

    name: str
    url: str | None

    def __str__(self) -> str:
        return f"{self.name} <{self.url}>" if self.url else self.name


@dataclass(frozen=True, slots=True)
class Requirement:
    """One sentence that a runtime satisfies or violates.

    `history` lists bugs of real runtimes that the requirement's tests detect. `dialect` lists the
    fields of `Dialect` on which the exact promise depends. `features` lists the features that a
    runtime must declare for the requirement to apply (values of `adapters.protocol.Feature`).
    `needs` lists the requirements without which this one cannot be kept.
    """

    id: str
    level: Level
    section: str
    statement: str
    sources: tuple[Reference, ...] = ()
    history: tuple[Reference, ...] = ()
    dialect: tuple[str, ...] = ()
    features: frozenset[str] = frozenset()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All requirements, in the catalogue's order: `catalogue["BR-7"]`, `"BR-7" in catalogue`.

    `links` is the table that resolves the short names of sources and of bug reports.
    """

    requirements: tuple[Requirement, ...]
    links: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Requirement]:
        return iter(self.requirements)

    def __len__(self) -> int:
        return len(self.requirements)

    def __contains__(self, id_: str) -> bool:
        return any(requirement.id == id_ for requirement in self)

    def __getitem__(self, id_: str) -> Requirement:
        """Return the requirement with this id; raise `UnknownRequirement` if there is none."""
        for requirement in self:
            if requirement.id == id_:
                return requirement
        ids = [requirement.id for requirement in self]
        near = difflib.get_close_matches(id_.upper(), ids, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "see suites/requirements.toml"
        raise UnknownRequirement(f"no requirement {id_!r}: {hint}")

    def reference(self, name: str) -> Reference:
        """Return the reference for a short name such as `moby#14041`; raise `CatalogueError`."""
        return _reference(name, self.links)


def of_suites() -> Catalogue:
    """Return the catalogue of the installed suites."""
    return load(importlib.resources.files("suites") / "requirements.toml")


def load(path: Traversable) -> Catalogue:
    """Read the catalogue from a file (a `Path` or a package resource).

    Raises the errors of `parse`.
    """
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str) -> Catalogue:
    """Parse the catalogue in `text`; the file `suites/requirements.toml` shows the format.

    Raises `CatalogueError`, also for text that is not TOML.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"the catalogue is not TOML: {error}") from error
    links = document.get("links", {})
    requirements: dict[str, Requirement] = {}
    for section in document.get("section", ()):
        for row in section.get("requirement", ()):
            requirement = _requirement(row, section.get("name", ""), links)
            if requirement.id in requirements:
                raise CatalogueError(f"{requirement.id}: the id is taken; choose the next number")
            requirements[requirement.id] = requirement
    for requirement in requirements.values():
        if unknown := set(requirement.needs) - requirements.keys():
            names = ", ".join(sorted(unknown))
            raise CatalogueError(f"{requirement.id} needs unknown requirements: {names}")
    return Catalogue(tuple(requirements.values()), links)


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    """A requirement as the catalogue's file has it."""

    id: str
    level: Level
    statement: str
    sources: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    dialect: tuple[str, ...] = ()
    features: frozenset[str] = frozenset()
    needs: tuple[str, ...] = ()


def _requirement(raw: Mapping[str, Any], section: str, links: Mapping[str, str]) -> Requirement:
    id_ = raw.get("id", "")
    if not _ID.fullmatch(str(id_)):
        raise CatalogueError(
            f"{id_!r} in {raw} is not an id: write capital letters, a hyphen and a number"
        )
    try:
        row = msgspec.convert(raw, _Row)
    except msgspec.ValidationError as error:
        raise CatalogueError(f"{id_}: {error}") from error
    if not row.statement.endswith("."):
        raise CatalogueError(f"{id_}: the statement is not a full sentence: {row.statement!r}")
    if unknown := set(row.dialect) - _DIALECT_KEYS:
        raise CatalogueError(f"{id_}: {sorted(unknown)} are not fields of Dialect")
    try:
        references = {name: _reference(name, links) for name in (*row.sources, *row.history)}
    except CatalogueError as error:
        raise CatalogueError(f"{id_}: {error}") from None
    return Requirement(
        id_,
        row.level,
        section,
        row.statement,
        sources=tuple(references[name] for name in row.sources),
        history=tuple(references[name] for name in row.history),
        dialect=row.dialect,
        features=row.features,
        needs=row.needs,
    )


def _reference(name: str, links: Mapping[str, str]) -> Reference:
    """Return the reference that the table `links` has for a short name of a source.

    A key of `links` is the exact name, or a pattern with `{}`.
    """
    if name in links:
        return Reference(name, links[name] or None)
    for pattern, url in links.items():
        prefix, placeholder, _ = pattern.partition("{}")
        if placeholder and name.startswith(prefix):
            return Reference(name, url.replace("{}", name.removeprefix(prefix)))
    raise CatalogueError(f"[links] has no entry for {name!r}")
