"""Tests of magic links in /proc, which lead to the host's interpreter: none is followed."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import CommandError
from runtime.init import process
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import nothing_left

Run = Callable[..., object]

_SCRIPTS = {
    "script": "#!/proc/self/exe",
    "spaced": "#! \t/proc/self/exe -c pass\n",
    "cut": "#!/proc/self/exe\0 and more\n",
    "relative": "#!../proc/self/exe\n",
    "deep": "#!/x/script\n",
    "deeper": "#!/x/deep\n",
    "plain": "#!/bin/sh\nexit 0\n",
    "lost": "#!/nowhere\n",
}


@pytest.fixture
def shared(root: Path) -> Path:
    """Make the directory mounted at /x, with files that an image or a volume may hold."""
    made = root / "x"
    made.mkdir()
    (made / "exe").symlink_to("/proc/self/exe")
    (made / "linked").symlink_to("exe")
    (made / "through").symlink_to("/proc/self/root")
    (made / "circle").symlink_to("circle")
    (made / "fine").symlink_to("plain")
    for name, text in _SCRIPTS.items():
        (made / name).write_text(text)
        (made / name).chmod(0o711)
    (root / "lock").touch()  # this file stays in any case
    return made


@pytest.fixture(params=["start", "start as a user", "exec", "exec as a user"])
def run(request: pytest.FixtureRequest, engine: Engine, shared: Path) -> Iterator[Run]:
    """Return a function that executes a command in a container, for each way of execution."""
    how, _, other = request.param.partition(" as a ")
    user = "1000" if other else ""
    path, binds = {"PATH": "/x:/bin"}, [f"{shared}:/x"]
    if how == "exec":
        engine.run("base", FOR_EVER, name="web", network="none", binds=binds)
        yield lambda *argv, env=path: engine.exec("web", argv, env=env, workdir="/x", user=user)
        return
    yield lambda *argv, env=path: engine.run(
        "base", argv, network="none", env=env, workdir="/x", binds=binds, user=user
    )


@pytest.mark.parametrize(
    "command",
    [
        *("/proc/self/exe", "/proc/thread-self/exe", "/proc/self/fd/0"),
        *("/dev/fd/0", "/proc/self/root/bin/sh", "/x/through/bin/sh", "/x/linked", "./exe", "exe"),
        *("/x/script", "script", "./spaced", "/x/cut", "relative", "deep", "deeper"),
    ],
)
def test_magic_link_as_command_or_interpreter_is_refused(
    run: Run, root: Path, command: str
) -> None:
    """A magic link is followed neither to the command nor to its interpreter; nothing is left."""
    with nothing_left(root), pytest.raises(CommandError, match="a link in /proc") as caught:
        run(command)
    assert caught.value.exit_code == 126
    assert f"execute {command!r}" in str(caught.value)


def test_magic_link_of_pid_1_is_refused(run: Run) -> None:
    """A magic link of pid 1 is refused, if not already by the kernel."""
    with pytest.raises(CommandError, match=r"a link in /proc|Permission denied"):
        run("/proc/1/exe")


def test_magic_link_as_relative_interpreter_is_refused(engine: Engine, shared: Path) -> None:
    """A magic link as a relative interpreter is refused.

    A process that cannot see itself in the container's /proc also finds the link.
    """
    (shared / "odd").write_text("#!self/exe\n")
    (shared / "odd").chmod(0o755)
    engine.run("base", FOR_EVER, name="web", network="none", binds=[f"{shared}:/x"])
    with pytest.raises(CommandError, match="a link in /proc"):
        engine.exec("web", ["/x/odd"], workdir="/proc")


def test_magic_link_after_the_command_in_path_has_no_effect(run: Run, shared: Path) -> None:
    """A magic link is refused if it precedes the command in PATH, and ignored if it follows."""
    (shared / "linked").unlink()
    (shared / "linked").symlink_to("/proc/self/root/bin")
    behind, before = ({"PATH": path} for path in ("/bin:/x/linked", "/x/linked:/bin"))
    run("true", env=behind)
    with pytest.raises(CommandError, match="a link in /proc"):
        run("true", env=before)


def test_command_with_a_file_lease_is_not_executed(run: Run, shared: Path) -> None:
    """A command whose file has a lease (fcntl(2)) is refused.

    execve(2) would wait, then follow the link.
    """
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with (shared / "script").open() as opened:
            fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            with pytest.raises(CommandError, match=os.strerror(errno.EAGAIN)):
                run("/x/script")
    finally:
        signal.signal(signal.SIGIO, before)


def test_command_is_not_executed_without_openat2(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command is executed if openat2(2) is missing.

    A seccomp filter around mydocker may not know this system call.
    """

    def unknown(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(process, "openat2", unknown)
    with pytest.raises(CommandError, match=os.strerror(errno.ENOSYS)):
        engine.run("base", ["/proc/self/exe", "-c", "pass"], network="none")


def test_ordinary_symlink_to_a_command_is_followed(run: Run) -> None:
    """An ordinary symbolic link to a command is followed.

    This also holds for any interpreter in the container.
    """
    for command in ("/x/fine", "fine", "./plain", "plain", "true"):
        run(command)


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("/x/circle", 126, "Too many levels"),
        ("circle", 126, "Too many levels"),
        ("/x", 126, "Permission denied"),
        ("/x/plain/x", 127, "no such command"),
        ("lost", 127, "no such command"),
        ("none", 127, "no such command"),
    ],
)
def test_unusable_command_has_the_kernels_message(
    run: Run, command: str, code: int, message: str
) -> None:
    """The error for an unusable command has the kernel's message."""
    with pytest.raises(CommandError, match=message) as caught:
        run(command)
    assert caught.value.exit_code == code
