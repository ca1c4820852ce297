"""`--change`: the lines of a Dockerfile that say what an image asks of its containers."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from runtime.errors import InvalidError

_PORT: Final = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?")
_SHELL: Final = ["/bin/sh", "-c"]

Config = dict[str, Any]


def apply(config: Mapping[str, Any], lines: Sequence[str]) -> Config:
    """The part of a configuration that is about containers, changed line by line.

    `InvalidError` for a line that is none of `INSTRUCTIONS`, or malformed.
    """
    changed = dict(config)
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        change = _CHANGES.get(word.upper())
        if change is None:
            known = ", ".join(INSTRUCTIONS)
            raise InvalidError(f"apply {line!r}", "there is no such instruction", remedy=known)
        try:
            change(changed, rest.strip())
        except ValueError as error:
            raise InvalidError(f"apply {line!r}", str(error)) from None
    return changed


def _words(text: str) -> list[str]:
    """What the JSON form says; the shell form is given to a shell."""
    if not text.startswith("["):
        return [*_SHELL, text] if text else []
    found = json.loads(text)
    if not all(isinstance(item, str) for item in found):
        raise ValueError("it is not a list of strings")
    return list(found)


def _pairs(text: str) -> dict[str, str]:
    """`KEY=VALUE …`, or the old form `KEY VALUE`."""
    words = shlex.split(text)
    if words and "=" not in words[0]:
        words = [f"{words[0]}={' '.join(words[1:])}"]
    if not words or any(not word.partition("=")[0] or "=" not in word for word in words):
        raise ValueError("it is not KEY=VALUE")
    return dict(word.split("=", 1) for word in words)


def _command(config: Config, text: str) -> None:
    config["Cmd"] = _words(text)


def _entrypoint(config: Config, text: str) -> None:
    config["Entrypoint"] = _words(text)
    config["Cmd"] = []  # it was meant for another entrypoint


def _env(config: Config, text: str) -> None:
    before = dict(item.split("=", 1) for item in config.get("Env") or [])
    config["Env"] = [f"{key}={value}" for key, value in {**before, **_pairs(text)}.items()]


def _label(config: Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **_pairs(text)}


def _expose(config: Config, text: str) -> None:
    ports = text.split()
    if not ports or not all(_PORT.fullmatch(port) for port in ports):
        raise ValueError("a port is 80, 53/udp or 8000-8010")
    named: Config = {port if "/" in port else f"{port}/tcp": {} for port in ports}
    config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **named}


def _workdir(config: Config, text: str) -> None:
    if not text.startswith("/"):
        raise ValueError("the directory is not absolute")
    config["WorkingDir"] = text


def _user(config: Config, text: str) -> None:
    config["User"] = text


def _stop_signal(config: Config, text: str) -> None:
    config["StopSignal"] = text


_CHANGES: Final[Mapping[str, Callable[[Config, str], None]]] = {
    "CMD": _command,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "WORKDIR": _workdir,
}
INSTRUCTIONS: Final = tuple(_CHANGES)
"""The instructions that are understood."""
