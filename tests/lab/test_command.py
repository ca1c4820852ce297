"""Tests of `netmodes lab -- COMMAND`, the lab for scripts."""

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
def test_lab_exits_with_the_exit_code_of_its_command(command: str, code: int) -> None:
    """The lab exits with the exit code of its command, or with 128+N after signal N."""
    assert script(command).returncode == code


def test_lab_prints_only_the_output_of_its_command() -> None:
    """In a script the lab prints only its command's output, without drawing and greeting."""
    done = run([*LAB, "--", "echo", "one", "two  three"])
    assert (done.stdout, done.stderr) == ("one two  three\n", "")


def test_lab_shell_reads_a_script_from_standard_input() -> None:
    """Without a terminal, the lab's shell reads a script from standard input."""
    assert run(NO_CAST, stdin="place=here\necho $place\nexit 3\n").stdout == "here\n"


@pytest.mark.parametrize(("program", "code"), [("no-such", 127), ("/etc/passwd", 126)])
def test_command_that_cannot_run_is_named(program: str, code: int) -> None:
    """The error for a command that cannot run names the command and the reason.

    The exit code is that of a shell.
    """
    done = run([*NO_CAST, "--", program])
    assert done.returncode == code
    assert done.stderr.startswith(f"netmodes lab: cannot run {program!r}: ")


def test_lab_command_keeps_the_working_directory(tmp_path: Path) -> None:
    """A command in the lab has the working directory of the caller, and finds files there."""
    (tmp_path / "beside").write_text("found\n")
    done = run(["sh", "-c", f'cd {tmp_path} && "$@"', "-", *NO_CAST, "--", "cat", "beside"])
    assert done.stdout == "found\n", done.stderr


def test_command_runs_in_all_namespaces_of_the_host() -> None:
    """A command in the lab runs in all namespaces of the host.

    The processes, mounts, network and hostname that it sees are those of the host's pid 1.
    """
    kinds = "cgroup ipc mnt net pid user uts"
    done = script(f"for kind in {kinds}; do readlink /proc/1/ns/$kind /proc/self/ns/$kind; done")
    names = done.stdout.split()
    assert names[::2] == names[1::2]
    assert [name.partition(":")[0] for name in names[::2]] == kinds.split()


def test_ordinary_user_can_start_the_lab() -> None:
    """An ordinary user can start the whole lab, with its containers."""
    source = "id -u; mydocker exec container01 ls /sys/class/net; inside ns1 true"
    done = run(confined([*LAB, "--", "sh", "-ec", source], without=ALL_BUT_SETFCAP))
    assert done.stdout.split() == ["0", "eth0", "lo"], done.stderr


def test_error_for_unknown_runtime_lists_the_known_ones() -> None:
    """The error for an unknown runtime lists the known runtimes.

    Nothing is started.
    """
    done = run([*LAB, "--runtime", "nosuch"])
    assert done.returncode == 2
    assert "unknown adapter 'nosuch'" in done.stderr
    assert "mydocker" in done.stderr


def test_error_for_bad_number_of_routers_has_the_range() -> None:
    """The error for a bad number of routers has the possible numbers."""
    done = run([*LAB, "--routers", "0"])
    assert (done.returncode, done.stderr) == (
        2,
        "netmodes lab: a world has 1 to 30 routers, not 0\n",
    )


def test_refused_sandbox_is_explained() -> None:
    """If the sandbox is refused, the lab prints the finding of `netmodes doctor`."""
    done = run(confined(LAB, limits={"net": 0}))
    assert done.returncode == 1
    assert done.stderr.startswith("netmodes lab: cannot make the sandbox: network namespace: ")
    assert "No space left on device. Raise the limit user." in done.stderr


def test_refused_world_in_a_sandbox_is_an_error_of_one_line() -> None:
    """If an existing sandbox does not permit a world, the error is one line."""
    done = run(confined(LAB, limits={"net": 1}))
    assert done.returncode == 1
    assert done.stderr.startswith("netmodes lab: the machine refused an operation: ")
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


def test_given_plan_replaces_the_reference_plan_of_the_lab(tmp_path: Path) -> None:
    """A given plan replaces the reference plan, for example the plan of a shrunk failure.

    Its containers may be attached to networks by hand.
    """
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    source = "mydocker ps -a --format '{{.Names}}' | sort; mydocker exec hand ls /sys/class/net"
    done = run([*LAB, "--plan", str(file), "--", "sh", "-ec", source])
    assert done.stdout.split() == ["hand", "web", "eth0", "lo"], done.stderr


def test_malformed_plan_is_refused(tmp_path: Path) -> None:
    """The error for a malformed plan names the file and the entry.

    Nothing is started.
    """
    file = tmp_path / "plan.toml"
    file.write_text("[[container]]\nname = 'a'\nmode = 'x'")
    done = run([*LAB, "--plan", str(file)])
    assert done.returncode == 2
    assert "plan.toml: container 'a': unknown mode 'x'" in done.stderr
    absent = run([*LAB, "--plan", str(tmp_path / "absent")])
    assert (absent.returncode, absent.stderr.count("absent")) == (2, 1)


def test_plan_with_undeclared_features_is_refused(tmp_path: Path) -> None:
    """The error for a plan names the features that the adapter does not declare.

    Nothing is started.
    """
    acme(tmp_path)
    runtime, file = tmp_path / "acme.toml", tmp_path / "plan.toml"
    runtime.write_text(runtime.read_text().replace("[words]", 'features = ["bridge"]\n[words]'))
    file.write_text(PLAN)
    done = run([*LAB, "--runtime", str(runtime), "--plan", str(file), "--", "true"])
    assert done.returncode == 2
    assert done.stderr.startswith("netmodes lab: the runtime cannot start the plan: ")
    assert "does not declare dns, networks, none;" in done.stderr, done.stderr


def test_lab_finds_the_runtimes_programs(tmp_path: Path) -> None:
    """The lab's shell has the environment and the PATH in the runtime's description."""
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
    """The lab leaves the names of namespaces that podman keeps in the lab's directory."""
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
def test_lab_greeting_names_the_runtimes_program(runtime: str, typed: str) -> None:
    """The greeting suggests the runtime's program, which is used like docker, not the adapter."""
    assert session.user_command(registry.load(runtime)) == typed


def test_lab_greeting_names_the_command_that_a_toml_file_describes(tmp_path: Path) -> None:
    """For a runtime that a TOML file describes, the greeting suggests its command, not the file."""
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


def test_lab_explains_why_the_runtime_cannot_run() -> None:
    """If the runtime cannot run in the sandbox, the lab says why, and starts nothing.

    A rootless runtime, for example, may lack subordinate ids there.
    """
    done = run(python(CANNOT_BE_TRIED))
    assert (done.returncode, done.stderr) == (2, "netmodes lab: it does not run in here\n")
