"""Fixtures of the probe tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from harness.world.build import World
from linux import nftables
from linux.netns import NetNS
from linux.nftables import Expression, Nft
from tests.linux.star_topology import Star
from tests.support.nft import TABLE, add_rule

Put = Callable[..., None]


@pytest.fixture
def star() -> Iterator[Star]:
    """Build a router and three hosts.

    The route to the shared address leads to the first host.
    """
    with ExitStack() as stack:
        yield Star(stack, stack.enter_context(NetNS.new()))


@pytest.fixture
def rule(world: World) -> Iterator[Put]:
    """Return a function that adds a rule to a namespace: `rule("host", "forward", *parts)`.

    The rule is removed after the test.
    """
    with ExitStack() as stack:

        def put(
            name: str,
            hook: nftables.Hook,
            *parts: list[Expression],
            kind: str = "filter",
        ) -> None:
            add_rule(world.namespaces[name], hook, *parts, kind=kind)
            rules = stack.enter_context(Nft(world.namespaces[name]))
            stack.callback(rules.apply, [nftables.add_table(TABLE), nftables.del_table(TABLE)])

        yield put
