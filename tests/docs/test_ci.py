"""Tests of the shell steps of `action.yml` and the GitLab template, without a CI service.

The steps are run as they are written. In place of a package index, pip gets the path of the
package. In place of sudo, the command is run directly by root.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.adapters.acme import acme
from tests.support.programs import ROOT, environment

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
TEMPLATE: dict[str, Any] = yaml.safe_load((ROOT / "ci" / "netmodes.gitlab-ci.yml").read_text())
FEW = "-n 0 --requirement NONE-1"
"""Options for the inner pytest: one requirement, a run of seconds."""
# pytest runs in pytest, and each limits the time of its own tests.
pytestmark = pytest.mark.timeout(300)
Job = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return a folder that has stand-ins for a runner's commands, and a workspace."""
    commands = tmp_path / "commands"
    commands.mkdir()
    _command(commands / "sudo", 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"')
    # `python3 -m venv FOLDER`: the packages are installed already.
    venv = f'mkdir -p "$3/bin"; echo "$@" >>"{tmp_path}/log"\n'
    venv += f'printf \'#!/bin/sh\\necho pip "$@" >>"{tmp_path}/log"\\n\' >"$3/bin/pip"\n'
    venv += f'printf \'#!/bin/sh\\nexec {sys.executable} -m pytest "$@"\\n\' >"$3/bin/pytest"\n'
    _command(commands / "python3", venv + 'chmod +x "$3"/bin/*')
    (tmp_path / "workspace").mkdir()
    return tmp_path


def _command(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _shell(machine: Path, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(machine / "commands"), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=machine / "workspace",
        env=environment(PATH=path, PYTEST_ADDOPTS="", **variables),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def action(machine: Path) -> Job:
    """Return a function that runs the action's shell steps in order.

    The function returns the result of the last step.
    """

    def run(**given: str) -> subprocess.CompletedProcess[str]:
        inputs = {name: item.get("default", "") for name, item in ACTION["inputs"].items()} | given
        temporary = {"RUNNER_TEMP": str(machine), "GITHUB_STEP_SUMMARY": str(machine / "summary")}
        temporary["GITHUB_OUTPUT"] = str(machine / "output")
        done = None
        for step in ACTION["runs"]["steps"]:
            if "run" not in step:
                continue  # one of GitHub's own actions
            variables = {name: _filled(text, inputs) for name, text in step["env"].items()}
            done = _shell(machine, step["run"], **variables, **temporary)
            if done.returncode:
                break
        assert done is not None
        return done

    return run


def _filled(text: str, inputs: dict[str, str]) -> str:
    known = {f"inputs.{name}": value for name, value in inputs.items()}
    known["github.action_path"] = str(ROOT)
    return re.sub(r"\$\{\{ (\S+) \}\}", lambda found: known[found[1]], text)


@pytest.fixture
def gitlab(machine: Path) -> Job:
    """Return a function that runs the script of the template's job.

    The part before it is left out, since it needs a package index.
    """

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        job = TEMPLATE[".netmodes"]
        _shell(machine, f'python3 -m venv "{machine}/netmodes"')
        script = "\n".join(job["script"]).replace("/opt/netmodes/", f"{machine}/netmodes/")
        return _shell(machine, script, **{**job["variables"], **variables})

    return run


def report(machine: Path, name: str = "report") -> dict[str, Any]:
    """Return the report that the CI job has left."""
    found: dict[str, Any] = json.loads((machine / "workspace" / name / "report.json").read_text())
    return found


def test_github_action_runs_the_suites_and_leaves_a_report(action: Job, machine: Path) -> None:
    """The GitHub action runs the suites and leaves a report.

    The package is installed from the action's folder. The summary is on the page of the job.
    """
    done = action(runtime="mydocker", args=FEW)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (machine / "log").read_text().splitlines()[1] == f"pip install --quiet {ROOT}"
    assert report(machine)["implementation"]["name"] == "mydocker"
    assert "mydocker" in (machine / "summary").read_text()


def test_property_suites_pass_without_a_pytest_cache(action: Job, machine: Path) -> None:
    """The property suites pass without a pytest cache.

    The action passes `-p no:cacheprovider`, so there is no folder to which plans of failures could
    be written.
    """
    done = action(runtime="mydocker", args="-n 2 -k properties")
    assert done.returncode == 0, done.stdout + done.stderr
    counts = report(machine)["totals"]["tests"]
    assert (counts["total"], counts["kept"]) == (2, 2)


def test_unlisted_deviation_fails_the_action_with_a_report(action: Job, machine: Path) -> None:
    """A deviation that is not in the expectation file fails the action.

    The report is left all the same.
    """
    (machine / "workspace" / "known.toml").touch()
    args = f"{FEW} --fault none-is-shared"
    done = action(runtime="mydocker", args=args, expect="known.toml", report="elsewhere")
    assert done.returncode == 1, done.stdout + done.stderr
    assert report(machine, "elsewhere")["gate"]["new"]


def test_github_action_runs_a_shard(action: Job, machine: Path) -> None:
    """The GitHub action runs the shard of its job in a matrix of jobs."""
    action(runtime="mydocker", args=FEW, shard="2/3")
    assert report(machine)["shard"] == {"number": 2, "of": 3}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"runtime": "acme"}, "netmodes-acme"),
        ({"runtime": "ci/acme.toml", "shard": "2/3"}, "netmodes-ci-acme.toml-part-2-3"),
        ({"runtime": 'a:"<b>|*?\\\n=c'}, "netmodes-a---b-------c"),
        ({"runtime": "acme", "artifact": "sub/name"}, "sub-name"),
    ],
    ids=str,
)
def test_every_matrix_job_has_its_own_artifact_name(
    machine: Path, given: dict[str, str], name: str
) -> None:
    """Each job of a matrix of jobs has a different artifact name.

    The name is valid for GitHub, where a run cannot have two artifacts of the same name.
    """
    inputs = {key: item.get("default", "") for key, item in ACTION["inputs"].items()} | given
    (step,) = (item for item in ACTION["runs"]["steps"] if item.get("id") == "artifact")
    variables = {key: _filled(text, inputs) for key, text in step["env"].items()}
    done = _shell(machine, step["run"], **variables, GITHUB_OUTPUT=str(machine / "output"))
    assert done.returncode == 0, done.stderr
    assert (machine / "output").read_text() == f"name={name}\n"
    (keep,) = (
        item for item in ACTION["runs"]["steps"] if "upload-artifact" in item.get("uses", "")
    )
    assert keep["with"]["name"] == "${{ steps.artifact.outputs.name }}"


