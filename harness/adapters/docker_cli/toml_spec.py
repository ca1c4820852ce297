"""TOML descriptions of Docker-compatible command lines: `pytest --runtime=acme.toml`.

```toml
[runtime]
like = "docker"
command = ["acmectl"]
features = ["bridge", "host", "none"]
[dialect]
mac = "random"
```

`docs/adapter-protocol.md` has every table and key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

from msgspec import Meta

from harness.adapters import dialects
from harness.adapters.docker_cli.spec import CliSpec, CliVerbs
from harness.adapters.support.daemon import DaemonSpec
from harness.adapters.support.toml_table import check_keys, convert
from harness.model.features import Feature

_LIKE: Final = ("docker", "podman", "mydocker-cli")
_NEWEST: Final = "999999"
"""A version to which every entry of `dialects.toml` about the newest version applies."""

_Words = tuple[str, ...]
_Command = Annotated[_Words, Meta(min_length=1)]
_Number = Annotated[int, Meta(ge=1)]
_Path = Annotated[str, Meta(pattern="^/")]
_TABLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "runtime": {
        "like": str,
        "features": Annotated[frozenset[Feature], Meta(min_length=1)],
        "timeout": _Number,
        "shortest_name": _Number,
        "name": str,
        "version": str,
        "default_network": str,
        "image": str,
        "install": str,
        "scratch": tuple[_Path, ...],
        "programs": _Words,
        "command": _Command,
        "idle": _Command,
        "env": dict[str, str],
        "files": dict[_Path, str],
    },
    "words": {
        key: kind if kind is str else _Words if key in ("repair", "reset", "host") else _Command
        for key, kind in get_type_hints(CliVerbs).items()
    },
    "daemon": {"command": _Command, "socket": str},
    "dialect": {},
}
"""The types of the keys of each table."""
KEYS: Final = tuple(_TABLES["runtime"])
"""The keys of the table `[runtime]`."""


class DescriptionError(ValueError):
    """Error in a TOML description; the message names file, table, key and expected value."""


def load(path: str) -> CliSpec:
    """Return the spec of the runtime that the file describes; raise `DescriptionError`."""
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DescriptionError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DescriptionError(f"{path} is not valid TOML: {error}") from None
    try:
        return _spec(tables, Path(path).stem)
    except ValueError as error:
        raise DescriptionError(f"{path}: {error}. See docs/adapters.md for an example") from None


def _spec(tables: Mapping[str, Any], stem: str) -> CliSpec:
    check_keys(tables, _TABLES, "table")
    given = {"name": stem, **_converted(tables.get("runtime", {}), "runtime")}
    like, _, version = given.pop("like", "").partition(" ")
    if version and not version[0].isdigit():
        raise ValueError(
            f'like has the invalid version {version!r}; use numbers, such as "{like} 26.1"'
        )
    base = _base(like, given)
    if "version" in given:
        given["known_version"] = given.pop("version")
    for key in ("env", "files"):
        if key in given:
            given[key] = tuple(sorted(given[key].items()))
    given["words"] = replace(base.words, **_converted(tables.get("words", {}), "words"))
    if "daemon" in tables:
        given["daemons"] = _daemons(tables["daemon"])
    spec = replace(base, like=version or _NEWEST, **given)
    dialect = spec.dialect or dialects.composed(*((name, spec.like) for name in spec.kin))
    return replace(spec, dialect=replace(dialect, **dialects.read(tables.get("dialect", {}))))


def _base(like: str, given: Mapping[str, Any]) -> CliSpec:
    """Return the description of the runtime named by `like`, or an empty description."""
    from harness.adapters.docker_cli import docker, mydocker, podman

    if like:
        known = dict(zip(_LIKE, (docker.SPEC, podman.CRUN, mydocker.SPEC), strict=True))
        if like not in known:
            raise ValueError(f"[runtime] like = {like!r} is not one of {', '.join(_LIKE)}")
        return replace(known[like], install="", cgroups=False, kin=known[like].kin or (like,))
    for key in ("command", "features"):
        if key not in given:
            raise ValueError(f"[runtime] needs {key!r}, or `like` to inherit it from")
    return CliSpec(name="", command=("",), features=frozenset())


def _daemons(tables: object) -> tuple[DaemonSpec, ...]:
    if not isinstance(tables, list) or not all(isinstance(item, dict) for item in tables):
        raise ValueError("write [[daemon]] with two brackets: it is an array of tables")
    for key in ("command", "socket"):
        if any(key not in item for item in tables):
            raise ValueError(f"[[daemon]] needs {key!r}")
    return tuple(DaemonSpec(**_converted(item, "daemon")) for item in tables)


def _converted(table: object, name: str) -> dict[str, Any]:
    kinds = _TABLES[name]
    found = convert(table, kinds, f"[[{name}]]" if name == "daemon" else f"[{name}]")
    for key, value in found.items():
        if kinds[key] is _Command and not value[0]:
            raise ValueError(f"[{name}] {key} is {value}, whose first word is empty")
    return found
