"""The command `netmodes vendors`: which runtimes can be tested, and their own ways."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.adapters import dialects, registry
from harness.adapters.docker_cli.adapter import CliFactory
from harness.adapters.docker_cli.spec import CliSpec
from harness.adapters.protocol import AdapterFactory
from harness.model.dialect import Dialect
from harness.model.features import Feature

_PATTERNS: Final = frozenset({"residue", "made_by_start", "fleeting"})
"""Fields of a dialect that are too long a list to be told."""


def add(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    about = "list the runtimes that can be tested: version, features, and what is their own way"
    parser = commands.add_parser("vendors", help=about, description=about)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a runtime, or a TOML file, to tell all about"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the list, or those that were asked for in full; 2 for an unknown one."""
    console = Console(highlight=False)
    failed = 0
    if not arguments.names:
        console.print(_overview())
        return 0
    for name in arguments.names:
        try:
            factory = registry.load(name)
        except registry.UnknownRuntime as error:
            console.print(f"netmodes vendors: {error}", markup=False, soft_wrap=True)
            failed = 2
            continue
        console.print("\n".join(_in_full(name, factory)), markup=False, soft_wrap=True)
    return failed


def _overview() -> Table:
    table = Table(box=None)
    table.add_column("runtime", no_wrap=True)  # to be typed as it is
    for heading in ("version", "claims", "does its own way"):
        table.add_column(heading)
    for name in registry.names():
        try:
            factory = registry.load(name)
        except registry.UnknownRuntime:
            table.add_row(name, "does not load", f"`netmodes vendors {escape(name)}` tells why")
            continue
        absent = registry.missing(factory)
        version = version_of(factory)
        told = f"not installed: no {', '.join(absent)}" if absent else version or "-"
        differences = dict(dialects.differences(_dialect(factory, version)))
        table.add_row(name, told, _claims(factory), ", ".join(differences) or "-")
    return table


def _claims(factory: AdapterFactory) -> str:
    """The features, by what is not claimed where that is shorter."""
    lacking = [feature for feature in Feature if feature not in factory.features]
    if not lacking:
        return "everything"
    if len(lacking) < len(factory.features):
        return f"all but {', '.join(lacking)}"
    return ", ".join(sorted(factory.features))


def _in_full(name: str, factory: AdapterFactory) -> Iterator[str]:
    version = version_of(factory)
    yield f"{name} {version}".rstrip()
    if provenance := registry.provenance(factory):
        yield f"  {provenance}"
    if absent := registry.missing(factory):
        yield f"  {registry.missing_message(absent)}"
        if install := registry.how_to_install(factory):
            yield f"  to install it: {install}"
    yield f"  claims: {', '.join(sorted(factory.features))}"
    if lacking := sorted(set(Feature) - factory.features):
        yield f"  does not claim: {', '.join(lacking)}"
    dialect, told = _dialect(factory, version), set(_PATTERNS)
    for entry in _entries(factory, version):
        choices = {
            field: value
            for field, value in entry.choices.items()
            if field in _PATTERNS or value == getattr(dialect, field)
        }
        if not choices:
            continue  # a description says otherwise
        yield f"  {entry.about}"
        told.update(choices)
        for field, value in choices.items():
            if field not in _PATTERNS:
                yield f"    {field} = {_written(value)}"
        yield f"    {entry.source}"
    own = {field: value for field, value in dialects.differences(dialect) if field not in told}
    if own and len(told) > len(_PATTERNS):
        yield "  Its description says:"
    yield from (f"    {field} = {_written(value)}" for field, value in own.items())


def _entries(factory: AdapterFactory, version: str) -> list[dialects.DocumentedChoice]:
    """What the table of dialects has about it; nothing about who is not in the table."""
    spec = _spec(factory)
    if spec:
        kin = spec.kin or (spec.name,)
        of = spec.like or version
        return [entry for name in kin for entry in dialects.entries(name, of)]
    tell = getattr(factory, "entries", None)
    return list(tell()) if tell else []


def _written(value: object) -> str:
    if isinstance(value, frozenset | tuple):
        return ", ".join(sorted(map(str, value)))
    return str(value)


def version_of(factory: AdapterFactory) -> str:
    """The version that an installed runtime tells; `""` of one that does not."""
    version = getattr(factory, "version", "")
    return version if isinstance(version, str) else ""  # the property of a class is no version


def _dialect(factory: AdapterFactory, version: str) -> Dialect:
    spec = _spec(factory)
    if spec is None:
        dialect = getattr(factory, "dialect", None)
        return dialect if isinstance(dialect, Dialect) else Dialect()
    return spec.dialect or dialects.for_entries(spec.kin or (spec.name,), version)


def _spec(factory: AdapterFactory) -> CliSpec | None:
    return factory.spec if isinstance(factory, CliFactory) else None
