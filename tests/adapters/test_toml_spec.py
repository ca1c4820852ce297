"""TOML descriptions of runtimes, valid and invalid."""

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
    """Return the spec that a file of this content describes."""
    path = tmp_path / "acme.toml"
    path.write_text(text)
    return toml_spec.load(str(path)).spec


def test_command_and_features_are_sufficient(tmp_path: Path) -> None:
    """The name is the file's; everything else is Docker's."""
    spec = described(tmp_path, SMALL)
    assert (spec.name, spec.command) == ("acme", ("acmectl", "--quiet"))
    assert spec.features == {Feature.BRIDGE, Feature.NONE}
    assert spec.words.run == ("run", "-d")
    assert spec.daemons == ()


def test_description_may_be_like_a_known_runtime(tmp_path: Path) -> None:
    """It has only the differences; the dialect is that of the given version."""
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


def test_like_without_a_version_means_the_newest(tmp_path: Path) -> None:
    """Docker drops packets routed to containers since 28."""
    spec = described(tmp_path, '[runtime]\nlike = "docker"\ncommand = ["acmectl"]\n')
    assert spec.dialect is not None
    assert spec.dialect.direct(4) == "drop"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[runtime", "acme.toml is no TOML"),
        ("[runtme]\n", r"no table called 'runtme'; there are: runtime, words, daemon, dialect"),
        ("[runtime]\n", r"\[runtime\] needs 'command', or `like` to take it from"),
        (
            '[runtime]\nlike = "docker newest"\n',
            "like has no version 'newest': it is one",
        ),
        (
            SMALL.replace('"acmectl", "--quiet"', ""),
            r"\[runtime\] command: a list of at least one word is wanted, not \[\]",
        ),
        (SMALL.replace('"bridge", "none"', ""), "features is empty: a runtime that claims nothing"),
        (SMALL + 'idle = [""]\n', r"\[runtime\] idle: a list of at least one word"),
        (SMALL + "[words]\nrun = []\n", r"\[words\] run: a list of at least one word"),
        (
            SMALL + 'scratch = ["var/lib"]\n',
            r"\[runtime\] scratch: a list of absolute paths is wanted, not \['var/lib'",
        ),
        (
            SMALL + 'files = { "etc/acme" = "" }\n',
            r"\[runtime\] files: a table of texts by absolute path is wanted, .*etc/acme",
        ),
        (
            SMALL + '[[daemon]]\ncommand = []\nsocket = "/s"\n',
            r"\[\[daemon\]\] command: a list of at",
        ),
        ('[runtime]\nlike = "dokcer"\n', "like = 'dokcer': it is one of docker, podman, myd"),
        (SMALL + 'feature = ["dns"]\n', r"no key of \[runtime\] called 'feature'; there are: .*fe"),
        (
            SMALL.replace("none", "nothing"),
            r"features: .*bridge, .*none.* wanted, not \['bridge', 'nothing'\] \(Inv",
        ),
        (SMALL + "timeout = 0\n", r"\[runtime\] timeout: a whole number above 0 is wanted, not 0"),
        (
            SMALL + 'scratch = "/var/lib"\n',
            r"\[runtime\] scratch: a list of absolute paths is wanted, not '/var/lib'",
        ),
        (SMALL + 'env = "HOME=/"\n', "env: a table of texts is wanted"),
        (SMALL + '[words]\nrm = ["rm"]\n', r"no key of \[words\] called 'rm'; there are: .*remove"),
        (
            SMALL + '[words]\nrun = "run -d"\n',
            "run: a list of at least one word is wanted, not 'run -d'",
        ),
        (SMALL + '[[daemon]]\ncommand = ["acmed"]\n', r"\[\[daemon\]\] needs 'socket'"),
        (SMALL + '[daemon]\ncommand = ["acmed"]\n', "an array of tables: two brackets"),
        (
            SMALL + '[dialect]\nmac = "drawn"\n',
            r"\[dialect\] mac: one of .*random.* is wanted, not 'drawn'",
        ),
    ],
)
def test_invalid_description_is_reported(tmp_path: Path, text: str, words: str) -> None:
    """The error has file, table, key, the value and the wanted type."""
    with pytest.raises(DescriptionError, match=words) as raised:
        described(tmp_path, text)
    assert str(raised.value).startswith(str(tmp_path / "acme.toml"))


def test_missing_description_file_is_named() -> None:
    """The error has the system's reason."""
    with pytest.raises(DescriptionError, match=r"/nowhere/acme.toml cannot be read: No such file"):
        toml_spec.load("/nowhere/acme.toml")
