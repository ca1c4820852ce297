"""Tests of the TOML files that describe runtimes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.adapters.docker_cli import toml_spec
from harness.adapters.docker_cli.docker import SPEC as DOCKER
from harness.adapters.docker_cli.spec import CliSpec
from harness.adapters.docker_cli.toml_spec import DescriptionError
from harness.model.features import Feature

SMALL = """
[runtime]
command = ["acmectl", "--quiet"]
features = ["bridge", "none"]
"""


def described(tmp_path: Path, text: str) -> CliSpec:
    """Return the spec that a TOML file with this content describes."""
    path = tmp_path / "acme.toml"
    path.write_text(text)
    return toml_spec.load(str(path))


def test_description_needs_only_command_and_features(tmp_path: Path) -> None:
    """A description needs only a command and features.

    The runtime has the name of the file, and is like Docker in all else.
    """
    spec = described(tmp_path, SMALL)
    assert (spec.name, spec.command) == ("acme", ("acmectl", "--quiet"))
    assert spec.features == {Feature.BRIDGE, Feature.NONE}
    assert spec.words.run == ("run", "-d")
    assert spec.daemons == ()


def test_description_may_be_like_a_known_runtime(tmp_path: Path) -> None:
    """A description may be `like` a known runtime, and then has only the differences.

    The dialect is that of the given version.
    """
    spec = described(
        tmp_path,
        """
        [runtime]
        like = "docker 26.1"
        command = ["acmectl"]
        env = { ACME_HOME = "/run/acme" }
        [words]
        remove = ["destroy", "--now"]
        cidfile = ""
        [[daemon]]
        command = ["acmed", "--listen", "/run/acme.sock"]
        socket = "/run/acme.sock"
        [dialect]
        mac = "stable"
        """,
    )
    assert spec.features == DOCKER.features
    assert spec.words.remove == ("destroy", "--now")
    assert spec.words.start == DOCKER.words.start
    assert [daemon.program for daemon in spec.daemons] == ["acmed"]
    assert spec.env == (("ACME_HOME", "/run/acme"),)
    assert spec.dialect is not None
    assert spec.dialect.mac == "stable"
    assert spec.dialect.direct(4) == "accept", "as Docker 26 does"


def test_like_without_a_version_means_the_newest_version(tmp_path: Path) -> None:
    """If `like` has no version, the newest one is meant.

    For example, Docker drops packets routed to containers since 28.
    """
    spec = described(tmp_path, '[runtime]\nlike = "docker"\ncommand = ["acmectl"]\n')
    assert spec.dialect is not None
    assert spec.dialect.direct(4) == "drop"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[runtime", "acme.toml is not valid TOML"),
        ("[runtme]", "unknown table: 'runtme'; the known ones are runtime, words, daemon, dialect"),
        ("[runtime]", r"\[runtime\] needs 'command', or `like` to inherit it from"),
        ('[runtime]\nlike = "docker newest"', "like has the invalid version 'newest'"),
        ('[runtime]\nlike = "dokcer"', "like = 'dokcer' is not one of docker, podman, myd"),
        (
            SMALL.replace('"bridge", "none"', ""),
            r"features is \[\]: .*length >= 1; .* bridge, host",
        ),
        (
            SMALL.replace("none", "nothing"),
            "features is .*'nothing' .*; possible values: bridge, host",
        ),
        (
            SMALL + 'feature = ["dns"]',
            r"unknown key of \[runtime\]: 'feature'; the known ones are .*fe",
        ),
        (SMALL + 'idle = [""]', r"\[runtime\] idle is .*, whose first word is empty"),
        (SMALL + "timeout = 0", r"\[runtime\] timeout is 0: Expected `int` >= 1"),
        (SMALL + 'scratch = ["var/lib"]', r"\[runtime\] scratch is \['var/lib'\]: .*matching"),
        (SMALL + 'files = { "etc/acme" = "" }', r"\[runtime\] files is .*matching regex"),
        (SMALL + 'env = "HOME=/"', r"env is 'HOME=/': Expected `object`, got `str`"),
        (
            SMALL + '[words]\nrm = ["rm"]',
            r"unknown key of \[words\]: 'rm'; the known ones are .*remove",
        ),
        (SMALL + '[words]\nrun = "run -d"', r"\[words\] run is 'run -d': Expected `array`"),
        (SMALL + '[[daemon]]\ncommand = []\nsocket = "/s"', r"\[\[daemon\]\] command is \[\]: Ex"),
        (SMALL + '[[daemon]]\ncommand = ["acmed"]', r"\[\[daemon\]\] needs 'socket'"),
        (SMALL + '[daemon]\ncommand = ["acmed"]', "two brackets: it is an array of tables"),
        (SMALL + '[dialect]\nmac = "drawn"', r"\[dialect\] mac is 'drawn': .*; .*: .*random"),
    ],
)
def test_invalid_description_is_reported(tmp_path: Path, text: str, words: str) -> None:
    """The error for an invalid description names file, table, key, value and valid choices."""
    with pytest.raises(DescriptionError, match=words) as raised:
        described(tmp_path, text)
    assert str(raised.value).startswith(str(tmp_path / "acme.toml"))


def test_missing_description_file_is_named() -> None:
    """If a description is missing, the error has its path and the system's reason."""
    with pytest.raises(DescriptionError, match=r"cannot read /nowhere/acme.toml: No such file"):
        toml_spec.load("/nowhere/acme.toml")
