"""Files of the host and volumes in a container: what is asked for, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import ConflictError, InvalidError, NotFoundError
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import nothing_left


@pytest.fixture
def shared(root: Path) -> Path:
    """A directory of the host, with a file in it."""
    made = root / "shared"
    made.mkdir()
    (made / "file").write_text("from the host\n")
    return made


def _said(engine: Engine, reference: str, script: str) -> str:
    done = engine.exec(reference, ["sh", "-c", script])
    return (done.stdout + done.stderr).decode()


def test_a_directory_is_the_same_inside_and_outside(engine: Engine, shared: Path) -> None:
    """What one writes the other reads; places that the image has not are made."""
    engine.run("base", FOR_EVER, name="web", network="none", binds=[f"{shared}:/deep/in/here"])
    assert _said(engine, "web", "cat /deep/in/here/file") == "from the host\n"
    assert _said(engine, "web", "echo back > /deep/in/here/answer") == ""
    assert (shared / "answer").read_text() == "back\n"


def test_a_single_file(engine: Engine, shared: Path) -> None:
    """In a place of its own, or in that of one which the image has."""
    binds = [f"{shared}/file:/new/file", f"{shared}/file:/etc/passwd:ro"]
    engine.run("base", FOR_EVER, name="web", network="none", binds=binds)
    assert _said(engine, "web", "cat /new/file /etc/passwd") == "from the host\n" * 2


def test_read_only_is_for_everybody(engine: Engine, shared: Path) -> None:
    """Root inside cannot write to it, nor to what is mounted below it."""
    engine.run("base", FOR_EVER, name="web", network="none", binds=[f"{shared}:/data:ro"])
    assert "Read-only" in _said(engine, "web", "echo x > /data/file")
    assert "Read-only" in _said(engine, "web", "echo x > /data/new")
    assert (shared / "file").read_text() == "from the host\n"


def test_no_link_of_the_image_leads_out(engine: Engine, shared: Path, root: Path) -> None:
    """A target that is a link is followed inside the container's own root."""
    outside = root / "outside"
    engine.create("base", FOR_EVER, name="web", network="none", binds=[f"{shared}:/link/place"])
    upper = root / "containers" / engine.inspect("web").id / "upper"
    upper.mkdir()
    (upper / "link").symlink_to(outside)
    engine.start("web")
    assert not outside.exists()
    assert _said(engine, "web", f"cat {outside}/place/file") == "from the host\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/data", "source:target"),
        ("/a:b", "not absolute"),
        ("./a:/b", "not absolute"),
        ("/a:/b:rx", "source:target"),
        ("/a:/b:ro:z", "source:target"),
        (":/b", "source:target"),
        ("/a:/", "container's own"),
        ("/a:/proc", "container's own"),
        ("/a:/x/../proc/sys", "container's own"),
        ("/a:/sys/fs", "container's own"),
        ("-v:/b", "malformed"),
    ],
)
def test_what_cannot_be_mounted_is_refused(engine: Engine, root: Path, text: str, why: str) -> None:
    """By name, with nothing left."""
    with nothing_left(root), pytest.raises(InvalidError, match=why):
        engine.run("base", FOR_EVER, network="none", binds=[text])


def test_a_source_that_is_not_there(engine: Engine, root: Path) -> None:
    """Is an error rather than an empty directory; nothing is left."""
    engine.wait(engine.run("base", ["true"], network="none", auto_remove=True).id)
    with nothing_left(root), pytest.raises(InvalidError, match="No such file"):
        engine.run("base", FOR_EVER, network="none", binds=[f"{root}/nowhere:/x"])
    with pytest.raises(InvalidError, match="twice"):
        engine.create("base", FOR_EVER, binds=["a:/x", "b:/x/"])


def test_a_file_and_a_directory_are_not_mounted_on_each_other(
    engine: Engine, shared: Path, root: Path
) -> None:
    """Which is which is told, also of a volume, which is a directory."""
    (shared / "file").write_text("x")
    engine.wait(engine.run("base", ["true"], network="none", auto_remove=True).id)
    with nothing_left(root), pytest.raises(InvalidError, match=r"it is a file, .* a directory"):
        engine.run("base", FOR_EVER, network="none", binds=[f"{shared}:/etc/hosts"])
    with nothing_left(root), pytest.raises(InvalidError, match=r"it is a directory, .* a file"):
        engine.run("base", FOR_EVER, network="none", binds=[f"{shared}/file:/etc"])


def test_a_link_into_proc_is_refused(engine: Engine, shared: Path, root: Path) -> None:
    """Nothing covers what keeps the kernel's knobs out of reach."""
    engine.create("base", FOR_EVER, name="web", network="none", binds=[f"{shared}:/link"])
    upper = root / "containers" / engine.inspect("web").id / "upper"
    upper.mkdir()
    (upper / "link").symlink_to("/proc/sys")
    with pytest.raises(InvalidError, match="/proc/sys"):
        engine.start("web")


def test_a_volume_outlives_its_containers(engine: Engine) -> None:
    """It is made when it is named first, shared by whoever names it, and kept."""
    engine.run("base", FOR_EVER, name="one", network="none", binds=["data:/data"])
    engine.run("base", FOR_EVER, name="two", network="none", binds=["data:/other:ro"])
    assert _said(engine, "one", "echo kept > /data/file") == ""
    assert _said(engine, "two", "cat /other/file") == "kept\n"
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


def test_every_user_gets_into_a_volume(engine: Engine) -> None:
    """Whatever the caller's umask."""
    engine.run(
        "base",
        FOR_EVER,
        name="web",
        network="none",
        binds=["data:/data"],
        cap_drop=["dac_override"],
    )
    assert _said(engine, "web", "stat -c %a /data") == "755\n"
