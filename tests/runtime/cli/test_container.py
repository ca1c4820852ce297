"""Tests of commands on containers and volumes, such as `ps`, `inspect`, `logs` and `top`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from runtime.cli import output
from runtime.cli.base import size
from runtime.cli.container import log_time
from runtime.cli.main import parser
from runtime.cli.run import container_options, environment_files
from runtime.engine import Engine
from runtime.errors import ConflictError, InvalidError
from tests.runtime.cli.conftest import Command, Mydocker
from tests.runtime.conftest import FOR_EVER


def test_ps_applies_filters_and_formats(engine: Engine, command: Command) -> None:
    """`ps` lists containers that match every filter key, by any of the values of that key."""
    engine.run("base", FOR_EVER, name="web-1", network="none")
    engine.run("base", FOR_EVER, name="web-2", network="host")
    engine.create("base", FOR_EVER, name="db", network="none")
    names = ("--format", "{{.Names}}")
    assert command("ps", *names) == "web-2\nweb-1\n"
    assert command("ps", "-a", *names, "-f", "name=^web") == "web-2\nweb-1\n"
    assert command("ps", *names, "--filter", "status=created") == "db\n"
    assert command("ps", "-a", *names, "-f", "network=none") == "db\nweb-1\n"
    assert command("ps", "-a", *names, "-f", "network=none", "-f", "name=web") == "web-1\n"
    assert command("ps", "-a", *names, "-f", "name=db", "-f", "name=web-1") == "db\nweb-1\n"
    identity = engine.inspect("db").id
    assert command("ps", "-aq", "--no-trunc", "-f", f"id={identity[:8]}") == f"{identity}\n"
    row = json.loads(command("ps", "--format", "json", "-f", "name=web-1"))
    assert (row["Names"], row["State"], row["Networks"]) == ("web-1", "running", "none")
    assert row["ID"] == engine.inspect("web-1").id[:12]
    table = command("ps", "-a", "--format", "table {{.Names}}\\t{{.State}}")
    assert [line.split() for line in table.splitlines()] == [
        ["NAMES", "STATE"],
        ["db", "created"],
        ["web-2", "running"],
        ["web-1", "running"],
    ]


@pytest.mark.parametrize("text", ["name", "colour=red", "status=asleep", "name=(", "exited=x"])
def test_invalid_filter_is_refused(engine: Engine, command: Command, text: str) -> None:
    """`ps` refuses an invalid filter, because an empty list would hide the mistake."""
    engine.create("base", FOR_EVER, network="none")
    assert "use --filter" in command("ps", "-a", "--filter", text)


def test_inspect_fills_templates_of_docker_scripts(engine: Engine, command: Command) -> None:
    """`inspect -f` fills templates of Docker scripts for addresses, state and mounts."""
    web = engine.run("base", FOR_EVER, name="web", binds=["data:/data:ro"], pids_limit=0)
    address = web.state.endpoints[0].address.partition("/")[0]
    assert command("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web") == f"{address}\n"
    over = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    assert command("inspect", "-f", over, "web") == f"{address}\n"
    assert command("inspect", "-f", "{{.State.Running}} {{.State.Pid}}", "web") == (
        f"true {web.state.pid}\n"
    )
    mounts = json.loads(command("inspect", "--format", "{{json .Mounts}}", "web"))
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
def test_inspect_template_accepts_common_go_syntax(text: str, filled: str) -> None:
    """A template of `inspect` may use the common part of Go's template language."""
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
def test_invalid_inspect_template_is_refused(text: str, why: str) -> None:
    """The error for an invalid template names the existing fields or the bad expression."""
    with pytest.raises(InvalidError, match=re.escape(why)):
        output.render(text, DATA)


def test_logs_are_limited_by_tail_and_since(engine: Engine, command: Command) -> None:
    """`logs` leaves out lines before --tail or --since; with --follow it also prints later ones."""
    found = engine.run("base", ["seq", "100"], name="web", network="none")
    engine.wait(found.id)
    assert command("logs", "--tail", "2", "web") == "99\n100\n"
    assert command("logs", "-n", "0", "web") == ""
    assert command("logs", "--tail", "all", "web").count("\n") == 100
    assert command("logs", "--since", "1h", "web").count("\n") == 100
    assert command("logs", "--since", "2200-01-01T00:00:00Z", "web") == ""
    some = list(engine.logs("web"))[97].time
    assert [item.data for item in engine.logs("web", since=some)][-3:] == [
        b"98\n",
        b"99\n",
        b"100\n",
    ]
    assert [item.data for item in engine.logs("web", tail=1, follow=True)] == [b"100\n"]


