"""Tests of the command `netmodes vendors`."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from harness.adapters import registry
from harness.cli import main
from harness.model.dialect import Dialect
from harness.model.features import Feature
from tests.adapters.acme import describe


class AsksForItsVersion:
    """Adapter class of a third party whose version and dialect only an instance knows."""

    features = frozenset({Feature.BRIDGE})

    @property
    def version(self) -> str:
        """Return the version, which is known only inside a host."""
        return "1.0"

    @property
    def dialect(self) -> Dialect:
        """Return the dialect, which is known only inside a host."""
        return Dialect()


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was printed since the last call."""
    return capsys.readouterr().out.splitlines()


def test_vendors_lists_every_adapter(capsys: pytest.CaptureFixture[str]) -> None:
    """`netmodes vendors` prints a line for each adapter.

    It has the version or the missing programs, the features, and dialect fields unlike the default.
    """
    assert main.main(["vendors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line[1:2] != " "} >= {
        "docker",
        "mydocker",
        "mydocker-cli",
        "podman",
        "podman-rootless-slirp4netns",
        "podman-runc",
    }
    told = " ".join(lines)
    assert "joined_survives" in told
    assert "isolation" in told


def test_vendors_shows_one_adapter_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    """`netmodes vendors NAME` shows each choice of the runtime's dialect with its source."""
    assert main.main(["vendors", "podman"]) == 0
    told = capsys.readouterr().out
    assert "does not claim: icc" in told
    assert "    isolation = none\n" in told
    assert "https://docs.podman.io/" in told


def test_vendors_shows_a_description(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`netmodes vendors FILE` shows the runtime in a description, and its missing programs."""
    assert main.main(["vendors", describe(tmp_path, command="acmectl-7")]) == 0
    told = capsys.readouterr().out
    assert "not installed: acmectl-7 not found" in told
    assert "joined_survives = loopback-only" in told


def test_dialect_of_a_description_precedes_the_table(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A choice in a description takes precedence over the choices of the runtime in `like`."""
    path = tmp_path / "acme.toml"
    path.write_text(
        '[runtime]\nlike = "docker"\ncommand = ["acmectl"]\nversion = "7.1"\n'
        '[dialect]\nmac = "stable"\n'
    )
    assert main.main(["vendors", str(path)]) == 0
    told = capsys.readouterr().out
    assert "    direct_routing = drop\n" in told
    assert told.endswith("  from its description file:\n    mac = stable\n")
    assert told.count("\n    mac = ") == 1


def test_vendors_names_an_unknown_adapter(capsys: pytest.CaptureFixture[str]) -> None:
    """For an unknown name the command prints an error and the known names, and exits with 2."""
    assert main.main(["vendors", "dokcer", "mydocker"]) == 2
    told = capsys.readouterr().out
    assert "unknown adapter 'dokcer'; the known ones are bwrap, " in told
    assert "mydocker 0" in told


def test_version_that_needs_a_host_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an adapter knows its version and dialect only inside a host, they are omitted."""
    point = EntryPoint("acme", f"{__name__}:AsksForItsVersion", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda **_: (point,))
    assert main.main(["vendors"]) == 0
    assert any(line.split() == ["acme", "-", "bridge", "-"] for line in printed(capsys))
    assert main.main(["vendors", "acme"]) == 0
    assert printed(capsys)[:2] == ["acme", "  claims: bridge"]
