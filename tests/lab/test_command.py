"""`netmodes lab -- COMMAND`: the lab in scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.adapters import registry
from harness.lab import session
from tests.adapters.acme import acme, describe
from tests.lab.labs import LAB, NO_CAST, script
from tests.support.programs import ALL_BUT_SETFCAP, confined, python, run


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -INT $$", 130)],
)
def test_exit_code_is_the_commands(command: str, code: int) -> None:
    """The code is 128+N after signal N."""
    assert script(command).returncode == code


def test_output_is_only_the_commands() -> None:
    """A script gets no drawing and no greeting."""
    done = run([*LAB, "--", "echo", "one", "two  three"])
    assert (done.stdout, done.stderr) == ("one two  three\n", "")


def test_shell_reads_a_script_from_standard_input() -> None:
    """No terminal is needed."""
    assert run(NO_CAST, stdin="place=here\necho $place\nexit 3\n").stdout == "here\n"


@pytest.mark.parametrize(("program", "code"), [("no-such", 127), ("/etc/passwd", 126)])
def test_command_that_cannot_run_is_named(program: str, code: int) -> None:
    """The exit codes are those of a shell, and the reason is printed."""
    done = run([*NO_CAST, "--", program])
    assert done.returncode == code
    assert done.stderr.startswith(f"netmodes lab: cannot run {program!r}: ")


def test_working_directory_stays(tmp_path: Path) -> None:
    """A command finds the files beside it."""
    (tmp_path / "beside").write_text("found\n")
    done = run(["sh", "-c", f'cd {tmp_path} && "$@"', "-", *NO_CAST, "--", "cat", "beside"])
    assert done.stdout == "found\n", done.stderr


def test_command_runs_in_all_namespaces_of_the_host() -> None:
    """The command sees processes, mounts, network and hostname of the host's pid 1."""
    kinds = "cgroup ipc mnt net pid user uts"
    done = script(f"for kind in {kinds}; do readlink /proc/1/ns/$kind /proc/self/ns/$kind; done")
    names = done.stdout.split()
    assert names[::2] == names[1::2]
    assert [name.partition(":")[0] for name in names[::2]] == kinds.split()


def test_lab_needs_no_privilege() -> None:
    """An ordinary user gets the whole lab with its containers."""
    source = "id -u; mydocker exec container01 ls /sys/class/net; inside ns1 true"
    done = run(confined([*LAB, "--", "sh", "-ec", source], without=ALL_BUT_SETFCAP))
    assert done.stdout.split() == ["0", "eth0", "lo"], done.stderr


def test_unknown_runtime_is_refused_with_the_known() -> None:
    """Nothing is put up."""
    done = run([*LAB, "--runtime", "nosuch"])
    assert done.returncode == 2
    assert "unknown adapter 'nosuch'" in done.stderr
    assert "mydocker" in done.stderr


def test_bad_number_of_routers_is_refused() -> None:
    """The message has the possible numbers."""
    done = run([*LAB, "--routers", "0"])
    assert (done.returncode, done.stderr) == (
        2,
        "netmodes lab: a world has 1 to 30 routers, not 0\n",
    )


def test_refused_sandbox_is_explained() -> None:
    """The lab prints the finding of the doctor."""
    done = run(confined(LAB, limits={"net": 0}))
    assert done.returncode == 1
    assert done.stderr.startswith("netmodes lab: no sandbox to put the lab in. network namespace: ")
    assert "No space left on device. Raise the limit user." in done.stderr


def test_refused_world_is_one_line() -> None:
    """The sandbox exists, and the world in it is refused."""
    done = run(confined(LAB, limits={"net": 1}))
    assert done.returncode == 1
    assert done.stderr.startswith("netmodes lab: the machine refused a part of the lab (see ")
    assert done.stderr.count("\n") == 1


PLAN = """
[[network]]
name = "lan"
subnet = "10.9.0.0/24"

[[container]]
name = "web"
mode = "network:lan"
aliases = ["www"]

[[container]]
name = "hand"
mode = "attached:lan"
"""


