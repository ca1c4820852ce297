"""Tests of a container's files from outside: `diff`, `cp`, `export` and `commit`.

Files that tests remove in a container have names that exist on no host. If a command ran on the
host by mistake, nothing would be lost.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from linux.syscalls import MS_SHARED, mount, umount
from runtime.container import files
from runtime.engine import Engine
from runtime.errors import InvalidError, NotFoundError
from runtime.records import ContainerRecord
from tests.runtime.container.container_files import SLEEP, sh
from tests.runtime.image import tars
from tests.runtime.image.image_files import base_layer, import_root, load, make, output, unchanged
from tests.runtime.image.tars import Item, directory, symlink
from tests.runtime.support.inspection import loaded_images

# --- diff -------------------------------------------------------------------------


def _diff(engine: Engine) -> list[str]:
    return [f"{change.kind} {change.path}" for change in engine.inside.diff("web")]


def test_diff_of_an_unchanged_container_is_empty(engine: Engine) -> None:
    """`diff` of a container that was only created, or that wrote nothing, is empty."""
    engine.create("base", SLEEP, name="web", network="none")
    assert _diff(engine) == []
    engine.start("web")
    assert _diff(engine) == []


def test_diff_lists_added_changed_and_deleted_paths(engine: Engine) -> None:
    """`diff` lists added, changed and deleted paths, parents first.

    This holds also in a recreated directory.
    """
    below = tars.tar(
        *(Item(name, b"x") for name in ("d/changed", "d/gone", "d/kept", "anew/old", "tree/a/f")),
        symlink("alias", "tree"),
    )
    make(engine, base_layer(engine), below)
    engine.run("made", SLEEP, name="web", network="none")
    sh(engine, "echo y > /d/changed; rm /d/gone; mkdir /d/new; echo z > /d/new/f")
    sh(engine, "rm -r /anew; mkdir /anew; echo z > /anew/fresh; rm -r /tree; echo z > /tree")
    sh(engine, "rm /alias; mkdir -p /alias/a; echo mine > /alias/a/f")
    sh(engine, "echo gone again > /d/brief; rm /d/brief; mv /d/kept /d/moved")
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


# --- export and commit ------------------------------------------------------------


def test_diff_skips_files_removed_meanwhile(here: Path) -> None:
    """`diff` skips files that the running container removes meanwhile."""
    (here / "lower").mkdir()
    for name in "abcd":
        (here / "upper" / name / "in").mkdir(parents=True)
    upper, lower = (os.open(here / name, os.O_RDONLY) for name in ("upper", "lower"))
    found = files.changes(upper, lower)
    assert next(found) == ("A", "/a")
    shutil.rmtree(here / "upper" / "a")
    shutil.rmtree(here / "upper" / "b")
    assert next(found) == ("A", "/c")
    shutil.rmtree(here / "upper" / "c")
    (here / "upper" / "c").symlink_to("d")
    assert list(found) == [("A", "/d"), ("A", "/d/in")]
    os.close(upper)
    os.close(lower)


def test_export_has_no_content_of_mounts(engine: Engine, web: ContainerRecord) -> None:
    """An exported tar has /proc, /dev and other mounts as empty directories.

    The tar can be imported again.
    """
    data = b"".join(engine.inside.export("web"))
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        names = set(opened.getnames())
    assert {"srv/a/b/two", "bin/sh", "proc", "dev"} <= names
    assert not [name for name in names if name.startswith(("proc/", "sys/", "dev/"))]
    import_root(engine, data, "copy")
    seen = output(engine, "copy", "cat /srv/a/one; test -s /etc/hosts && echo hosts")
    assert seen.split() == ["one", "hosts"]


def test_commit_save_and_load_keep_deletions(engine: Engine, root: Path) -> None:
    """A committed, saved and loaded image has the written files and not the removed ones."""
    below = tars.tar(Item("w/gone"), Item("w/tree/old"))
    make(engine, base_layer(engine), below)
    engine.run("made", SLEEP, name="web", network="none")
    sh(engine, "echo kept > /kept; rm /w/gone; rm -r /w/tree; mkdir /w/tree; echo > /w/tree/new")
    engine.inside.commit("web", "saved:1")
    archive = b"".join(engine.images.save(["saved:1"]))
    engine.remove("web", force=True)
    engine.images.remove("saved:1")
    (found,) = load(engine, archive)
    seen = output(engine, found.names[0], "cat /kept; echo /w/* /w/tree/*")
    assert seen.split() == ["kept", "/w/tree", "/w/tree/new"]
    assert b"".join(engine.images.save(["saved:1"])) == archive


def test_repeated_commits_share_lower_layers(engine: Engine) -> None:
    """Each committed layer has only the changed files, and images share the layers below."""
    image = "base"
    for number in range(3):
        engine.run(image, SLEEP, name="web", network="none")
        sh(engine, f"echo {number} >> /count; test {number} = 0 || rm /only{number - 1}")
        sh(engine, f"touch /only{number}")
        image = f"step:{number}"
        engine.inside.commit("web", image)
        engine.remove("web", force=True)
    assert output(engine, image, "cat /count; ls /only*").split() == ["0", "1", "2", "/only2"]
    assert len(engine.images.get(image).layers) == 3 + 1 + 1  # base, and the mount points


def test_commit_keeps_configuration_with_changes(engine: Engine) -> None:
    """A committed image has the container's configuration, changed by Dockerfile lines."""
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


