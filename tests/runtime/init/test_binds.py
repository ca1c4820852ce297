"""Tests of host files and volumes in a container: only the requested mounts are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import ConflictError, InvalidError, NotFoundError
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import nothing_left


@pytest.fixture
def shared(root: Path) -> Path:
    """Make a directory on the host with a file in it."""
    made = root / "shared"
    made.mkdir()
    (made / "file").write_text("from the host\n")
    return made


def _output(engine: Engine, reference: str, script: str) -> str:
    done = engine.exec(reference, ["sh", "-c", script])
    return (done.stdout + done.stderr).decode()


def test_bind_mounted_directory_is_shared_with_the_host(engine: Engine, shared: Path) -> None:
    """Host and container read each other's writes to a bind-mounted directory.

    Missing mount points are created.
    """
    engine.run("base", FOR_EVER, name="web", network="none", binds=[f"{shared}:/deep/in/here"])
    assert _output(engine, "web", "cat /deep/in/here/file") == "from the host\n"
    assert _output(engine, "web", "echo back > /deep/in/here/answer") == ""
    assert (shared / "answer").read_text() == "back\n"


def test_single_file_is_bind_mounted(engine: Engine, shared: Path) -> None:
    """A single file is mounted on a new path, or on an existing file of the image."""
    binds = [f"{shared}/file:/new/file", f"{shared}/file:/etc/passwd:ro"]
    engine.run("base", FOR_EVER, name="web", network="none", binds=binds)
    assert _output(engine, "web", "cat /new/file /etc/passwd") == "from the host\n" * 2


def test_read_only_bind_is_not_writable_for_root(engine: Engine, shared: Path) -> None:
    """Root of the container cannot write to a read-only mount, nor to mounts below it."""
    engine.run("base", FOR_EVER, name="web", network="none", binds=[f"{shared}:/data:ro"])
    assert "Read-only" in _output(engine, "web", "echo x > /data/file")
    assert "Read-only" in _output(engine, "web", "echo x > /data/new")
    assert (shared / "file").read_text() == "from the host\n"


def test_symlink_in_mount_target_is_resolved_inside_the_root(
    engine: Engine, shared: Path, root: Path
) -> None:
    """A symbolic link in a mount target is resolved inside the container's root."""
    outside = root / "outside"
    engine.create("base", FOR_EVER, name="web", network="none", binds=[f"{shared}:/link/place"])
    upper = root / "containers" / engine.inspect("web").id / "upper"
    upper.mkdir()
    (upper / "link").symlink_to(outside)
    engine.start("web")
    assert not outside.exists()
    assert _output(engine, "web", f"cat {outside}/place/file") == "from the host\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/data", "SOURCE:TARGET"),
        ("/a:b", "not absolute"),
        ("./a:/b", "not absolute"),
        ("/a:/b:rx", "SOURCE:TARGET"),
        ("/a:/b:ro:z", "SOURCE:TARGET"),
        (":/b", "SOURCE:TARGET"),
        ("/a:/", "which mydocker mounts itself"),
        ("/a:/proc", "which mydocker mounts itself"),
        ("/a:/x/../proc/sys", "which mydocker mounts itself"),
        ("/a:/sys/fs", "which mydocker mounts itself"),
        ("/a:/dev/shm", "which mydocker mounts itself"),
        ("-v:/b", "malformed"),
    ],
)
def test_invalid_bind_mount_is_refused(engine: Engine, root: Path, text: str, why: str) -> None:
    """The error for an invalid bind mount names the mount, and nothing is left."""
    with nothing_left(root), pytest.raises(InvalidError, match=why):
        engine.run("base", FOR_EVER, network="none", binds=[text])


def test_missing_bind_source_is_refused(engine: Engine, root: Path) -> None:
    """A missing bind source is an error: no empty directory is created, and nothing is left."""
    engine.wait(engine.run("base", ["true"], network="none", auto_remove=True).id)
    with nothing_left(root), pytest.raises(InvalidError, match="No such file"):
        engine.run("base", FOR_EVER, network="none", binds=[f"{root}/nowhere:/x"])
    with pytest.raises(InvalidError, match="at the same path"):
        engine.create("base", FOR_EVER, binds=["a:/x", "b:/x/"])


def test_bind_between_file_and_directory_is_refused(
    engine: Engine, shared: Path, root: Path
) -> None:
    """A bind mount between a file and a directory is refused.

    The error says which path is a file and which a directory. A volume counts as a directory.
    """
    (shared / "file").write_text("x")
    engine.wait(engine.run("base", ["true"], network="none", auto_remove=True).id)
    with (
        nothing_left(root),
        pytest.raises(InvalidError, match=r"the target is a file, .* a directory"),
    ):
        engine.run("base", FOR_EVER, network="none", binds=[f"{shared}:/etc/hosts"])
    with (
        nothing_left(root),
        pytest.raises(InvalidError, match=r"the target is a directory, .* a file"),
    ):
        engine.run("base", FOR_EVER, network="none", binds=[f"{shared}/file:/etc"])


def test_bind_target_linked_into_proc_is_refused(engine: Engine, shared: Path, root: Path) -> None:
    """A mount target that links into /proc is refused, as it could cover protected paths.

    Those paths protect the kernel's settings.
    """
    engine.create("base", FOR_EVER, name="web", network="none", binds=[f"{shared}:/link"])
    upper = root / "containers" / engine.inspect("web").id / "upper"
    upper.mkdir()
    (upper / "link").symlink_to("/proc/sys")
    with pytest.raises(InvalidError, match="/proc/sys"):
        engine.start("web")


def test_volume_outlives_its_containers(engine: Engine) -> None:
    """A volume is created at its first use, shared by its containers, and kept."""
    engine.run("base", FOR_EVER, name="one", network="none", binds=["data:/data"])
    engine.run("base", FOR_EVER, name="two", network="none", binds=["data:/other:ro"])
    assert _output(engine, "one", "echo kept > /data/file") == ""
    assert _output(engine, "two", "cat /other/file") == "kept\n"
    assert [item.name for item in engine.volumes.all()] == ["data"]
    with pytest.raises(ConflictError, match="one"):
        engine.volumes.remove("data")
    for name in ("one", "two"):
        engine.remove(name, force=True)
    volume = engine.volumes.inspect("data")
    assert Path(volume.directory, "file").read_text() == "kept\n"
    engine.volumes.create("unused")
    assert {item.name for item in engine.volumes.prune()} == {"data", "unused"}
    with pytest.raises(NotFoundError):
        engine.volumes.inspect("data")


def test_volume_is_accessible_to_every_user(engine: Engine) -> None:
    """A volume is accessible to every user, whatever the caller's umask."""
    engine.run(
        "base",
        FOR_EVER,
        name="web",
        network="none",
        binds=["data:/data"],
        cap_drop=["dac_override"],
    )
    assert _output(engine, "web", "stat -c %a /data") == "755\n"
