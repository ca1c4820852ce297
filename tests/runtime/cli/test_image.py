"""The commands about images and files, as whole processes: Docker's names, output, exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.cli import output
from runtime.cli.main import parser
from runtime.engine import Engine
from tests.runtime.image import tars
from tests.runtime.image.image_files import base_layer, make
from tests.runtime.image.tars import Item
from tests.support.programs import Watched, environment

MYDOCKER = [sys.executable, "-m", "runtime"]
Mydocker = Callable[..., "subprocess.CompletedProcess[bytes]"]
LAYER = tars.tar(Item("f", b"found\n"))


@pytest.fixture
def env(engine: Engine, root: Path) -> dict[str, str]:
    """The environment in which the command finds the checkout and this test's state."""
    del engine  # it cleans up
    return environment(MYDOCKER_ROOT=str(root))


@pytest.fixture
def mydocker(env: dict[str, str]) -> Mydocker:
    """Run the command to its end."""

    def run(*argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*MYDOCKER, *argv], env=env, input=stdin, capture_output=True, check=False, timeout=30
        )

    return run


@pytest.fixture
def here() -> Iterator[Path]:
    """A directory of the machine's."""
    made = Path(tempfile.mkdtemp(dir="/run", prefix="here-"))
    yield made
    shutil.rmtree(made)


