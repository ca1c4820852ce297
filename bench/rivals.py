"""Runtimes to compare in a measurement, each in its own host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from harness.adapters import registry
from harness.adapters.protocol import Adapter, AdapterFactory
from harness.world.build import World
from linux.syscalls import in_user_namespace

_FOR_ROOT: Final = ("podman", "docker")


def there(names: Iterable[str]) -> Iterator[tuple[str, AdapterFactory]]:
    """Yield the runtimes that can be measured on this machine; say why others are skipped."""
    for name in names:
        if name in _FOR_ROOT and in_user_namespace():
            print(f"{name} is skipped: it needs root outside a user namespace")
            continue
        try:
            found = registry.find(name)
        except registry.UnknownRuntime as error:
            print(f"{name} is skipped: {error}")
        else:
            yield name, found


@contextmanager
def up(factory: AdapterFactory) -> Iterator[tuple[World, Adapter]]:
    """Build a world, start the runtime in its host, and stop it afterwards."""
    with World.build() as world:
        adapter = factory(world.host)
        adapter.start()
        try:
            yield world, adapter
        finally:
            adapter.stop()