def test_since_accepts_seconds_durations_and_dates() -> None:
    """--since accepts seconds, durations and dates.

    They are converted to UTC times with nanoseconds.
    """
    assert log_time("0") == "1970-01-01T00:00:00.000000000Z"
    assert log_time("2026-01-31T12:00:00+02:00") == "2026-01-31T10:00:00.000000000Z"
    assert log_time("1h") < log_time("10m30s") < log_time("0.5s")
    with pytest.raises(InvalidError, match="yesterday"):
        log_time("yesterday")


def test_top_lists_processes_by_host_pid(engine: Engine, command: Command) -> None:
    """`top` lists processes by their host PID, and refuses a stopped container."""
    web = engine.run("base", FOR_EVER, name="web", network="none")
    head, *rows = command("top", "web").splitlines()
    assert head.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert {row.split()[1] for row in rows} >= {str(web.state.pid)}
    assert any(row.endswith("sleep 1000000") for row in rows)
    engine.stop("web")
    with pytest.raises(ConflictError):
        engine.top("web")


def test_restart_starts_a_new_process(engine: Engine, command: Command) -> None:
    """`restart` stops a running container and starts a new process.

    A container with --rm is refused.
    """
    web = engine.run("base", FOR_EVER, name="web", network="none")
    assert command("restart", "-t", "1", "web") == "web\n"
    again = engine.inspect("web")
    assert (again.running, again.state.born == web.state.born) == (True, False)
    engine.stop("web")
    assert engine.restart("web").running
    engine.run("base", FOR_EVER, name="brief", network="none", auto_remove=True)
    with pytest.raises(ConflictError, match="removed when it stops"):
        engine.restart("brief")


def test_run_reads_variables_from_env_file(
    mydocker: Mydocker, env: dict[str, str], tmp_path: Path
) -> None:
    """--env-file accepts comments, and takes the caller's value for a name alone; -e wins."""
    path = tmp_path / "env"
    path.write_text("# no\n\nA=1\nB= two words=x \nHERE\nNOWHERE\nC=old\n")
    env["HERE"] = "ours"
    script = 'echo "$A|$B|$HERE|$NOWHERE|$C"'
    options = ("--net", "none", "--init", "--env-file", str(path), "-e", "C=new")
    done = mydocker("run", "--rm", *options, "base", "sh", "-c", script)
    assert done.stdout == "1| two words=x |ours||new\n"
    path.write_text("a b=c\n")
    with pytest.raises(InvalidError, match="not KEY=VALUE"):
        environment_files([str(path)])
    with pytest.raises(InvalidError, match="nowhere"):
        environment_files([f"{tmp_path}/nowhere"])


def test_relative_bind_source_is_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative bind source is below the working directory; a plain word names a volume."""
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


def test_inspect_shows_found_containers_and_reports_missing_ones(
    engine: Engine, mydocker: Mydocker
) -> None:
    """`inspect` prints the containers that it finds, reports the others, and exits with 1."""
    engine.create("base", FOR_EVER, name="web", network="none")
    done = mydocker("inspect", "-f", "{{.Name}}", "nope", "web")
    assert (done.returncode, done.stdout) == (1, "/web\n")
    assert "'nope': no such container" in done.stderr


def test_volume_commands_have_dockers_output(command: Command, mydocker: Mydocker) -> None:
    """`volume` commands print Docker's output, and a volume keeps its files."""
    assert command("volume", "create", "data") == "data\n"
    assert command("volume", "ls").split() == ["DRIVER", "VOLUME", "NAME", "local", "data"]
    (shown,) = json.loads(command("volume", "inspect", "data"))
    assert Path(shown["Mountpoint"]).is_dir()
    place = command("volume", "inspect", "-f", "{{.Mountpoint}}", "data")
    assert place == f"{shown['Mountpoint']}\n"
    run = ("run", "--rm", "--net", "none", "-v", "data:/data", "base", "sh", "-c")
    assert mydocker(*run, "echo x > /data/y").returncode == 0
    assert mydocker(*run, "cat /data/y").stdout == "x\n"
    assert command("volume", "rm", "data") == "data\n"
    assert command("volume", "prune") == ""
    assert command("volume", "ls", "-q") == ""


@pytest.mark.parametrize(
    ("text", "count"), [("64m", 64 << 20), ("1.5G", 3 << 29), ("512", 512), ("1kb", 1024), ("", 0)]
)
def test_size_units_are_powers_of_1024(text: str, count: int) -> None:
    """A size may have Docker's units in upper or lower case; they are powers of 1024."""
    assert size("--memory", text) == count
    with pytest.raises(InvalidError, match="not a size"):
        size("--memory", "lots")
