"""The stories of a failed assertion, and the evidence that goes with them.

Imported when something has failed, never before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from harness.autopsy import evidence
from harness.autopsy.examine import Autopsy, Examination
from harness.matrix import AnyMatrix, Difference
from harness.model import Cell
from harness.scene import Scene

BOUND: Final = 0.8
"""Seconds after which no further cell is examined: what is shown must not keep anybody waiting."""


def scene_of(*matrices: AnyMatrix) -> Scene | None:
    """The scene in which one of the matrices was observed."""
    for matrix in matrices:
        if isinstance(matrix.origin, Scene):
            return matrix.origin
    return None


def stories(
    scene: Scene,
    shown: Sequence[Difference],
    *,
    again: str,
    where: Callable[[], Path | None],
) -> dict[Cell, Sequence[str]]:
    """What became of each cell that is shown, asked once more; written to `where` as well.

    Never raises: an autopsy that fails says so in one line.
    """
    told: dict[Cell, Sequence[str]] = {}
    done: list[Autopsy] = []
    current = shown[0].cell
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            look = stack.enter_context(Examination(scene, [item.cell for item in shown]))
            for difference in shown:
                current = difference.cell
                if done and time.monotonic() - began > BOUND:
                    told[current] = ("not examined: this took long enough already",)
                    continue
                done.append(look.of(current, difference.promise))
                told[current] = done[-1].lines
            folder = where()
            if folder is not None:
                current = shown[0].cell
                evidence.write(
                    folder,
                    scene,
                    again=again,
                    autopsies=done,
                    spaces=look.spaces,
                    interfaces=look.interfaces(),
                )
                told[current] = (*told[current], f"evidence: {folder}")
    except Exception as error:  # whatever it is, the failure itself must be seen
        said = f"the autopsy failed: {type(error).__name__}: {error}".splitlines()[0]
        told[current] = (*told.get(current, ()), said)
    return told