def _rows(mydocker: Mydocker, *options: str) -> list[list[str]]:
    lines = mydocker("images", *options).stdout.decode().splitlines()
    assert lines[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    return [re.split(r"\s{3,}", line.strip()) for line in lines[1:]]


def test_load_names_what_it_loaded(mydocker: Mydocker, here: Path) -> None:
    """From a file or standard input; -q says nothing; one without a name is told by its id."""
    made = tars.config([LAYER])
    archive = tars.packed(tars.new_docker([LAYER], made, ["team/app:1", "app"]))
    (here / "x.tar").write_bytes(archive)
    done = mydocker("load", "-i", str(here / "x.tar"))
    assert done.stdout == b"Loaded image: team/app:1\nLoaded image: app:latest\n"
    assert mydocker("load", "-q", stdin=archive).stdout == b""
    done = mydocker("load", stdin=tars.packed(tars.oci([LAYER], made)))
    assert done.stdout == f"Loaded image ID: sha256:{tars.sha256(made)}\n".encode()


def test_a_refusal_fails_and_says_why(mydocker: Mydocker, here: Path) -> None:
    """The archive, what is wrong with it, and what to do, on standard error alone."""
    bad = tars.tar(Item("../../evil"))
    archive = tars.packed(tars.new_docker([bad], tars.config([bad]), ["bad"]))
    (here / "bad.tar").write_bytes(archive)
    for done, shown in (
        (mydocker("load", "-i", str(here / "bad.tar")), f"{here}/bad.tar"),
        (mydocker("load", stdin=archive), "standard input"),
    ):
        assert (done.returncode, done.stdout) == (1, b"")
        first, cause, remedy = done.stderr.decode().splitlines()
        assert first == f"mydocker: load {shown}: the path '../../evil' leads out of the archive"
        assert (cause[:16], remedy[:7]) == ("  likely cause: ", "  try: ")
    done = mydocker("load", "-i", f"{here}/none.tar")
    assert done.returncode == 1
    assert f"read {here}/none.tar: No such file".encode() in done.stderr


def test_the_machines_own_goes_by_its_id_too(mydocker: Mydocker, engine: Engine) -> None:
    """Whatever `images` shows can be run."""
    shown = mydocker("images", "-q").stdout.decode().split()[0]
    assert engine.images.get("base").id.startswith(shown)
    done = mydocker("run", "--rm", "--net", "none", shown, "echo", "here")
    assert done.stdout == b"here\n", done.stderr


def test_images_lists_them(mydocker: Mydocker, engine: Engine) -> None:
    """Docker's columns; by name; ids alone, short and in full, each once."""
    identity = make(engine, LAYER, name="team/app:1")
    engine.images.tag("team/app:1", "team/app:2")
    engine.images.tag("team/app:1", "other")
    own = engine.images.get("base").id
    rows = [row for row in _rows(mydocker) if row[0] != "busybox"]  # some machines have one
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
    assert mydocker("images", "-q", "team/app").stdout.decode() == f"{identity[:12]}\n"
    done = mydocker("images", "-q", "--no-trunc", "other")
    assert done.stdout.decode() == f"sha256:{identity}\n"
    done = mydocker("images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}", "other")
    assert done.stdout == b"other:latest 6B\n"
    done = mydocker("images", "--format", "table {{.ID}}\\t{{.Tag}}", "other")
    assert done.stdout.split() == [b"IMAGE", b"ID", b"TAG", identity[:12].encode(), b"latest"]


SIZES = {0: "0B", 999: "999B", 1000: "1kB", 5_610_000: "5.61MB", 999_999: "1MB", 10**13: "10TB"}


@pytest.mark.parametrize("count", SIZES)
def test_sizes_have_three_digits(count: int) -> None:
    """In the largest unit that fits."""
    assert output.size(count) == SIZES[count]


def test_save_writes_a_whole_file_or_none(mydocker: Mydocker, engine: Engine, here: Path) -> None:
    """To a file that appears at the end, or to standard output; both are the same."""
    make(engine, LAYER, name="app")
    make(engine, LAYER, name="other", Env=["A=b"])
    assert mydocker("save", "-o", str(here / "x.tar"), "app", "other").returncode == 0
    assert mydocker("save", "app", "other").stdout == (here / "x.tar").read_bytes()
    (here / "kept.tar").write_text("kept")
    assert mydocker("save", "-o", str(here / "kept.tar"), "app", "none").returncode == 1
    assert (here / "kept.tar").read_text() == "kept"
    assert sorted(os.listdir(here)) == ["kept.tar", "x.tar"]
    assert mydocker("rmi", "app", "other").returncode == 0
    done = mydocker("load", "-i", str(here / "x.tar"))
    assert done.stdout == b"Loaded image: app:latest\nLoaded image: other:latest\n"


def test_a_terminal_gets_no_archive(env: dict[str, str], engine: Engine) -> None:
    """Nobody wants to read one, or can type one."""
    make(engine, LAYER, name="app")
    for argv, said in (
        (["save", "app"], "output is a terminal"),
        (["load"], "input is a terminal"),
    ):
        watched = Watched([*MYDOCKER, *argv], terminal=True, env=env)
        watched.expect(said)
        assert watched.end() == 1


def test_import_commit_and_tag(mydocker: Mydocker, engine: Engine, here: Path) -> None:
    """The id of what was made, on a line of its own; then it can be run."""
    done = mydocker("import", "-c", "CMD cat /f", "-m", "mine", "-", stdin=base_layer(engine))
    identity = done.stdout.decode().strip()
    assert re.fullmatch("sha256:[0-9a-f]{64}", identity)
    (shown,) = json.loads(mydocker("inspect", identity).stdout)
    assert shown["Config"]["Cmd"] == ["/bin/sh", "-c", "cat /f"]
    mydocker("run", "--name", "web", "--net", "none", identity, "sh", "-c", "echo written > /f")
    done = mydocker("commit", "-a", "me", "-c", "CMD cat /f", "web", "team/app:1")
    assert re.fullmatch(rb"sha256:[0-9a-f]{64}\n", done.stdout)
    assert mydocker("tag", "team/app:1", "short").stdout == b""
    assert mydocker("run", "--rm", "--net", "none", "short").stdout == b"written\n"
    (shown,) = json.loads(mydocker("inspect", "short").stdout)
    assert (shown["Author"], shown["RepoTags"]) == ("me", ["short:latest", "team/app:1"])
    assert len(shown["RootFS"]["Layers"]) == 2
    assert mydocker("import", str(here / "none"), "x").returncode == 1


def test_rmi_says_what_it_did(mydocker: Mydocker, engine: Engine) -> None:
    """Untagged and Deleted, as Docker does; the others go on when one is refused."""
    identity = make(engine, LAYER, name="app")
    engine.images.tag("app", "app:2")
    assert mydocker("rmi", "app:2").stdout == b"Untagged: app:2\n"
    engine.create("app", ["true"], name="web", network="none")
    make(engine, tars.tar(Item("x")), name="other")
    done = mydocker("rmi", "app", "none", "other")
    assert done.returncode == 1
    assert b"container 'web' uses it" in done.stderr
    assert b"'none': there is no such image" in done.stderr
    assert done.stdout.startswith(b"Untagged: other:latest\nDeleted: sha256:")
    assert mydocker("rmi", "-f", "app").stdout == b"Untagged: app:latest\n"
    mydocker("rm", "web")
    layer = tars.sha256(LAYER)
    deleted = f"Deleted: sha256:{identity}\nDeleted: sha256:{layer}\n"
    assert mydocker("rmi", identity[:12]).stdout.decode() == deleted


def test_diff_and_export(mydocker: Mydocker, engine: Engine, here: Path) -> None:
    """One change a line; a tar of everything, to a file or standard output."""
    make(engine, base_layer(engine), tars.tar(Item("d/old")))
    script = "echo x > /f; rm /d/old"
    mydocker("run", "--name", "web", "--net", "none", "made", "sh", "-c", script)
    assert mydocker("diff", "web").stdout == b"C /d\nD /d/old\nA /f\n"
    mydocker("export", "-o", str(here / "x.tar"), "web")
    exported = mydocker("export", "web").stdout
    assert (here / "x.tar").read_bytes() == exported
    with tarfile.open(fileobj=io.BytesIO(exported)) as opened:
        file = opened.extractfile("f")
        assert file is not None
        assert file.read() == b"x\n"


def test_cp_goes_both_ways(mydocker: Mydocker, here: Path) -> None:
    """Files, directories and tars; paths in a container start at its root."""
    mydocker("run", "-d", "--name", "web", "--net", "none", "base", "sleep", "1000")
    (here / "a:b").write_text("colon")
    (here / "f").write_text("in")
    assert mydocker("cp", str(here / "f"), "web:tmp").returncode == 0
    assert mydocker("cp", "web:/tmp/f", str(here / "out")).returncode == 0
    assert (here / "out").read_text() == "in"
    assert mydocker("cp", f"{here}/a:b", "web:/tmp/").returncode == 0
    archive = mydocker("cp", "web:/tmp", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert opened.getnames() == ["tmp", "tmp/a:b", "tmp/f"]
    mydocker("exec", "web", "mkdir", "/made-here")
    assert mydocker("cp", "-", "web:/made-here", stdin=archive).returncode == 0
    assert mydocker("exec", "web", "cat", "/made-here/tmp/f").stdout == b"in"
    for argv in (("x", "y"), ("web:/tmp", "web:/var"), ("-", "-")):
        done = mydocker("cp", *argv)
        assert done.returncode == 1
        assert b"one of the two must be in a container" in done.stderr
    done = mydocker("cp", "none:/x", str(here))
    assert b"there is no such container" in done.stderr


COMMANDS = ("images", "load", "save", "import", "commit", "tag", "rmi", "diff", "export", "cp")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_complete(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What it does in a sentence, and every argument with what it means."""
    with pytest.raises(SystemExit):
        parser().parse_args([command, "--help"])
    text = capsys.readouterr().out
    assert re.search(r"^[A-Z][^\n]+\.", text, re.MULTILINE)
    described, _, options = text.partition("options:")
    for block in (described.partition("positional arguments:")[2], options):
        entries = re.split(r"\n  (?=\S)", f"\n{block.strip()}".replace("\n  ", "\n  "))
        for entry in filter(None, (item.strip() for item in entries)):
            assert len(entry.split()) > 2, f"{entry!r} is not explained"
