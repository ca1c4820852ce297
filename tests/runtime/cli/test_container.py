"""Commands that look at containers, as whole processes: filters, templates, logs, top."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.cli import main, output
from runtime.cli.base import size
from runtime.cli.container import log_time
from runtime.cli.main import parser
from runtime.cli.run import container_options, environment_files
from runtime.engine import Engine
from runtime.errors import ConflictError, InvalidError
from tests.runtime.conftest import FOR_EVER
from tests.support.programs import WITHIN, environment

Said = Callable[..., str]


@pytest.fixture
def said(engine: Engine, root: Path) -> Said:
    """What a command prints; it must succeed."""
    env = environment(MYDOCKER_ROOT=str(root), HERE="ours")

    def run(*argv: str) -> str:
        argv = (sys.executable, "-m", "runtime", *argv)
        done = subprocess.run(
            argv, env=env, capture_output=True, text=True, check=False, timeout=WITHIN
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_ps_filters_and_formats(engine: Engine, said: Said) -> None:
    """By name, status and network; values of one key are alternatives, keys must all hold."""
    engine.run("base", FOR_EVER, name="web-1", network="none")
    engine.run("base", FOR_EVER, name="web-2", network="host")
    engine.create("base", FOR_EVER, name="db", network="none")
    names = ("--format", "{{.Names}}")
    assert said("ps", *names) == "web-2\nweb-1\n"
    assert said("ps", "-a", *names, "-f", "name=^web") == "web-2\nweb-1\n"
    assert said("ps", *names, "--filter", "status=created") == "db\n"
    assert said("ps", "-a", *names, "-f", "network=none") == "db\nweb-1\n"
    assert said("ps", "-a", *names, "-f", "network=none", "-f", "name=web") == "web-1\n"
    assert said("ps", "-a", *names, "-f", "name=db", "-f", "name=web-1") == "db\nweb-1\n"
    identity = engine.inspect("db").id
    assert said("ps", "-aq", "--no-trunc", "-f", f"id={identity[:8]}") == f"{identity}\n"
    row = json.loads(said("ps", "--format", "json", "-f", "name=web-1"))
    assert (row["Names"], row["State"], row["Networks"]) == ("web-1", "running", "none")
    assert row["ID"] == engine.inspect("web-1").id[:12]
    table = said("ps", "-a", "--format", "table {{.Names}}\\t{{.State}}")
    assert [line.split() for line in table.splitlines()] == [
        ["NAMES", "STATE"],
        ["db", "created"],
        ["web-2", "running"],
        ["web-1", "running"],
    ]


@pytest.mark.parametrize("text", ["name", "colour=red", "status=asleep", "name=(", "exited=x"])
def test_a_filter_that_cannot_be(engine: Engine, said: Said, text: str) -> None:
    """Is an error, rather than a list of nothing."""
    engine.create("base", FOR_EVER, network="none")
    with pytest.raises(AssertionError, match="use --filter"):
        said("ps", "-a", "--filter", text)


def test_inspect_through_a_template(engine: Engine, said: Said) -> None:
    """What scripts written for Docker ask for."""
    web = engine.run("base", FOR_EVER, name="web", binds=["data:/data:ro"], pids_limit=0)
    address = web.state.endpoints[0].address.partition("/")[0]
    assert said("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web") == f"{address}\n"
    over = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    assert said("inspect", "-f", over, "web") == f"{address}\n"
    assert said("inspect", "-f", "{{.State.Running}} {{.State.Pid}}", "web") == (
        f"true {web.state.pid}\n"
    )
    mounts = json.loads(said("inspect", "--format", "{{json .Mounts}}", "web"))
    assert [(item["Name"], item["Destination"], item["RW"]) for item in mounts] == [
        ("data", "/data", False)
    ]


DATA = {"A": {"b": [1, 2]}, "N": None, "T": True, "L": {"k.x": "v"}, "S": "text"}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{.A}} {{.N}} {{.T}}", "map[b:[1 2]] <no value> true"),
        ("{{json .A.b}}-{{len .A.b}}", "[1, 2]-2"),
        ('{{index .L "k.x"}}{{index .A.b 1}}', "v2"),
        ("{{range .A.b}}<{{.}}>{{end}}", "<1><2>"),
        ("{{ .T }}\\tx", "true\tx"),
        ("plain", "plain"),
    ],
)
def test_templates(text: str, filled: str) -> None:
    """The part of Go's that people use."""
    assert output.render(text, DATA) == filled


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{.B}}", "there is no .B, only .A, .N, .T, .L, .S"),
        ("{{.A.b.c}}", "there is no"),
        ("{{range .A}}", "no {{end}}"),
        ("{{if .A}}x{{end}}", "more than"),
        ("{{}}", "more than"),
        ("{{.A", "an opening {{ that nothing closes"),
        ("{{index .A.b 7}}", "nothing at 7"),
        ("{{len .T}}", ".T has no length"),
        ("{{range .T}}x{{end}}", ".T is nothing to go through"),
        ("{{range .S}}x{{end}}", ".S is nothing to go through"),
    ],
)
def test_templates_that_cannot_be(text: str, why: str) -> None:
    """Say what there is, or that it is too much."""
    with pytest.raises(InvalidError, match=re.escape(why)):
        output.render(text, DATA)


