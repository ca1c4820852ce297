"""Tests of copies of files and directories out of containers and into them."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import InvalidError, MydockerError
from runtime.records import ContainerRecord
from tests.runtime.container.container_files import SLEEP, inside
from tests.runtime.image import tars
from tests.runtime.image.image_files import has_id
from tests.runtime.image.tars import Item, symlink


def test_file_is_copied_out_of_a_container(
    engine: Engine, web: ContainerRecord, here: Path
) -> None:
    """A copied file keeps its name in a directory, or gets the requested name."""
    (here / "there").write_text("before")
    engine.inside.copy_out("web", "/srv/a/one", str(here))
    engine.inside.copy_out("web", "/srv/a/one", str(here / "other"))
    engine.inside.copy_out("web", "/srv/a/one", str(here / "there"))
    assert {path.name: path.read_text() for path in here.iterdir()} == {
        "one": "one\n",
        "other": "one\n",
        "there": "one\n",
    }


def test_directory_is_copied_out_of_a_container(
    engine: Engine, web: ContainerRecord, here: Path
) -> None:
    """A directory is copied whole into an existing or a new directory.

    With `/.` only its content is copied.
    """
    (here / "there").mkdir(mode=0o700)
    (here / "content").mkdir(mode=0o700)
    engine.inside.copy_out("web", "/srv/a", str(here / "there"))
    engine.inside.copy_out("web", "/srv/a/.", str(here / "content"))
    engine.inside.copy_out("web", "/srv/a", str(here / "new"))
    for top in ("there/a", "content", "new"):
        assert (here / top / "one").read_text() == "one\n"
        assert (here / top / "b" / "two").read_text() == "two\n"
    assert stat.S_IMODE((here / "content").stat().st_mode) == 0o700


def test_files_are_copied_into_a_container(
    engine: Engine, web: ContainerRecord, here: Path
) -> None:
    """Files are copied into a container by the rules for copies out of it.

    A running container sees the copied files at once.
    """
    (here / "d" / "sub").mkdir(parents=True)
    (here / "d" / "sub" / "f").write_text("in\n")
    (here / "program").write_text("#!/bin/sh\necho ran\n")
    (here / "program").chmod(0o4755)
    engine.inside.copy_in(str(here / "d"), "web", "/srv")
    engine.inside.copy_in(f"{here}/d/.", "web", "/srv/a")
    engine.inside.copy_in(str(here / "d"), "web", "/srv/new")
    engine.inside.copy_in(str(here / "program"), "web", "/bin/")
    engine.inside.copy_in(str(here / "program"), "web", "/srv/a/one")
    files = "cat /srv/d/sub/f /srv/a/sub/f /srv/new/sub/f; program; /srv/a/one"
    assert inside(engine, files).split() == ["in", "in", "in", "ran", "ran"]
    assert inside(engine, "stat -c %a,%u /bin/program") == "4755,0\n"


def test_copy_keeps_owners_with_archive(engine: Engine, web: ContainerRecord, here: Path) -> None:
    """`cp -a` keeps owners that this user namespace maps; other files belong to root.

    Without -a all files belong to root.
    """
    if not has_id(1234):
        engine.inside.copy_out("web", "/srv/a/one", str(here), archive=True)
        assert (here / "one").stat().st_uid == 0
        return
    (here / "f").touch()
    os.chown(here / "f", 1234, 5)
    engine.inside.copy_in(str(here / "f"), "web", "/srv/kept", archive=True)
    engine.inside.copy_in(str(here / "f"), "web", "/srv/roots")
    assert inside(engine, "stat -c %u:%g /srv/kept /srv/roots").split() == ["1234:5", "0:0"]
    engine.inside.copy_out("web", "/srv/kept", str(here), archive=True)
    assert (here / "kept").stat()[4:6] == (1234, 5)


def test_copy_follows_symbolic_links_on_request(
    engine: Engine, web: ContainerRecord, here: Path
) -> None:
    """A symbolic link is copied as a link.

    With -L the file to which it leads in the container is copied.
    """
    inside(engine, "ln -s /srv/a/one /srv/link; ln -s a /srv/dir")
    engine.inside.copy_out("web", "/srv/link", str(here / "as it is"))
    engine.inside.copy_out("web", "/srv/link", str(here / "followed"), follow=True)
    engine.inside.copy_out("web", "/srv/dir/one", str(here / "below"))
    assert os.readlink(here / "as it is") == "/srv/a/one"
    assert (here / "followed").read_text() == (here / "below").read_text() == "one\n"


@pytest.fixture
def secret(here: Path) -> Path:
    """Return a directory of the host with a secret, a file to copy in, and an empty directory."""
    (here / "secret").write_text("secret")
    (here / "mine").write_text("mine")
    (here / "out").mkdir()
    return here


@pytest.mark.parametrize("follow", ["", "follow"])
def test_copy_resolves_links_inside_the_container(
    engine: Engine, web: ContainerRecord, secret: Path, follow: str
) -> None:
    """A link to a host path leads to the container's own file at that path, or to none."""
    here, out = secret, secret / "out"
    links = {"file": f"{here}/secret", "dir": str(here), "dots": f"{'../' * 20}{here}"}
    for name, target in links.items():
        inside(engine, f"ln -s '{target}' /srv/{name}")
    engine.stop("web", timeout=0)
    for path in ("/srv/file", "/srv/dir/secret", "/srv/dots/secret", f"/srv/../../..{here}/secret"):
        with suppress(MydockerError):
            engine.inside.copy_out("web", path, str(out / "copy"), follow=bool(follow))
            assert (out / "copy").is_symlink()
            (out / "copy").unlink()
    for state in ("stopped", "running"):
        if state == "running":
            engine.start("web")
        for path in ("/srv/file", "/srv/dir/made", "/srv/dots/made", "/srv/dir"):
            with suppress(MydockerError):
                engine.inside.copy_in(str(here / "mine"), "web", path, follow=bool(follow))
        assert sorted(os.listdir(here)) == ["mine", "out", "secret"]
        assert (here / "secret").read_text() == "secret"
    assert os.listdir(out) == []


