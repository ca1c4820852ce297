"""Declaration of faults with `@fault`, and their collection from modules.

`@fault(…)` turns a function into a `Fault`. The faults of a module are all module attributes of the
type `Fault`: importing a module registers nothing.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import ModuleType
from typing import Any, Final

import harness.faults.library
import harness.faults.replays
from harness.model.requirements import Catalogue, UnknownRequirement

_ID: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Moment(StrEnum):
    """The moments at which a fault acts: before or after a verb of the adapter."""

    HOST_READY = "host-ready"
    """The runtime has been started; no container exists yet."""
    NETWORK_CREATED = "network-created"
    """A user-defined network was created; the default network exists when the host is ready."""
    BEFORE_NETWORK_REMOVED = "before-network-removed"
    NETWORK_REMOVED = "network-removed"
    BEFORE_CONTAINER = "before-container"
    """A container is about to be created and started; only its specification is known."""
    CONTAINER_STARTED = "container-started"
    """A container runs, for the first time or again."""
    CONTAINER_RESTARTED = "container-restarted"
    """A stopped container runs again; `CONTAINER_STARTED` comes just before."""
    CONTAINER_STOPPED = "container-stopped"
    CONNECTED = "connected"
    """A running container has been connected to another network."""
    DISCONNECTED = "disconnected"
    """A container has been disconnected from a network."""
    BEFORE_REMOVE = "before-remove"
    """A container is about to be removed."""
    CONTAINER_REMOVED = "container-removed"
    CRASHED = "crashed"
    """The runtime was killed while it started a container."""
    REFUSED = "refused"
    """The runtime has refused to create or start a container."""
    REPAIRED = "repaired"
    """The runtime has repaired its rules after a flush of the host's firewall."""


RULES: Final = (
    Moment.HOST_READY,
    Moment.NETWORK_CREATED,
    Moment.NETWORK_REMOVED,
    Moment.CONTAINER_STARTED,
    Moment.CONNECTED,
    Moment.DISCONNECTED,
    Moment.REPAIRED,
)
"""The moments at which a runtime may have rewritten its firewall rules."""
PLUGGED: Final = (Moment.CONTAINER_STARTED, Moment.CONNECTED)
"""The moments at which a container may have got an interface."""


class FaultError(ValueError):
    """Error in the declaration of a fault; the message names the place and the remedy."""


class UnknownFault(LookupError):
    """No fault has this id; the message names the most similar ids."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A deliberate sabotage and the requirements that it violates.

    A fault acts at `moments`, or in place of an adapter's verb (`around`), never both. For every
    requirement in `violates` a test must fail. With `narrow`, no test of another requirement may
    fail, except for the requirements in `also`. `history` names bugs of real runtimes that the
    fault reproduces. With `errors` the fault also counts as caught if a fixture fails. `where` is
    `file:line`.
    """

    id: str
    violates: tuple[str, ...]
    function: Callable[..., Any]
    moments: tuple[Moment, ...] = ()
    around: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    narrow: bool = False
    also: tuple[str, ...] = ()
    errors: bool = False
    replay: bool = False
    """True if the fault replays a bug of `suites/upstream`.

    `netmodes coverage` tries such faults; no other command does, unless they are named. Tests need
    not catch them.
    """
    stacked: tuple[Fault, ...] = ()
    """Other faults of the same function: the decorators below this one."""

    @property
    def about(self) -> str:
        """The title: the docstring's first paragraph; for a `stacked` fault with its moments."""
        said = " ".join((inspect.getdoc(self.function) or "").split("\n\n")[0].split())
        if self.stacked and len(self.moments) < len(RULES):
            return f"{said.removesuffix('.')} (at {', '.join(self.moments)})."
        return said

    @property
    def where(self) -> str:
        """The file and line of the function, for messages."""
        code = self.function.__code__
        return f"{code.co_filename}:{code.co_firstlineno}"


def fault(
    id_: str = "",
    *,
    violates: str | Sequence[str],
    moment: str | Sequence[str] = (),
    around: str | Sequence[str] = (),
    history: str | Sequence[str] = (),
    narrow: bool = False,
    also: Sequence[str] = (),
    errors: bool = False,
) -> Callable[[Callable[..., Any] | Fault], Fault]:
    """Make a fault of a function: `@fault(violates="BR-7", moment="container-started")`.

    The default id is the function's name with hyphens. With `moment` the function is called at that
    moment, or at each of several moments; it gets a `FaultContext`. With `around` the function is
    called in place of the adapter's verb of that name; it gets a `FaultContext` and an
    `AdapterCall`. Raises `FaultError` for an invalid declaration.

    Several `@fault` decorators on one function make several faults, each with its own id and
    moments.
    """

    def made(target: Callable[..., Any] | Fault) -> Fault:
        below = (target, *target.stacked) if isinstance(target, Fault) else ()
        function = target.function if isinstance(target, Fault) else target
        found = Fault(
            id_ or function.__name__.replace("_", "-"),
            _several(violates),
            function,
            moments=tuple(_moment(item, function) for item in _several(moment)),
            around=_several(around),
            history=_several(history),
            narrow=narrow,
            also=tuple(also),
            errors=errors,
            stacked=below,
        )
        _check(found)
        return found

    return made