def test_the_end_of_a_log(engine: Engine, said: Said) -> None:
    """The last lines, or those since a moment; and those to come all the same."""
    found = engine.run("base", ["seq", "100"], name="web", network="none")
    engine.wait(found.id)
    assert said("logs", "--tail", "2", "web") == "99\n100\n"
    assert said("logs", "-n", "0", "web") == ""
    assert said("logs", "--tail", "all", "web").count("\n") == 100
    assert said("logs", "--since", "1h", "web").count("\n") == 100
    assert said("logs", "--since", "2200-01-01T00:00:00Z", "web") == ""
    some = list(engine.logs("web"))[97].time
    assert [item.data for item in engine.logs("web", since=some)][-3:] == [
        b"98\n",
        b"99\n",
        b"100\n",
    ]
    assert [item.data for item in engine.logs("web", tail=1, follow=True)] == [b"100\n"]


def test_moments() -> None:
    """Seconds since 1970, a time ago, a date with its zone."""
    assert log_time("0") == "1970-01-01T00:00:00.000000000Z"
    assert log_time("2026-01-31T12:00:00+02:00") == "2026-01-31T10:00:00.000000000Z"
    assert log_time("1h") < log_time("10m30s") < log_time("0.5s")
    with pytest.raises(InvalidError, match="yesterday"):
        log_time("yesterday")


def test_top_shows_what_runs(engine: Engine, said: Said) -> None:
    """Every process inside, with the pid that the host knows it by; of a stopped one nothing."""
    web = engine.run("base", FOR_EVER, name="web", network="none")
    head, *rows = said("top", "web").splitlines()
    assert head.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert {row.split()[1] for row in rows} >= {str(web.state.pid)}
    assert any(row.endswith("sleep 1000000") for row in rows)
    engine.stop("web")
    with pytest.raises(ConflictError):
        engine.top("web")


def test_restart_renews_the_process_and_keeps_the_files(engine: Engine, said: Said) -> None:
    """One that runs is stopped first; one that has ended is started; with --rm it is refused."""
    web = engine.run("base", FOR_EVER, name="web", network="none")
    engine.exec("web", ["touch", "/kept"])
    assert said("restart", "-t", "1", "web") == "web\n"
    again = engine.inspect("web")
    assert again.running
    assert again.state.born != web.state.born
    assert engine.exec("web", ["ls", "/kept"]).exit_code == 0
    engine.stop("web")
    assert engine.restart("web").running
    engine.run("base", FOR_EVER, name="brief", network="none", auto_remove=True)
    with pytest.raises(ConflictError, match="removed once"):
        engine.restart("brief")


def test_variables_from_files(said: Said, tmp_path: Path) -> None:
    """Comments are left out, values stay as they are, a name alone is ours, -e counts last."""
    path = tmp_path / "env"
    path.write_text("# no\n\nA=1\nB= two words=x \nHERE\nNOWHERE\nC=old\n")
    script = 'echo "$A|$B|$HERE|$NOWHERE|$C"'
    argv = ["--env-file", str(path), "-e", "C=new"]
    assert said("run", "--rm", "--net", "none", "--init", *argv, "base", "sh", "-c", script) == (
        "1| two words=x |ours||new\n"
    )
    path.write_text("a b=c\n")
    with pytest.raises(InvalidError, match="not KEY=VALUE"):
        environment_files([str(path)])
    with pytest.raises(InvalidError, match="nowhere"):
        environment_files([f"{tmp_path}/nowhere"])


def test_a_bind_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source written `./…` is below the working directory; a plain word is a volume."""
    monkeypatch.chdir(tmp_path)
    asked = ["./a:/a:ro", ".:/b", "../c:/c", "data:/d", ".e:/e"]
    words = [word for text in asked for word in ("-v", text)]
    binds = container_options(parser("run").parse_args(["run", *words, "base"])).get("binds")
    assert binds == [
        f"{tmp_path}/a:/a:ro",
        f"{tmp_path}:/b",
        f"{tmp_path.parent}/c:/c",
        "data:/d",
        ".e:/e",
    ]


def test_inspect_shows_those_that_there_are(
    engine: Engine,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """And complains of the others."""
    monkeypatch.setenv("MYDOCKER_ROOT", str(root))
    engine.create("base", FOR_EVER, name="web", network="none")
    capfd.readouterr()
    assert main.main(["inspect", "-f", "{{.Name}}", "nope", "web"]) == 1
    said = capfd.readouterr()
    assert said.out == "/web\n"
    assert "'nope': there is no such container" in said.err


def test_volumes_by_command(said: Said) -> None:
    """Docker's subcommands and columns."""
    assert said("volume", "create", "data") == "data\n"
    assert said("volume", "ls").split() == ["DRIVER", "VOLUME", "NAME", "local", "data"]
    (shown,) = json.loads(said("volume", "inspect", "data"))
    assert Path(shown["Mountpoint"]).is_dir()
    place = said("volume", "inspect", "-f", "{{.Mountpoint}}", "data")
    assert place == f"{shown['Mountpoint']}\n"
    run = ("run", "--rm", "--net", "none", "-v", "data:/data", "base", "sh", "-c")
    assert said(*run, "echo x > /data/y") == ""
    assert said(*run, "cat /data/y") == "x\n"
    assert said("volume", "rm", "data") == "data\n"
    assert said("volume", "prune") == ""
    assert said("volume", "ls", "-q") == ""


@pytest.mark.parametrize(
    ("text", "count"), [("64m", 64 << 20), ("1.5G", 3 << 29), ("512", 512), ("1kb", 1024), ("", 0)]
)
def test_sizes(text: str, count: int) -> None:
    """As Docker writes them: powers of 1024."""
    assert size("--memory", text) == count
    with pytest.raises(InvalidError, match="no size"):
        size("--memory", "lots")
