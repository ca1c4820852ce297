"""The part of the plugin that has failures examined, and holds the world for who wants to look.

Registered in conformance runs. While all is green it costs a few attribute look-ups: the
autopsy itself is imported at the first failure.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from harness.faults.selection import runtime_name
from harness.model.matrix import AnyMatrix, Difference
from harness.model.plan import Cell
from harness.plugin import WAITER
from harness.report.recorder import PROPERTY, Recorder
from harness.report.sanitize import line, plain
from harness.testbench.scene import Scene

if TYPE_CHECKING:
    from harness.world.build import World

NAME: Final = "netmodes-evidence"
"""The plugin's name."""


def register(config: pytest.Config, recorder: Recorder, directory: Path | None) -> None:
    """Register the plugin; `directory` is the report's. `pytest.UsageError` for bad options."""
    asked = [name for name in ("keep", "pause_on_fail") if config.getoption(name)]
    for name in asked:
        option = f"--{name.replace('_', '-')}"
        if hasattr(config, "workerinput") or config.getoption("numprocesses", default=None):
            raise pytest.UsageError(f"{option} is about one world: run without -n")
        if name == "pause_on_fail" and not _on_a_terminal(config):
            raise pytest.UsageError(f"{option} opens a shell: it needs a terminal. See --keep")
    if config.getoption("no_evidence"):
        directory = None
    config.pluginmanager.register(Evidence(config, recorder, directory), NAME)


@contextlib.contextmanager
def _uncaptured(config: pytest.Config) -> Generator[None]:
    """Standard input and output are the caller's own in the body."""
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
    """Examines failures while their scene is live."""

    def __init__(self, config: pytest.Config, recorder: Recorder, directory: Path | None) -> None:
        self._config, self._recorder, self._directory = config, recorder, directory
        self._item: pytest.Item | None = None
        self._written: str | None = None
        self._unwritten = ""
        """Why there is no evidence of this test."""
        Scene.watchers.append(self._left)

    def pytest_unconfigure(self) -> None:
        """The run is over."""
        Scene.watchers.remove(self._left)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Note which test it is."""
        self._item, self._written, self._unwritten = item, None, ""

    # --- a matrix that is not as promised

    def tell(
        self, left: AnyMatrix, right: AnyMatrix, shown: Sequence[Difference]
    ) -> Mapping[Cell, Sequence[str]]:
        """The stories of the cells that an assertion shows."""
        if self._config.getoption("no_evidence") or _only_shrinking():
            return {}
        from harness.diagnosis import evidence as telling  # at a failure only

        scene = telling.scene_of(left, right)
        if scene is None or not shown:
            return {}
        told = telling.stories(scene, shown, again=self._again(), where=self._folder)
        if self._directory and self._written and not (self._directory / self._written).is_dir():
            self._written = None  # there was no room, or something in the way
        return told

    def _folder(self) -> Path | None:
        """Where this test's evidence goes, `None` where there is no report."""
        item = self._item
        if item is None or self._directory is None:
            return None
        asked = self._config.getoption("report") is not None
        if not asked and all(name != PROPERTY for name, _ in item.user_properties):
            return None
        from harness.diagnosis.evidence import folder_name
        from harness.report.failure_links import EVIDENCE as FOLDER

        self._written = f"{FOLDER}/{folder_name(self._recorder.test or item.nodeid)}"
        return self._directory / self._written

    def _again(self) -> str:
        from harness.report import failure_links  # at a failure only

        test = self._recorder.test or (self._item.nodeid if self._item else "")
        return failure_links.command(
            test, failure_links.asked(self._config, runtime_name(self._config))
        )

    # --- any failure

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Write what there is to write, name it in the report, and hold the world if wanted."""
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
        """A scene that no fixture lends is about to go because of an error: now or never."""
        if isinstance(error, Exception | pytest.fail.Exception) and not _only_shrinking():
            self._write_down(scene)

    def _take_back(self) -> None:
        """Whatever has failed meanwhile, the test has not."""
        if self._written is not None and self._directory is not None:
            shutil.rmtree(self._directory / self._written, ignore_errors=True)
        self._written, self._unwritten = None, ""

    def _name(self, report: pytest.TestReport, written: str) -> None:
        assert self._directory is not None
        from harness.report.build import EVIDENCE, FILES  # workers need it for this alone
        from harness.report.failure_links import present

        report.user_properties.append((EVIDENCE, written))
        setattr(report, FILES, list(present(self._directory / written)))

    def _write_down(self, scene: Scene) -> None:
        """Write the evidence of the scene; the first one's is the test's."""
        done = self._written is not None or self._unwritten
        if done or self._config.getoption("no_evidence") or (folder := self._folder()) is None:
            return
        from harness.diagnosis import evidence

        try:
            evidence.write(folder, scene, again=self._again())
        # Whatever it is, the failure itself must be seen; a test's time may be up here too.
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
        from harness.plugin.keep import instructions

        with self._at_the_terminal(item):
            sys.stdout.write(_shown(item, report))
            sys.stdout.write(instructions(_world_of(item), _scene_of(item)))
            sys.stdout.flush()
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    signal.pause()
        item.session.shouldstop = f"the world was kept for {item.nodeid}"

    def _pause(self, item: pytest.Item, report: pytest.TestReport) -> None:
        world = _world_of(item)
        if world is None:
            return
        from harness.plugin.keep import open_shell

        with self._at_the_terminal(item):
            sys.stdout.write(_shown(item, report))
            open_shell(world, _scene_of(item))
            if (waiter := self._config.stash.get(WAITER, None)) is not None:
                waiter.take_terminal_back()

    @contextlib.contextmanager
    def _at_the_terminal(self, item: pytest.Item) -> Generator[None]:
        """The body has the terminal, and all the time it wants."""
        with contextlib.suppress(AttributeError):  # pytest-timeout's, where it is installed
            item.ihook.pytest_timeout_cancel_timer(item=item)
        with _uncaptured(self._config):
            yield


def _shown(item: pytest.Item, report: pytest.TestReport) -> str:
    """The failure, for the terminal: what the runtime said in it acts on nothing."""
    return f"\n{plain(report.longreprtext)}\n\n{line(item.nodeid)} failed.\n"


def _scene_of(item: pytest.Item) -> Scene | None:
    """The scene that the narrowest of its fixtures is, or has as its `scene`."""
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


def _only_shrinking() -> bool:
    """Whether hypothesis is still looking for a smaller failure: the last one will be told."""
    if "hypothesis" not in sys.modules:
        return False
    from hypothesis import control

    context = control._current_build_context.value  # nothing public tells
    return context is not None and not context.is_final
