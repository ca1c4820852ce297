"""Plugin that diagnoses failed tests and, for `--keep` and `--pause-on-fail`, keeps their world.

Only conformance runs register the plugin. While all tests pass, the cost is a few attribute
look-ups: `harness.diagnosis` is imported at the first failure.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from harness.faults.selection import runtime_name
from harness.model.matrix import AnyMatrix, Difference
from harness.model.plan import Cell
from harness.plugin import WAITER
from harness.report.recorder import PROPERTY, Recorder
from harness.report.sanitize import line, plain
from harness.sandbox import sandbox
from harness.testbench.scene import Scene

if TYPE_CHECKING:
    from harness.world.build import World
    from linux.netns import NetNS

NAME: Final = "netmodes-evidence"
"""The name under which the plugin is registered."""


def register(config: pytest.Config, recorder: Recorder, directory: Path | None) -> None:
    """Register the plugin for the report's folder. Raises `pytest.UsageError` for bad options."""
    requested = [name for name in ("keep", "pause_on_fail") if config.getoption(name)]
    for name in requested:
        option = f"--{name.replace('_', '-')}"
        if hasattr(config, "workerinput") or config.getoption("numprocesses", default=None):
            raise pytest.UsageError(f"{option} keeps one world: run without -n")
        if name == "pause_on_fail" and not _on_a_terminal(config):
            raise pytest.UsageError(f"{option} needs a terminal; without one, use --keep")
    if config.getoption("no_evidence"):
        directory = None
    config.pluginmanager.register(Evidence(config, recorder, directory), NAME)


