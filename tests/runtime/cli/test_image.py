"""Tests of commands on images and container files: Docker's names, output, exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.cli import output
from runtime.engine import Engine
from tests.runtime.cli.conftest import MYDOCKER, Mydocker
from tests.runtime.image import tars
from tests.runtime.image.image_files import base_layer, make
from tests.runtime.image.tars import Item
from tests.support.programs import Watched

LAYER = tars.tar(Item("f", b"found\n"))


@pytest.fixture
def host_dir() -> Iterator[Path]:
    """Yield a new directory of the host."""
    made = Path(tempfile.mkdtemp(dir="/run", prefix="host-dir-"))
    yield made
    shutil.rmtree(made)


def _rows(mydocker: Mydocker, *options: str) -> list[list[str]]:
    lines = mydocker("images", *options).stdout.splitlines()
    assert lines[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    return [re.split(r"\s{3,}", line.strip()) for line in lines[1:]]


def test_load_prints_loaded_names(mydocker: Mydocker, host_dir: Path) -> None:
    """`load` reads a file or standard input, and prints the name or ID of each image.

    With -q it prints nothing.
    """
    made = tars.config([LAYER])
    archive = tars.packed(tars.new_docker([LAYER], made, ["team/app:1", "app"]))
    (host_dir / "x.tar").write_bytes(archive)
    done = mydocker("load", "-i", str(host_dir / "x.tar"))
    assert done.stdout == "Loaded image: team/app:1\nLoaded image: app:latest\n"
    assert mydocker("load", "-q", stdin=archive).stdout == ""
    done = mydocker("load", stdin=tars.packed(tars.oci([LAYER], made)))
    assert done.stdout == f"Loaded image ID: sha256:{tars.sha256(made)}\n"


def test_refused_archive_is_reported(mydocker: Mydocker, host_dir: Path) -> None:
    """The error for a refused archive names the archive, the cause and a remedy."""
    bad = tars.tar(Item("../../evil"))
    archive = tars.packed(tars.new_docker([bad], tars.config([bad]), ["bad"]))
    (host_dir / "bad.tar").write_bytes(archive)
    for done, shown in (
        (mydocker("load", "-i", str(host_dir / "bad.tar")), f"{host_dir}/bad.tar"),
        (mydocker("load", stdin=archive), "standard input"),
    ):
        assert (done.returncode, done.stdout) == (1, "")
        first, cause, remedy = done.stderr.splitlines()
        assert (
            first
            == f"mydocker: cannot load {shown}: the path '../../evil' leads out of the archive"
        )
        assert (cause[:16], remedy[:7]) == ("  likely cause: ", "  try: ")
    done = mydocker("load", "-i", f"{host_dir}/none.tar")
    assert done.returncode == 1
    assert f"read {host_dir}/none.tar: No such file" in done.stderr


def test_images_lists_names_ids_and_sizes(mydocker: Mydocker, engine: Engine) -> None:
    """`images` lists names, IDs and sizes, filtered by name.

    -q prints each ID once; --no-trunc prints it in full.
    """
    identity = make(engine, LAYER, name="team/app:1")
    engine.images.tag("team/app:1", "team/app:2")
    engine.images.tag("team/app:1", "other")
    own = engine.images.get("base").id
    rows = _rows(mydocker)
    assert [row[:3] for row in rows] == [
        ["base", "latest", own[:12]],
        ["other", "latest", identity[:12]],
        ["team/app", "1", identity[:12]],
        ["team/app", "2", identity[:12]],
    ]
    assert rows[1][4] == "6B"
    assert re.fullmatch(r"\d+ (week|year)s ago", rows[1][3])
    assert [row[1] for row in _rows(mydocker, "team/app")] == ["1", "2"]
    assert [row[1] for row in _rows(mydocker, "team/app:2")] == ["2"]
    assert _rows(mydocker, "--no-trunc", "other")[0][2] == f"sha256:{identity}"
    assert mydocker("images", "-q", "team/app").stdout == f"{identity[:12]}\n"
    done = mydocker("images", "-q", "--no-trunc", "other")
    assert done.stdout == f"sha256:{identity}\n"
    done = mydocker("images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}", "other")
    assert done.stdout == "other:latest 6B\n"
    done = mydocker("images", "--format", "table {{.ID}}\\t{{.Tag}}", "other")
    assert done.stdout.split() == ["IMAGE", "ID", "TAG", identity[:12], "latest"]


SIZES = {0: "0B", 999: "999B", 1000: "1kB", 5_610_000: "5.61MB", 999_999: "1MB", 10**13: "10TB"}


@pytest.mark.parametrize("count", SIZES)
def test_image_sizes_have_three_digits(count: int) -> None:
    """A printed size has three digits and the largest unit that fits."""
    assert output.size(count) == SIZES[count]


def test_failed_save_leaves_the_file_unchanged(
    mydocker: Mydocker, engine: Engine, host_dir: Path
) -> None:
    """A failed `save -o` leaves the file unchanged.

    The file appears when it is complete, with the same content as standard output.
    """
    make(engine, LAYER, name="app")
    make(engine, LAYER, name="other", Env=["A=b"])
    assert mydocker("save", "-o", str(host_dir / "x.tar"), "app", "other").returncode == 0
    assert mydocker("save", "app", "other", text=False).stdout == (host_dir / "x.tar").read_bytes()
    (host_dir / "kept.tar").write_text("kept")
    assert mydocker("save", "-o", str(host_dir / "kept.tar"), "app", "none").returncode == 1
    assert (host_dir / "kept.tar").read_text() == "kept"
    assert sorted(os.listdir(host_dir)) == ["kept.tar", "x.tar"]
    assert mydocker("rmi", "app", "other").returncode == 0
    done = mydocker("load", "-i", str(host_dir / "x.tar"))
    assert done.stdout == "Loaded image: app:latest\nLoaded image: other:latest\n"


def test_archives_are_not_read_from_or_written_to_terminals(
    env: dict[str, str], engine: Engine
) -> None:
    """`save` to a terminal and `load` from a terminal fail with an error."""
    make(engine, LAYER, name="app")
    for argv, message in (
        (["save", "app"], "output is a terminal"),
        (["load"], "input is a terminal"),
    ):
        watched = Watched([*MYDOCKER, *argv], terminal=True, env=env)
        watched.expect(message)
        assert watched.end() == 1


def test_imported_and_committed_images_run(
    mydocker: Mydocker, engine: Engine, host_dir: Path
) -> None:
    """`import` and `commit` print the ID of the new image, and the image runs."""
    changes = ("-c", "CMD cat /f", "-c", "LABEL owner=me")
    done = mydocker("import", *changes, "-m", "mine", "-", stdin=base_layer(engine))
    identity = done.stdout.strip()
    assert re.fullmatch("sha256:[0-9a-f]{64}", identity)
    (shown,) = json.loads(mydocker("inspect", identity).stdout)
    assert shown["Config"]["Cmd"] == ["/bin/sh", "-c", "cat /f"]
    mydocker("run", "--name", "web", "--net", "none", identity, "sh", "-c", "echo written > /f")
    found = [mydocker("ps", "-aq", "-f", f"label=owner{end}").stdout for end in ("", "=me", "=you")]
    assert [bool(ids) for ids in found] == [True, True, False]
    done = mydocker("commit", "-a", "me", "-c", "CMD cat /f", "web", "team/app:1")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", done.stdout)
    assert mydocker("tag", "team/app:1", "short").stdout == ""
    assert mydocker("run", "--rm", "--net", "none", "short").stdout == "written\n"
    (shown,) = json.loads(mydocker("inspect", "short").stdout)
    assert (shown["Author"], shown["RepoTags"]) == ("me", ["short:latest", "team/app:1"])
    assert len(shown["RootFS"]["Layers"]) == 2
    assert mydocker("import", str(host_dir / "none"), "x").returncode == 1


def test_rmi_prints_untagged_and_deleted(mydocker: Mydocker, engine: Engine) -> None:
    """`rmi` prints untagged and deleted images, and continues after an image that is in use."""
    identity = make(engine, LAYER, name="app")
    engine.images.tag("app", "app:2")
    assert mydocker("rmi", "app:2").stdout == "Untagged: app:2\n"
    engine.create("app", ["true"], name="web", network="none")
    make(engine, tars.tar(Item("x")), name="other")
    done = mydocker("rmi", "app", "none", "other")
    assert done.returncode == 1
    assert "container 'web' uses the image" in done.stderr
    assert "'none': no such image" in done.stderr
    assert done.stdout.startswith("Untagged: other:latest\nDeleted: sha256:")
    assert mydocker("rmi", "-f", "app").stdout == "Untagged: app:latest\n"
    mydocker("rm", "web")
    layer = tars.sha256(LAYER)
    deleted = f"Deleted: sha256:{identity}\nDeleted: sha256:{layer}\n"
    assert mydocker("rmi", identity[:12]).stdout == deleted


def test_diff_prints_changes_and_export_writes_a_tar(
    mydocker: Mydocker, engine: Engine, host_dir: Path
) -> None:
    """`diff` prints one change per line, and `export` writes a tar of all files."""
    make(engine, base_layer(engine), tars.tar(Item("d/old")))
    script = "echo x > /f; rm /d/old"
    mydocker("run", "--name", "web", "--net", "none", "made", "sh", "-c", script)
    assert mydocker("diff", "web").stdout == "C /d\nD /d/old\nA /f\n"
    mydocker("export", "-o", str(host_dir / "x.tar"), "web")
    exported = mydocker("export", "web", text=False).stdout
    assert (host_dir / "x.tar").read_bytes() == exported
    with tarfile.open(fileobj=io.BytesIO(exported)) as opened:
        file = opened.extractfile("f")
        assert file is not None
        assert file.read() == b"x\n"


def test_cp_copies_in_both_directions(mydocker: Mydocker, host_dir: Path) -> None:
    """`cp` copies files, directories and tars in both directions.

    A relative path in the container begins at its root.
    """
    mydocker("run", "-d", "--name", "web", "--net", "none", "base", "sleep", "1000")
    (host_dir / "a:b").write_text("colon")
    (host_dir / "f").write_text("in")
    assert mydocker("cp", str(host_dir / "f"), "web:tmp").returncode == 0
    assert mydocker("cp", "web:/tmp/f", str(host_dir / "out")).returncode == 0
    assert (host_dir / "out").read_text() == "in"
    assert mydocker("cp", f"{host_dir}/a:b", "web:/tmp/").returncode == 0
    archive = mydocker("cp", "web:/tmp", "-", text=False).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert opened.getnames() == ["tmp", "tmp/a:b", "tmp/f"]
    mydocker("exec", "web", "mkdir", "/made-here")
    assert mydocker("cp", "-", "web:/made-here", stdin=archive).returncode == 0
    assert mydocker("exec", "web", "cat", "/made-here/tmp/f").stdout == "in"
    for argv in (("x", "y"), ("web:/tmp", "web:/var"), ("-", "-")):
        done = mydocker("cp", *argv)
        assert done.returncode == 1
        assert "exactly one of source and target must be CONTAINER:PATH" in done.stderr
    done = mydocker("cp", "none:/x", str(host_dir))
    assert "no such container" in done.stderr