def test_ci_pages_install_netmodes_from_its_repository() -> None:
    """The CI pages install netmodes from a repository, whose address the user fills in.

    No package index has netmodes.
    """
    page = (ROOT / "docs" / "gate.md").read_text()
    packages = [TEMPLATE[".netmodes"]["variables"]["NETMODES_PACKAGE"]]
    packages += re.findall(r"pip install ([^\s']+)", page)
    packages += re.findall(r"NETMODES_PACKAGE: (\S+)", page)
    packages += re.findall(r"deps = netmodes @ (\S+)", page)
    assert len(packages) == 5
    assert all(re.fullmatch(r"git\+https://\S+/OWNER/netmodes@main", item) for item in packages)
    assert " git " in "\n".join(TEMPLATE[".netmodes"]["before_script"])


def test_ci_jobs_accept_a_description_outside_the_workspace(
    action: Job, gitlab: Job, machine: Path
) -> None:
    """A CI job accepts a runtime description outside the workspace, such as a downloaded file."""
    acme(machine)
    runtime = str(machine / "acme.toml")
    for done in (
        action(runtime=runtime, args=FEW),
        gitlab(NETMODES_RUNTIME=runtime, NETMODES_ARGS=FEW),
    ):
        assert done.returncode == 0, done.stdout + done.stderr


def test_action_input_is_not_executed_as_shell(action: Job, machine: Path) -> None:
    """The content of an action's input is never executed as part of the shell script."""
    done = action(runtime='$(touch "$RUNNER_TEMP/done"); touch "$RUNNER_TEMP/done"', args=FEW)
    assert done.returncode
    assert not (machine / "done").exists()


def test_gitlab_template_runs_the_suites_and_leaves_a_report(gitlab: Job, machine: Path) -> None:
    """The GitLab template runs the suites and leaves a report with a JUnit file.

    GitLab shows the JUnit file. A job without `parallel` is no shard.
    """
    done = gitlab(NETMODES_ARGS=FEW, CI_NODE_TOTAL="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert report(machine)["implementation"]["name"] == "mydocker"
    shown = TEMPLATE[".netmodes"]["artifacts"]["reports"]["junit"]
    assert (machine / "workspace" / shown).is_file()


def test_gitlab_template_runs_a_shard(gitlab: Job, machine: Path) -> None:
    """A GitLab job with `parallel`, set as on the page, runs its shard."""
    gitlab(NETMODES_ARGS=FEW, NETMODES_SHARD="2/3")
    assert report(machine)["shard"] == {"number": 2, "of": 3}