def test_copy_stays_inside_while_links_are_swapped(engine: Engine, secret: Path) -> None:
    """Copies stay inside the container while it swaps directory and link (CVE-2018-15664)."""
    here, out = secret, secret / "out"
    made = f"mkdir -p /srv/real; ln -s {here} /srv/link; echo inside > /srv/real/secret; echo ready"
    swaps = ("link t", "real link", "link real", "t link")
    loop = "; ".join("mv -T /srv/{} /srv/{}".format(*pair.split()) for pair in swaps)
    script = f"{made}; while :; do {loop}; done"
    engine.run("base", ["sh", "-c", script], name="web", network="none")
    next(line for line in engine.logs("web", follow=True) if line.data == b"ready\n")
    seen: set[str] = set()
    while not {"inside\n", "nothing", "taken", "refused"} <= seen:
        try:
            engine.inside.copy_out("web", "/srv/link/secret", str(out / "copy"))
            seen.add((out / "copy").read_text())
        except MydockerError:
            seen.add("nothing")
        try:
            engine.inside.copy_in(str(here / "mine"), "web", "/srv/link/made")
            seen.add("taken")
        except MydockerError:
            seen.add("refused")
    assert sorted(os.listdir(here)) == ["mine", "out", "secret"]
    assert (here / "secret").read_text() == "secret"
    assert "secret" not in seen


