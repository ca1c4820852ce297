"""Links of /proc lead a command to what executes it, the host's interpreter: none is followed."""

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
def place(root: Path) -> Path:
    """A directory that is /x in the container: what an image or a volume may hold."""
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
    (root / "lock").touch()  # which stays, whatever happens
    return made


@pytest.fixture(params=["start", "start as a user", "exec", "exec as a user"])
def run(request: pytest.FixtureRequest, engine: Engine, place: Path) -> Iterator[Run]:
    """Has a command executed in a container, in each way there is."""
    how, _, who = request.param.partition(" as a ")
    user = "1000" if who else ""
    path, binds = {"PATH": "/x:/bin"}, [f"{place}:/x"]
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
def test_no_magic_link_is_followed(run: Run, root: Path, command: str) -> None:
    """Neither to the command nor to what its first line names; it is said, and nothing is left."""
    with nothing_left(root), pytest.raises(CommandError, match="a link of /proc") as caught:
        run(command)
    assert caught.value.exit_code == 126
    assert f"execute {command!r}" in str(caught.value)


def test_pid_1_is_no_way_either(run: Run) -> None:
    """Where the kernel has not refused it already."""
    with pytest.raises(CommandError, match=r"a link of /proc|Permission denied"):
        run("/proc/1/exe")


def test_a_relative_interpreter_may_be_anywhere(engine: Engine, place: Path) -> None:
    """Also where the process that looks for it is not shown itself."""
    (place / "odd").write_text("#!self/exe\n")
    (place / "odd").chmod(0o755)
    engine.run("base", FOR_EVER, name="web", network="none", binds=[f"{place}:/x"])
    with pytest.raises(CommandError, match="a link of /proc"):
        engine.exec("web", ["/x/odd"], workdir="/proc")


def test_it_does_not_matter_where_nobody_looks_any_more(run: Run, place: Path) -> None:
    """In a place of PATH behind the one that has the command; before it, it does."""
    (place / "linked").unlink()
    (place / "linked").symlink_to("/proc/self/root/bin")
    behind, before = ({"PATH": path} for path in ("/bin:/x/linked", "/x/linked:/bin"))
    run("true", env=behind)
    with pytest.raises(CommandError, match="a link of /proc"):
        run("true", env=before)


def test_what_cannot_be_looked_at_just_now_is_not_executed(run: Run, place: Path) -> None:
    """Somebody has a lease of it (fcntl(2)), which execve(2) would wait for, and then follow."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with (place / "script").open() as opened:
            fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            with pytest.raises(CommandError, match=os.strerror(errno.EAGAIN)):
                run("/x/script")
    finally:
        signal.signal(signal.SIGIO, before)


def test_nothing_is_executed_where_nobody_can_look(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seccomp filter around mydocker may know nothing of openat2(2)."""

    def unknown(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(process, "openat2", unknown)
    with pytest.raises(CommandError, match=os.strerror(errno.ENOSYS)):
        engine.run("base", ["/proc/self/exe", "-c", "pass"], network="none")


def test_every_other_link_is(run: Run) -> None:
    """As well as any interpreter of the container's own."""
    for command in ("/x/fine", "fine", "./plain", "plain", "true"):
        run(command)


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("/x/circle", 126, "Too many levels"),
        ("circle", 126, "Too many levels"),
        ("/x", 126, "Permission denied"),
        ("/x/plain/x", 127, "no such command"),
        ("lost", 127, "no such command"),
        ("none", 127, "no such command"),
    ],
)
def test_what_is_wrong_otherwise_is_told_as_ever(
    run: Run, command: str, code: int, told: str
) -> None:
    """In the kernel's words."""
    with pytest.raises(CommandError, match=told) as caught:
        run(command)
    assert caught.value.exit_code == code
