"""How a described runtime is found, and what is said when it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.adapters import cni, registry
from harness.adapters.bare_adapter import BareFactory
from harness.adapters.cli import CliFactory
from harness.adapters.registry import NotInstalled, UnknownRuntime
from tests.adapters.acme import acme, describe


@pytest.mark.parametrize(
    "name", ["docker", "docker-runsc", "mydocker-cli", "podman", "podman-runc", "podman-runsc"]
)
def test_the_described_ones_are_there_by_name(name: str) -> None:
    """Whether they are installed or not."""
    factory = registry.load(name)
    assert isinstance(factory, CliFactory)
    assert factory.features == factory.spec.features
    assert name in registry.names()


def test_a_path_that_ends_in_toml_is_a_description(tmp_path: Path) -> None:
    """Whatever it is called."""
    factory = acme(tmp_path)
    assert isinstance(factory, CliFactory)
    assert factory.spec.name == "acme"


def test_a_runtime_that_is_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In one line, with the programs that are missing and the packages that bring them."""
    monkeypatch.setattr("harness.adapters.furnish._SYSTEM", (str(tmp_path),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled) as raised:
        registry.find("podman")
    told = str(raised.value)
    assert told.startswith("not installed: there is no podman, crun, conmon. Try: apt-get install ")
    assert "\n" not in told


def test_a_description_whose_command_is_not_there_says_so(tmp_path: Path) -> None:
    """There is nobody who knows how to install it."""
    with pytest.raises(NotInstalled, match=r"there is no acmectl-7\. `netmodes vendors` tells"):
        registry.find(describe(tmp_path, command="acmectl-7"))


def test_a_description_that_cannot_be_read_is_an_unknown_runtime(tmp_path: Path) -> None:
    """With all that is wrong with it."""
    (tmp_path / "acme.toml").write_text("[runtme]")
    with pytest.raises(UnknownRuntime, match="no table called 'runtme'"):
        registry.find(str(tmp_path / "acme.toml"))


def test_programs_may_come_from_a_folder(tmp_path: Path) -> None:
    """Of unpacked packages: what is there goes before what is installed."""
    (tmp_path / "usr/bin").mkdir(parents=True)
    for program in ("podman", "crun", "conmon"):
        (tmp_path / "usr/bin" / program).write_text("#!/bin/sh\n")
        (tmp_path / "usr/bin" / program).chmod(0o755)
    factory = registry.find(f"podman@{tmp_path}")
    assert isinstance(factory, CliFactory)
    assert factory.spec.prefix == str(tmp_path)
    assert registry.missing(factory) == []


@pytest.mark.parametrize("name", ["bwrap", "containerd", "crun", "runc"])
def test_so_may_those_of_bare_runtimes_and_their_plugins(name: str, tmp_path: Path) -> None:
    """Their version is that of the program there, their plugins are those there."""
    programs = [f"usr/bin/{item}" for item in (name, "ctr")]
    for program in (*programs, *(f"usr/lib/cni/{plugin}" for plugin in cni.PLUGINS)):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\necho version 9.8.7\n")
        path.chmod(0o755)
    factory = registry.load(f"{name}@{tmp_path}")
    assert isinstance(factory, BareFactory)
    assert factory.version == "9.8.7"
    assert factory.wiring.prefix == str(tmp_path)
    assert cni.folder(str(tmp_path)) == f"{tmp_path}/usr/lib/cni"


@pytest.mark.parametrize("name", ["lxc", "nspawn"])
def test_who_needs_libraries_of_its_own_version_has_to_be_installed(
    name: str, tmp_path: Path
) -> None:
    """And says so."""
    with pytest.raises(UnknownRuntime, match="they need libraries of their own version"):
        registry.find(f"{name}@{tmp_path}")


def test_one_that_is_for_root_says_so_to_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, at the start of a run."""
    monkeypatch.setattr("harness.adapters.bare_adapter.in_user_namespace", lambda: True)
    factory = registry.load("nspawn")
    assert "does not run in a user namespace" in registry.obstacle(factory)
    assert registry.obstacle(registry.load("bwrap")) == ""


@pytest.mark.parametrize("prefix", ["", "relative", "/no/such/folder"])
def test_a_folder_that_is_none_is_refused(prefix: str) -> None:
    """It has to be absolute and there."""
    with pytest.raises(UnknownRuntime, match="there is no folder"):
        registry.find(f"docker@{prefix}")


def test_not_every_adapter_has_programs() -> None:
    """The library that comes along has none to be taken from elsewhere."""
    with pytest.raises(UnknownRuntime, match="cannot be taken from another folder"):
        registry.find("mydocker@/")
