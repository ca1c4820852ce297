"""Tests of the drawing of a world: it is complete, and nothing overlaps."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.model.plan import Attached, Bridge, Host, Joined, Plan
from harness.report.render.topology_svg import Box, draw
from harness.report.schema import Stage, StagedContainer, StagedNetwork
from harness.testbench.strategies import plans
from tests.report import made


def staged(plan: Plan) -> Stage:
    """Return the containers of a plan in the example world."""
    networks = dict.fromkeys(name for item in plan.containers for name in item.networks)
    return Stage(
        routers=3,
        world=made.STAGE.world,
        networks=tuple(StagedNetwork(name=name, interface=f"br-{name}") for name in networks),
        containers=tuple(
            StagedContainer(
                name=item.name,
                mode=str(item.mode),
                networks=item.networks if isinstance(item.mode, Bridge | Attached) else (),
                joined=item.mode.container if isinstance(item.mode, Joined) else None,
            )
            for item in plan.containers
        ),
    )


def apart(one: Box, other: Box) -> bool:
    """Return whether two boxes do not overlap."""
    return (
        one.x + one.width <= other.x
        or other.x + other.width <= one.x
        or one.y + one.height <= other.y
        or other.y + other.height <= one.y
    )


@settings(deadline=None)
@given(plans(max_containers=8), st.integers(1, 30))
def test_drawn_boxes_of_containers_do_not_overlap(plan: Plan, routers: int) -> None:
    """The containers' boxes do not overlap and are inside the host's box, for any plan."""
    stage = staged(plan)
    drawing = draw(replace(stage, routers=routers))
    host, *boxes = drawing.boxes
    assert host.kind == "host"
    inside = [box for box in boxes if box.kind not in ("outside", "joiner")]
    for number, box in enumerate(inside):
        assert host.x <= box.x
        assert box.x + box.width <= host.x + host.width
        assert box.y + box.height <= host.y + host.height
        assert all(apart(box, other) for other in inside[:number])
    drawn = {box.name for box in boxes}
    for item in plan.containers:
        if not isinstance(item.mode, Host | Joined):
            assert item.name in drawn
    assert max(box.y + box.height for box in (host, *boxes)) <= drawing.height


def test_joined_container_is_drawn_inside_its_owner() -> None:
    """A joined container is drawn inside the container whose netns it shares."""
    boxes = {box.name: box for box in draw(made.STAGE).boxes}
    home, joiner = boxes["a"], boxes["d"]
    assert home.x < joiner.x
    assert home.y < joiner.y
    assert joiner.x + joiner.width < home.x + home.width
    assert joiner.y + joiner.height <= home.y + home.height