def test_plan_replaces_the_reference_plan(tmp_path: Path) -> None:
    """The plan of a shrunk failure is built, manual attachments included."""
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    source = "mydocker ps -a --format '{{.Names}}' | sort; mydocker exec hand ls /sys/class/net"
    done = run([*LAB, "--plan", str(file), "--", "sh", "-ec", source])
    assert done.stdout.split() == ["hand", "web", "eth0", "lo"], done.stderr


def test_malformed_plan_is_refused(tmp_path: Path) -> None:
    """The message has file and entry; nothing is put up."""
    file = tmp_path / "plan.toml"
    file.write_text("[[container]]\nname = 'a'\nmode = 'x'")
    done = run([*LAB, "--plan", str(file)])
    assert done.returncode == 2
    assert "plan.toml: container 'a': there is no mode 'x'" in done.stderr
    absent = run([*LAB, "--plan", str(tmp_path / "absent")])
    assert (absent.returncode, absent.stderr.count("absent")) == (2, 1)


def test_plan_with_unclaimed_features_is_refused(tmp_path: Path) -> None:
    """The message has the missing features; nothing is put up."""
    acme(tmp_path)
    runtime, file = tmp_path / "acme.toml", tmp_path / "plan.toml"
    runtime.write_text(runtime.read_text().replace("[words]", 'features = ["bridge"]\n[words]'))
    file.write_text(PLAN)
    done = run([*LAB, "--runtime", str(runtime), "--plan", str(file), "--", "true"])
    assert done.returncode == 2
    assert done.stderr.startswith("netmodes lab: the plan asks for more than there is: ")
    assert "does not declare dns, networks, none;" in done.stderr, done.stderr


def test_lab_finds_the_runtimes_programs(tmp_path: Path) -> None:
    """The shell has the environment and PATH of the runtime's description."""
    acme(tmp_path)
    path = tmp_path / "acme.toml"
    path.write_text(path.read_text().replace("[words]", 'env = {ACME = "of its own"}\n[words]'))
    source = ". $ENV; echo $ACME; command -v of-acme"
    where = tmp_path / "usr/bin/of-acme"
    where.parent.mkdir(parents=True)
    where.write_text("#!/bin/sh\n")
    where.chmod(0o755)
    done = run([*NO_CAST, "--runtime", f"{path}@{tmp_path}", "--", "sh", "-c", source])
    assert done.stdout == f"of its own\n{where}\n", done.stderr


def test_namespace_names_of_the_runtime_stay(tmp_path: Path) -> None:
    """Podman keeps names in the directory that the lab uses."""
    acme(tmp_path, trick="mkdir -p /run/netns")
    done = run([*NO_CAST, "--runtime", str(tmp_path / "acme.toml"), "--", "inside", "ns1", "true"])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("runtime", "typed"),
    [
        ("mydocker", "mydocker"),
        ("podman-runc", "podman"),
        ("docker@/", "docker"),
        ("podman-rootless", "as-user podman"),
        ("crun-by-hand", ""),
    ],
)
def test_greeting_names_the_runtimes_program(runtime: str, typed: str) -> None:
    """The adapter's name may differ from that of its Docker-like program."""
    assert session.user_command(registry.load(runtime)) == typed


def test_greeting_names_the_described_command(tmp_path: Path) -> None:
    """The name is the command of the description, not its file name."""
    acme(tmp_path)
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "acmectl").rename(tmp_path / "usr/bin/acmectl")
    runtime = f"{describe(tmp_path, command='acmectl')}@{tmp_path}"
    done = run([*NO_CAST, "--runtime", runtime, "--", "cat", "/run/netmodes/picture"])
    assert "  acmectl ps  " in done.stdout, done.stderr


CANNOT_BE_TRIED = """
from harness.sandbox import sandbox
from harness.adapters import registry
from harness.lab import session

class Factory:
    features = frozenset()
    def obstacle(self): return "it does not run in here" if sandbox.inside() else ""

registry.find = lambda name: Factory()
raise SystemExit(session.run(session.LabOptions(command=("true",))))
"""


def test_obstacle_of_the_runtime_is_explained() -> None:
    """A rootless runtime may lack ids in the sandbox; nothing is put up."""
    done = run(python(CANNOT_BE_TRIED))
    assert (done.returncode, done.stderr) == (2, "netmodes lab: it does not run in here\n")
