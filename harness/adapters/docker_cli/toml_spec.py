"""A Docker-shaped command line described in a TOML file: `pytest --runtime=acme.toml`.

```toml
[runtime]
like = "docker"
command = ["acmectl"]
features = ["bridge", "host", "none"]
[dialect]
mac = "random"
```

`docs/adapters.md` has every table and key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from harness.adapters import dialects
from harness.adapters.docker_cli.adapter import CliFactory
from harness.adapters.docker_cli.spec import CliSpec, CliVerbs, DaemonSpec
from harness.model.dialect import Dialect
from harness.model.features import Feature

_LIKE: Final = ("docker", "podman", "mydocker-cli")
_TABLES: Final = ("runtime", "words", "daemon", "dialect")
_TEXTS: Final = ("name", "version", "default_network", "image", "install")
_LISTS: Final = ("scratch", "programs")
_COMMANDS: Final = ("command", "idle")
"""Lists as well, of a first word at least."""
_PAIRS: Final = ("env", "files")
_MAY_LACK: Final = ("repair", "reset", "host")
"""Verbs that a runtime need not have, and options that it need not take."""
KEYS: Final = (
    "like",
    "features",
    "timeout",
    "shortest_name",
    *_TEXTS,
    *_LISTS,
    *_COMMANDS,
    *_PAIRS,
)
"""The keys of the table `[runtime]`."""


class DescriptionError(ValueError):
    """A description cannot be read; the message names file, table, key and what is wanted."""


def load(path: str) -> CliFactory:
    """What makes adapters of the runtime that the file describes.

    Raises `DescriptionError`.
    """
    try:
        told = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DescriptionError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DescriptionError(f"{path} is no TOML: {error}") from None
    try:
        return CliFactory(_described(told, Path(path).stem))
    except ValueError as error:
        raise DescriptionError(f"{path}: {error}. docs/adapters.md has an example") from None


def _described(told: Mapping[str, Any], stem: str) -> CliSpec:
    _only(told, _TABLES, "table")
    runtime = _table(told, "runtime")
    _only(runtime, KEYS, "key of [runtime]")
    like, _, version = _text(runtime, "like", "").partition(" ")
    if version and not version[0].isdigit():
        raise ValueError(f'like has no version {version!r}: it is one of numbers, as "{like} 26.1"')
    spec = _model(like, runtime)
    given: dict[str, Any] = {"name": stem}
    given |= {key: _text(runtime, key) for key in _TEXTS if key in runtime}
    given |= {key: _words(runtime, key) for key in _LISTS if key in runtime}
    given |= {key: _command(runtime, key) for key in _COMMANDS if key in runtime}
    given |= {key: tuple(sorted(_texts(runtime, key).items())) for key in _PAIRS if key in runtime}
    for path in (*given.get("scratch", ()), *dict(given.get("files", ()))):
        if not path.startswith("/"):
            raise ValueError(f"scratch and files have absolute paths, which {path!r} is not")
    for key in ("timeout", "shortest_name"):
        if key in runtime:
            given[key] = _number(runtime, key)
    if "features" in runtime:
        given["features"] = frozenset(map(_feature, _words(runtime, "features")))
        if not given["features"]:
            raise ValueError(
                "features is empty: a runtime that claims nothing is held to next to nothing"
            )
    if "words" in told:
        given["words"] = _spelt(spec.words, _table(told, "words"))
    if "daemon" in told:
        given["daemons"] = tuple(map(_daemon, _tables(told, "daemon")))
    spec = replace(spec, like=version or _NEWEST, **given)
    dialect = spec.dialect or dialects.of_kin(spec.kin or (like,), spec.like)
    return replace(spec, dialect=_changed(dialect, _table(told, "dialect")))


_NEWEST: Final = "999999"
"""A version to which everything applies that the table has of the newest."""


def _model(like: str, runtime: Mapping[str, Any]) -> CliSpec:
    """The description to start from: that of a known runtime, or the plainest."""
    from harness.adapters import mydocker
    from harness.adapters.docker_cli import docker, podman

    if like:
        known = dict(zip(_LIKE, (docker.SPEC, podman.CRUN, mydocker.SPEC), strict=True))
        if like not in known:
            raise ValueError(f"[runtime] like = {like!r}: it is one of {', '.join(_LIKE)}")
        return replace(known[like], install="", cgroups=False, kin=known[like].kin or (like,))
    for key in ("command", "features"):
        if key not in runtime:
            raise ValueError(f"[runtime] needs {key!r}, or `like` to take it from")
    return CliSpec(name="", command=("",), features=frozenset())


def _spelt(words: CliVerbs, told: Mapping[str, Any]) -> CliVerbs:
    known = {item.name: getattr(words, item.name) for item in fields(CliVerbs)}
    _only(told, tuple(known), "key of [words]")
    given: dict[str, Any] = {
        key: _text(told, key)
        if isinstance(known[key], str)
        else (_words if key in _MAY_LACK else _command)(told, key)
        for key in told
    }
    return replace(words, **given)


def _daemon(told: Mapping[str, Any]) -> DaemonSpec:
    _only(told, ("command", "socket"), "key of [[daemon]]")
    for key in ("command", "socket"):
        if key not in told:
            raise ValueError(f"[[daemon]] needs {key!r}")
    return DaemonSpec(command=_command(told, "command"), socket=_text(told, "socket"))


def _changed(dialect: Dialect, told: Mapping[str, Any]) -> Dialect:
    return replace(dialect, **dialects.read(told))


# --- one value -----------------------------------------------------------------


def _only(told: Mapping[str, Any], known: tuple[str, ...], kind: str) -> None:
    for key in told:
        if key not in known:
            raise ValueError(f"there is no {kind} called {key!r}; there are: {', '.join(known)}")


def _table(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = told.get(name, {})
    if not isinstance(found, dict):
        raise ValueError(f"[{name}] is to be a table, not {found!r}")
    return found


def _tables(told: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = told[name]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"[[{name}]] is to be an array of tables: two brackets")
    return found


def _text(told: Mapping[str, Any], key: str, default: str | None = None) -> str:
    found = told.get(key, default)
    if not isinstance(found, str):
        raise ValueError(f"{key} is to be a text, not {found!r}")
    return found


def _number(told: Mapping[str, Any], key: str) -> int:
    found = told[key]
    if type(found) is not int or found < 1:
        raise ValueError(f"{key} is to be a whole number above 0, not {found!r}")
    return found


def _words(told: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = told[key]
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ValueError(f'{key} is to be a list of words, as in ["acmectl", "-v"], not {found!r}')
    return tuple(found)


def _command(told: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = _words(told, key)
    if not found or not found[0]:
        raise ValueError(f"{key} is to be at least one word, not {list(found)}")
    return found


def _texts(told: Mapping[str, Any], key: str) -> dict[str, str]:
    found = told[key]
    if not isinstance(found, dict) or not all(isinstance(item, str) for item in found.values()):
        raise ValueError(f"{key} is to be a table of texts, not {found!r}")
    return found


def _feature(word: str) -> Feature:
    try:
        return Feature(word)
    except ValueError:
        known = ", ".join(Feature)
        raise ValueError(f"there is no feature {word!r}; there are: {known}") from None