def test_commit_refuses_whiteout_name(engine: Engine) -> None:
    """`commit` refuses a file called .wh.x and a device: a layer cannot hold them."""
    engine.run("base", SLEEP, name="web", network="none")
    sh(engine, "touch /.wh.etc")
    with pytest.raises(InvalidError, match=r"/\.wh\.etc has the name of a whiteout"):
        engine.inside.commit("web", "bad")
    assert loaded_images(engine) == []


def test_mounted_files_are_copied_out_but_not_in_the_diff(engine: Engine, here: Path) -> None:
    """A copy from a running container includes its mounts, but `diff` does not list them."""
    engine.run("base", SLEEP, name="web", network="none")
    sh(engine, "echo x > /dev/shm/f")
    engine.inside.copy_out("web", "/dev/shm/f", str(here))
    assert (here / "f").read_text() == "x\n"
    assert _diff(engine) == []


def test_file_operations_leave_no_mount_or_process(engine: Engine, root: Path, here: Path) -> None:
    """No file operation leaves a mount, process or descriptor, after success or failure."""
    engine.run("base", SLEEP, name="web", network="none")
    engine.create("base", SLEEP, name="new", network="none")
    for name in ("web", "new"):
        list(engine.inside.export(name))  # makes the overlay's own directories, once
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


def test_export_mounts_do_not_propagate_to_the_host(engine: Engine, here: Path) -> None:
    """The mounts of an export do not propagate to a shared mount of the state directory."""
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


def test_commit_refuses_too_deep_directory_tree(engine: Engine) -> None:
    """`commit` refuses a tree deeper than an image may have.

    The container can still be removed.
    """
    engine.run("base", SLEEP, name="web", network="none")
    sh(engine, f"mkdir -p /deep/{'d/' * 250}")
    engine.inside.commit("web", "deep")
    assert output(engine, "deep", f"test -d /deep/{'d/' * 250} && echo there") == "there\n"
    sh(engine, f"mkdir -p /deep/{'d/' * 1900}")
    with pytest.raises(InvalidError, match="directories deep"):
        engine.inside.commit("web", "deeper")
    with pytest.raises(InvalidError, match="directories deep"):
        list(engine.inside.export("web"))
    with pytest.raises(InvalidError, match="directories deep"):
        engine.inside.diff("web")
    engine.remove("web", force=True)


def test_commit_and_export_keep_hard_and_symbolic_links(engine: Engine) -> None:
    """`commit` and `export` keep symbolic links, and two hard links of one file."""
    engine.run("base", SLEEP, name="web", network="none")
    sh(engine, "mkdir /l; echo one > /l/a; ln /l/a /l/b; ln -s a /l/c")
    engine.inside.commit("web", "linked")
    tree = Path(engine.images.get("linked").layers[0])
    assert (tree / "l" / "a").samefile(tree / "l" / "b")
    assert os.readlink(tree / "l" / "c") == "a"
    with tarfile.open(fileobj=io.BytesIO(b"".join(engine.inside.export("web")))) as opened:
        assert opened.getmember("l/b").linkname == "l/a"


def test_state_directory_may_have_special_characters(engine: Engine, here: Path) -> None:
    """The state directory may have any path that the file system allows."""
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
