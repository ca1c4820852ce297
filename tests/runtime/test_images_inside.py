"""A container's files from outside: compared, copied both ways, exported, committed.

What is removed inside has a name that no machine has: were a command ever to run
outside, nothing would be lost.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from linux.syscalls import MS_SHARED, mount, umount
from runtime.engine import Engine
from runtime.errors import InvalidError, MydockerError, NotFoundError
from runtime.records import Container
from tests.runtime import tars
from tests.runtime.looks import brought
from tests.runtime.pictures import base_layer, has_id, import_root, make, output, unchanged
from tests.runtime.tars import Item, directory, symlink

SLEEP = ["sleep", "1000000"]


@pytest.fixture
def here() -> Iterator[Path]:
    """A directory of the machine's."""
    made = Path(tempfile.mkdtemp(dir="/run", prefix="here-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(params=["running", "ended"])
def web(engine: Engine, request: pytest.FixtureRequest) -> Container:
    """A container called web, while it runs and after it has ended."""
    made = engine.run("base", SLEEP, name="web", network="none")
    _sh(engine, "mkdir -p /srv/a/b; echo one > /srv/a/one; echo two > /srv/a/b/two")
    return made if request.param == "running" else engine.stop("web", timeout=0)


def _sh(engine: Engine, script: str) -> str:
    done = engine.exec("web", ["sh", "-c", script])
    assert done.exit_code == 0, done.stderr
    return done.stdout.decode()


def _inside(engine: Engine, script: str) -> str:
    """What a shell says in web, which is started for it."""
    engine.start("web")
    return _sh(engine, script)


# --- diff -------------------------------------------------------------------------


def _diff(engine: Engine) -> list[str]:
    return [f"{change.kind} {change.path}" for change in engine.inside.diff("web")]


def test_diff_of_nothing(engine: Engine) -> None:
    """A container that was only created, or that wrote nothing, has changed nothing."""
    engine.create("base", SLEEP, name="web", network="none")
    assert _diff(engine) == []
    engine.start("web")
    assert _diff(engine) == []


def test_diff_tells_what_changed(engine: Engine) -> None:
    """Added, changed, deleted, also where a directory was made anew; parents before children."""
    below = tars.tar(
        *(Item(name, b"x") for name in ("d/changed", "d/gone", "d/kept", "anew/old", "tree/a/f")),
        symlink("alias", "tree"),
    )
    make(engine, base_layer(engine), below)
    engine.run("made", SLEEP, name="web", network="none")
    _sh(engine, "echo y > /d/changed; rm /d/gone; mkdir /d/new; echo z > /d/new/f")
    _sh(engine, "rm -r /anew; mkdir /anew; echo z > /anew/fresh; rm -r /tree; echo z > /tree")
    _sh(engine, "rm /alias; mkdir -p /alias/a; echo mine > /alias/a/f")
    _sh(engine, "echo gone again > /d/brief; rm /d/brief; mv /d/kept /d/moved")
    expected = [
        "C /alias",
        "A /alias/a",
        "A /alias/a/f",
        "C /anew",
        "A /anew/fresh",
        "D /anew/old",
        "C /d",
        "C /d/changed",
        "D /d/gone",
        "D /d/kept",
        "A /d/moved",
        "A /d/new",
        "A /d/new/f",
        "C /tree",
    ]
    assert _diff(engine) == expected
    engine.stop("web", timeout=0)
    assert _diff(engine) == expected


# --- cp ---------------------------------------------------------------------------


def test_a_file_comes_out(engine: Engine, web: Container, here: Path) -> None:
    """Into a directory under its own name, or under the name that is asked for."""
    (here / "there").write_text("before")
    engine.inside.copy_out("web", "/srv/a/one", str(here))
    engine.inside.copy_out("web", "/srv/a/one", str(here / "other"))
    engine.inside.copy_out("web", "/srv/a/one", str(here / "there"))
    assert {path.name: path.read_text() for path in here.iterdir()} == {
        "one": "one\n",
        "other": "one\n",
        "there": "one\n",
    }


def test_a_directory_comes_out(engine: Engine, web: Container, here: Path) -> None:
    """Whole into one that is there, its content alone with `/.`, or as one that was not."""
    (here / "there").mkdir(mode=0o700)
    (here / "content").mkdir(mode=0o700)
    engine.inside.copy_out("web", "/srv/a", str(here / "there"))
    engine.inside.copy_out("web", "/srv/a/.", str(here / "content"))
    engine.inside.copy_out("web", "/srv/a", str(here / "new"))
    for top in ("there/a", "content", "new"):
        assert (here / top / "one").read_text() == "one\n"
        assert (here / top / "b" / "two").read_text() == "two\n"
    assert stat.S_IMODE((here / "content").stat().st_mode) == 0o700


def test_files_go_in(engine: Engine, web: Container, here: Path) -> None:
    """By the same rules; what runs sees them at once."""
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
    assert _inside(engine, files).split() == ["in", "in", "in", "ran", "ran"]
    assert _inside(engine, "stat -c %a,%u /bin/program") == "4755,0\n"


def test_owners_are_kept_when_asked(engine: Engine, web: Container, here: Path) -> None:
    """As far as this user namespace has them; else all is root's."""
    if not has_id(1234):
        engine.inside.copy_out("web", "/srv/a/one", str(here), archive=True)
        assert (here / "one").stat().st_uid == 0
        return
    (here / "f").touch()
    os.chown(here / "f", 1234, 5)
    engine.inside.copy_in(str(here / "f"), "web", "/srv/kept", archive=True)
    engine.inside.copy_in(str(here / "f"), "web", "/srv/roots")
    assert _inside(engine, "stat -c %u:%g /srv/kept /srv/roots").split() == ["1234:5", "0:0"]
    engine.inside.copy_out("web", "/srv/kept", str(here), archive=True)
    assert (here / "kept").stat()[4:6] == (1234, 5)


def test_links_are_copied_or_followed(engine: Engine, web: Container, here: Path) -> None:
    """A link is a link; with -L it is what it points to, inside."""
    _inside(engine, "ln -s /srv/a/one /srv/link; ln -s a /srv/dir")
    engine.inside.copy_out("web", "/srv/link", str(here / "as it is"))
    engine.inside.copy_out("web", "/srv/link", str(here / "followed"), follow=True)
    engine.inside.copy_out("web", "/srv/dir/one", str(here / "below"))
    assert os.readlink(here / "as it is") == "/srv/a/one"
    assert (here / "followed").read_text() == (here / "below").read_text() == "one\n"


@pytest.mark.parametrize("follow", ["", "follow"])
def test_links_never_lead_out(engine: Engine, web: Container, here: Path, follow: str) -> None:
    """A link to a path of the machine means the container's own file of that path, or none."""
    (here / "secret").write_text("secret")
    (here / "mine").write_text("mine")
    out = here / "out"
    out.mkdir()
    links = {"file": f"{here}/secret", "dir": str(here), "dots": f"{'../' * 20}{here}"}
    for name, target in links.items():
        _inside(engine, f"ln -s '{target}' /srv/{name}")
    engine.stop("web", timeout=0)
    for path in ("/srv/file", "/srv/dir/secret", "/srv/dots/secret", f"/srv/../../..{here}/secret"):
        try:
            engine.inside.copy_out("web", path, str(out / "copy"), follow=bool(follow))
        except MydockerError:
            continue
        assert (out / "copy").is_symlink()
        (out / "copy").unlink()
    for path in ("/srv/file", "/srv/dir/made", "/srv/dots/made", "/srv/dir"):
        try:
            engine.inside.copy_in(str(here / "mine"), "web", path, follow=bool(follow))
        except MydockerError:
            continue
    assert sorted(os.listdir(here)) == ["mine", "out", "secret"]
    assert (here / "secret").read_text() == "secret"
    assert os.listdir(out) == []
    engine.start("web")
    for path in ("/srv/file", "/srv/dir/made", "/srv/dots/made", "/srv/dir"):
        try:
            engine.inside.copy_in(str(here / "mine"), "web", path, follow=bool(follow))
        except MydockerError:
            continue
    assert sorted(os.listdir(here)) == ["mine", "out", "secret"]
    assert (here / "secret").read_text() == "secret"


def test_a_container_that_swaps_links_gains_nothing(engine: Engine, here: Path) -> None:
    """A race of directory and link (CVE-2018-15664): all copies end inside, or come from inside."""
    (here / "secret").write_text("secret")
    (here / "mine").write_text("mine")
    out = here / "out"
    out.mkdir()
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
    "nothing there": ("/srv/none", "", "there is no web:/srv/none"),
    "below a file": ("/srv/a/one/x", "", "is not a directory"),
    "a directory over a file": ("/srv/a", "file", "cannot be copied over a file"),
    "into nowhere": ("/srv/a/one", "no/such/dir", "there is no directory"),
    "into a directory that is not there": ("/srv/a/one", "none/", "there is no directory"),
    "over a pipe": ("/srv/a/one", "pipe", "neither a file nor a directory"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_copies_that_cannot_be(engine: Engine, web: Container, here: Path, what: str) -> None:
    """Are refused with what is in the way."""
    source, target, said = REFUSED[what]
    (here / "file").touch()
    os.mkfifo(here / "pipe")
    with pytest.raises(MydockerError, match=said):
        engine.inside.copy_out("web", source, f"{here}/{target}")
    assert sorted(os.listdir(here)) == ["file", "pipe"]
    assert stat.S_ISFIFO((here / "pipe").stat().st_mode)


def test_a_pipe_holds_nobody_up(engine: Engine, web: Container, here: Path) -> None:
    """It is copied as what it is, not read; a socket is left out."""
    engine.inside.unpack(io.BytesIO(tars.tar(Item("pipe", type=b"6"))), "web", "/srv/a")
    engine.inside.copy_out("web", "/srv/a", str(here))
    assert stat.S_ISFIFO((here / "a" / "pipe").stat().st_mode)


def test_a_name_that_images_use_is_copied_as_it_is(
    engine: Engine, web: Container, here: Path
) -> None:
    """Only in a layer .wh.one says that one is gone."""
    (here / ".wh.one").write_text("a file\n")
    engine.inside.copy_in(str(here / ".wh.one"), "web", "/srv/a")
    engine.inside.copy_out("web", "/srv/a/.wh.one", str(here / "back"))
    assert (here / "back").read_text() == "a file\n"
    assert _inside(engine, "cat /srv/a/one") == "one\n"


def test_a_tar_comes_out_and_goes_in(engine: Engine, web: Container) -> None:
    """With `-` for the other side; the tar is as hostile as any other."""
    data = b"".join(engine.inside.pack("web", "/srv/a"))
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        assert opened.getnames() == ["a", "a/b", "a/b/two", "a/one"]
    engine.inside.unpack(io.BytesIO(data), "web", "/srv/a/b")
    assert _inside(engine, "cat /srv/a/b/a/one") == "one\n"
    evil = tars.tar(symlink("out", "/"), Item("out/evil"))
    with pytest.raises(InvalidError, match="leads out"):
        engine.inside.unpack(io.BytesIO(evil), "web", "/srv")
    with pytest.raises(InvalidError, match="not a directory"):
        engine.inside.unpack(io.BytesIO(evil), "web", "/srv/a/one")


def test_a_stopped_container_does_not_start_meanwhile(engine: Engine) -> None:
    """Its file system would be mounted twice; a running one is free again at once."""
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


# --- export and commit ------------------------------------------------------------


def test_an_export_has_the_files_and_nothing_mounted(engine: Engine, web: Container) -> None:
    """As one tree, that can be imported again; /proc, /dev and the like are empty."""
    data = b"".join(engine.inside.export("web"))
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        names = set(opened.getnames())
    assert {"srv/a/b/two", "bin/sh", "proc", "dev"} <= names
    assert not [name for name in names if name.startswith(("proc/", "sys/", "dev/"))]
    import_root(engine, data, "copy")
    seen = output(engine, "copy", "cat /srv/a/one; test -s /etc/hosts && echo hosts")
    assert seen.split() == ["one", "hosts"]


def test_what_was_deleted_stays_deleted(engine: Engine, root: Path) -> None:
    """Committed, and saved, and loaded: what was written is there, what was removed is not."""
    below = tars.tar(Item("w/gone"), Item("w/tree/old"))
    make(engine, base_layer(engine), below)
    engine.run("made", SLEEP, name="web", network="none")
    _sh(engine, "echo kept > /kept; rm /w/gone; rm -r /w/tree; mkdir /w/tree; echo > /w/tree/new")
    engine.inside.commit("web", "saved:1")
    archive = b"".join(engine.images.save(["saved:1"]))
    engine.remove("web", force=True)
    engine.images.remove("saved:1")
    (found,) = engine.images.load(io.BytesIO(archive))
    seen = output(engine, found.names[0], "cat /kept; echo /w/* /w/tree/*")
    assert seen.split() == ["kept", "/w/tree", "/w/tree/new"]
    assert b"".join(engine.images.save(["saved:1"])) == archive


def test_a_commit_can_be_built_on(engine: Engine) -> None:
    """Layer over layer, each as small as what changed, all sharing what is below."""
    image = "base"
    for number in range(3):
        engine.run(image, SLEEP, name="web", network="none")
        _sh(engine, f"echo {number} >> /count; test {number} = 0 || rm /only{number - 1}")
        _sh(engine, f"touch /only{number}")
        image = f"step:{number}"
        engine.inside.commit("web", image)
        engine.remove("web", force=True)
    assert output(engine, image, "cat /count; ls /only*").split() == ["0", "1", "2", "/only2"]
    assert len(engine.images.get(image).layers) == 3 + 1 + 1  # base, and the mount points


def test_a_commit_keeps_what_was_asked_for(engine: Engine) -> None:
    """Environment, command and directory are the container's, changed by lines of a Dockerfile."""
    make(
        engine,
        base_layer(engine),
        Entrypoint=["sh", "-c"],
        Env=["A=image", "HOME=/mine"],
        ExposedPorts={"80/tcp": {}},
    )
    engine.run(
        "made", ["sleep 1000"], name="web", env={"B": "mine"}, workdir="/srv", network="none"
    )
    engine.inside.commit(
        "web",
        "kept",
        author="me",
        comment="because",
        lines=["EXPOSE 53/udp", "LABEL a=b", "ENV C=d"],
    )
    found, names, config = engine.images.inspect("kept")
    assert names == ["kept:latest"]
    assert config["author"] == "me"
    assert config["history"][-1]["created_by"] == "because"
    defaults = found.defaults
    assert (defaults.entrypoint, defaults.command) == (["sh", "-c"], ["sleep 1000"])
    assert defaults.workdir == "/srv"
    assert defaults.exposed == ["53/udp", "80/tcp"]
    assert defaults.labels == {"a": "b"}
    env = dict(item.split("=", 1) for item in defaults.env)
    assert {"A": "image", "B": "mine", "C": "d", "HOME": "/mine"}.items() <= env.items()
    assert "HOSTNAME" not in env
    assert output(engine, "kept", "true") == ""


def test_a_name_that_would_remove_files_is_not_committed(engine: Engine) -> None:
    """A file called .wh.x cannot be in a layer; neither can a device."""
    engine.run("base", SLEEP, name="web", network="none")
    _sh(engine, "touch /.wh.etc")
    with pytest.raises(InvalidError, match=r"/\.wh\.etc has a name that images use"):
        engine.inside.commit("web", "bad")
    assert brought(engine) == []


def test_what_is_mounted_is_copied_but_not_committed(engine: Engine, here: Path) -> None:
    """Out of a running container its mounts are seen as it sees them."""
    engine.run("base", SLEEP, name="web", network="none")
    _sh(engine, "echo x > /dev/shm/f")
    engine.inside.copy_out("web", "/dev/shm/f", str(here))
    assert (here / "f").read_text() == "x\n"
    assert _diff(engine) == []


def test_nothing_of_it_is_left(engine: Engine, root: Path, here: Path) -> None:
    """No mount, no process, no descriptor, whether it went well or not."""
    engine.run("base", SLEEP, name="web", network="none")
    engine.create("base", SLEEP, name="new", network="none")
    for name in ("web", "new"):
        list(engine.inside.export(name))  # the overlay's own directories are made once
    with unchanged(root):
        for name in ("web", "new"):
            engine.inside.diff(name)
            engine.inside.copy_out(name, "/etc", str(here / name))
            list(engine.inside.export(name))
            next(iter(engine.inside.export(name)))
            with pytest.raises(NotFoundError):
                engine.inside.copy_out(name, "/none", str(here))
            with pytest.raises(NotFoundError):
                engine.inside.copy_in("/none", name, "/")


def test_mounts_are_never_shared_with_the_machine(engine: Engine, here: Path) -> None:
    """Also where the state lies on a mount that passes on what is mounted below it."""
    mount("tmpfs", str(here), "tmpfs")
    mount("", str(here), flags=MS_SHARED)
    try:
        inner = Engine(here / "state")
        inner.create("base", SLEEP, name="web", network="none")
        list(inner.inside.export("web"))
        with unchanged(here / "state"):
            pieces = inner.inside.export("web")
            next(pieces)
            assert str(here / "state") not in Path("/proc/self/mountinfo").read_text()
            assert len(list(pieces)) > 10
            inner.inside.diff("web")
        inner.teardown()
    finally:
        umount(str(here))


def test_a_tree_may_be_deep(engine: Engine) -> None:
    """As deep as an image may be; deeper, it is refused, and can still be removed."""
    engine.run("base", SLEEP, name="web", network="none")
    _sh(engine, f"mkdir -p /deep/{'d/' * 250}")
    engine.inside.commit("web", "deep")
    assert output(engine, "deep", f"test -d /deep/{'d/' * 250} && echo there") == "there\n"
    _sh(engine, f"mkdir -p /deep/{'d/' * 1900}")
    with pytest.raises(InvalidError, match="directories deep"):
        engine.inside.commit("web", "deeper")
    with pytest.raises(InvalidError, match="directories deep"):
        list(engine.inside.export("web"))
    engine.remove("web", force=True)


def test_links_of_both_kinds_are_kept(engine: Engine) -> None:
    """Two names of one file are that after a commit too, and in an export."""
    engine.run("base", SLEEP, name="web", network="none")
    _sh(engine, "mkdir /l; echo one > /l/a; ln /l/a /l/b; ln -s a /l/c")
    engine.inside.commit("web", "linked")
    tree = Path(engine.images.get("linked").layers[0])
    assert (tree / "l" / "a").samefile(tree / "l" / "b")
    assert os.readlink(tree / "l" / "c") == "a"
    with tarfile.open(fileobj=io.BytesIO(b"".join(engine.inside.export("web")))) as opened:
        assert opened.getmember("l/b").linkname == "l/a"


def test_two_lower_layers_and_a_volume_like_mount(engine: Engine, here: Path) -> None:
    """The state directory may have any path that a file system takes."""
    strange = here / "a:b,c\\d e"
    strange.mkdir()
    mount("tmpfs", str(strange), "tmpfs")
    try:
        inner = Engine(strange)
        make(inner, base_layer(inner), tars.tar(directory("d"), Item("d/f", b"f")))
        assert output(inner, "made", "cat /d/f; echo x > /d/f") == "f"
        inner.teardown()
    finally:
        umount(str(strange))
