"""`netmodes vendors`: list the runtimes that can be tested, with their documented differences."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.adapters import dialects, registry
from harness.adapters.docker_cli.spec import CliSpec
from harness.adapters.protocol import AdapterFactory
from harness.model.dialect import Dialect
from harness.model.features import Feature

_PATTERNS: Final = frozenset({"residue", "made_by_start", "fleeting"})
"""Fields of a dialect that are too long to be printed."""


def add(commands: Any) -> None:
    """Add `netmodes vendors` to the subcommands of a parser."""
    about = "list the runtimes that can be tested, with versions, features and dialects"
    parser = commands.add_parser("vendors", help=about, description=about)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="runtime, or TOML file that describes one, to show in full",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a list of all runtimes, or the given ones in full; return 2 for an unknown one."""
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
    table.add_column("runtime", no_wrap=True)  # users copy the names
    for heading in ("version", "features", "differs from mydocker in"):
        table.add_column(heading)
    for name in registry.names():
        try:
            factory = registry.load(name)
        except registry.UnknownRuntime:
            table.add_row(name, "does not load", f"see `netmodes vendors {escape(name)}`")
            continue
        absent = registry.missing(factory)
        version = version_of(factory)
        shown = f"not installed: no {', '.join(absent)}" if absent else version or "-"
        differences = dict(dialects.differences(_dialect(factory, version)))
        table.add_row(name, shown, _claims(factory), ", ".join(differences) or "-")
    return table


def _claims(factory: AdapterFactory) -> str:
    """Return the features that the adapter declares, or "all but" the undeclared ones."""
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
    dialect, shown = _dialect(factory, version), set(_PATTERNS)
    for entry in _entries(factory, version):
        choices = {
            field: value
            for field, value in entry.choices.items()
            if field in _PATTERNS or value == getattr(dialect, field)
        }
        if not choices:
            continue  # a user's description replaces them
        yield f"  {entry.about}"
        shown.update(choices)
        for field, value in choices.items():
            if field not in _PATTERNS:
                yield f"    {field} = {_as_text(value)}"
        yield f"    {entry.source}"
    own = {field: value for field, value in dialects.differences(dialect) if field not in shown}
    if own and len(shown) > len(_PATTERNS):
        yield "  from its description file:"
    yield from (f"    {field} = {_as_text(value)}" for field, value in own.items())


def _entries(factory: AdapterFactory, version: str) -> list[dialects.DocumentedChoice]:
    """Return the entries about the runtime in the table of documented dialects."""
    spec = _spec(factory)
    if spec:
        return dialects.entries(*spec.table_entries(version))
    tell = getattr(factory, "entries", None)
    return list(tell()) if tell else []


def _as_text(value: object) -> str:
    if isinstance(value, frozenset | tuple):
        return ", ".join(sorted(map(str, value)))
    return str(value)


def version_of(factory: AdapterFactory) -> str:
    """Return the version of an installed runtime, or `""` if the version is unknown."""
    version = getattr(factory, "version", "")
    return version if isinstance(version, str) else ""  # a class has a property here


def _dialect(factory: AdapterFactory, version: str) -> Dialect:
    spec = _spec(factory)
    if spec is None:
        dialect = getattr(factory, "dialect", None)
        return dialect if isinstance(dialect, Dialect) else Dialect()
    return spec.dialect or dialects.composed(*spec.table_entries(version))


def _spec(factory: AdapterFactory) -> CliSpec | None:
    return factory if isinstance(factory, CliSpec) else None
