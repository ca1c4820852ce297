"""The part of Go's templates that people give to `--format`: fields, json, index, range.

`{{.State.Pid}}`, `{{json .Config}}`, `{{index .Config.Labels "a"}}`,
`{{range .Mounts}}{{.Source}} {{end}}`, `{{len .Mounts}}` (Go's text/template).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Final

from runtime.errors import InvalidError

_PART: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_WORD: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s"]+')
_FIELD: Final = re.compile(r"\.|(\.[A-Za-z0-9_]+)+")
_UNESCAPED: Final = {r"\t": "\t", r"\n": "\n"}
_ARITY: Final = {"json": 2, "len": 2, "index": 3}


def render(template: str, data: Any) -> str:
    """Fill in a template; `InvalidError` where it asks for what there is not."""
    if template == "json":
        return json.dumps(data)
    for written, meant in _UNESCAPED.items():
        template = template.replace(written, meant)
    parts = iter(enumerate(_PART.split(template)))
    return _rendered(list(_parsed(template, parts, nested=False)), data, template)


_Node = str | list[str] | tuple[list[str], list[Any]]
"""Text, the words of an expression, or those of a range with its body."""


def _parsed(template: str, parts: Iterator[tuple[int, str]], *, nested: bool) -> Iterator[_Node]:
    for number, text in parts:
        words = _WORD.findall(text.strip("- ")) if number % 2 else []
        if not number % 2:
            if "{{" in text:
                raise _wrong(template, "there is an opening {{ that nothing closes")
            yield text
        elif words == ["end"] and nested:
            return
        elif words[:1] == ["range"] and len(words) == 2:
            yield words[1:], list(_parsed(template, parts, nested=True))
        else:
            yield words
    if nested:
        raise _wrong(template, "{{range …}} has no {{end}}")


def _rendered(nodes: Sequence[_Node], data: Any, template: str) -> str:
    found = []
    for node in nodes:
        if isinstance(node, str):
            found.append(node)
        elif isinstance(node, list):
            found.append(_shown(_value(node, data, template)))
        else:
            over = _value(node[0], data, template) or ()
            items = over.values() if isinstance(over, Mapping) else over
            if isinstance(items, str) or not isinstance(items, Iterable):
                raise _wrong(template, f"{node[0][0]} is nothing to go through")
            found += [_rendered(node[1], item, template) for item in items]
    return "".join(found)


def _value(words: Sequence[str], data: Any, template: str) -> Any:
    if len(words) == 1 and _FIELD.fullmatch(words[0]):
        for name in filter(None, words[0].split(".")):
            if not isinstance(data, Mapping) or name not in data:
                raise _wrong(template, f"there is no {words[0]}{_choice(data)}")
            data = data[name]
        return data
    if not words or _ARITY.get(words[0]) != len(words):
        raise _wrong(template, f"{{{{{' '.join(words)}}}}} is more than mydocker understands")
    of = _value(words[1:2], data, template)
    if words[0] == "json":
        return json.dumps(of)
    if words[0] == "len":
        if not isinstance(of, Sized):
            raise _wrong(template, f"{words[1]} has no length")
        return len(of)
    try:
        key = json.loads(words[2])
        return of.get(key, "") if isinstance(of, Mapping) else of[key]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _wrong(template, f"{words[1]} has nothing at {words[2]}") from None


def _choice(data: Any) -> str:
    return f", only {', '.join(f'.{name}' for name in data)}" if isinstance(data, Mapping) else ""


def _wrong(template: str, why: str) -> InvalidError:
    return InvalidError(f"use --format {template!r}", why, remedy="--format json")


def _shown(value: Any) -> str:
    """As Go's `print` shows it."""
    match value:
        case None:
            return "<no value>"
        case bool():
            return str(value).lower()
        case Mapping():
            return f"map[{' '.join(f'{key}:{_shown(value[key])}' for key in sorted(value))}]"
        case list() | tuple():
            return f"[{' '.join(map(_shown, value))}]"
    return str(value)