REFUSED: dict[str, tuple[str, str, str]] = {
    "nothing there": ("/srv/none", "", "web:/srv/none does not exist"),
    "below a file": ("/srv/a/one/x", "", "is not a directory"),
    "a directory over a file": ("/srv/a", "file", "cannot be copied over a file"),
    "into nowhere": ("/srv/a/one", "no/such/dir", "does not exist"),
    "into a directory that is not there": ("/srv/a/one", "none/", "does not exist"),
    "over a pipe": ("/srv/a/one", "pipe", "neither a file nor a directory"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_impossible_copy_is_refused(
    engine: Engine, web: ContainerRecord, here: Path, what: str
) -> None:
    """The error for an impossible copy names the reason, and no file is copied."""
    source, target, message = REFUSED[what]
    (here / "file").touch()
    os.mkfifo(here / "pipe")
    with pytest.raises(MydockerError, match=message):
        engine.inside.copy_out("web", source, f"{here}/{target}")
    assert sorted(os.listdir(here)) == ["file", "pipe"]
    assert stat.S_ISFIFO((here / "pipe").stat().st_mode)


def test_copy_does_not_read_named_pipes(engine: Engine, web: ContainerRecord, here: Path) -> None:
    """A named pipe is copied as a pipe and not read; a socket is left out."""
    engine.inside.unpack(io.BytesIO(tars.tar(Item("pipe", type=b"6"))), "web", "/srv/a")
    engine.inside.copy_out("web", "/srv/a", str(here))
    assert stat.S_ISFIFO((here / "a" / "pipe").stat().st_mode)


def test_whiteout_name_is_copied_as_a_file(
    engine: Engine, web: ContainerRecord, here: Path
) -> None:
    """A file called .wh.one is copied like any file; it marks a deletion only in a layer."""
    (here / ".wh.one").write_text("a file\n")
    engine.inside.copy_in(str(here / ".wh.one"), "web", "/srv/a")
    engine.inside.copy_out("web", "/srv/a/.wh.one", str(here / "back"))
    assert (here / "back").read_text() == "a file\n"
    assert inside(engine, "cat /srv/a/one") == "one\n"


def test_copy_reads_and_writes_tar_streams(engine: Engine, web: ContainerRecord) -> None:
    """`cp` reads or writes a tar stream at `-`, and checks it like any untrusted tar."""
    data = b"".join(engine.inside.pack("web", "/srv/a"))
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        assert opened.getnames() == ["a", "a/b", "a/b/two", "a/one"]
    engine.inside.unpack(io.BytesIO(data), "web", "/srv/a/b")
    assert inside(engine, "cat /srv/a/b/a/one") == "one\n"
    evil = tars.tar(symlink("out", "/"), Item("out/evil"))
    with pytest.raises(InvalidError, match="leads out"):
        engine.inside.unpack(io.BytesIO(evil), "web", "/srv")
    with pytest.raises(InvalidError, match="not a directory"):
        engine.inside.unpack(io.BytesIO(evil), "web", "/srv/a/one")


def test_stopped_container_is_locked_during_a_copy(engine: Engine) -> None:
    """A copy locks a stopped container, because a start would mount its file system twice.

    A copy does not lock a running container.
    """
    found = engine.create("base", SLEEP, name="web", network="none")
    for held in (True, False):
        pieces = engine.inside.pack("web", "/bin")
        next(pieces)
        lock = engine._store.lock_container(found.id, wait=False)
        assert (lock is None) == held
        if lock is not None:
            lock.release()
        assert b"".join(pieces).endswith(bytes(1024))
        engine.start("web")


def test_interrupted_copy_reports_the_copied_part(engine: Engine, here: Path) -> None:
    """An interrupted copy reports the cause, and keeps the files that are already copied.

    For a device the error names the device and does not blame a damaged archive.
    """
    engine.run("base", SLEEP, name="web", network="none")
    with pytest.raises(MydockerError) as refused:
        engine.inside.copy_out("web", "/dev", str(here))
    assert "/dev/full is a device" in refused.value.happened
    assert not refused.value.cause
    cut = io.BytesIO(tars.tar(Item("two", b"2\n"))[:1024])
    with pytest.raises(MydockerError) as refused:
        engine.inside.unpack(cut, "web", "/tmp")
    assert refused.value.remedy.endswith("the files before it have been copied")
    assert engine.exec("web", ["cat", "/tmp/two"]).stdout == b"2\n"