def replay(
    *bugs: str,
    violates: str | Sequence[str],
    moment: str | Sequence[str] = (),
    around: str | Sequence[str] = (),
) -> Callable[[Callable[..., Any] | Fault], Fault]:
    """Make a fault of a function, as `fault` does, that replays bugs of `suites/upstream`.

    `violates` names the requirements whose tests should detect the bug.
    """

    def made(target: Callable[..., Any] | Fault) -> Fault:
        found = fault(violates=violates, moment=moment, around=around, history=bugs)(target)
        return replace(found, replay=True)

    return made


def _several(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _moment(name: str, function: Callable[..., Any]) -> Moment:
    try:
        return Moment(name)
    except ValueError:
        raise FaultError(
            f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}: unknown "
            f"moment {name!r}; the known ones are {', '.join(Moment)}"
        ) from None


def _check(found: Fault) -> None:
    complaint = ""
    wanted = 2 if found.around else 1
    if not _ID.fullmatch(found.id):
        complaint = "a fault id consists of lower-case words and hyphens"
    elif not found.violates:
        complaint = "the fault violates no requirement; name at least one in violates=(…)"
    elif bool(found.moments) == bool(found.around):
        complaint = "give either `moment`, when it acts, or `around`, the verb that it wraps"
    elif unknown := sorted(set(found.around) - VERBS):
        known = ", ".join(sorted(VERBS))
        complaint = f"adapters have no verb {', '.join(unknown)}; the verbs are {known}"
    elif not found.about:
        complaint = "the function has no docstring, which is the fault's title"
    elif len(inspect.signature(found.function).parameters) != wanted:
        complaint = (
            f"the function must take only {'a site and a verb' if found.around else 'a site'}"
        )
    if complaint:
        raise FaultError(f"{found.where}: fault {found.id!r}: {complaint}")


@dataclass(frozen=True, slots=True)
class FaultCatalogue:
    """Faults with unique ids."""

    faults: tuple[Fault, ...]

    def __iter__(self) -> Iterator[Fault]:
        return iter(self.faults)

    def __len__(self) -> int:
        return len(self.faults)

    @property
    def own(self) -> FaultCatalogue:
        """The faults that tests must catch: all except the replays of upstream bugs."""
        return FaultCatalogue(tuple(item for item in self if not item.replay))

    def __getitem__(self, id_: str) -> Fault:
        """Return the fault with this id; raise `UnknownFault` if there is none."""
        for item in self.faults:
            if item.id == id_:
                return item
        near = difflib.get_close_matches(id_, [item.id for item in self], n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "see `netmodes faults --list`"
        raise UnknownFault(f"no fault {id_!r}: {hint}")


def collect(modules: Iterable[ModuleType], requirements: Catalogue) -> FaultCatalogue:
    """Return the faults of modules, in order of declaration.

    Raises `FaultError` if two faults share an id or a fault names an unknown requirement.
    """
    found: dict[str, Fault] = {}
    for module in modules:
        declared = [item for item in vars(module).values() if isinstance(item, Fault)]
        for item in (fault for top in declared for fault in (*reversed(top.stacked), top)):
            other = found.setdefault(item.id, item)
            if other is not item:
                raise FaultError(f"{item.where}: fault {item.id!r}: {other.where} has the same id")
            _check_requirements(item, requirements)
    return FaultCatalogue(tuple(found.values()))


def _check_requirements(item: Fault, requirements: Catalogue) -> None:
    for id_ in (*item.violates, *item.also):
        try:
            requirements[id_]
        except UnknownRequirement as error:
            raise FaultError(f"{item.where}: fault {item.id!r}: {error}") from None


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
"""The verbs of `harness.adapters.protocol.Adapter` that a fault can wrap."""


@dataclass(frozen=True, slots=True)
class AdapterCall:
    """Call of an adapter's verb that a fault wraps.

    `called` is the name of the verb. The arguments of the verb are attributes of this object, such
    as `verb.spec`, `verb.name` and `verb.argv`. `remove` has the attribute `verb.names`.
    """

    called: str
    arguments: Mapping[str, Any]
    _do: Callable[..., Any]

    def __call__(self, **changed: Any) -> Any:
        """Call the verb, with the given arguments changed, and return its result.

        Raises the same exceptions as the verb, such as `RuntimeRefused`.
        """
        if unknown := changed.keys() - self.arguments.keys():
            raise TypeError(
                f"{self.called} has no argument {', '.join(sorted(unknown))}; "
                f"its arguments are {', '.join(self.arguments)}"
            )
        return self._do(**{**self.arguments, **changed})

    def call_with(self, **changed: Any) -> Any:
        """Call the verb with the given fields of its `spec` changed."""
        return self(spec=replace(self.arguments["spec"], **changed))

    def __getattr__(self, argument: str) -> Any:
        try:
            return self.arguments[argument]
        except KeyError:
            raise AttributeError(f"{self.called} has no argument {argument}") from None


def discover(requirements: Catalogue, others: Iterable[object] = ()) -> FaultCatalogue:
    """Return the built-in faults, and the faults of modules among the pytest plugins `others`.

    Raises `FaultError` for an invalid declaration, and for an id that two faults share.
    """
    own = [
        importlib.import_module(f"{package.__name__}.{item.name}")
        for package in (harness.faults.library, harness.faults.replays)
        for item in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name)
    ]
    theirs = [item for item in others if isinstance(item, ModuleType)]
    return collect({item.__name__: item for item in (*own, *theirs)}.values(), requirements)