@contextlib.contextmanager
def _uncaptured(config: pytest.Config) -> Generator[None]:
    """Suspend pytest's capture of standard input and output while the body runs."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    if capture is None:
        yield
        return
    capture.suspend_fixture()
    capture.suspend_global_capture(in_=True)
    try:
        yield
    finally:
        capture.resume_global_capture()
        capture.resume_fixture()


def _on_a_terminal(config: pytest.Config) -> bool:
    with _uncaptured(config):
        return sys.stdin.isatty() and sys.stdout.isatty()


class Evidence:
    """The plugin that diagnoses a failed test while the test's scene still exists.

    A scene is the networks and containers of a test.
    """

    def __init__(self, config: pytest.Config, recorder: Recorder, directory: Path | None) -> None:
        self._config, self._recorder, self._directory = config, recorder, directory
        self._item: pytest.Item | None = None
        self._written: str | None = None
        self._unwritten = ""
        """The reason why there is no evidence of this test."""
        Scene.watchers.append(self._left)

    def pytest_unconfigure(self) -> None:
        """Stop watching for scenes that end with an error."""
        Scene.watchers.remove(self._left)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Remember the current test."""
        self._item, self._written, self._unwritten = item, None, ""

    # --- a matrix with wrong cells

    def tell(
        self, left: AnyMatrix, right: AnyMatrix, shown: Sequence[Difference]
    ) -> Mapping[Cell, Sequence[str]]:
        """Return the explanation of each wrong cell that an assertion shows."""
        if self._config.getoption("no_evidence") or _is_shrinking():
            return {}
        from harness.diagnosis import evidence  # at a failure only

        scene = evidence.scene_of(left, right)
        if scene is None or not shown:
            return {}
        text = evidence.stories(scene, shown, again=self._again(), where=self._folder)
        if self._directory and self._written and not (self._directory / self._written).is_dir():
            self._written = None  # the disk was full, or the path is a file
        return text

    def _folder(self) -> Path | None:
        """Return the folder for this test's evidence, or `None` if the run writes no report."""
        item = self._item
        if item is None or self._directory is None:
            return None
        requested = self._config.getoption("report") is not None
        if not requested and all(name != PROPERTY for name, _ in item.user_properties):
            return None
        from harness.diagnosis.evidence import folder_name
        from harness.report.failure_links import EVIDENCE as FOLDER

        self._written = f"{FOLDER}/{folder_name(self._recorder.test or item.nodeid)}"
        return self._directory / self._written

    def _again(self) -> str:
        from harness.report import failure_links  # at a failure only

        test = self._recorder.test or (self._item.nodeid if self._item else "")
        return failure_links.command(
            test, failure_links.run_conditions(self._config, runtime_name(self._config))
        )

    # --- any failure

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Write the evidence of a failed test, add its path to the report, and keep the world.

        The world is kept only if `--keep` or `--pause-on-fail` is given.
        """
        report = yield
        if report.failed and call.when != "teardown":
            if (scene := _scene_of(item)) is not None:
                self._write_down(scene)
            if call.when == "call":
                self._hold(item, report)
        elif call.when != "teardown":
            self._take_back()
        if report.failed and self._written is not None:
            self._name(report, self._written)
        elif report.failed and self._unwritten:
            report.sections.append(("evidence", f"could not be written: {self._unwritten}"))
        return report

    def _left(self, scene: Scene, error: BaseException) -> None:
        """Write the evidence of a scene that is not a fixture and that ended with an error."""
        if isinstance(error, Exception | pytest.fail.Exception) and not _is_shrinking():
            self._write_down(scene)

    def _take_back(self) -> None:
        """Remove evidence that was written during a test if the test then passes."""
        if self._written is not None and self._directory is not None:
            shutil.rmtree(self._directory / self._written, ignore_errors=True)
        self._written, self._unwritten = None, ""

    def _name(self, report: pytest.TestReport, written: str) -> None:
        assert self._directory is not None
        from harness.report.build import EVIDENCE, FILES  # workers need it for this alone
        from harness.report.failure_links import evidence_files

        report.user_properties.append((EVIDENCE, written))
        setattr(report, FILES, list(evidence_files(self._directory / written)))

    def _write_down(self, scene: Scene) -> None:
        """Write the evidence of the scene, only for the first failure of a test."""
        done = self._written is not None or self._unwritten
        if done or self._config.getoption("no_evidence") or (folder := self._folder()) is None:
            return
        from harness.diagnosis import evidence

        try:
            evidence.write(folder, scene, again=self._again())
        # The report must show the failure itself. The timeout of the test may expire here too.
        except (Exception, pytest.fail.Exception) as error:
            self._written = None
            self._unwritten = f"{type(error).__name__}: {error}"

    # --- the world kept

    def _hold(self, item: pytest.Item, report: pytest.TestReport) -> None:
        if self._config.getoption("keep"):
            self._wait(item, report)
        elif self._config.getoption("pause_on_fail"):
            self._pause(item, report)

    def _wait(self, item: pytest.Item, report: pytest.TestReport) -> None:
        with self._at_the_terminal(item):
            sys.stdout.write(_failure_text(item, report))
            sys.stdout.write(_instructions(_world_of(item), _scene_of(item)))
            sys.stdout.flush()
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    signal.pause()
        item.session.shouldstop = f"the world was kept for {item.nodeid}"

    def _pause(self, item: pytest.Item, report: pytest.TestReport) -> None:
        world = _world_of(item)
        if world is None:
            return
        with self._at_the_terminal(item):
            sys.stdout.write(_failure_text(item, report))
            _open_shell(world, _scene_of(item))
            if (waiter := self._config.stash.get(WAITER, None)) is not None:
                waiter.take_terminal_back()

    @contextlib.contextmanager
    def _at_the_terminal(self, item: pytest.Item) -> Generator[None]:
        """Give the terminal to the body of the `with`, and stop the timeout of the test."""
        with contextlib.suppress(AttributeError):  # pytest-timeout's, where it is installed
            item.ihook.pytest_timeout_cancel_timer(item=item)
        with _uncaptured(self._config):
            yield


def _failure_text(item: pytest.Item, report: pytest.TestReport) -> str:
    """Return the text of a failure for the terminal, without control characters."""
    return f"\n{plain(report.longreprtext)}\n\n{line(item.nodeid)} failed.\n"


def _scene_of(item: pytest.Item) -> Scene | None:
    """Return the scene of a test from its fixtures: the last fixture that is or has a scene."""
    for value in reversed(getattr(item, "funcargs", {}).values()):
        for found in (value, getattr(value, "scene", None)):
            if isinstance(found, Scene):
                return found
    return None


def _world_of(item: pytest.Item) -> World | None:
    from harness.world.build import World

    found = getattr(item, "funcargs", {}).values()
    scene = _scene_of(item)
    return scene.world if scene else next((x for x in found if isinstance(x, World)), None)


def _is_shrinking() -> bool:
    """Return whether hypothesis is still shrinking a failure; it raises the final failure later."""
    if "hypothesis" not in sys.modules:
        return False
    from hypothesis import control

    context = control._current_build_context.value  # there is no public function
    return context is not None and not context.is_final


# --- the kept world


def _instructions(world: World | None, scene: Scene | None) -> str:
    """Return instructions: how to enter the kept world from another terminal and to end the run."""
    lines = ["The world is kept. Press Ctrl-C to remove it and to end the run."]
    waiter, _, users = os.environ.get(sandbox.OUTSIDE, "").partition(" ")
    if not waiter or world is None:
        return "\n".join([*lines, ""])
    own = os.stat("/proc/self/ns/user").st_ino
    into = "nsenter" if str(own) == users else "nsenter -U --preserve-credentials"
    enter = f"{into} -t $(pgrep -P {waiter}) -m -p -n"
    lines += ["To enter it from another terminal, as the same user, run:", f"  {enter}"]
    lines += ["", "Then enter a namespace:"]
    lines.append(f"  {'host':24}nsenter -t {world.host.pid} -m -n -u -i -p")
    for name, path in _paths(world, scene):
        lines.append(f"  {name:24}nsenter --net={path}")
    return "\n".join([*lines, ""])


def _paths(world: World, scene: Scene | None) -> Iterator[tuple[str, str]]:
    own = f"/proc/{os.getpid()}/fd"
    for name, space in world.namespaces.items():
        if name != "host":
            yield name, f"{own}/{space.fd}"
    for item in scene.plan.containers if scene else ():
        facts = scene.runtime.inspect(item.name) if scene else None
        if facts is not None and facts.running:
            yield item.name, f"/proc/{world.host.pid}/root/proc/{facts.pid}/ns/net"


def _open_shell(world: World, scene: Scene | None) -> int:
    """Open the lab's shell in the world as the test left it; return the shell's exit status."""
    from harness.lab import shell, terminal  # on request only

    spaces: dict[str, NetNS] = dict(world.namespaces)
    opened = []
    for item in scene.plan.containers if scene else ():
        try:
            opened.append(scene.netns(item.name).open())  # type: ignore[union-attr] # there is one
        except (OSError, ProcessLookupError):
            continue
        spaces[item.name] = opened[-1]
    names = " ".join(spaces)
    text = (
        "This is a shell on the host of the failed test. `exit` continues the run.\n"
        f"`inside NAME [COMMAND…]` enters a namespace: {names}\n"
    )
    sys.stdout.write(text)
    sys.stdout.flush()

    outer = shell.outer_environment(scene.runtime if scene else None)
    try:
        with terminal.restored():
            code = terminal.run(
                world.host,
                shell.shell(os.environ),
                environment=shell.environment(outer),
                prepare=lambda: shell.install(spaces, text, outer),
                interactive=True,
            )
        world.host.call(shell.remove_names, tuple(spaces))
        return code
    finally:
        for space in opened:
            space.close()
