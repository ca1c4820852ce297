"""Hypothesis strategy that draws plans which a live runtime can build.

The plans leave the choice of every address to the runtime. They have only modes and options whose
feature is in `features`.
"""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import strategies as st

from harness.model.plan import (
    DEFAULT_NETWORK,
    Attached,
    Bridge,
    ContainerSpec,
    Host,
    Joined,
    Mode,
    NetworkSpec,
    Nothing,
    Plan,
)

EVERYTHING = frozenset(
    {"bridge", "host", "none", "container", "networks", "internal", "icc", "ipv6", "connect"}
)
"""Features (values of `adapters.protocol.Feature`) that shape a plan."""


@st.composite
def plans(
    draw: st.DrawFn,
    *,
    max_networks: int = 3,
    max_containers: int = 5,
    features: Collection[str] = EVERYTHING,
) -> Plan:
    """Draw plans within the given sizes that a runtime with `features` can build.

    `features` must contain at least one of the modes bridge, host and none.
    """

    def perhaps(feature: str) -> bool:
        return feature in features and draw(st.booleans())

    plan = Plan()
    for number in range(draw(st.integers(0, max_networks)) if "networks" in features else 0):
        internal, ipv6, isolated = perhaps("internal"), perhaps("ipv6"), perhaps("icc")
        plan = plan.with_network(
            NetworkSpec(f"net{number + 1}", internal=internal, ipv6=ipv6, icc=not isolated)
        )
    for number in range(draw(st.integers(0, max_containers))):
        mode = draw(st.sampled_from(modes(plan, features)))
        also: list[str] = []
        if isinstance(mode, Bridge) and perhaps("connect"):
            others = [name for name in _networks(plan) if name != mode.network]
            also = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
        plan = plan.with_container(
            ContainerSpec(f"container{number + 1:02}", mode, also=tuple(also))
        )
    return plan


def _networks(plan: Plan) -> list[str]:
    return [DEFAULT_NETWORK, *(network.name for network in plan.networks)]


def modes(plan: Plan, features: Collection[str]) -> list[Mode]:
    """Return the modes that the next container of `plan` can have, the simplest first.

    A network can be attached by hand only if a container uses it already, because some runtimes
    create a bridge only then.
    """
    networks = _networks(plan)
    lived_on = {name for container in plan.containers for name in container.networks}
    offers: list[tuple[set[str], list[Mode]]] = [
        ({"bridge"}, [Bridge(name) for name in networks]),
        ({"host"}, [Host()]),
        ({"none"}, [Nothing()]),
        ({"none", "bridge"}, [Attached(name) for name in networks if name in lived_on]),
        ({"container"}, [Joined(container.name) for container in plan.containers]),
    ]
    return [mode for needed, them in offers if needed <= set(features) for mode in them]
