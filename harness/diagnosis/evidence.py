"""The evidence folder of a failed test.

- `story.txt`: promise, observation, and the place and cause of each loss.
- `capture.pcapng`: all captured frames with comments; each link is a capture interface.
- `state/NAME.json`: a namespace's links, addresses, routes, rules, neighbours, nft rules and flows,
  in the format of `ip -j`.
- `commands.txt`: commands to the runtime with time and output, if the adapter logs them.
- `plan.toml`: the plan; `netmodes lab --plan plan.toml` builds its networks and containers.
- `again.txt`: the command that runs the test again.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from harness.diagnosis.netns_state import state
from harness.diagnosis.replay import Diagnosis, Replay
from harness.model import plan_file
from harness.model.matrix import AnyMatrix, Difference
from harness.model.plan import Cell
from harness.report.failure_links import AGAIN
from harness.report.sanitize import plain
from harness.testbench.packets import pcapng
from harness.testbench.packets.packet_ring import Frame
from harness.testbench.scene import Scene
from harness.world.process import CompletedCommand
from linux.netns import NetNS

_LONGEST_NAME: Final = 100
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.,=()\[\]-]+")


def folder_name(test: str) -> str:
    """Return a short and unique name, without special characters, for a test's evidence folder."""
    name = _UNSAFE.sub("-", test.replace("::", ".").replace("/", "-"))[:_LONGEST_NAME]
    digest = hashlib.sha256(test.encode(errors="replace")).hexdigest()[:6]
    return "-".join(filter(None, (name.replace("..", ".").strip("-."), digest)))


def write(
    where: Path,
    scene: Scene,
    *,
    again: str,
    autopsies: Sequence[Diagnosis] = (),
    spaces: Mapping[str, NetNS] | None = None,
    interfaces: Sequence[str] = (),
) -> None:
    """Write all evidence of a failed test to the new folder `where`. Raises `OSError`.

    A scene is the networks and containers of a test. `autopsies` are the diagnoses of its wrong
    cells. `interfaces` are the captured interfaces. `spaces` are namespaces that are open already.
    """
    where.mkdir(parents=True, exist_ok=True)
    (where / AGAIN).write_text(f"{again}\n", encoding="utf-8")
    (where / "plan.toml").write_text(plan_file.dumps(scene.plan), encoding="utf-8")
    commands = list(getattr(scene.runtime, "commands", ()))
    if commands:
        (where / "commands.txt").write_text(plain(_commands(commands)), encoding="utf-8")
    if autopsies:
        (where / "story.txt").write_text(plain("\n".join(_stories(autopsies))), encoding="utf-8")
        _capture(where / "capture.pcapng", autopsies, interfaces, again)
    namespaces = [name for item in autopsies for name in item.namespaces] or _namespaces(scene)
    _states(where / "state", scene, namespaces, spaces or {})


def _namespaces(scene: Scene) -> list[str]:
    return ["host", *(item.name for item in scene.plan.containers)]


def _stories(autopsies: Iterable[Diagnosis]) -> Iterable[str]:
    for item in autopsies:
        yield f"{item.cell}"
        if item.promise is not None:
            yield f"  promised: {item.promise}"
            yield f"  {item.promise.requirement}: {item.promise.why}"
        yield f"  observed in the replay: {item.observed}"
        yield from (f"  {line}" for line in item.lines)
        yield ""


def _capture(
    path: Path, autopsies: Sequence[Diagnosis], interfaces: Sequence[str], again: str
) -> None:
    frames: list[Frame] = []
    comments: dict[Frame, str] = {}
    for item in autopsies:
        frames += item.frames
        comments |= {frame: plain(text) for frame, text in item.comments.items()}
    frames.sort(key=lambda frame: frame.at)
    comment = f"run again with: {again}"
    pcapng.write(path, frames, interfaces=interfaces, comment=comment, comments=comments)


def _states(
    where: Path, scene: Scene, namespaces: Iterable[str], spaces: Mapping[str, NetNS]
) -> None:
    where.mkdir(exist_ok=True)
    for name in dict.fromkeys(namespaces):
        try:
            if name in spaces:
                found = state(spaces[name])
            else:
                with scene.netns(name).open() as space:
                    found = state(space)
        except (OSError, ProcessLookupError, KeyError) as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        text = json.dumps(found, indent=1, ensure_ascii=True)
        (where / f"{name[:_LONGEST_NAME]}.json").write_text(f"{text}\n", encoding="utf-8")


def _commands(commands: Iterable[CompletedCommand]) -> str:
    lines = []
    for done in commands:
        lines.append(f"$ {' '.join(done.argv)}")
        ended = f"exit {done.returncode} after {done.seconds:.3f} s"
        lines.append(f"# {_clock(done.at)}, {ended}" if done.at else f"# {ended}")
        lines += [text for text in (done.stdout.rstrip(), done.stderr.rstrip()) if text]
        lines.append("")
    return "\n".join(lines)


def _clock(at: float) -> str:
    return f"{datetime.datetime.fromtimestamp(at, datetime.UTC):%H:%M:%S.%f}"[:-3] + " UTC"


BOUND: Final = 0.8
"""Seconds after which no further cell is diagnosed."""


def scene_of(*matrices: AnyMatrix) -> Scene | None:
    """Return the scene in which one of the matrices was observed, or `None`."""
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
    """Replay each shown cell and return its explanation; write the evidence to `where` as well.

    Never raises: an error of the diagnosis becomes a line of the explanation.
    """
    lines: dict[Cell, Sequence[str]] = {}
    done: list[Diagnosis] = []
    current = shown[0].cell
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            look = stack.enter_context(Replay(scene, [item.cell for item in shown]))
            for difference in shown:
                current = difference.cell
                if done and time.monotonic() - began > BOUND:
                    lines[current] = ("not replayed: the time for diagnosis is over",)
                    continue
                done.append(look.of(current, difference.promise))
                lines[current] = done[-1].lines
            folder = where()
            if folder is not None:
                current = shown[0].cell
                write(
                    folder,
                    scene,
                    again=again,
                    autopsies=done,
                    spaces=look.spaces,
                    interfaces=look.interfaces(),
                )
                lines[current] = (*lines[current], f"evidence: {folder}")
    except Exception as error:  # the report must show the failure itself
        reason = f"the diagnosis failed: {type(error).__name__}: {error}".splitlines()[0]
        lines[current] = (*lines.get(current, ()), reason)
    return lines
