"""A verb of the runtime that a fault wraps: what was asked, and how to do it nevertheless."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

VERBS: Final = frozenset(
    {
        "network",
        "network_facts",
        "remove_network",
        "run",
        "inspect",
        "connect",
        "disconnect",
        "exec",
        "stop_container",
        "start_container",
        "remove",
        "repair",
        "crash",
        "start",
    }
)
"""What a fault can wrap: the verbs of `harness.adapters.protocol.Adapter`."""


@dataclass(frozen=True, slots=True)
class Verb:
    """A call of the adapter that the fault decides about.

    `called` is the name of `Adapter`'s method. Its arguments are attributes by the names of
    its parameters: `verb.spec`, `verb.name`, `verb.argv`, `verb.names` for `remove`.
    """

    called: str
    arguments: Mapping[str, Any]
    _do: Callable[..., Any]

    def __call__(self, **changed: Any) -> Any:
        """Have the runtime do it, with some arguments changed, and return what it returned.

        Raises what the runtime raises, `RuntimeRefused` for an orderly no.
        """
        if unknown := changed.keys() - self.arguments.keys():
            raise TypeError(
                f"{self.called} has no argument {', '.join(sorted(unknown))}; "
                f"it has: {', '.join(self.arguments)}"
            )
        return self._do(**{**self.arguments, **changed})

    def __getattr__(self, argument: str) -> Any:
        try:
            return self.arguments[argument]
        except KeyError:
            raise AttributeError(f"{self.called} has no argument {argument}") from None
